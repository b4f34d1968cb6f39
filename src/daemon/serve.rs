//! Serving a store: what was there is counted, then mounted, served, sealed and saved.
//!
//! Order of stopping: no more requests (unmounted), the committer seals, the data is synced, the
//! database gets its last rows and the mark that the store is clean, the dirty log goes. A kill
//! anywhere in between leaves a store that the next start recovers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::baseline::{Known, Unhashed};
use crate::daemon::mount::{MountGuard, Unmounted};
use crate::daemon::signals::{SignalThread, Stop};
use crate::daemon::start_up::{self, Started, Trust};
use crate::daemon::write_back::WriteBack;
use crate::daemon::{DaemonError, Parts};
use crate::db::{Ask, Database, Writer};
use crate::fs::{Caller, FileSystem};
use crate::fuse::{Invalidator, Session};
use crate::id::Ino;
use crate::recovery::Unclean;
use crate::sealed::keyring::KeyRing;
use crate::sealed::row_mac::RowKey;
use crate::store::dirty_log::DirtyLog;
use crate::store::tree::{AccessTimes, Tree};
use crate::sys;

/// Threads that serve requests, at least.
const THREADS_MIN: usize = 4;
/// How long a stop waits for files to be closed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is dirty.
const WRITE_BACK_PACE: Duration = Duration::from_millis(500);
/// Between two removals of past date directories, in paces of the write-back.
const DATE_DIRECTORIES_EVERY: u64 = 120;
/// Between two looks whether memory can be given back, in paces of the write-back.
const GIVE_BACK_EVERY: u64 = 20;
/// Priority of the thread that hashes: the lowest.
const HASHER_NICE: i32 = 19;
/// Descriptors left for recordings and connections when directories are kept open.
const DESCRIPTORS_FOR_FILES: u64 = 4096;
/// Directories that are kept open for speed; the others are opened for each request.
const DIRECTORIES_KEPT_OPEN_MAX: u64 = 65_536;

/// Recovers, mounts, serves, seals.
///
/// # Errors
/// Nothing stays mounted; what was acknowledged stays on disk.
pub fn serve(parts: Parts) -> Result<(), DaemonError> {
    // First of all: a signal that comes between mounting and serving must not kill.
    let stop = Arc::new(Stop::default());
    let asked = stop.clone();
    let _signals = SignalThread::start(move || asked.ask()).map_err(DaemonError::Thread)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    rustix::process::umask(Mode::empty());
    let config = Arc::new(parts.config);
    let tree = Arc::new(open_tree(&parts.store.paths().data(), parts.mount_plan.flags).map_err(DaemonError::Data)?);
    let started = start_up::start(parts.store.paths(), &tree, &config, &*clock, Trust::Rows)?;
    let Built {
        fs,
        dirty,
        mut database,
        mut source,
        first_ask,
        unsaved,
    } = build(started, tree, parts.ring, config.clone(), clock.clone())?;
    let later = Later {
        unhashed: Unhashed::new(database.path()),
        unsaved,
    };
    let first_ask = save_first(&mut database, &mut source, first_ask);
    let writer_clock = clock.clone();
    let writer = Writer::spawn(
        database,
        first_ask,
        move |ask| source.collect(ask),
        move || writer_clock.now(),
    );
    let writer = writer.map_err(DaemonError::Thread)?;
    let mounted = parts.mount_plan.mount()?;
    let threads = match config.service.threads {
        0 => thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .saturating_mul(2)
            .max(THREADS_MIN),
        chosen => chosen as usize,
    };
    let session = Session::start(mounted.fd, fs.clone(), threads).map_err(DaemonError::Session)?;
    let guard = Arc::new(mounted.guard);
    let served = run(
        session,
        &fs,
        House {
            dirty: &dirty,
            writer: &writer,
        },
        &guard,
        &config,
        &stop,
        later,
    );
    let quiet = *served.as_ref().unwrap_or(&Quiet::No);
    finish(&fs, &dirty, writer, quiet)?;
    served.map(|_| ())
}

