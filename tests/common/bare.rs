//! The file system without FUSE: a store in a temporary directory, opened, put away, or dropped as by
//! a kill, in this process and by a clock that the test moves.
//!
//! Nothing runs by itself: commits and write-backs happen when the test asks for them.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tallyfs::clock::{Clock, ManualClock};
use tallyfs::config::Config;
use tallyfs::daemon::layout::{Store, StorePaths};
use tallyfs::daemon::open_store::{OpenStore, Opening, Recovered, Trust};
use tallyfs::daemon::{DaemonError, key_ring};
use tallyfs::fs::{Caller, CommitStatus, FileSystem, FsResult, Kept, WriteAsked};
use tallyfs::id::{Fh, Ino};
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::Kek;
use tallyfs::store::tree::AccessTimes;
use tempfile::TempDir;

/// Who asks, unless a test says otherwise.
pub const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    thread: 1,
};

/// When the clock starts: 2026-11-21 12:00 UTC.
const STARTS_AT: Duration = Duration::from_hours(498_684);

const KEY: [u8; 32] = [0x42; 32];

/// A store and, while it is in use, its file system.
pub struct Bare {
    opened: Option<OpenStore>,
    config: Arc<Config>,
    clock: Arc<ManualClock>,
    boot: u128,
    kept: Option<Arc<Kept>>,
    // Held until the directory goes.
    store: Store,
    _dir: TempDir,
}

impl Bare {
    /// A new store without limits.
    #[track_caller]
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// A new store under this configuration (TOML).
    #[track_caller]
    pub fn with_config(text: &str) -> Self {
        Self::below(&std::env::temp_dir(), text)
    }

    /// The same in memory, where syncs cost nothing; on disk where there is no such place.
    #[track_caller]
    pub fn in_memory(text: &str) -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            Self::below(memory, text)
        } else {
            Self::with_config(text)
        }
    }

    #[track_caller]
    fn below(parent: &Path, text: &str) -> Self {
        rustix::process::umask(rustix::fs::Mode::empty());
        let dir = tempfile::Builder::new()
            .prefix("tallyfs-bare-")
            .tempdir_in(parent)
            .expect("a temporary directory");
        let mut store = Store::open(&dir.path().join("store")).expect("a new store");
        key_ring::begin(&store.paths().keyring(), Kek::take(&mut { KEY }), STARTS_AT.as_secs()).expect("a key ring");
        store.finish_first_use().expect("a finished store");
        let mut bare = Self {
            opened: None,
            config: Arc::new(parse(text)),
            clock: Arc::new(ManualClock::at(STARTS_AT)),
            boot: 1,
            kept: None,
            store,
            _dir: dir,
        };
        bare.start();
        bare
    }

    /// The file system; panics between a stop or a crash and the next start.
    #[track_caller]
    pub fn fs(&self) -> &Arc<FileSystem> {
        self.opened.as_ref().expect("in use").fs()
    }

    /// Root writes to an open file.
    pub fn write(&self, fh: Fh, plain_offset: u64, data: &[u8]) -> FsResult<usize> {
        let asked = WriteAsked {
            plain_offset,
            data,
            caller: ROOT,
            drops_privileges: false,
            from_mapping: false,
            is_repeated: false,
        };
        self.fs().write(fh, &asked)
    }

    /// The clock.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Where things lie in the store.
    pub fn paths(&self) -> &StorePaths {
        self.store.paths()
    }

    /// The sealed files.
    pub fn data(&self) -> PathBuf {
        self.paths().data()
    }

    /// The keys of the store.
    #[track_caller]
    pub fn ring(&self) -> KeyRing {
        let ring = key_ring::load(&self.paths().keyring()).expect("the key ring");
        ring.admit(Kek::take(&mut { KEY })).expect("the key of the store");
        ring
    }

    /// Opens the store, with recovery where the last use did not end cleanly.
    #[track_caller]
    pub fn start(&mut self) {
        self.try_start()
            .unwrap_or_else(|e| panic!("cannot open the store: {e}"));
    }

    /// Like [`Bare::start`], for stores that may be beyond use.
    pub fn try_start(&mut self) -> Result<(), DaemonError> {
        assert!(self.opened.is_none(), "in use already");
        let ring = self.ring();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let opened = OpenStore::open(Opening {
            paths: self.store.paths(),
            ring,
            config: self.config.clone(),
            clock,
            access_times: AccessTimes::Move,
            boot_id: self.boot.to_be_bytes(),
            trust: Trust::Rows,
            kept: self.kept.clone(),
        })?;
        self.opened = Some(opened);
        Ok(())
    }

    /// A clean stop: everything sealed, saved and marked clean.
    #[track_caller]
    pub fn stop(&mut self) {
        let opened = self.opened.take().expect("in use");
        opened
            .close()
            .unwrap_or_else(|e| panic!("cannot put the store away: {e}"));
    }

    /// A clean stop and a start.
    #[track_caller]
    pub fn remount(&mut self) {
        self.stop();
        self.start();
    }

    /// The same under another configuration.
    #[track_caller]
    pub fn remount_with(&mut self, text: &str) {
        self.stop();
        self.set_config(text);
        self.start();
    }

    /// The configuration of the next start.
    #[track_caller]
    pub fn set_config(&mut self, text: &str) {
        self.config = Arc::new(parse(text));
    }

    /// As under a keeper: handles of a file system that is killed go on in the next one.
    #[track_caller]
    pub fn keep_handles(&mut self) {
        self.kept = Some(Arc::new(Kept::create().expect("memory")));
        self.remount();
    }

    /// What the latest start found.
    #[track_caller]
    pub fn recovered(&self) -> Recovered {
        self.opened.as_ref().expect("in use").recovered()
    }

    /// As after `kill -9`: nothing is put away, and every handle is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        drop(self.opened.take().expect("in use"));
        self.kept = self.kept.take().map(|kept| {
            let memory = kept.as_fd().try_clone_to_owned().expect("a descriptor");
            Arc::new(Kept::take_over(memory).expect("what was kept"))
        });
    }

    /// As after `kill -9` and a restart of the machine: the next start counts everything. What was
    /// written is all there; `tests/crash_model` has the pages that a power cut loses.
    #[track_caller]
    pub fn power_cut(&mut self) {
        self.kill();
        self.boot += 1;
    }

    /// Directories in which killed daemons had changes that nobody took up.
    #[track_caller]
    pub fn take_unsaved(&mut self) -> Vec<Ino> {
        self.opened.as_mut().expect("in use").take_unsaved()
    }

    /// One tick of the committer.
    #[track_caller]
    pub fn commit_tick(&self) -> CommitStatus {
        self.fs().commit_tick()
    }

    /// One write-back to the database.
    #[track_caller]
    pub fn save(&mut self) {
        self.try_save().unwrap_or_else(|e| panic!("cannot write back: {e}"));
    }

    /// The same, where it may fail.
    #[track_caller]
    pub fn try_save(&mut self) -> Result<(), tallyfs::db::Error> {
        self.opened.as_mut().expect("in use").save()
    }
}

#[track_caller]
fn parse(text: &str) -> Config {
    Config::parse("test.toml", text).unwrap_or_else(|e| panic!("{e}"))
}
