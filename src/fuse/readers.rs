//! Keeps one thread waiting for the kernel's next request, and the others out of its way.
//!
//! If all threads that serve wait in read(2), the kernel wakes for each request the one that has slept longest,
//! on a core that has to be woken too. With one that waits, which looks out for a moment before it sleeps ([`LookOut`]),
//! client and thread stay close to each other: twice as many requests a second for one client. So a thread that has
//! answered reads again only if nobody else waits for the kernel; otherwise it rests here, and is called
//! - when requests overlap (the crowd): then all read, and each request has a thread at once;
//! - before a request that takes long by its nature;
//! - by the watch, when the only thread at work is at it for longer than a tick: a disk that hangs holds up nobody
//!   else for more than two ticks.
//!
//! Invariant: a thread waits for the kernel, or one that is at work will when it is done, or the watch calls one. Until
//! the mount is handed over ([`Drain`]): then nobody reads any more, and the next process finds nothing under way.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::{Moment, SystemClock};
use crate::fuse::look_out::LookOut;
use crate::metrics::{RequestKind, RequestTimes};

/// Between two looks of the watch while there are requests.
const TICK: Duration = Duration::from_millis(2);
/// Without a request for so many ticks the watch sleeps until the next one.
const QUIET_TICKS: u32 = 50;
/// How often a thread that rests looks whether the connection is still there.
const RECHECK: Duration = Duration::from_millis(250);
/// What an overlap adds to the crowd; a request that met no other takes 1 away: one overlap in three requests keeps a
/// crowd up.
const OVERLAP: u32 = 2;
/// From here on all threads read.
const CROWD: u32 = 16;
const CROWD_MAX: u32 = 64;

thread_local! {
    static LEAVING: RefCell<Option<Leaving>> = const { RefCell::new(None) };
}

/// How long a request is going to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// A few microseconds, if nothing goes wrong.
    Moment,
    /// It waits for the disk, or moves much data.
    Long,
}

/// The threads that serve one connection.
pub struct Readers {
    shared: Arc<Shared>,
    is_single: bool,
    watch: Option<Watch>,
    times: Arc<RequestTimes>,
}

/// The thread that looks after the others.
struct Watch {
    thread: Thread,
    end: JoinHandle<()>,
}

/// One request; when it is dropped, after the reply, its time is counted, and the thread goes to read again or rests.
pub struct Turn<'a> {
    readers: &'a Readers,
    /// `None`: somebody else ends it.
    kind: Option<RequestKind>,
    began: Moment,
}

/// A request that is answered apart from its turn; dropped after the reply, its time is counted.
pub struct Apart {
    shared: Arc<Shared>,
    times: Arc<RequestTimes>,
    kind: RequestKind,
    began: Moment,
}

/// Ends the reading of requests while the connection lives on, so that each one that was read is answered.
#[derive(Clone)]
pub struct Drain(Arc<Shared>);

struct Shared {
    device: OwnedFd,
    counts: CachePadded<Counts>,
    rest: Mutex<Rest>,
    wake: Condvar,
    /// [`RECHECK`].
    recheck: Duration,
    closed: AtomicBool,
    /// Of the one that is about to read.
    look_out: LookOut,
    clock: SystemClock,
}

#[derive(Default)]
struct Counts {
    /// Threads in read(2), or on their way there.
    reading: AtomicUsize,
    /// Threads that answer a request.
    at_work: AtomicUsize,
    /// As in [`Rest`], to be read without its lock.
    resting: AtomicUsize,
    crowd: AtomicU32,
    /// Client of the latest request. Its next one, which it sends when it was answered, overlaps with nothing, although
    /// the thread that answered may not be back yet.
    client: AtomicU32,
    /// After the latest answer another request was waiting already.
    left_one: AtomicBool,
    /// Requests begun, for the watch.
    begun: AtomicU64,
    watch_sleeps: AtomicBool,
    /// Requests that are answered apart from their turns.
    apart: AtomicUsize,
    /// Nobody reads any more.
    is_drained: AtomicBool,
}

#[derive(Default)]
struct Rest {
    count: usize,
    /// Of those, how many are to read; they are counted as reading already.
    called: usize,
}

/// In each thread that serves: its end is the end of the connection.
struct Leaving(Weak<Shared>);