/// A file system that nobody uses yet.
pub(super) struct Built {
    pub fs: Arc<FileSystem>,
    pub dirty: Arc<DirtyLog>,
    pub database: Database,
    pub source: WriteBack,
    pub first_ask: Ask,
    pub unsaved: Vec<Ino>,
}

/// What is saved now and then.
#[derive(Clone, Copy)]
struct House<'a> {
    dirty: &'a DirtyLog,
    writer: &'a Writer,
}

/// What is done in the background after a start.
struct Later {
    unhashed: Unhashed,
    /// Directories whose files may have rows that are missing or old.
    unsaved: Vec<Ino>,
}

/// Puts the file system together and takes over what a crash left unclean.
pub(super) fn build(
    started: Started,
    tree: Arc<Tree>,
    ring: KeyRing,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
) -> Result<Built, DaemonError> {
    let ring = Arc::new(ring);
    let key = RowKey::current(&ring).map_err(|e| DaemonError::Data(io::Error::other(e)))?;
    let known_heads = Arc::new(Known::open(started.database.path(), ring.clone()));
    let fs = FileSystem::new(crate::fs::Parts {
        tree,
        ledger: started.ledger,
        links: started.links,
        dirty: started.dirty.clone(),
        ring,
        config,
        clock: clock.clone(),
        known_heads,
        daemon: Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            thread: 0,
        },
    });
    let fs = Arc::new(fs.map_err(DaemonError::Data)?);
    fs.place_all();
    adopt(&fs, &started.unclean);
    Ok(Built {
        source: WriteBack::new(fs.clone(), started.dirty.clone(), clock, key),
        fs,
        dirty: started.dirty,
        database: started.database,
        first_ask: started.first_ask,
        unsaved: started.unsaved,
    })
}

/// What was counted is in the database before the first request; if that fails the writer goes on
/// trying.
fn save_first(database: &mut Database, source: &mut WriteBack, first_ask: Ask) -> Ask {
    if first_ask == Ask::Dirty {
        return first_ask;
    }
    let collected = source.collect(first_ask);
    match database.replace(&collected.batch) {
        Ok(()) => {
            (collected.on_committed)();
            Ask::Dirty
        }
        Err(e) => {
            log::error!("{e}; recordings go on, and it is tried again");
            (collected.on_failed)(collected.batch);
            first_ask
        }
    }
}

pub(super) fn open_tree(data: &Path, flags: MountFlags) -> io::Result<Tree> {
    let root: OwnedFd = rustix::fs::open(
        data,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let for_directories = limit.saturating_sub(DESCRIPTORS_FOR_FILES) / 2;
    let access_times = if flags.intersects(MountFlags::NOATIME | MountFlags::RDONLY) {
        AccessTimes::Stay
    } else {
        AccessTimes::Move
    };
    Tree::new(root, for_directories.min(DIRECTORIES_KEPT_OPEN_MAX), access_times)
}

/// Files that a crash left unclean: their lengths count before the first request.
fn adopt(fs: &Arc<FileSystem>, unclean: &[Unclean]) {
    let (mut bytes, mut failed_count) = (0, 0);
    for file in unclean {
        match fs.adopt_unclean(file.parent, &file.name) {
            Ok(Some(length)) => bytes += length,
            Ok(None) => failed_count += 1,
            Err(e) => log::warn!(
                "{:?}: cannot be recovered: errno {}",
                String::from_utf8_lossy(&file.name),
                e.0
            ),
        }
    }
    if !unclean.is_empty() {
        log::info!(
            "recovered {} recordings that were being written ({bytes} bytes, {failed_count} damaged)",
            unclean.len()
        );
    }
}

/// Whether requests can still come while the store is put away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    Yes,
    No,
}

/// Why serving ended.
enum Ended {
    /// Unmounted, or the connection broke.
    Served(io::Result<()>),
    /// A stop was asked for, and files stayed open.
    OutOfPatience,
}

