//! The thread that writes back: at most once a second, off the path of every request. A poke never
//! blocks and carries nothing; what is dirty is asked for when there is time to write it.
//!
//! A failing database stalls nobody: what could not be written is handed back and asked for again,
//! with growing pauses. A database that vanished or was damaged while the daemon runs is opened
//! anew and gets every row, since memory is the truth.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded};
use parking_lot::Mutex;

use super::rows::Batch;
use super::{Database, Error};

/// Between the starts of two write-backs.
const PACE: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const PACE_FAILING_MAX: Duration = Duration::from_secs(32);
const FAILURES_DOUBLED_MAX: u32 = 5;
const _: () = assert!(PACE.as_secs() << FAILURES_DOUBLED_MAX == PACE_FAILING_MAX.as_secs());

/// Errands that wait at a time; whoever brings more is sent away.
const ERRANDS_MAX: usize = 64;

type Errand = Box<dyn FnOnce(&mut Database) + Send>;

/// Single transactions for the thread that writes, between two write-backs.
#[derive(Clone)]
pub struct Errands(Sender<Errand>);

impl Errands {
    /// Hands one over, and never waits. False when it will not be run. It is dropped without being run while the database
    /// is gone.
    pub fn hand_over(&self, errand: impl FnOnce(&mut Database) + Send + 'static) -> bool {
        self.0.try_send(Box::new(errand)).is_ok()
    }
}

/// What the writer wants to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// What changed since the last successful answer.
    Dirty,
    /// Every row there is: the database is new or has lost its rows.
    Everything,
}

/// An answer, and what to do once its fate is known. Exactly one of the two is called.
pub struct Collected {
    pub batch: Batch,
    pub on_committed: Box<dyn FnOnce() + Send>,
    /// Gets the batch back; its directories and links are dirty still, its days not yet counted.
    pub on_failed: Box<dyn FnOnce(Batch) + Send>,
}

/// How the writing goes, for `status`. Times are those of the clock given to [`Writer::spawn`].
#[derive(Clone, Default, Debug)]
pub struct WriterStatus {
    pub last_success: Option<Duration>,
    /// Since when nothing could be written; `None` while all is well.
    pub failing_since: Option<Duration>,
    /// Attempts that failed since then.
    pub failure_count: u32,
    /// The last error ever, kept after it is over.
    pub last_error: Option<String>,
}