impl Readers {
    /// For a connection that is served by so many threads, all of which are about to read. `device` is polled only;
    /// `times` are where requests are counted.
    ///
    /// # Errors
    /// No thread could be started for the watch.
    pub fn new(threads: usize, device: OwnedFd, times: Arc<RequestTimes>) -> std::io::Result<Self> {
        let mut readers = Self::unwatched(threads, device, RECHECK, times);
        readers.start_watch()?;
        Ok(readers)
    }

    fn start_watch(&mut self) -> std::io::Result<()> {
        if !self.is_single {
            let watched = self.shared.clone();
            let named = thread::Builder::new().name("watch".to_owned());
            let end = named.spawn(move || watched.watch())?;
            let thread = end.thread().clone();
            self.watch = Some(Watch { thread, end });
        }
        Ok(())
    }

    fn unwatched(threads: usize, device: OwnedFd, recheck: Duration, times: Arc<RequestTimes>) -> Self {
        let counts = Counts {
            reading: AtomicUsize::new(threads),
            ..Counts::default()
        };
        Self {
            shared: Arc::new(Shared {
                device,
                counts: CachePadded::new(counts),
                rest: Mutex::default(),
                wake: Condvar::new(),
                recheck,
                closed: AtomicBool::new(false),
                look_out: LookOut::default(),
                clock: SystemClock::new(),
            }),
            is_single: threads == 1,
            watch: None,
            times,
        }
    }

    /// Ends the reading, when somebody else is to serve the connection.
    pub fn drain(&self) -> Drain {
        Drain(self.shared.clone())
    }

    /// The calling thread has read a request of a client's thread; 0: of the kernel's own.
    pub fn begin(&self, client: u32, takes: Takes, kind: RequestKind) -> Turn<'_> {
        let turn = Turn {
            readers: self,
            kind: Some(kind),
            began: self.shared.clock.moment(),
        };
        let counts = &self.shared.counts;
        if self.is_single {
            counts.at_work.fetch_add(1, Ordering::SeqCst);
            counts.reading.fetch_sub(1, Ordering::SeqCst);
            return turn;
        }
        LEAVING.with_borrow_mut(|leaving| {
            leaving.get_or_insert_with(|| Leaving(Arc::downgrade(&self.shared)));
        });
        counts.begun.fetch_add(1, Ordering::SeqCst);
        if counts.watch_sleeps.load(Ordering::SeqCst)
            && counts.watch_sleeps.swap(false, Ordering::SeqCst)
            && let Some(watch) = &self.watch
        {
            watch.thread.unpark();
        }
        let others_at_work = counts.at_work.fetch_add(1, Ordering::Relaxed) > 0;
        let nobody_reads = counts.reading.fetch_sub(1, Ordering::SeqCst) == 1;
        if client != 0 {
            let is_another = counts.client.swap(client, Ordering::Relaxed) != client;
            let was_waiting = counts.left_one.swap(false, Ordering::Relaxed);
            counts.count_overlap(is_another && (others_at_work || was_waiting));
        }
        if nobody_reads && (takes == Takes::Long || counts.is_crowded()) {
            self.shared.call_one();
        }
        turn
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(watch) = self.watch.take() {
            watch.thread.unpark();
            // A panic of it was printed.
            let _ = watch.end.join();
        }
    }
}

impl Turn<'_> {
    /// What is left of the request, for whoever answers it: this thread, or another one later.
    pub fn apart(&mut self) -> Apart {
        self.readers.shared.counts.apart.fetch_add(1, Ordering::SeqCst);
        Apart {
            shared: self.readers.shared.clone(),
            times: self.readers.times.clone(),
            kind: self.kind.take().unwrap_or(RequestKind::Other),
            began: self.began,
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.times
            .note(self.kind, self.began.ns_until(self.shared.clock.moment()));
        self.shared.counts.apart.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let readers = self.readers;
        let ended = readers.shared.clock.moment();
        if let Some(kind) = self.kind {
            readers.times.note(kind, self.began.ns_until(ended));
        }
        let counts = &readers.shared.counts;
        if readers.is_single {
            counts.reading.fetch_add(1, Ordering::SeqCst);
            counts.at_work.fetch_sub(1, Ordering::SeqCst);
            readers.shared.stay_if_drained();
            return;
        }
        counts.at_work.fetch_sub(1, Ordering::SeqCst);
        let left_one = readers.shared.is_request_waiting();
        counts.left_one.store(left_one, Ordering::Relaxed);
        if counts.is_crowded() {
            counts.reading.fetch_add(1, Ordering::SeqCst);
        } else if counts.be_the_reader() {
            let (shared, mut first) = (&readers.shared, Some(left_one));
            let is_waiting = || first.take().unwrap_or_else(|| shared.is_request_waiting());
            let ended = shared.clock.monotonic_at(ended);
            shared.look_out.look(&shared.clock, ended, is_waiting);
        } else {
            readers.shared.rest();
        }
        readers.shared.stay_if_drained();
    }
}

