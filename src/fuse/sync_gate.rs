//! Keeps requests that wait for the disk from taking every thread that answers the kernel: a slow
//! disk would else stall look-ups and recordings that have nothing to do with it.
//!
//! As long as few syncs are under way each runs in the thread that read the request, because a
//! hand-over to another thread costs 15 to 45 us. Beyond half of the threads a sync goes, with its
//! reply, to threads of the gate's own. Jobs are started in the order in which they came, and end in
//! any.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

/// Threads of the gate, started when they are first needed.
const SYNC_THREADS_MAX: usize = 16;
/// Jobs that wait. A thread that asks for a sync waits for its answer, so the kernel has one for each
/// such thread at most. Beyond this many the serving threads sync themselves, and others wait.
const WAITING_MAX: usize = 1 << 16;

type Job = Box<dyn FnOnce() + Send>;

/// Where syncs run. Dropping it waits for those that were handed over.
pub struct SyncGate {
    inline_max: usize,
    inline_count: AtomicUsize,
    lane: Arc<Lane>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the gate and its threads share. The lock is never held over a job.
#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    wake: Condvar,
}

#[derive(Default)]
struct LaneState {
    waiting: VecDeque<Job>,
    thread_count: usize,
    idle_count: usize,
    is_closed: bool,
}

/// A place among the syncs that run where they were read; given back when dropped.
struct Inline<'a>(&'a AtomicUsize);

impl Drop for Inline<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl SyncGate {
    /// For a session of so many threads: half of them, but at least one, may sync.
    pub fn new(serving_threads: usize) -> Self {
        Self {
            inline_max: (serving_threads / 2).max(1),
            inline_count: AtomicUsize::new(0),
            lane: Arc::default(),
            threads: Mutex::default(),
        }
    }

    /// Runs `job`: here, or in a thread of the gate when too many are under way.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(_place) = self.enter() {
            job();
        } else if let Some(refused) = self.hand_over(Box::new(job)) {
            refused();
        }
    }

    fn enter(&self) -> Option<Inline<'_>> {
        let one_more = |count| (count < self.inline_max).then_some(count + 1);
        self.inline_count
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Inline(&self.inline_count))
    }

    /// Gives the job back when too many wait.
    fn hand_over(&self, job: Job) -> Option<Job> {
        let mut state = self.lane.state.lock();
        if state.waiting.len() >= WAITING_MAX {
            return Some(job);
        }
        state.waiting.push_back(job);
        if state.waiting.len() <= state.idle_count || state.thread_count == SYNC_THREADS_MAX {
            drop(state);
            self.lane.wake.notify_one();
            return None;
        }
        state.thread_count += 1;
        let number = state.thread_count;
        drop(state);
        self.start_thread(number);
        None
    }

    fn start_thread(&self, number: usize) {
        let lane = self.lane.clone();
        let started = thread::Builder::new()
            .name(format!("sync-{number}"))
            .spawn(move || lane.work());
        match started {
            Ok(thread) => self.threads.lock().push(thread),
            Err(e) => {
                log::warn!("cannot start a thread that syncs: {e}; raise the limit of processes (TasksMax, ulimit -u)");
                self.lane.do_without();
            }
        }
    }
}

impl Drop for SyncGate {
    fn drop(&mut self) {
        self.lane.state.lock().is_closed = true;
        self.lane.wake.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            // Its jobs' panics were caught.
            let _ = thread.join();
        }
    }
}

