//! A store that is in use, without its mount: brought up to date, and put away again. The daemon
//! serves it; the tests of the file system call it directly.
//!
//! Order of putting away: the committer seals, the data is synced, the database gets its last rows
//! and the mark that the store is clean, the dirty log goes. A kill anywhere in between, or dropping
//! the value instead, leaves a store that the next opening recovers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::admin::Books;
use crate::alert::Board;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::baseline::Known;
use crate::daemon::layout::StorePaths;
use crate::daemon::start_up::{self, Started, Way};
use crate::daemon::write_back::WriteBack;
use crate::db::{Ask, Database, Error, TermsRow, Writer};
use crate::fs::{Caller, Estate, FileSystem, Kept, TakenOver};
use crate::id::Ino;
use crate::quota::{External, Ledger, SavedExternal};
use crate::recovery::Unclean;
use crate::sealed::keyring::KeyRing;
use crate::sealed::row_mac::RowKey;
use crate::store::dirty_log::DirtyLog;
use crate::store::orphans::Orphans;
use crate::store::tree::{AccessTimes, Tree};

pub use crate::daemon::start_up::Trust;

/// Descriptors left for recordings and connections when directories are kept open.
const DESCRIPTORS_FOR_FILES: u64 = 4096;
/// Directories that are kept open for speed; the others are opened for each request.
const DIRECTORIES_KEPT_OPEN_MAX: u64 = 65_536;
/// Closed recordings may wait to be sealed in any case.
const UNSEALED_FILES_MIN: u64 = 64;

/// What a store is opened with.
pub struct Opening<'a> {
    /// The store; whoever opens it holds its lock.
    pub paths: &'a StorePaths,
    /// Its key ring, with the key in it.
    pub ring: KeyRing,
    /// The checked configuration.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether reading moves access times.
    pub access_times: AccessTimes,
    /// Which boot of the machine this is: after another one everything is counted.
    pub boot_id: [u8; 16],
    /// Whether what the database says may be taken for what is on disk.
    pub trust: Trust,
    /// Memory of open handles, where somebody keeps the mount when this process ends.
    pub kept: Option<Arc<Kept>>,
}

/// Whether requests can still come while the store is put away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quiet {
    /// None comes.
    Yes,
    /// Files are still open, and stay unsealed.
    No,
}

/// What an opening found, and how long that took.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    /// How.
    pub way: Way,
    /// Recordings that were being written.
    pub recordings_count: usize,
    /// Those of them that do not open.
    pub damaged_count: usize,
    /// From the beginning to the last of them.
    pub took: Duration,
    /// Handles of the process before.
    pub taken_over: TakenOver,
}

/// A store in use.
pub struct OpenStore {
    fs: Arc<FileSystem>,
    dirty: Arc<DirtyLog>,
    books: Arc<Books>,
    board: Arc<Board>,
    administrators: Option<u32>,
    clock: Arc<dyn Clock>,
    database: Database,
    source: WriteBack,
    unsaved: Vec<Ino>,
    recovered: Recovered,
    /// What the next write-back has to write.
    ask: Ask,
}