impl Drain {
    /// From now on whoever has answered reads no more.
    pub fn begin(&self) {
        self.0.counts.is_drained.store(true, Ordering::SeqCst);
    }

    /// Threads in read(2), or on their way there: each takes one more request, and answers it.
    pub fn reading_count(&self) -> usize {
        self.0.counts.reading.load(Ordering::SeqCst)
    }

    /// Requests that were read and are not answered yet. A thread that has just read is counted as reading.
    pub fn unanswered_count(&self) -> usize {
        let counts = &self.0.counts;
        counts.at_work.load(Ordering::SeqCst) + counts.apart.load(Ordering::SeqCst)
    }

    /// Nobody reads, and everything that was read is answered.
    pub fn is_dry(&self) -> bool {
        // In this order: who ceases to read is at work before, and who answers apart is counted so before the turn ends.
        self.reading_count() == 0 && self.unanswered_count() == 0
    }
}

impl Counts {
    /// A count that is lost between two threads is one less.
    fn count_overlap(&self, overlaps: bool) {
        let crowd = self.crowd.load(Ordering::Relaxed);
        let changed = if overlaps {
            (crowd + OVERLAP).min(CROWD_MAX)
        } else {
            crowd.saturating_sub(1)
        };
        if changed != crowd {
            self.crowd.store(changed, Ordering::Relaxed);
        }
    }

    fn is_crowded(&self) -> bool {
        self.crowd.load(Ordering::Relaxed) >= CROWD
    }

    /// True when nobody waited for the kernel; now the caller does.
    fn be_the_reader(&self) -> bool {
        let taken = self.reading.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
        taken.is_ok()
    }
}

impl Shared {
    /// Also true when the connection is gone: reading tells.
    fn is_request_waiting(&self) -> bool {
        self.has_event(PollFlags::IN)
    }

    fn is_hung_up(&self) -> bool {
        self.has_event(PollFlags::empty())
    }

