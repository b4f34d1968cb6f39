//! The store directory: what lies in it, how it comes to be, and the lock that keeps it ours.
//!
//! ```text
//! STORE/version    text, written last at first use: a store without it is not finished
//! STORE/lock       held with flock by the daemon; its text says who holds it, for people
//! STORE/keyring    which keys the store uses (never a key itself)
//! STORE/data/      the sealed recordings, in the tree that the mount shows
//! STORE/tallyfs.db usage, limits, periods
//! STORE/orphans/    deleted recordings that are still open, while a mount is to outlive its daemon
//! STORE/admin.sock where a running daemon answers programs
//! ```
//!
//! The lock is the kernel's, so a killed daemon leaves none behind; the text in the file may be
//! stale and is believed only while the lock is held.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The store format that this program writes and reads.
const FORMAT_VERSION: u32 = 1;

/// The text before the number in the version file.
const VERSION_PREFIX: &str = "tallyfs store ";

/// The longest lock note that is read back.
const NOTE_BYTES_MAX: u64 = 8192;

/// How often a daemon asks for the lock while only `tallyfs status` stands in its way.
const LOCK_TRIES: u32 = 1000;
/// Between two of them: a look that was put off the processor needs time, not tries.
const LOCK_PACE: std::time::Duration = std::time::Duration::from_millis(1);

/// What an interrupted first use may have left, beside an empty `data`.
const UNFINISHED_NAMES: [&str; 6] = ["lock", "keyring", "keyring.new", "version.new", "data", "lost+found"];

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The store and the directory that it should lie in are missing.
    #[error("{0}: the directory above it is missing; make it with `mkdir -p`")]
    NoParent(PathBuf),
    /// A command that needs an existing store found none.
    #[error("{0}: there is no store here; name the STORE that `tallyfs mount` was given")]
    NoStore(PathBuf),
    /// Not a directory.
    #[error("{0}: not a directory; name the directory of a store, or one to be made")]
    NotADirectory(PathBuf),
    /// A directory with something else in it.
    #[error(
        "{path}: not a store, and not empty (it holds `{found}`); name an empty directory, or one \
         that does not exist yet"
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One thing that is in it.
        found: String,
    },
    /// The version file says something else than a version.
    #[error("{0}: cannot be understood; restore it from a backup of the store")]
    BadVersion(PathBuf),
    /// Written by a later program.
    #[error("{path}: format {found} is newer than {FORMAT_VERSION}; use a newer tallyfs")]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another daemon has it.
    #[error("{path}: in use by another tallyfs ({holder}); stop that one first")]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who, as far as the lock note says.
        holder: LockNote,
    },
    /// The disk is full, so not even an empty store can be made.
    #[error("{0}: the disk is full; free some space, then start again")]
    DiskFull(PathBuf),
    /// Something else the system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What it was done to.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Makes a [`LayoutError`] of what the system answered.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LayoutError::DiskFull(path),
        _ => LayoutError::Io { path, action, source },
    }
}

/// Who holds a store, as the lock file's text says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LockNote {
    /// Process id of the daemon.
    pub pid: Option<u32>,
    /// Where it mounts the store.
    pub mount_point: Option<PathBuf>,
}

impl LockNote {
    fn parse(text: &str) -> Self {
        let value = |name| text.lines().find_map(|line| line.strip_prefix(name));
        Self {
            pid: value("pid ").and_then(|pid| pid.parse().ok()),
            mount_point: value("mount_point ").map(PathBuf::from),
        }
    }
}

impl std::fmt::Display for LockNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("pid not known")?,
        }
        match &self.mount_point {
            Some(path) => write!(f, ", mounted at {}", path.display()),
            None => Ok(()),
        }
    }
}

/// Paths inside a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorePaths {
    /// The store itself, absolute and without links.
    pub root: PathBuf,
}