impl OpenStore {
    /// Counts what is there, takes over what a crash left unsealed, and saves what was found.
    ///
    /// # Errors
    /// The database or the data directory cannot be used.
    pub fn open(opening: Opening<'_>) -> Result<Self, DaemonError> {
        let (paths, config, clock) = (opening.paths, opening.config, opening.clock);
        let begun = clock.monotonic();
        let administrators = config.access.administrators.as_deref().map(group).transpose()?;
        let descriptors = Descriptors::of_this_process();
        let tree =
            open_tree(&paths.data(), descriptors.directories, opening.access_times).map_err(DaemonError::Data)?;
        let tree = Arc::new(tree);
        // Before anything is counted.
        let estate =
            estate(opening.kept.filter(|_| tree.opens_by_handle()), &paths.orphans()).map_err(DaemonError::Data)?;
        let Started {
            database,
            ledger,
            terms,
            external: saved_external,
            links,
            dirty,
            unclean,
            unsaved,
            first_ask,
            way,
        } = start_up::start(paths, &tree, &clock, opening.boot_id, opening.trust)?;
        let ring = Arc::new(opening.ring);
        let key = RowKey::current(&ring).map_err(|e| DaemonError::Data(io::Error::other(e)))?;
        let known = Arc::new(Known::new(database.path(), ring.clone()));
        let parts = crate::fs::Parts {
            tree,
            ledger,
            links,
            dirty: dirty.clone(),
            ring,
            config: config.clone(),
            clock: clock.clone(),
            known_heads: known.clone(),
            past_operations: known,
            unsealed_files_max: descriptors.unsealed_files,
            daemon: this_process(),
            administrators,
            estate,
        };
        let fs = Arc::new(FileSystem::new(parts).map_err(DaemonError::Data)?);
        fs.place_all();
        load_terms(fs.ledger(), &terms);
        let mut recovered = adopt(&fs, &unclean, way);
        recovered.taken_over = fs.take_over();
        recovered.took = clock.monotonic().saturating_sub(begun);
        forget_emptied(&fs, &unsaved);
        let books = books(&config, &saved_external, &clock);
        let board = Arc::new(Board::new(&config.alerts));
        let mut opened = Self {
            source: WriteBack::new(&fs, &dirty, &clock, key, &books, &board),
            fs,
            dirty,
            books,
            board,
            administrators,
            clock,
            database,
            unsaved,
            recovered,
            ask: first_ask,
        };
        if first_ask == Ask::Everything {
            opened.save_or_log();
        }
        Ok(opened)
    }

    fn save_or_log(&mut self) {
        if let Err(e) = self.save() {
            log::error!("{e}; recordings go on, and it is tried again");
        }
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<FileSystem> {
        &self.fs
    }

    /// What is noted before directories change.
    pub fn dirty(&self) -> &Arc<DirtyLog> {
        &self.dirty
    }

    /// What is saved beside accounts.
    pub fn books(&self) -> &Arc<Books> {
        &self.books
    }

    /// What was found when it was opened.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Where notices are pinned up.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The group whose members steer.
    pub fn administrators(&self) -> Option<u32> {
        self.administrators
    }

    /// Directories in which a killed daemon had changes that it did not save, told once.
    pub fn take_unsaved(&mut self) -> Vec<Ino> {
        std::mem::take(&mut self.unsaved)
    }

    /// One write-back, here and now; the daemon leaves them to [`OpenStore::into_writer`].
    ///
    /// # Errors
    /// The database took nothing; the next one writes it.
    pub fn save(&mut self) -> Result<(), Error> {
        let collected = self.source.collect(self.ask);
        let written = match self.ask {
            Ask::Dirty => self.database.commit(&collected.batch),
            Ask::Everything => self.database.replace(&collected.batch),
        };
        match &written {
            Ok(()) => {
                (collected.on_committed)();
                self.ask = Ask::Dirty;
            }
            Err(_) => (collected.on_failed)(collected.batch),
        }
        written
    }

    /// Hands the database to a thread that writes back from now on.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn into_writer(self) -> io::Result<Writer> {
        let Self {
            clock,
            database,
            mut source,
            ask,
            ..
        } = self;
        Writer::spawn(database, ask, move |ask| source.collect(ask), move || clock.now())
    }

    /// Puts the store away after the last request.
    ///
    /// # Errors
    /// See [`put_away`].
    pub fn close(mut self) -> Result<(), DaemonError> {
        self.fs.stop();
        let (fs, dirty) = (self.fs.clone(), self.dirty.clone());
        put_away(&fs, &dirty, Quiet::Yes, move || {
            let saved = self.save();
            Ok((self.database, saved))
        })
    }
}

