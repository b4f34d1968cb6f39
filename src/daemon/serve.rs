//! Serving a store: what was there is counted, then mounted, served, sealed and saved.
//!
//! A stop lets no more requests in (unmounted) before the store is put away: `open_store` has that
//! order, and what a kill in between leaves.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::Mode;
use rustix::mount::MountFlags;

use crate::admin::{Access, Books, Services, StartFacts};
use crate::alert::{Board, Courier, CourierParts, Origin};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::baseline::Unhashed;
use crate::daemon::mount::{MountError, MountGuard, Unmounted};
use crate::daemon::notify::Notifier;
use crate::daemon::open_store::{OpenStore, Opening, Quiet, Recovered, Trust, put_away};
use crate::daemon::physical::PhysicalLook;
use crate::daemon::reload::Reload;
use crate::daemon::signals::{OnSignal, SignalThread, Stop};
use crate::daemon::start_up::boot_id;
use crate::daemon::succession::{Succession, fall_silent};
use crate::daemon::{DaemonError, Parts, interface, rotation, watchman};
use crate::db::Writer;
use crate::fs::FileSystem;
use crate::fuse::{Drain, Invalidator, Session};
use crate::id::Ino;
use crate::metrics::RequestTimes;
use crate::store::dirty_log::DirtyLog;
use crate::store::tree::AccessTimes;
use crate::sys;

/// Threads that serve requests, at least.
const THREADS_MIN: usize = 4;
/// How long a stop waits for files to be closed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Files that are named when they are open at a stop.
const OPEN_FILES_TOLD: usize = 20;
/// Between two looks at what is dirty.
const WRITE_BACK_PACE: Duration = Duration::from_millis(500);
/// Between two removals of past date directories, in paces of the write-back.
const DATE_DIRECTORIES_EVERY: u64 = 120;
/// Between two looks whether memory can be given back, in paces of the write-back.
const GIVE_BACK_EVERY: u64 = 20;
/// Priority of the thread that hashes: the lowest.
const HASHER_NICE: i32 = 19;

/// Recovers, mounts, serves, seals.
///
/// # Errors
/// Nothing stays mounted; what was acknowledged stays on disk.
pub fn serve(parts: Parts) -> Result<(), DaemonError> {
    // First of all: a signal that comes between mounting and serving must not kill.
    let (stop, hand_over) = (Arc::new(Stop::default()), Arc::new(Stop::default()));
    let (_signals, reload_asked) = signals(&stop, &hand_over, &parts.notifier)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (began_at, requests) = (clock.now(), Arc::new(RequestTimes::default()));
    rustix::process::umask(Mode::empty());
    let config = Arc::new(parts.config);
    let mut succession = Succession::begin(parts.is_kept, parts.inheritance, &parts.mount_plan)?;
    let mut opened = OpenStore::open(Opening {
        paths: parts.store.paths(),
        ring: parts.ring,
        config: config.clone(),
        clock: clock.clone(),
        access_times: access_times(parts.mount_plan.flags),
        boot_id: boot_id().map_err(DaemonError::Data)?,
        trust: Trust::Rows,
        kept: succession.kept.clone(),
    })?;
    let (fs, dirty) = (opened.fs().clone(), opened.dirty().clone());
    let later = Later::of(&parts.store.paths().database(), &mut opened, &clock);
    let (books, board, administrators) = (opened.books().clone(), opened.board().clone(), opened.administrators());
    let (recovered, start) = (opened.recovered(), start_facts(began_at, opened.recovered()));
    let writer = opened.into_writer().map_err(DaemonError::Thread)?;
    let (keys, rotation) = rotation::desk(parts.store.paths(), &fs, &clock, writer.errands(), parts.key_file);
    let courier = courier(&config, &parts.store.paths().root, &writer, &board, &clock);
    let services = Services {
        fs: fs.clone(),
        books: books.clone(),
        database: parts.store.paths().database(),
        writer: Box::new(writer.watch()),
        requests: requests.clone(),
        start,
        keys: Box::new(keys),
        clock,
        access: access(&config, administrators),
        board,
        errands: writer.errands(),
    };
    // Before anybody can see the mount, so that who sees it is answered.
    let interface = interface::open(&config.admin, parts.store.paths(), services);
    let kept = fs.kept().map(|kept| &**kept);
    let (session, guard) = succession.connect(&parts.mount_plan, &parts.notifier, kept, |connection| {
        Session::start(connection, &fs, threads(&config), requests, kept)
    })?;
    succession.report(recovered.taken_over);
    Reload::new(&fs, parts.reread, &config, &parts.notifier).start(reload_asked)?;
    let watch = parts.notifier.watch(guard.mount_point()).map_err(DaemonError::Thread)?;
    let served = run(
        session,
        &fs,
        House {
            dirty: &dirty,
            writer: &writer,
            books: &books,
            rotation: &rotation,
        },
        &guard,
        &config,
        Asked {
            stop: &stop,
            hand_over: &hand_over,
            can_hand_over: fs.kept().is_some(),
        },
        later,
    );
    // Before the thread that writes: what was taken last is noted.
    drop((interface, watch, courier));
    end(served, &parts.notifier, (&fs, &dirty), &guard, writer)
}