impl StorePaths {
    /// The paths of a store that exists already.
    ///
    /// # Errors
    /// [`LayoutError::NoStore`] and those of an unfit version.
    pub fn of_existing(path: &Path) -> Result<Self, LayoutError> {
        let root = match fs::canonicalize(path) {
            Ok(root) => root,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(LayoutError::NoStore(path.to_owned()));
            }
            Err(e) => return Err(failed("find the store", path)(e)),
        };
        let paths = Self { root };
        match paths.version()? {
            Some(_) => Ok(paths),
            None => Err(LayoutError::NoStore(paths.root)),
        }
    }

    /// The sealed recordings.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The SQLite database.
    pub fn database(&self) -> PathBuf {
        self.root.join("tallyfs.db")
    }

    /// Recordings without a name that somebody has open.
    pub fn orphans(&self) -> PathBuf {
        self.root.join("orphans")
    }

    /// Where a running daemon answers programs, unless it is told otherwise.
    pub fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    /// Which keys the store uses.
    pub fn keyring(&self) -> PathBuf {
        self.root.join("keyring")
    }

    fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The store's format; `None` where first use was not finished.
    fn version(&self) -> Result<Option<u32>, LayoutError> {
        let path = self.root.join("version");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(LayoutError::BadVersion(path));
            }
            Err(e) => return Err(failed("read the version", &path)(e)),
        };
        let number = text.strip_prefix(VERSION_PREFIX).map(str::trim_end);
        match number.and_then(|n| n.parse().ok()) {
            Some(found) if found > FORMAT_VERSION => Err(LayoutError::NewerFormat {
                path: self.root.clone(),
                found,
            }),
            Some(found) if found > 0 => Ok(Some(found)),
            _ => Err(LayoutError::BadVersion(path)),
        }
    }

    /// Who holds the store now; `None` when nobody does.
    ///
    /// # Errors
    /// When the lock file cannot be read.
    pub fn holder(&self) -> Result<Option<LockNote>, LayoutError> {
        let path = self.lock();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("open the lock", &path)(e)),
        };
        match try_lock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(read_note(&file))),
            Err(e) => Err(failed("look at the lock", &path)(e)),
        }
    }
}

/// A store that this process has locked; the lock ends with the value.
#[derive(Debug)]
pub struct Store {
    paths: StorePaths,
    lock: File,
    is_new: bool,
}

impl Store {
    /// Opens and locks the store at `path`, or begins one there.
    ///
    /// A first use that a crash cut short left no `version`; what it left is recognised and made
    /// anew, for no recording can be in it. The caller finishes a new store with
    /// [`Store::finish_first_use`] once the key and the key ring are durable.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let paths = StorePaths {
            root: find_or_make(path)?,
        };
        if paths.version()?.is_none() {
            refuse_strangers(&paths)?;
        }
        let lock = take_lock(&paths)?;
        // Asked again: until we had the lock, another process may have finished its first use.
        let is_new = paths.version()?.is_none();
        if is_new {
            let data = paths.data();
            match DirBuilder::new().mode(0o755).create(&data) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make the directory", &data)(e));
                }
                _ => {}
            }
        }
        Ok(Self { paths, lock, is_new })
    }

    /// Where things lie.
    pub fn paths(&self) -> &StorePaths {
        &self.paths
    }

    /// Whether this is the store's first use.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Writes the version: from now on this is a store. All else must be durable already.
    ///
    /// Crash: before the rename there is no version and the next start begins anew; after it the
    /// store is whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish_first_use(&mut self) -> Result<(), LayoutError> {
        let text = format!("{VERSION_PREFIX}{FORMAT_VERSION}\n");
        let path = self.paths.root.join("version");
        replace_durably(&path, text.as_bytes()).map_err(failed("write", &path))?;
        self.is_new = false;
        Ok(())
    }

    /// Says in the lock file who has the store, and where it is to be mounted. It is a help for people, so a full disk, on which
    /// old recordings can still be read and deleted, does not stop a start.
    ///
    /// # Errors
    /// Any other refusal.
    pub fn note_holder(&mut self, mount_point: Option<&Path>) -> Result<(), LayoutError> {
        let mount_point = mount_point.map(|path| format!("mount_point {}\n", path.display()));
        let note = format!("pid {}\n{}", std::process::id(), mount_point.unwrap_or_default());
        let result = self
            .lock
            .rewind()
            .and_then(|()| self.lock.set_len(0))
            .and_then(|()| self.lock.write_all(note.as_bytes()));
        match result.map_err(failed("write", &self.paths.lock())) {
            Err(LayoutError::DiskFull(path)) => {
                log::warn!("{}: the disk is full", path.display());
                Ok(())
            }
            other => other,
        }
    }
}

/// The real path of the store; its directory is made (0700) where it is missing.
fn find_or_make(path: &Path) -> Result<PathBuf, LayoutError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let root = fs::canonicalize(path).map_err(failed("find", path))?;
            sync_parent(&root).map_err(failed("save the name of", &root))?;
            return Ok(root);
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(LayoutError::NoParent(path.to_owned()));
        }
        Err(e) => return Err(failed("make the store", path)(e)),
    }
    let root = fs::canonicalize(path).map_err(failed("find the store", path))?;
    if root.is_dir() {
        Ok(root)
    } else {
        Err(LayoutError::NotADirectory(root))
    }
}