impl WriterStatus {
    /// How far the rows may lag behind memory, beyond the usual second.
    pub fn behind_by(&self, now: Duration) -> Duration {
        self.failing_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// Handle of the writer thread. Dropping it stops the thread like [`Writer::stop`], without the
/// answer.
pub struct Writer {
    poke: Sender<()>,
    errands: Errands,
    /// Nothing is ever sent: letting go of it is the message.
    stop: Option<Sender<()>>,
    status: Arc<Mutex<WriterStatus>>,
    thread: Option<JoinHandle<Stopped>>,
}

/// The database, and whether the last write-back went through.
type Stopped = (Database, Result<(), Error>);

impl Writer {
    /// Starts the thread. `source` collects what is to be written; `now` is the time since 1970.
    /// With `Ask::Everything` as `first` the first write-back puts every row, here and now: that is
    /// how the result of a scan or a replay gets in before anybody reads it. If it fails, the thread
    /// tries again.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn spawn(
        database: Database,
        first: Ask,
        source: impl FnMut(Ask) -> Collected + Send + 'static,
        now: impl Fn() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let (poke, poked) = bounded(1);
        let (errands, brought) = bounded(ERRANDS_MAX);
        let (stop, stopped) = bounded(0);
        let mut work = WriteBack::new(database, first, source, now);
        if work.is_wanted() {
            // The error is in the status and in the log.
            let _ = work.attempt();
        }
        let status = Arc::clone(&work.status);
        let thread = thread::Builder::new().name("db-writer".to_owned()).spawn(move || {
            let calls = Calls {
                poked,
                brought,
                stopped,
            };
            run(work, &calls)
        })?;
        Ok(Self {
            poke,
            errands: Errands(errands),
            stop: Some(stop),
            status,
            thread: Some(thread),
        })
    }

    /// Something is dirty. Never blocks.
    pub fn poke(&self) {
        // Full means that a poke is waiting already; closed, that the thread is gone.
        let _ = self.poke.try_send(());
    }

    /// For whoever has single transactions to be written.
    pub fn errands(&self) -> Errands {
        self.errands.clone()
    }

    pub fn status(&self) -> WriterStatus {
        self.status.lock().clone()
    }

    /// The status of now, and of every time that it is asked for.
    pub fn watch(&self) -> impl Fn() -> WriterStatus + Send + Sync + use<> {
        let status = Arc::clone(&self.status);
        move || status.lock().clone()
    }

    /// Writes what is left, ends the thread and gives the database back, with the outcome of
    /// that last write. `None` if the thread had panicked.
    ///
    /// Only after `Ok` may the database be marked clean.
    pub fn stop(mut self) -> Option<(Database, Result<(), Error>)> {
        self.stop = None;
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread waits for. The writer's handle holds a sender of each until the thread has ended.
struct Calls {
    poked: Receiver<()>,
    brought: Receiver<Errand>,
    stopped: Receiver<()>,
}

fn run<S, N>(mut work: WriteBack<S, N>, calls: &Calls) -> Stopped
where
    S: FnMut(Ask) -> Collected,
    N: Fn() -> Duration,
{
    while work.is_wanted() || calls.wait_for_poke(&mut work.database) {
        // The error is in the status and in the log.
        let _ = work.attempt();
        // A poke that comes meanwhile stays in the channel and counts afterwards.
        if !calls.rest(work.pause(), &mut work.database) {
            break;
        }
    }
    let last = work.attempt();
    (work.database, last)
}

impl Calls {
    /// Waits for a poke (true) or the end (false), and runs errands meanwhile.
    fn wait_for_poke(&self, database: &mut Database) -> bool {
        loop {
            crossbeam_channel::select_biased! {
                recv(self.stopped) -> _ => return false,
                recv(self.brought) -> errand => run_errand(errand.ok(), database),
                recv(self.poked) -> message => return message.is_ok(),
            }
        }
    }

    /// Lets so much time pass (true) unless the end comes (false), and runs errands meanwhile.
    fn rest(&self, pause: Duration, database: &mut Database) -> bool {
        let over = after(pause);
        loop {
            crossbeam_channel::select_biased! {
                recv(self.stopped) -> _ => return false,
                recv(over) -> _ => return true,
                recv(self.brought) -> errand => run_errand(errand.ok(), database),
            }
        }
    }
}

/// A file that is gone takes none: what is written there reaches nobody.
fn run_errand(errand: Option<Errand>, database: &mut Database) {
    if let Some(errand) = errand.filter(|_| !database.is_gone()) {
        errand(database);
    }
}

/// What the thread does, without its waiting.
struct WriteBack<S, N> {
    database: Database,
    source: S,
    now: N,
    ask: Ask,
    /// The last attempt failed.
    failing: bool,
    status: Arc<Mutex<WriterStatus>>,
}

impl<S, N> WriteBack<S, N>
where
    S: FnMut(Ask) -> Collected,
    N: Fn() -> Duration,
{
    fn new(database: Database, ask: Ask, source: S, now: N) -> Self {
        Self {
            database,
            source,
            now,
            ask,
            failing: false,
            status: Arc::default(),
        }
    }

    /// There is something to write whether or not anybody pokes.
    fn is_wanted(&self) -> bool {
        self.failing || self.ask == Ask::Everything
    }

    /// Time until the next attempt: longer with every failure.
    fn pause(&self) -> Duration {
        let failures = self.status.lock().failure_count;
        PACE * (1 << failures.min(FAILURES_DOUBLED_MAX))
    }

    /// One write-back. Its outcome is in the status and, at the turns, in the log.
    fn attempt(&mut self) -> Result<(), Error> {
        let begun = (self.now)();
        let outcome = self.ensure_open(begun).and_then(|()| self.write());
        match &outcome {
            Ok(()) => self.note_success(),
            Err(e) => self.note_failure(begun, e),
        }
        self.failing = outcome.is_err();
        outcome
    }

    fn ensure_open(&mut self, now: Duration) -> Result<(), Error> {
        if !self.database.is_gone() {
            return Ok(());
        }
        self.ask = Ask::Everything;
        let found = self.database.reopen(now.as_secs())?;
        log::warn!(
            "{}: the database was removed, replaced or damaged while in use; opened anew ({found:?}), all rows are written again",
            self.database.path().display()
        );
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let ask = self.ask;
        let Collected {
            batch,
            on_committed,
            on_failed,
        } = (self.source)(ask);
        let written = match ask {
            Ask::Dirty => self.database.commit(&batch),
            Ask::Everything => self.database.replace(&batch),
        };
        match written {
            Ok(()) => {
                self.ask = Ask::Dirty;
                on_committed();
                Ok(())
            }
            Err(e) => {
                on_failed(batch);
                if e.is_damage() {
                    self.database.abandon();
                }
                Err(e)
            }
        }
    }

    fn note_success(&self) {
        let mut status = self.status.lock();
        status.last_success = Some((self.now)());
        status.failing_since = None;
        let failures = std::mem::take(&mut status.failure_count);
        drop(status);
        if failures > 0 {
            log::info!(
                "{}: written again after {failures} failures",
                self.database.path().display()
            );
        }
    }

    fn note_failure(&self, begun: Duration, error: &Error) {
        let mut status = self.status.lock();
        status.failing_since.get_or_insert(begun);
        status.failure_count = status.failure_count.saturating_add(1);
        status.last_error = Some(error.to_string());
        let first = status.failure_count == 1;
        drop(status);
        if first {
            log::error!("{error}; usage is exact in memory, writing is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tempfile::TempDir;

    use super::*;
    use crate::db::tests::{batch, dir};
    use crate::db::{DirRow, Found};

    /// What the source was asked and what became of its answers.
    #[derive(Default)]
    struct Log {
        asked: Mutex<Vec<Ask>>,
        committed: AtomicU64,
        returned: Mutex<Vec<Batch>>,
        now_s: AtomicU64,
    }

    type Source = Box<dyn FnMut(Ask) -> Collected + Send>;
    type Clock = Box<dyn Fn() -> Duration + Send>;

    fn row(bytes: u64) -> DirRow {
        dir(2, 2, bytes)
    }

    /// A source with one directory that grows by a byte each time.
    fn source(log: &Arc<Log>) -> Source {
        let log = Arc::clone(log);
        Box::new(move |ask| {
            let mut asked = log.asked.lock();
            asked.push(ask);
            let bytes = asked.len() as u64;
            let (committed, failed) = (Arc::clone(&log), Arc::clone(&log));
            Collected {
                batch: batch(vec![row(bytes)]),
                on_committed: Box::new(move || {
                    committed.committed.fetch_add(1, Ordering::SeqCst);
                }),
                on_failed: Box::new(move |batch| failed.returned.lock().push(batch)),
            }
        })
    }

    fn clock(log: &Arc<Log>) -> Clock {
        let log = Arc::clone(log);
        Box::new(move || Duration::from_secs(log.now_s.load(Ordering::SeqCst)))
    }

    fn database(path: &Path) -> Database {
        let (mut db, _) = Database::open_with(path, 0, Duration::ZERO).unwrap();
        db.mark_running([5; 16]).unwrap();
        db
    }

    fn start() -> (TempDir, Arc<Log>, WriteBack<Source, Clock>) {
        let temp = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::default());
        let db = database(&temp.path().join("tallyfs.db"));
        let work = WriteBack::new(db, Ask::Dirty, source(&log), clock(&log));
        (temp, log, work)
    }

    #[test]
    fn a_write_back_commits_and_tells_the_source() {
        let (_temp, log, mut work) = start();
        log.now_s.store(50, Ordering::SeqCst);
        assert!(!work.is_wanted());
        work.attempt().unwrap();
        assert_eq!(work.database.load_dirs().unwrap(), [row(1)]);
        assert_eq!(log.committed.load(Ordering::SeqCst), 1);
        assert_eq!(work.status.lock().last_success, Some(Duration::from_secs(50)));
        assert_eq!(work.pause(), PACE);
    }

    #[test]
    fn failures_hand_back_wait_longer_and_end_in_one_success() {
        let (_temp, log, mut work) = start();
        work.database.limit_pages(1);
        let huge = || batch((3..5000).map(|ino| dir(ino, 2, 1)).collect());
        let log2 = Arc::clone(&log);
        work.source = Box::new(move |ask| {
            let mut answer = source(&log2)(ask);
            answer.batch.dirs.extend(huge().dirs);
            answer
        });
        for (at_s, pause_s) in [(10, 2), (12, 4), (16, 8), (24, 16), (40, 32), (72, 32)] {
            log.now_s.store(at_s, Ordering::SeqCst);
            work.attempt().unwrap_err();
            assert!(work.is_wanted());
            assert_eq!(work.pause().as_secs(), pause_s);
        }
        let status = work.status.lock().clone();
        assert_eq!(status.failure_count, 6);
        assert_eq!(status.behind_by(Duration::from_secs(72)).as_secs(), 62);
        assert!(status.last_error.unwrap().contains("no space left"));
        assert_eq!(log.returned.lock().len(), 6);
        assert_eq!(log.committed.load(Ordering::SeqCst), 0);

        work.database.limit_pages(100_000);
        work.attempt().unwrap();
        assert!(!work.is_wanted());
        assert_eq!(work.status.lock().behind_by(Duration::from_secs(99)), Duration::ZERO);
        assert!(work.status.lock().last_error.is_some());
    }

    #[test]
    fn a_deleted_database_is_made_anew_with_everything() {
        let (temp, log, mut work) = start();
        let path = temp.path().join("tallyfs.db");
        work.attempt().unwrap();
        for name in fs::read_dir(temp.path()).unwrap() {
            fs::remove_file(name.unwrap().path()).unwrap();
        }
        work.attempt().unwrap();
        work.attempt().unwrap();
        assert_eq!(*log.asked.lock(), [Ask::Dirty, Ask::Everything, Ask::Dirty]);
        drop(work);
        let (db, found) = Database::open(&path, 0).unwrap();
        assert_eq!(found, Found::Good);
        assert_eq!(db.load_dirs().unwrap(), [row(3)]);
        assert_eq!(db.last_run().unwrap().boot_id, Some([5; 16]));
    }

    #[test]
    fn a_replaced_database_loses_its_foreign_rows_and_its_clean_mark() {
        let (temp, log, mut work) = start();
        let other = temp.path().join("other.db");
        let mut foreign = database(&other);
        foreign.commit(&batch(vec![dir(99, 99, 1)])).unwrap();
        foreign.mark_clean().unwrap();
        drop(foreign);
        fs::rename(other, temp.path().join("tallyfs.db")).unwrap();
        work.attempt().unwrap();
        assert_eq!(*log.asked.lock(), [Ask::Everything]);
        assert_eq!(work.database.load_dirs().unwrap(), [row(1)]);
        assert!(!work.database.last_run().unwrap().clean);
    }

    #[test]
    fn a_database_that_cannot_be_opened_again_is_tried_until_it_can() {
        let (temp, log, mut work) = start();
        let path = temp.path().join("tallyfs.db");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        work.attempt().unwrap_err();
        work.attempt().unwrap_err();
        assert_eq!(*log.asked.lock(), []);
        fs::remove_dir(&path).unwrap();
        work.attempt().unwrap();
        assert_eq!(work.database.load_dirs().unwrap(), [row(1)]);
    }

    #[test]
    fn a_database_damaged_while_in_use_is_set_aside() {
        let (temp, log, mut work) = start();
        let rows = (3..3000).map(|ino| dir(ino, 2, 1)).collect();
        work.database.commit(&batch(rows)).unwrap();
        work.database.mark_running([5; 16]).unwrap();
        let path = temp.path().join("tallyfs.db");
        let len = fs::metadata(&path).unwrap().len() as usize;
        // In place, as a bad disk would do it.
        fs::write(&path, vec![0xa5; len]).unwrap();
        work.database.forget_pages();
        let error = work.attempt().unwrap_err();
        assert!(error.is_damage(), "{error}");
        work.attempt().unwrap();
        assert_eq!(log.asked.lock().last(), Some(&Ask::Everything));
        assert_eq!(work.database.load_dirs().unwrap().len(), 1);
        let kept = fs::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert!(kept.into_iter().any(|name| name.to_string_lossy().contains("damaged")));
    }

    #[test]
    fn the_thread_writes_everything_first_and_the_rest_at_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::default());
        let db = database(&temp.path().join("tallyfs.db"));
        let writer = Writer::spawn(db, Ask::Everything, source(&log), clock(&log)).unwrap();
        writer.poke();
        writer.poke();
        let (db, last) = writer.stop().unwrap();
        last.unwrap();
        let asked = log.asked.lock();
        assert_eq!(asked[0], Ask::Everything);
        assert!(asked.len() >= 2 && asked[1..].iter().all(|ask| *ask == Ask::Dirty));
        assert_eq!(db.load_dirs().unwrap(), [row(asked.len() as u64)]);
    }
}