/// Puts the store away, or leaves it to the next process.
fn end(
    served: Result<Outcome, DaemonError>,
    notifier: &Notifier,
    (fs, dirty): (&FileSystem, &DirtyLog),
    guard: &MountGuard,
    writer: Writer,
) -> Result<(), DaemonError> {
    let quiet = match &served {
        Ok(Outcome::PutAway(quiet)) => *quiet,
        Ok(Outcome::HandOver(drain)) => {
            leave(guard, drain, writer, notifier);
            return Ok(());
        }
        Err(_) => Quiet::No,
    };
    put_away(fs, dirty, quiet, || {
        writer
            .stop()
            .ok_or_else(|| DaemonError::Writer("its thread panicked".to_owned()))
    })?;
    served.map(|_| ())
}

/// The next process serves the mount, and finds in the store what was saved; requests were answered until now.
fn leave(guard: &MountGuard, drain: &Drain, writer: Writer, notifier: &Notifier) {
    guard.leave();
    let saved = writer.stop().map(|(_, saved)| saved);
    // Last of all, since from here on callers wait.
    fall_silent(drain, guard.mount_point());
    if let Some(Err(e)) = saved {
        log::warn!("{e}; the next process counts what is missing");
    }
    if let Err(e) = notifier.send("X_HANDS_OVER=1\nSTATUS=Handing the mount over", &[]) {
        log::warn!("whoever keeps the mount could not be told that it is handed over: {e}");
    }
    log::info!("handing the mount over to the next process");
}

/// Takes signals from now on, and tells the service manager what is done until the mount answers. Given back is where
/// reloads are asked for.
fn signals(
    stop: &Arc<Stop>,
    hand_over: &Arc<Stop>,
    notifier: &Notifier,
) -> Result<(SignalThread, Receiver<()>), DaemonError> {
    notifier.status("Counting what is in the store");
    let (asked, hand_over, notifier) = (stop.clone(), hand_over.clone(), notifier.clone());
    let (reload, reload_asked) = crossbeam_channel::bounded(1);
    let taken = SignalThread::start(OnSignal {
        stop: move || {
            notifier.stopping();
            asked.ask();
        },
        // One that waits stands for all.
        hang_up: move || _ = reload.try_send(()),
        hand_over: move || hand_over.ask(),
    });
    Ok((taken.map_err(DaemonError::Thread)?, reload_asked))
}

/// As the metrics tell it.
fn start_facts(at: Duration, recovered: Recovered) -> StartFacts {
    StartFacts {
        at,
        recovery: recovered.way.name(),
        recovery_took: recovered.took,
        recovered_count: recovered.recordings_count as u64,
        damaged_count: recovered.damaged_count as u64,
    }
}

/// Takes notices to their receivers, where there are any. Without it they wait in the outbox.
fn courier(
    config: &Config,
    store: &Path,
    writer: &Writer,
    board: &Arc<Board>,
    clock: &Arc<dyn Clock>,
) -> Option<Courier> {
    if config.alerts.receivers.is_empty() {
        return None;
    }
    let parts = CourierParts {
        alerts: config.alerts.clone(),
        board: board.clone(),
        origin: Origin::here(store, &config.alerts),
        clock: clock.clone(),
        errands: writer.errands(),
        writer: Box::new(writer.watch()),
    };
    Courier::start(parts)
        .inspect_err(|e| log::error!("no notice is delivered: no thread for it: {e}; recordings go on"))
        .ok()
}