impl Lane {
    /// One of the gate's threads, until the gate is closed and nothing waits.
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                drop(state);
                // The panic was printed, and the lost reply answers EIO; the other syncs go on.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
            } else if state.is_closed {
                return;
            } else {
                state.idle_count += 1;
                self.wake.wait(&mut state);
                state.idle_count -= 1;
            }
        }
    }

    /// A thread could not be had. Without any other the caller does what waits.
    fn do_without(&self) {
        let mut state = self.state.lock();
        state.thread_count -= 1;
        while state.thread_count == 0 {
            let Some(job) = state.waiting.pop_front() else { return };
            drop(state);
            job();
            state = self.state.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Jobs that hang until they are let go, and say who runs them.
    struct Disk {
        let_go: Option<Sender<()>>,
        hang: Receiver<()>,
        say: Sender<thread::ThreadId>,
        begun: Receiver<thread::ThreadId>,
    }

    impl Disk {
        fn new() -> Self {
            let (let_go, hang) = bounded(0);
            let (say, begun) = unbounded();
            Self {
                let_go: Some(let_go),
                hang,
                say,
                begun,
            }
        }

        fn sync(&self) -> impl FnOnce() + Send + 'static {
            let (say, hang) = (self.say.clone(), self.hang.clone());
            move || {
                say.send(thread::current().id()).unwrap();
                let _ = hang.recv();
            }
        }

        fn next(&self) -> thread::ThreadId {
            self.begun.recv_timeout(DEADLINE).expect("a sync begins")
        }

        fn thaw(&mut self) {
            self.let_go = None;
        }
    }

    /// Fills the places of a gate for `threads` threads from threads of their own.
    fn fill(gate: &Arc<SyncGate>, disk: &Disk, places: usize) -> Vec<JoinHandle<()>> {
        let hung: Vec<_> = (0..places)
            .map(|_| {
                let (gate, sync) = (gate.clone(), disk.sync());
                thread::spawn(move || gate.run(sync))
            })
            .collect();
        for _ in &hung {
            disk.next();
        }
        hung
    }

    /// Runs a job in a thread that must come back; the test fails where it hangs instead.
    fn asks_and_comes_back(gate: &Arc<SyncGate>, job: impl FnOnce() + Send + 'static) {
        let (say, done) = bounded(1);
        let gate = gate.clone();
        thread::spawn(move || {
            gate.run(job);
            let _ = say.send(());
        });
        done.recv_timeout(DEADLINE).expect("the thread is free again");
    }

    #[test]
    fn few_syncs_run_where_they_were_read() {
        let gate = SyncGate::new(4);
        for _ in 0..10 {
            let (say, ran) = bounded(1);
            gate.run(move || say.send(thread::current().id()).unwrap());
            assert_eq!(ran.try_recv(), Ok(thread::current().id()));
        }
    }

    #[test]
    fn half_of_the_threads_stay_free_while_syncs_hang() {
        for (threads, places) in [(1, 1), (4, 2), (9, 4)] {
            let (gate, mut disk) = (Arc::new(SyncGate::new(threads)), Disk::new());
            let hung = fill(&gate, &disk, places);
            let inline: Vec<_> = hung.iter().map(|thread| thread.thread().id()).collect();
            for _ in 0..40 {
                asks_and_comes_back(&gate, disk.sync());
            }
            for _ in 0..SYNC_THREADS_MAX {
                assert!(!inline.contains(&disk.next()));
            }
            assert!(
                disk.begun.try_recv().is_err(),
                "more syncs at once than threads of the gate"
            );
            disk.thaw();
            for _ in SYNC_THREADS_MAX..40 {
                disk.next();
            }
            for thread in hung {
                thread.join().unwrap();
            }
            // A place is free again.
            asks_and_comes_back(&gate, disk.sync());
            assert_eq!(gate.inline_count.load(Ordering::Acquire), 0);
        }
    }

    #[test]
    fn the_end_waits_for_what_was_handed_over() {
        let (gate, mut disk) = (Arc::new(SyncGate::new(1)), Disk::new());
        let hung = fill(&gate, &disk, 1);
        let (say, ended) = unbounded();
        for number in 0..30 {
            let (sync, say) = (disk.sync(), say.clone());
            gate.run(move || {
                sync();
                say.send(number).unwrap();
            });
        }
        disk.thaw();
        for thread in hung {
            thread.join().unwrap();
        }
        drop(Arc::into_inner(gate).expect("no other user"));
        assert_eq!(ended.try_iter().count(), 30);
    }

    #[test]
    fn a_panic_costs_no_thread_of_the_gate() {
        let (gate, mut disk) = (Arc::new(SyncGate::new(1)), Disk::new());
        let hung = fill(&gate, &disk, 1);
        for _ in 0..SYNC_THREADS_MAX {
            gate.run(|| panic!("on purpose"));
        }
        for _ in 0..SYNC_THREADS_MAX {
            asks_and_comes_back(&gate, disk.sync());
        }
        for _ in 0..SYNC_THREADS_MAX {
            disk.next();
        }
        disk.thaw();
        for thread in hung {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_full_queue_lets_the_asking_thread_sync() {
        let (gate, mut disk) = (Arc::new(SyncGate::new(1)), Disk::new());
        let hung = fill(&gate, &disk, 1);
        for _ in 0..SYNC_THREADS_MAX {
            gate.run(disk.sync());
        }
        for _ in 0..SYNC_THREADS_MAX {
            disk.next();
        }
        for _ in 0..WAITING_MAX {
            gate.run(|| {});
        }
        let (say, ran) = bounded(1);
        gate.run(move || say.send(thread::current().id()).unwrap());
        assert_eq!(ran.try_recv(), Ok(thread::current().id()));
        disk.thaw();
        for thread in hung {
            thread.join().unwrap();
        }
    }
}