    /// One of these events, or the end of the connection, which is always told.
    fn has_event(&self, events: PollFlags) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut device = [PollFd::new(&self.device, events)];
        !matches!(poll(&mut device, Some(&at_once)), Ok(0))
    }

    /// Until there is something to read for this thread.
    fn rest(&self) {
        let mut rest = self.rest.lock();
        rest.count += 1;
        self.counts.resting.store(rest.count, Ordering::SeqCst);
        loop {
            if rest.called > 0 {
                rest.called -= 1;
                break;
            }
            // Whoever was reading may have begun a request since, and called nobody for nobody rested.
            if !self.counts.is_drained.load(Ordering::SeqCst) && self.counts.be_the_reader() {
                break;
            }
            if self.closed.load(Ordering::SeqCst) {
                self.counts.reading.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if self.wake.wait_for(&mut rest, self.recheck).timed_out() && self.is_hung_up() {
                self.closed.store(true, Ordering::SeqCst);
            }
        }
        rest.count -= 1;
        self.counts.resting.store(rest.count, Ordering::SeqCst);
    }

    /// A thread that is counted as reading does not go to read when the reading has ended.
    fn stay_if_drained(&self) {
        if !self.counts.is_drained.load(Ordering::SeqCst) {
            return;
        }
        self.counts.reading.fetch_sub(1, Ordering::SeqCst);
        let mut rest = self.rest.lock();
        while !self.closed.load(Ordering::SeqCst) {
            self.wake.wait(&mut rest);
        }
        self.counts.reading.fetch_add(1, Ordering::SeqCst);
    }

    /// Sends one of those that rest to read, if there is one.
    fn call_one(&self) {
        if self.counts.resting.load(Ordering::SeqCst) == 0 || self.counts.is_drained.load(Ordering::SeqCst) {
            return;
        }
        let mut rest = self.rest.lock();
        if rest.called < rest.count {
            rest.called += 1;
            self.counts.reading.fetch_add(1, Ordering::SeqCst);
            drop(rest);
            self.wake.notify_one();
        }
    }

    /// The connection is at its end: whoever rests reads, and is told so.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Whoever looked at the flag before waits by now.
        drop(self.rest.lock());
        self.wake.notify_all();
    }

    fn watch(&self) {
        let (mut begun_before, mut quiet_ticks) = (0, 0);
        while !self.closed.load(Ordering::SeqCst) {
            thread::park_timeout(TICK);
            let begun = self.counts.begun.load(Ordering::SeqCst);
            if begun != begun_before {
                (begun_before, quiet_ticks) = (begun, 0);
                continue;
            }
            quiet_ticks += 1;
            if self.counts.reading.load(Ordering::SeqCst) == 0 {
                self.call_one();
            } else if quiet_ticks >= QUIET_TICKS {
                self.sleep_until_begun(begun);
                quiet_ticks = 0;
            }
        }
    }

    fn sleep_until_begun(&self, begun: u64) {
        self.counts.watch_sleeps.store(true, Ordering::SeqCst);
        if self.counts.begun.load(Ordering::SeqCst) == begun && !self.closed.load(Ordering::SeqCst) {
            thread::park();
        }
        self.counts.watch_sleeps.store(false, Ordering::SeqCst);
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
    use std::sync::mpsc::{Receiver, Sender, channel};

    const KIND: RequestKind = RequestKind::Write;
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Threads and a connection on which a byte is a request.
    fn watched(threads: usize) -> (Arc<Readers>, PipeReader, PipeWriter) {
        let (device, kernel) = pipe().unwrap();
        // Without the look of those that rest, which would do the watch's work much later.
        let mut readers = Readers::unwatched(
            threads,
            device.try_clone().unwrap().into(),
            Duration::from_hours(1),
            Arc::default(),
        );
        readers.start_watch().unwrap();
        (Arc::new(readers), device, kernel)
    }

    /// The same without a watch, which calls whom it likes when this thread is off its core for long.
    fn served_by(threads: usize) -> (Arc<Readers>, PipeReader, PipeWriter) {
        let (device, kernel) = pipe().unwrap();
        let readers = Readers::unwatched(threads, device.try_clone().unwrap().into(), RECHECK, Arc::default());
        (Arc::new(readers), device, kernel)
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..DEADLINE.as_millis() {
            if is_so() {
                return;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        panic!("waited in vain: {what}");
    }

    fn resting(readers: &Readers) -> usize {
        readers.shared.counts.resting.load(Ordering::SeqCst)
    }

    fn crowd(readers: &Readers) -> u32 {
        readers.shared.counts.crowd.load(Ordering::SeqCst)
    }

    /// A thread that has answered while another one waits for the kernel. It says when it goes to read, and stays.
    struct Rested {
        reads: Receiver<()>,
        stay: Option<Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Rested {
        fn new(readers: &Arc<Readers>) -> Self {
            let before = resting(readers);
            let ((say, reads), (stay, stays)) = (channel(), channel::<()>());
            let own = readers.clone();
            let thread = thread::spawn(move || {
                drop(own.begin(1, Takes::Moment, KIND));
                say.send(()).unwrap();
                let _ = stays.recv();
            });
            wait_until("it rests", || resting(readers) == before + 1);
            assert!(reads.try_recv().is_err());
            Self {
                reads,
                stay: Some(stay),
                thread: Some(thread),
            }
        }

        fn goes_to_read(&self) {
            self.reads.recv_timeout(DEADLINE).expect("it goes to read");
        }
    }

    impl Drop for Rested {
        fn drop(&mut self) {
            self.stay = None;
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }

    #[test]
    fn who_has_answered_rests_while_another_one_reads_and_that_one_goes_on() {
        let (readers, _device, _kernel) = served_by(2);
        let rested = Rested::new(&readers);
        for _ in 0..1000 {
            drop(readers.begin(1, Takes::Moment, KIND));
        }
        assert_eq!(resting(&readers), 1);
        readers.shared.close();
        rested.goes_to_read();
    }

    /// Another thread's request, which takes long; what is left of it is answered apart. It says when it goes to read.
    fn one_request(readers: &Arc<Readers>) -> (Apart, Receiver<()>, JoinHandle<()>) {
        let ((say, apart), (read, reads)) = (channel(), channel());
        let own = readers.clone();
        let thread = thread::spawn(move || {
            let mut turn = own.begin(1, Takes::Long, KIND);
            say.send(turn.apart()).unwrap();
            drop(turn);
            read.send(()).unwrap();
        });
        (apart.recv_timeout(DEADLINE).expect("it is begun"), reads, thread)
    }

    /// The end of the connection, also when a test fails: whoever stays goes then.
    struct Closing<'a>(&'a Readers);

    impl Drop for Closing<'_> {
        fn drop(&mut self) {
            self.0.shared.close();
        }
    }

    fn nobody_reads_after_a_drain(readers: &Arc<Readers>) {
        let closing = Closing(readers);
        let drain = readers.drain();
        drain.begin();
        assert!(!drain.is_dry(), "one waits for a request");
        let (apart, reads, thread) = one_request(readers);
        let at_work = &readers.shared.counts.at_work;
        wait_until("its turn is over", || at_work.load(Ordering::SeqCst) == 0);
        assert!(!drain.is_dry(), "one request is not answered");
        drop(apart);
        wait_until("all is answered", || drain.is_dry());
        assert!(reads.try_recv().is_err(), "it does not read");
        drop(closing);
        reads.recv_timeout(DEADLINE).expect("it is told the end");
        thread.join().unwrap();
    }

    #[test]
    fn after_a_drain_nobody_reads_and_what_was_read_is_answered() {
        let (readers, _device, _kernel) = served_by(2);
        let rested = Rested::new(&readers);
        nobody_reads_after_a_drain(&readers);
        rested.goes_to_read();
    }

    #[test]
    fn one_thread_alone_ceases_to_read_as_well() {
        let (readers, _device, _kernel) = served_by(1);
        nobody_reads_after_a_drain(&readers);
    }

    #[test]
    fn one_that_rests_is_called_before_a_long_request() {
        let (readers, _device, _kernel) = served_by(2);
        let rested = Rested::new(&readers);
        let turn = readers.begin(1, Takes::Long, KIND);
        assert_eq!(
            readers.shared.counts.reading.load(Ordering::SeqCst),
            1,
            "called here and now"
        );
        rested.goes_to_read();
        readers.shared.close();
        drop(turn);
    }

    #[test]
    fn the_watch_calls_one_when_a_request_hangs() {
        let (readers, _device, _kernel) = watched(2);
        // Asleep by then.
        wait_until("the watch sleeps", || {
            readers.shared.counts.watch_sleeps.load(Ordering::SeqCst)
        });
        let rested = Rested::new(&readers);
        let turn = readers.begin(1, Takes::Moment, KIND);
        rested.goes_to_read();
        readers.shared.close();
        drop(turn);
    }

    #[test]
    fn requests_of_several_clients_at_once_have_all_threads_read() {
        let (readers, _device, _kernel) = served_by(3);
        let held = readers.begin(1, Takes::Long, KIND);
        let mut count = 0;
        while crowd(&readers) < CROWD {
            count += 1;
            std::mem::forget(readers.begin(count, Takes::Moment, KIND));
            readers.shared.counts.reading.fetch_add(1, Ordering::SeqCst);
        }
        drop(held);
        assert_eq!(count, CROWD / OVERLAP + 1, "the first came alone");
        assert_eq!(resting(&readers), 0);
        assert!(readers.shared.counts.reading.load(Ordering::SeqCst) > 1);
    }

    #[test]
    fn one_client_that_is_quick_is_no_crowd() {
        let (readers, _device, mut kernel) = served_by(2);
        kernel.write_all(b"r").unwrap();
        let rested = Rested::new(&readers);
        for _ in 0..1000 {
            drop(readers.begin(7, Takes::Moment, KIND));
        }
        assert_eq!(crowd(&readers), 0);
        readers.shared.close();
        rested.goes_to_read();
    }

    #[test]
    fn clients_in_turn_whose_requests_wait_for_each_other_are_a_crowd() {
        let (readers, _device, mut kernel) = served_by(2);
        kernel.write_all(b"r").unwrap();
        let rested = Rested::new(&readers);
        let mut client = 0;
        while crowd(&readers) < CROWD {
            client += 1;
            assert!(client <= CROWD, "they are noticed");
            drop(readers.begin(client % 2 + 1, Takes::Moment, KIND));
        }
        for _ in 0..CROWD_MAX {
            readers.shared.counts.count_overlap(false);
        }
        assert_eq!(crowd(&readers), 0, "and forgotten when one of them is alone");
        readers.shared.close();
        rested.goes_to_read();
    }

    #[test]
    fn the_end_of_a_thread_is_the_end_for_those_that_rest() {
        let (readers, _device, _kernel) = served_by(3);
        let (first, second) = (Rested::new(&readers), Rested::new(&readers));
        let last = readers.clone();
        thread::spawn(move || drop(last.begin(1, Takes::Moment, KIND)))
            .join()
            .unwrap();
        first.goes_to_read();
        second.goes_to_read();
    }

    #[test]
    fn a_connection_that_breaks_is_noticed_by_those_that_rest() {
        let (readers, _device, kernel) = served_by(2);
        let rested = Rested::new(&readers);
        drop(kernel);
        rested.goes_to_read();
    }

    #[test]
    fn a_single_thread_always_reads() {
        let (readers, _device, _kernel) = served_by(1);
        for _ in 0..10 {
            drop(readers.begin(1, Takes::Long, KIND));
        }
        assert_eq!(resting(&readers), 0);
    }

    /// Serves bytes as the session serves requests: client in the low bits, the slow ones marked.
    fn serve(readers: &Readers, device: &PipeReader, answers: &[Sender<()>]) {
        let mut request = [0];
        while (&*device).read(&mut request).unwrap() == 1 {
            let client = usize::from(request[0] & 0x0f);
            let _turn = readers.begin(client as u32 + 1, Takes::Moment, KIND);
            if request[0] & 0x80 != 0 {
                thread::park_timeout(Duration::from_millis(3));
            }
            answers[client].send(()).unwrap();
        }
    }

    #[test]
    fn every_request_of_many_clients_is_answered() {
        const CLIENTS: usize = 3;
        const REQUESTS: usize = 3000;
        let (readers, device, kernel) = watched(4);
        let (answers, answered): (Vec<_>, Vec<_>) = (0..CLIENTS).map(|_| channel()).unzip();
        thread::scope(|scope| {
            for _ in 0..4 {
                let answers = answers.clone();
                let (readers, device) = (&readers, &device);
                scope.spawn(move || serve(readers, device, &answers));
            }
            let clients: Vec<_> = answered
                .into_iter()
                .enumerate()
                .map(|(client, answered)| {
                    let mut kernel = kernel.try_clone().unwrap();
                    scope.spawn(move || {
                        for number in 0..REQUESTS {
                            let slow = if (number + client * 7).is_multiple_of(50) {
                                0x80
                            } else {
                                0
                            };
                            kernel.write_all(&[client as u8 | slow]).unwrap();
                            answered.recv_timeout(DEADLINE).expect("an answer");
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            drop(kernel);
        });
    }

    /// Counts of a read, and of an fsync that is answered elsewhere.
    fn each_is_counted_once(readers: &Readers) {
        let before = readers.times.of(KIND).count();
        let count = |kind| readers.times.of(kind).count();
        let turn = readers.begin(1, Takes::Moment, RequestKind::Read);
        assert_eq!(count(RequestKind::Read), 0);
        drop(turn);
        let mut turn = readers.begin(1, Takes::Moment, RequestKind::Fsync);
        let apart = turn.apart();
        drop(turn);
        assert_eq!((count(RequestKind::Read), count(RequestKind::Fsync)), (1, 0));
        drop(apart);
        let all: u64 = RequestKind::ALL.into_iter().map(count).sum();
        assert_eq!((count(RequestKind::Fsync), all), (1, before + 2));
    }

    #[test]
    fn each_request_is_counted_once_when_it_was_answered() {
        let (readers, _device, _kernel) = served_by(2);
        let rested = Rested::new(&readers);
        each_is_counted_once(&readers);
        readers.shared.close();
        rested.goes_to_read();
    }

    #[test]
    fn a_single_thread_counts_too() {
        let (readers, _device, _kernel) = served_by(1);
        each_is_counted_once(&readers);
    }
}