/// Threads that answer requests.
fn threads(config: &Config) -> usize {
    match config.service.threads {
        0 => thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .saturating_mul(2)
            .max(THREADS_MIN),
        chosen => chosen as usize,
    }
}

/// Who may ask the interface for programs.
fn access(config: &Config, administrators: Option<u32>) -> Access {
    Access {
        administrators,
        daemon_uid: rustix::process::geteuid().as_raw(),
        open_to_readers: config.admin.open_to_readers,
        tokens: config.admin.tokens.clone(),
    }
}

/// What is saved now and then.
#[derive(Clone, Copy)]
struct House<'a> {
    dirty: &'a DirtyLog,
    writer: &'a Writer,
    books: &'a Books,
    rotation: &'a rotation::Work,
}

/// What is done in the background after a start.
struct Later {
    unhashed: Unhashed,
    /// Directories whose files may have rows that are missing or old.
    unsaved: Vec<Ino>,
    physical: PhysicalLook,
}

impl Later {
    fn of(database: &Path, opened: &mut OpenStore, clock: &Arc<dyn Clock>) -> Self {
        Self {
            unhashed: Unhashed::new(database),
            unsaved: opened.take_unsaved(),
            physical: PhysicalLook::new(database.to_owned(), opened.books(), clock),
        }
    }
}

/// Reading moves access times, unless the mount says otherwise.
fn access_times(flags: MountFlags) -> AccessTimes {
    if flags.intersects(MountFlags::NOATIME | MountFlags::RDONLY) {
        AccessTimes::Stay
    } else {
        AccessTimes::Move
    }
}

/// Why serving ended.
enum Ended {
    /// Unmounted, or the connection broke.
    Served(io::Result<()>),
    /// A stop was asked for, and files stayed open.
    OutOfPatience,
    /// A stop was asked for, and the mount could not be taken away.
    StillMounted(MountError),
    /// The next process is to serve the mount.
    HandOver,
}

/// What is left to be done after serving.
enum Outcome {
    /// The store is put away.
    PutAway(Quiet),
    /// The next process goes on, when this reading of requests has ended.
    HandOver(Drain),
}

/// What signals ask for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    stop: &'a Stop,
    hand_over: &'a Stop,
    /// Somebody keeps the mount.
    can_hand_over: bool,
}

fn run(
    session: Session,
    fs: &Arc<FileSystem>,
    house: House<'_>,
    guard: &Arc<MountGuard>,
    config: &Config,
    asked: Asked<'_>,
    later: Later,
) -> Result<Outcome, DaemonError> {
    let (say, ended) = crossbeam_channel::bounded(3);
    when_to_hand_over(&asked, &say);
    let (stopper, say_late) = (guard.clone(), say.clone());
    asked.stop.when_asked(move || match stopper.unmount() {
        // Detached by us now, or by somebody before: the session ends with the last open file.
        Ok(Unmounted::WhenUnused | Unmounted::Already) => {
            log::info!(
                "files are open; waiting up to {} s for them to be closed",
                STOP_PATIENCE.as_secs()
            );
            end_later(say_late, Ended::OutOfPatience);
        }
        // A mount namespace that heard nothing of it may have the mount still.
        Ok(Unmounted::Now) => end_later(say_late, Ended::OutOfPatience),
        Err(e) => {
            log::error!("{e}");
            log::error!(
                "still mounted; run `fusermount3 -uz {0}`, or `umount -l {0}` as root; the daemon ends in {1} s, \
                 and then whoever looks there gets errors",
                stopper.mount_point().display(),
                STOP_PATIENCE.as_secs()
            );
            end_later(say_late, Ended::StillMounted(e));
        }
    });
    let (invalidator, drain) = (session.invalidator(), session.drain());
    log::info!("mounted {}", guard.mount_point().display());
    thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || say.send(Ended::Served(session.run())))
        .map_err(DaemonError::Thread)?;
    let interval = Duration::from_secs(u64::from(config.durability.commit_interval_s));
    thread::scope(|scope| {
        spawn(scope, "committer", || commit(fs, interval))?;
        spawn(scope, "housekeeper", || keep_house(fs, house, &invalidator))?;
        spawn(scope, "closer", || {
            while !fs.is_stopping() {
                fs.close_next(WRITE_BACK_PACE);
            }
        })?;
        spawn(scope, "rotation", || house.rotation.run())?;
        spawn(scope, "hasher", move || hash_contents(fs, later))?;
        let served = match ended.recv() {
            Ok(Ended::Served(served)) => served
                .map(|()| Outcome::PutAway(Quiet::Yes))
                .map_err(DaemonError::Session),
            Ok(Ended::OutOfPatience) => {
                tell_open(fs);
                Ok(Outcome::PutAway(Quiet::No))
            }
            Ok(Ended::StillMounted(e)) => Err(e.into()),
            Ok(Ended::HandOver) => Ok(Outcome::HandOver(drain)),
            Err(_) => Err(DaemonError::Session(io::Error::other("its threads are gone"))),
        };
        fs.stop();
        served
    })
}