/// Seals and saves everything; the store is clean only when both went well. `last_save` is called
/// after that was synced; it writes the last rows and gives the database back.
///
/// # Errors
/// What was acknowledged stays on disk, and the next opening counts it.
pub fn put_away(
    fs: &FileSystem,
    dirty: &DirtyLog,
    quiet: Quiet,
    last_save: impl FnOnce() -> Result<(Database, Result<(), Error>), DaemonError>,
) -> Result<(), DaemonError> {
    if quiet == Quiet::Yes {
        fs.release_all();
    }
    let unsealed_count = fs.seal_all();
    let synced = fs.sync_store();
    let (mut database, saved) = last_save()?;
    saved.map_err(DaemonError::Database)?;
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
    log::info!("everything is sealed and saved");
    Ok(())
}

/// To whom new inodes belong before they are given away.
fn this_process() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        thread: 0,
    }
}

/// Counters that programs feed go on where the last daemon left them.
fn books(config: &Config, saved: &[SavedExternal], clock: &Arc<dyn Clock>) -> Arc<Books> {
    let zone = config.mount.zone.clone().unwrap_or_default();
    let external = External::new(config.tracker.limits, config.tracker.auto_reset, zone, clock.clone());
    external.load(saved);
    Arc::new(Books::new(Arc::new(external)))
}

/// What makes the mount outlive this process. Without it, what an earlier one kept of deleted recordings goes.
fn estate(kept: Option<Arc<Kept>>, orphans: &Path) -> io::Result<Option<Estate>> {
    match kept {
        Some(kept) => {
            let orphans = Orphans::open(orphans)?;
            orphans.remove_those_with_names()?;
            Ok(Some(Estate { kept, orphans }))
        }
        None if orphans.exists() => Orphans::open(orphans)?.remove_all_but(|_| false).map(|()| None),
        None => Ok(None),
    }
}

/// Periods, grace and warnings go on where the last daemon left them.
fn load_terms(ledger: &Ledger, rows: &[TermsRow]) {
    for row in rows {
        let account = ledger.account(row.ino);
        if let Some(account) = account.filter(|account| account.generation() == row.generation) {
            ledger.load_terms(&account, &row.saved);
        }
    }
}

/// Shares of the limit of open files; what is left is for open recordings and connections.
struct Descriptors {
    /// Directories kept open.
    directories: u64,
    /// Recordings that were closed and wait to be sealed.
    unsealed_files: usize,
}

impl Descriptors {
    fn of_this_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX);
        let shared = limit.saturating_sub(DESCRIPTORS_FOR_FILES);
        let unsealed_files = (shared / 4).max(UNSEALED_FILES_MIN);
        Self {
            directories: (shared / 2).min(DIRECTORIES_KEPT_OPEN_MAX),
            unsealed_files: unsealed_files.try_into().unwrap_or(usize::MAX),
        }
    }
}

fn open_tree(data: &Path, descriptors: u64, access_times: AccessTimes) -> io::Result<Tree> {
    let root: OwnedFd = rustix::fs::open(
        data,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Tree::new(root, descriptors, access_times)
}

/// Directories whose empty files may have been cut to zero in the last moments before a kill.
fn forget_emptied(fs: &FileSystem, unsaved: &[Ino]) {
    for &directory in unsaved {
        fs.forget_emptied(directory);
    }
}

/// Files that a crash left unclean: their lengths count before the first request.
fn adopt(fs: &Arc<FileSystem>, unclean: &[Unclean], way: Way) -> Recovered {
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
    Recovered {
        way,
        recordings_count: unclean.len(),
        damaged_count: failed_count,
        took: Duration::ZERO,
        taken_over: TakenOver::default(),
    }
}

/// A group by name or number.
fn group(name: &str) -> Result<u32, DaemonError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let unknown = |reason| DaemonError::Administrators {
        group: name.to_owned(),
        reason,
    };
    match crate::sys::groups::group_number(name) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(unknown(
            "there is no such group; make it (groupadd) or name another".to_owned(),
        )),
        Err(e) => Err(unknown(e.to_string())),
    }
}
