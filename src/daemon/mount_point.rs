//! Checks of the mount point, so that what is wrong is said before anything is touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mount::detach_dead;
use super::mount_table::{FS_TYPE, MountTable};

/// How long an answer of a mount is waited for: one whose daemon is dead answers at once.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Why a directory cannot be the mount point.
#[derive(Debug, thiserror::Error)]
pub enum MountPointError {
    /// There is nothing.
    #[error("{path}: the mount point is missing; run `mkdir -p {path}`", path = .0.display())]
    Missing(PathBuf),
    /// A file, for example.
    #[error("{0}: the mount point is not a directory; name a directory")]
    NotADirectory(PathBuf),
    /// It would hide what lies there.
    #[error(
        "{0}: the mount point is not empty; what lies in it would be hidden: move it away, or \
         say `-o nonempty`"
    )]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error("{path}: {fs_type} ({mounted}) is mounted there already; run `umount {path}` first")]
    InUse {
        /// The mount point.
        path: PathBuf,
        /// Type of the mount that is there.
        fs_type: String,
        /// Its source.
        mounted: PathBuf,
    },
    /// The daemon of another mount died.
    #[error("{path}: a mount whose daemon died is there; run `umount -l {path}` first")]
    Dead {
        /// The mount point.
        path: PathBuf,
    },
    /// Asked to take a dead mount away.
    #[error("{path}: the mount there is not dead; run `umount {path}`, or stop its daemon")]
    Alive {
        /// The mount point.
        path: PathBuf,
    },
    /// One lies in the other.
    #[error(
        "{mount_point}: mount point and store {store} must not lie in one another; keep the store \
         outside"
    )]
    Nested {
        /// The mount point.
        mount_point: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// Something the system refused.
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountPointError {
    let path = path.to_owned();
    move |source| match source.raw_os_error() {
        Some(libc::ENOENT) => MountPointError::Missing(path),
        Some(libc::ENOTDIR) => MountPointError::NotADirectory(path),
        Some(libc::ENOTCONN) => MountPointError::Dead { path },
        _ => MountPointError::Io { path, action, source },
    }
}

/// The real path of a mount point that `store` (a real path, locked by us) can be mounted on.
///
/// A mount of this very store whose daemon is dead is detached: we hold the store's lock, so
/// nobody serves it, and a restart must not need an operator.
///
/// # Errors
/// See [`MountPointError`].
pub fn prepare(path: &Path, store: &Path, nonempty: bool) -> Result<PathBuf, MountPointError> {
    let path = resolve(path)?;
    if path.starts_with(store) || store.starts_with(&path) {
        return Err(MountPointError::Nested {
            mount_point: path,
            store: store.to_owned(),
        });
    }
    refuse_mounted(&path, store)?;
    let mut entries = fs::read_dir(&path).map_err(failed("list", &path))?;
    if entries.next().is_some() && !nonempty {
        return Err(MountPointError::NotEmpty(path));
    }
    Ok(path)
}

/// What [`clear_dead`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cleared {
    /// A mount of ours whose daemon is dead; it is gone now.
    Detached,
    /// No mount of ours.
    Nothing,
}

/// Takes away what a daemon of ours left when it was killed, and nothing else: callers get the plain directory, no longer
/// "transport endpoint is not connected". Whose store it was is not asked.
///
/// # Errors
/// [`MountPointError::Alive`] for a mount that is served; what the system answers.
pub fn clear_dead(path: &Path) -> Result<Cleared, MountPointError> {
    let path = resolve(path)?;
    let mut cleared = Cleared::Nothing;
    loop {
        let table = MountTable::read().map_err(failed("list mounts for", &path))?;
        if table.topmost(&path).is_none_or(|entry| entry.fs_type != FS_TYPE) {
            return Ok(cleared);
        }
        match ask(&path) {
            Some(Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)) => {
                detach_dead(&path).map_err(failed("unmount", &path))?;
                cleared = Cleared::Detached;
            }
            // One below it, which was dead already, is nobody's way.
            _ if cleared == Cleared::Detached => return Ok(cleared),
            _ => return Err(MountPointError::Alive { path }),
        }
    }
}

/// What statfs answers; `None` when nothing does in time: somebody holds the connection, and serves it no more or not yet.
fn ask(path: &Path) -> Option<rustix::io::Result<()>> {
    let (say, answer) = crossbeam_channel::bounded(1);
    let path = path.to_owned();
    let asking = std::thread::Builder::new().spawn(move || say.send(rustix::fs::statfs(&path).map(|_| ())));
    asking.ok()?;
    answer.recv_timeout(ANSWER_PATIENCE).ok()
}

/// The real path. A dead FUSE mount cannot be looked at, so there the directory above it answers.
fn resolve(path: &Path) -> Result<PathBuf, MountPointError> {
    match fs::canonicalize(path) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => without_a_look(path),
        other => other.map_err(failed("find", path)),
    }
}

/// The real path of a mount point where nobody may look, because nobody answers there yet.
///
/// # Errors
/// The directory above is missing.
pub fn without_a_look(path: &Path) -> Result<PathBuf, MountPointError> {
    let dead = || MountPointError::Dead { path: path.to_owned() };
    let name = path.file_name().ok_or_else(dead)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(failed("find", parent))?;
    Ok(parent.join(name))
}

fn refuse_mounted(path: &Path, store: &Path) -> Result<(), MountPointError> {
    let table = MountTable::read().map_err(failed("list mounts for", path))?;
    let Some(entry) = table.topmost(path) else {
        return Ok(());
    };
    let is_ours = entry.is_of(store);
    let answer = rustix::fs::statfs(path);
    match answer {
        Err(rustix::io::Errno::NOTCONN) if is_ours => {
            log::warn!("{}: detaching the mount of a dead daemon", path.display());
            detach_dead(path).map_err(failed("unmount", path))?;
            refuse_mounted(path, store)
        }
        Err(rustix::io::Errno::NOTCONN) => Err(MountPointError::Dead { path: path.to_owned() }),
        _ => Err(MountPointError::InUse {
            path: path.to_owned(),
            fs_type: entry.fs_type.clone(),
            mounted: entry.source.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path, store: &Path) -> String {
        prepare(path, store, false).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        let got = prepare(dir.path(), Path::new("/none"), false).unwrap();
        assert_eq!(got, real);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let none = Path::new("/none");
        let missing = text(&dir.path().join("x"), none);
        assert!(missing.contains("mkdir -p"), "{missing}");
        fs::write(dir.path().join("file"), "").unwrap();
        let file = text(&dir.path().join("file"), none);
        assert!(file.contains("not a directory"), "{file}");
        let full = text(dir.path(), none);
        assert!(full.contains("-o nonempty"), "{full}");
        prepare(dir.path(), none, true).unwrap();
    }

    #[test]
    fn store_and_mount_point_do_not_hide_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let outer = fs::canonicalize(dir.path()).unwrap();
        let inner = outer.join("inner");
        fs::create_dir(&inner).unwrap();
        for (mount_point, store) in [(&inner, &outer), (&outer, &inner), (&inner, &inner)] {
            let error = text(mount_point, store);
            assert!(error.contains("in one another"), "{error}");
        }
    }

    #[test]
    fn a_mount_point_in_use_is_named_with_its_type() {
        let error = text(Path::new("/proc"), Path::new("/none"));
        assert!(error.contains("proc (proc) is mounted there"), "{error}");
    }
}
