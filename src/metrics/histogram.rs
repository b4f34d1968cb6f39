//! How long something took, counted by powers of two of a microsecond, so that a time costs two atomic additions and no
//! search, and quantiles are right to a factor of two.
//!
//! Every time is in exactly one bucket. A reader beside writers may see a time in its bucket and not in the sum yet.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets with a bound, from 1 us to 16.8 s; one more holds what took longer.
pub const BUCKETS: usize = 25;

const US_NS: u64 = 1000;

// The longest bound is one that shifting gives.
const _: () = assert!(BUCKETS < 54);

/// Longest time of a bucket, in nanoseconds: 1 us, 2 us, 4 us and so on.
pub fn bound_ns(bucket: usize) -> u64 {
    US_NS << bucket
}

/// See the module.
#[derive(Default, Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

/// What a histogram holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    /// Times in each bucket, the one without a bound last; not cumulated.
    pub counts: [u64; BUCKETS + 1],
    /// All times together.
    pub sum_ns: u64,
}

impl Histogram {
    /// Counts a time.
    pub fn note(&self, took_ns: u64) {
        self.counts[bucket_of(took_ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(took_ns, Ordering::Relaxed);
    }

    /// The same for the only thread that ever counts here, which needs no instruction that locks the cache line.
    pub fn note_alone(&self, took_ns: u64) {
        let grow = |cell: &AtomicU64, by: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        };
        grow(&self.counts[bucket_of(took_ns)], 1);
        grow(&self.sum_ns, took_ns);
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

impl Snapshot {
    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both together. They wrap, as the counters do: 584 years after.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }
}

/// The first bucket whose bound is not below.
fn bucket_of(took_ns: u64) -> usize {
    let whole_us = took_ns.div_ceil(US_NS);
    let bits = u64::BITS - whole_us.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(snapshot: &Snapshot) -> usize {
        assert_eq!(snapshot.count(), 1);
        snapshot.counts.iter().position(|&count| count == 1).expect("one")
    }

    fn bucket(took_ns: u64) -> usize {
        let histogram = Histogram::default();
        histogram.note(took_ns);
        assert_eq!(histogram.snapshot().sum_ns, took_ns);
        only(&histogram.snapshot())
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_the_next_nanosecond_to_the_next() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(bound_ns(at)), at);
            assert_eq!(bucket(bound_ns(at) + 1), at + 1);
        }
        assert_eq!((bound_ns(0), bound_ns(1), bound_ns(10)), (1000, 2000, 1_024_000));
        assert_eq!(bound_ns(BUCKETS - 1), 16_777_216_000);
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_place() {
        assert_eq!((bucket(0), bucket(1), bucket(999)), (0, 0, 0));
        assert_eq!(bucket(u64::MAX), BUCKETS);
    }

    #[test]
    fn sums_are_those_of_all_times() {
        let (here, there) = (Histogram::default(), Histogram::default());
        for took_ns in [0, 1000, 1001, 5_000_000] {
            here.note(took_ns);
        }
        there.note(30_000_000_000);
        let mut both = here.snapshot();
        assert_eq!((both.count(), both.sum_ns), (4, 5_002_001));
        both.add(&there.snapshot());
        assert_eq!((both.count(), both.sum_ns), (5, 30_005_002_001));
        assert_eq!((both.counts[0], both.counts[1], both.counts[BUCKETS]), (2, 1, 1));
    }

    #[test]
    fn who_counts_alone_counts_the_same() {
        let (alone, shared) = (Histogram::default(), Histogram::default());
        for took_ns in [0, 1000, 1001, 1001, 1 << 40] {
            alone.note_alone(took_ns);
            shared.note(took_ns);
        }
        assert_eq!(alone.snapshot(), shared.snapshot());
        assert_eq!(alone.snapshot().counts[1], 2);
    }

    #[test]
    fn no_time_is_lost_between_threads() {
        const EACH: u64 = 20_000;
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || (0..EACH).for_each(|_| histogram.note(bound_ns(thread))));
            }
        });
        let told = histogram.snapshot();
        assert_eq!(told.counts[..5], [EACH, EACH, EACH, EACH, 0]);
        assert_eq!(told.sum_ns, EACH * 15_000);
    }
}
