//! How long requests took, by what they asked for. Each of the first threads that answer counts in a shard of its own: no
//! cache line goes back and forth between their cores, and nobody waits for a locked one. Whoever reads adds the shards up.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::histogram::{Histogram, Snapshot};

/// So many threads have one each; all others share one more, which costs time and loses nothing.
const OWN_SHARDS: usize = 31;

/// Threads that counted a request so far. Each has a number that no other thread ever has.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of this thread; none yet at first.
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// Content.
    Read,
    /// New content.
    Write,
    /// A name for something new, or another one.
    Create,
    /// A name to go, of a file or a directory.
    Unlink,
    /// Another name.
    Rename,
    /// What a name stands for.
    Lookup,
    /// Attributes.
    Getattr,
    /// Other attributes, the length among them.
    Setattr,
    /// A file or directory to be used.
    Open,
    /// Names of a directory.
    Readdir,
    /// One of several descriptors closed.
    Flush,
    /// Something to be durable.
    Fsync,
    /// The last descriptor closed.
    Release,
    /// The kernel has forgotten an inode; nobody waits for it.
    Forget,
    /// Anything else.
    Other,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Unlink,
        Self::Rename,
        Self::Lookup,
        Self::Getattr,
        Self::Setattr,
        Self::Open,
        Self::Readdir,
        Self::Flush,
        Self::Fsync,
        Self::Release,
        Self::Forget,
        Self::Other,
    ];

    /// Its name for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Unlink => "unlink",
            Self::Rename => "rename",
            Self::Lookup => "lookup",
            Self::Getattr => "getattr",
            Self::Setattr => "setattr",
            Self::Open => "open",
            Self::Readdir => "readdir",
            Self::Flush => "flush",
            Self::Fsync => "fsync",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::Other => "other",
        }
    }
}

/// One histogram for each kind.
type Shard = [Histogram; RequestKind::ALL.len()];

/// See the module.
#[derive(Default, Debug)]
pub struct RequestTimes {
    own: [CachePadded<Shard>; OWN_SHARDS],
    shared: CachePadded<Shard>,
}

impl RequestTimes {
    /// Counts one request.
    pub fn note(&self, kind: RequestKind, took_ns: u64) {
        match self.own.get(thread_number()) {
            Some(own) => own[kind as usize].note_alone(took_ns),
            None => self.shared[kind as usize].note(took_ns),
        }
    }

    /// All requests of a kind so far.
    pub fn of(&self, kind: RequestKind) -> Snapshot {
        let mut all = Snapshot::default();
        for shard in self.own.iter().chain([&self.shared]) {
            all.add(&shard[kind as usize].snapshot());
        }
        all
    }
}

fn thread_number() -> usize {
    if let Some(known) = NUMBER.get() {
        return known;
    }
    let number = THREADS.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(Some(number));
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn each_kind_has_a_place_and_a_name_of_its_own() {
        for (at, kind) in RequestKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
        let mut names = RequestKind::ALL.map(RequestKind::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
    }

    #[test]
    fn requests_of_many_threads_are_all_counted_by_their_kind() {
        const CLIENTS: usize = 2 * OWN_SHARDS;
        const EACH: u64 = 10_000;
        let (times, all_at_once) = (RequestTimes::default(), Barrier::new(CLIENTS));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    all_at_once.wait();
                    for _ in 0..EACH {
                        times.note(RequestKind::Write, 3000);
                        times.note(RequestKind::Read, 2_000_000_000);
                    }
                });
            }
        });
        let expected = CLIENTS as u64 * EACH;
        let (write, read) = (times.of(RequestKind::Write), times.of(RequestKind::Read));
        assert_eq!((write.count(), write.counts[2]), (expected, expected));
        assert_eq!(read.sum_ns, expected * 2_000_000_000);
        assert_eq!(times.of(RequestKind::Rename), Snapshot::default());
    }
}