/// A directory without a version may hold what an interrupted first use left, and nothing else.
fn refuse_strangers(paths: &StorePaths) -> Result<(), LayoutError> {
    let entries = fs::read_dir(&paths.root).map_err(failed("list", &paths.root))?;
    for entry in entries {
        let name = entry.map_err(failed("list", &paths.root))?.file_name();
        if !UNFINISHED_NAMES.iter().any(|known| name == *known) {
            return Err(LayoutError::NotAStore {
                path: paths.root.clone(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    let data = paths.data();
    match fs::read_dir(&data).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(LayoutError::NotAStore {
            path: data,
            found: "files".into(),
        }),
        Ok(false) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("list", &data)(e)),
    }
}

/// Takes the lock or says who has it.
fn take_lock(paths: &StorePaths) -> Result<File, LayoutError> {
    let path = paths.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed("open the lock", &path))?;
    for _ in 0..LOCK_TRIES {
        match try_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(true) => return Ok(file),
            Ok(false) => {}
            Err(e) => return Err(failed("lock the store", &path)(e)),
        }
        // `tallyfs status` shares the lock for a moment; a daemon does not share it.
        match try_lock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(true) => std::thread::park_timeout(LOCK_PACE),
            Ok(false) => break,
            Err(e) => return Err(failed("lock the store", &path)(e)),
        }
    }
    Err(LayoutError::Locked {
        path: paths.root.clone(),
        holder: read_note(&file),
    })
}

/// Whether the lock was to be had at once.
fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The note in a lock file; an unreadable one says nothing.
fn read_note(mut file: &File) -> LockNote {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(NOTE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => LockNote::parse(&text),
        Err(_) => LockNote::default(),
    }
}

/// Puts `content` at `path`, whole or not at all, and durable on return.
///
/// Crash: beside the old state there can be a `.new` file, which the next call overwrites.
pub(super) fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_parent(path)
}

/// Makes the name of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn finished(dir: &TempDir) -> Store {
        let mut store = Store::open(&dir.path().join("store")).unwrap();
        store.finish_first_use().unwrap();
        store
    }

    #[test]
    fn first_use_makes_a_private_store_that_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let mut store = Store::open(&path).unwrap();
        assert!(store.is_new());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        store.finish_first_use().unwrap();
        drop(store);
        let again = Store::open(&path).unwrap();
        assert!(!again.is_new());
        assert!(again.paths().data().is_dir());
    }

    #[test]
    fn a_first_use_that_was_cut_short_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        drop(Store::open(&path).unwrap());
        fs::write(path.join("version.new"), "tally").unwrap();
        fs::write(path.join("keyring"), "").unwrap();
        assert!(Store::open(&path).unwrap().is_new());
    }

    #[test]
    fn a_directory_with_other_things_is_not_taken_for_a_store() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "mine").unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("letter.txt"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "untouched");
    }

    #[test]
    fn recordings_without_a_version_are_never_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/a.wav"), "sealed").unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, LayoutError::NotAStore { .. }), "{error}");
    }

    #[test]
    fn a_second_daemon_is_told_who_has_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = finished(&dir);
        store.note_holder(Some(Path::new("/srv/calls"))).unwrap();
        let error = Store::open(&store.paths().root).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())));
        assert!(error.contains("/srv/calls"), "{error}");
        let holder = store.paths().holder().unwrap().unwrap();
        assert_eq!(holder.mount_point, Some("/srv/calls".into()));
    }

    #[test]
    fn a_look_at_the_lock_does_not_keep_a_daemon_out() {
        let dir = tempfile::tempdir().unwrap();
        let paths = finished(&dir).paths().clone();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..500).for_each(|_| drop(paths.holder().unwrap())));
            for _ in 0..100 {
                drop(Store::open(&paths.root).unwrap());
            }
        });
    }

    #[test]
    fn nobody_holds_a_store_whose_daemon_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = finished(&dir);
        store.note_holder(Some(Path::new("/srv/calls"))).unwrap();
        let paths = store.paths().clone();
        drop(store);
        assert_eq!(paths.holder().unwrap(), None);
        Store::open(&paths.root).unwrap();
    }

    #[test]
    fn a_newer_or_damaged_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = finished(&dir).paths().root.clone();
        for (text, part) in [
            ("tallyfs store 2\n", "newer tallyfs"),
            ("tallyfs store 0\n", "cannot be understood"),
            ("", "cannot be understood"),
        ] {
            fs::write(root.join("version"), text).unwrap();
            let error = Store::open(&root).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn missing_parents_and_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Store::open(&dir.path().join("a/b")).unwrap_err();
        assert!(matches!(error, LayoutError::NoParent(_)), "{error}");
        fs::write(dir.path().join("file"), "").unwrap();
        let error = Store::open(&dir.path().join("file")).unwrap_err();
        assert!(matches!(error, LayoutError::NotADirectory(_)), "{error}");
        let error = StorePaths::of_existing(&dir.path().join("none")).unwrap_err();
        assert!(matches!(error, LayoutError::NoStore(_)), "{error}");
    }
}