/// Names whoever gets errors from now on.
fn tell_open(fs: &FileSystem) {
    let names = fs.open_files(OPEN_FILES_TOLD);
    if names.is_empty() {
        log::warn!(
            "the mount is still there in another mount namespace (a container?); who looks gets errors from now on"
        );
        return;
    }
    log::warn!(
        "files are still open; their users get errors from now on: {}",
        names.join(", ")
    );
}

fn when_to_hand_over(asked: &Asked<'_>, say: &Sender<Ended>) {
    let (say, can_hand_over) = (say.clone(), asked.can_hand_over);
    asked.hand_over.when_asked(move || {
        if can_hand_over {
            let _ = say.try_send(Ended::HandOver);
        } else {
            log::warn!("SIGUSR2: nobody keeps the mount for a next process (see --supervise), going on");
        }
    });
}

/// Makes durable and seals, tick by tick.
fn commit(fs: &FileSystem, interval: Duration) {
    while !fs.is_stopping() {
        fs.wait_for_tick(interval);
        fs.commit_tick();
    }
}

/// A thread that ends with the mount.
fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), DaemonError> {
    let named = thread::Builder::new().name(name.to_owned());
    named.spawn_scoped(scope, work).map_err(DaemonError::Thread)?;
    Ok(())
}

/// Ends a stop that gets no further. Nobody waits for this thread: mostly the session ends first.
fn end_later(say: Sender<Ended>, how: Ended) {
    let _ = thread::Builder::new().name("patience".to_owned()).spawn(move || {
        thread::park_timeout(STOP_PATIENCE);
        let _ = say.try_send(how);
    });
}

/// Lets time pass for quotas, has what is dirty written back, and removes past date directories now and then.
fn keep_house(fs: &FileSystem, house: House<'_>, invalidator: &Invalidator) {
    let mut round = 0_u64;
    while !fs.is_stopping() {
        thread::park_timeout(WRITE_BACK_PACE);
        watchman::tell(&fs.ledger().tick(), fs.ledger().now_s());
        house.books.external.tick();
        if house.dirty.has_marks()
            || fs.notes().is_waiting()
            || fs.ledger().has_changed_terms()
            || house.books.is_changed()
        {
            house.writer.poke();
        }
        round += 1;
        // What was only read and looked at is saved too, if later.
        if round.is_multiple_of(DATE_DIRECTORIES_EVERY) && !fs.ledger().root().pending_operations().is_zero() {
            house.writer.poke();
        }
        if round.is_multiple_of(GIVE_BACK_EVERY) && fs.shrink() {
            sys::allocator::give_back();
        }
        if round.is_multiple_of(DATE_DIRECTORIES_EVERY) {
            for gone in fs.remove_past_date_directories() {
                invalidator.forget_name(gone.parent, &gone.name);
            }
        }
    }
}

/// Hashes what was sealed, and before that takes up what an earlier daemon left.
fn hash_contents(fs: &FileSystem, mut later: Later) {
    if let Err(e) = rustix::process::setpriority_process(None, HASHER_NICE) {
        log::debug!("the hasher keeps its priority: {e}");
    }
    // A killed daemon may have left heads in the page cache alone, and no row may be ahead of the disk.
    if let Err(e) = fs.sync_store() {
        log::error!("the data cannot be synced ({e}); what an earlier run left is not hashed now");
        return;
    }
    for &directory in &later.unsaved {
        if fs.take_up_directory(directory).is_break() {
            return;
        }
        fs.notes().taken_up(directory);
    }
    while !fs.is_stopping() {
        later.unhashed.feed(fs);
        fs.hash_next(WRITE_BACK_PACE);
        later.physical.look_if_due(fs);
    }
}