fn run(
    session: Session,
    fs: &Arc<FileSystem>,
    house: House<'_>,
    guard: &Arc<MountGuard>,
    config: &Config,
    stop: &Stop,
    later: Later,
) -> Result<Quiet, DaemonError> {
    let (say, ended) = crossbeam_channel::bounded(2);
    let (stopper, say_late) = (guard.clone(), say.clone());
    stop.when_asked(move || match stopper.unmount() {
        // Detached by us now, or by somebody before: the session ends with the last open file.
        Ok(Unmounted::WhenUnused | Unmounted::Already) => {
            log::info!(
                "files are open; waiting up to {} s for them to be closed",
                STOP_PATIENCE.as_secs()
            );
            // Nobody waits for this thread: mostly the files are closed first.
            let _ = thread::Builder::new().name("patience".to_owned()).spawn(move || {
                thread::park_timeout(STOP_PATIENCE);
                let _ = say_late.try_send(Ended::OutOfPatience);
            });
        }
        Ok(Unmounted::Now) => {}
        Err(e) => log::error!("{e}"),
    });
    let invalidator = session.invalidator();
    log::info!("mounted {}", guard.mount_point().display());
    thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || say.send(Ended::Served(session.run())))
        .map_err(DaemonError::Thread)?;
    let interval = Duration::from_secs(u64::from(config.durability.commit_interval_s));
    thread::scope(|scope| {
        thread::Builder::new()
            .name("committer".to_owned())
            .spawn_scoped(scope, || {
                while !fs.is_stopping() {
                    fs.wait_for_tick(interval);
                    fs.commit_tick();
                }
            })
            .map_err(DaemonError::Thread)?;
        thread::Builder::new()
            .name("housekeeper".to_owned())
            .spawn_scoped(scope, || keep_house(fs, house, &invalidator))
            .map_err(DaemonError::Thread)?;
        thread::Builder::new()
            .name("hasher".to_owned())
            .spawn_scoped(scope, move || hash_contents(fs, &later))
            .map_err(DaemonError::Thread)?;
        let served = match ended.recv() {
            Ok(Ended::Served(served)) => served.map(|()| Quiet::Yes).map_err(DaemonError::Session),
            Ok(Ended::OutOfPatience) => {
                log::warn!("files are still open; their users get errors from now on");
                Ok(Quiet::No)
            }
            Err(_) => Err(DaemonError::Session(io::Error::other("its threads are gone"))),
        };
        fs.stop();
        served
    })
}

/// Has what is dirty written back, and removes past date directories now and then.
fn keep_house(fs: &FileSystem, house: House<'_>, invalidator: &Invalidator) {
    let mut round = 0_u64;
    while !fs.is_stopping() {
        thread::park_timeout(WRITE_BACK_PACE);
        if house.dirty.has_marks() || fs.notes().is_waiting() {
            house.writer.poke();
        }
        round += 1;
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
fn hash_contents(fs: &FileSystem, later: &Later) {
    if let Err(e) = rustix::process::setpriority_process(None, HASHER_NICE) {
        log::debug!("the hasher keeps its priority: {e}");
    }
    for &directory in &later.unsaved {
        fs.take_up_directory(directory);
    }
    while !fs.is_stopping() {
        later.unhashed.feed(fs);
        fs.hash_next(WRITE_BACK_PACE);
    }
}

/// Seals and saves everything; the store is clean only when both went well.
pub(super) fn finish(
    fs: &Arc<FileSystem>,
    dirty: &Arc<DirtyLog>,
    writer: Writer,
    quiet: Quiet,
) -> Result<(), DaemonError> {
    if quiet == Quiet::Yes {
        fs.release_all();
    }
    let unsealed_count = fs.seal_all();
    let synced = fs.sync_store();
    let saved = writer.stop();
    let Some((mut database, last_write)) = saved else {
        return Err(DaemonError::Writer("its thread panicked".to_owned()));
    };
    last_write.map_err(DaemonError::Database)?;
    synced.map_err(DaemonError::Data)?;
    if quiet == Quiet::No {
        log::warn!("sealed and saved what was closed; the next start recovers the rest");
        return Ok(());
    }
    if unsealed_count > 0 {
        log::error!("{unsealed_count} recordings could not be sealed; they are recovered at the next start");
        return Ok(());
    }
    database.mark_clean().map_err(DaemonError::Database)?;
    dirty.finish();
    log::info!("unmounted; everything is sealed and saved");
    Ok(())
}
