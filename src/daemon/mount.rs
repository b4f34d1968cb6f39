//! Mounting and unmounting, by ourselves rather than by fuser.
//!
//! fuser's own mount path drops the sub-type, does not unmount a busy mount and can unmount a
//! stranger's. Here root calls mount(2), an ordinary user goes through `fusermount3`, and an
//! unmount first finds the very mount that was made in the mount table.

use std::ffi::{CString, OsStr};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::mount_table::{FS_TYPE, MountEntry, MountTable};

/// Largest read request that the kernel may send: FUSE's largest request.
const READ_BYTES_MAX: u32 = 1 << 20;

/// Where distributions keep fusermount3; fixed, for it runs with root's rights.
const FUSERMOUNT_PATHS: [&str; 4] = [
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
    "/usr/local/bin/fusermount3",
    "/run/wrappers/bin/fusermount3",
];

/// Why a mount was not made or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or a container hides it.
    #[error(
        "/dev/fuse: cannot open it: {0}; run `modprobe fuse`, or in a container start it with \
         `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NoDevice(io::Error),
    /// Root without the right to mount.
    #[error(
        "{0}: not permitted to mount; in a container start it with `--cap-add SYS_ADMIN` (and \
         `--security-opt apparmor=unconfined` where AppArmor is in force)"
    )]
    NotPermitted(PathBuf),
    /// An ordinary user without the helper.
    #[error("fusermount3 is not installed; run `apt-get install fuse3`, or mount as root")]
    NoHelper,
    /// The helper refused.
    #[error("{mount_point}: fusermount3 refused: {said}{advice}", advice = advice(said))]
    Helper {
        /// The mount point.
        mount_point: PathBuf,
        /// What it printed.
        said: String,
    },
    /// Something else is mounted over it now.
    #[error("{0}: something else is mounted over it; unmount that first")]
    Covered(PathBuf),
    /// The mount is not in the table right after it was made.
    #[error("{0}: the mount is gone already; someone unmounted it")]
    Vanished(PathBuf),
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

fn advice(said: &str) -> &'static str {
    if said.contains("user_allow_other") {
        "; put the line `user_allow_other` into /etc/fuse.conf, or leave `allow_other` out"
    } else if said.contains("/dev/fuse: Permission denied") {
        "; run `chmod 0666 /dev/fuse` as root, or mount as root"
    } else {
        ""
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    let path = path.to_owned();
    move |source| MountError::Io { path, action, source }
}

/// A mount that is about to be made; everything in it was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountPlan {
    /// The store's real path: what the mount table shows as source.
    pub store: PathBuf,
    /// The mount point's real path.
    pub mount_point: PathBuf,
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// Whether others than the one who mounts may use the mount.
    pub allow_other: bool,
}

/// A mount that was made.
pub struct Mounted {
    /// The connection to the kernel, for `Session::from_fd`.
    pub fd: OwnedFd,
    /// Takes the mount away again.
    pub guard: MountGuard,
}

/// Knows the mount that this process made. Dropping it unmounts.
///
/// The kernel uses numbers of mounts and devices again once they are free, so they tell our mount
/// from a later one only together with its source: the store, of which we hold the lock.
#[derive(Debug)]
pub struct MountGuard {
    entry: MountEntry,
    /// Set when this guard took the mount away.
    is_done: AtomicBool,
}

/// How an unmount went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmounted {
    /// The mount is gone.
    Now,
    /// No new name leads there, but someone still has a file open: the kernel ends the session
    /// when the last one is closed.
    WhenUnused,
    /// It was gone before.
    Already,
}

impl MountPlan {
    /// Makes the mount. From now on requests queue until someone serves `Mounted::fd`, and
    /// whoever looks at the mount point waits.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn mount(&self) -> Result<Mounted, MountError> {
        let fd = if rustix::process::geteuid().is_root() {
            self.mount_as_root()?
        } else {
            self.mount_by_helper()?
        };
        let table = MountTable::read().map_err(failed("list mounts for", &self.mount_point))?;
        let entry = table
            .topmost(&self.mount_point)
            .filter(|entry| entry.is_of(&self.store))
            .ok_or_else(|| MountError::Vanished(self.mount_point.clone()))?
            .clone();
        let guard = MountGuard {
            entry,
            is_done: AtomicBool::new(false),
        };
        Ok(Mounted { fd, guard })
    }

    /// The mount of an earlier process of this store, whose connection was kept; `None` when it is not there any more.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn take_over(&self, connection: OwnedFd) -> Result<Option<Mounted>, MountError> {
        let table = MountTable::read().map_err(failed("list mounts for", &self.mount_point))?;
        let entry = table
            .topmost(&self.mount_point)
            .filter(|entry| entry.is_of(&self.store));
        Ok(entry.map(|entry| Mounted {
            fd: connection,
            guard: MountGuard {
                entry: entry.clone(),
                is_done: AtomicBool::new(false),
            },
        }))
    }

    fn mount_as_root(&self) -> Result<OwnedFd, MountError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|e| MountError::NoDevice(e.into()))?;
        let data = CString::new(self.kernel_data(fd.as_raw_fd())).expect("it holds no zero byte");
        rustix::mount::mount(&self.store, &self.mount_point, FS_TYPE, self.flags, data.as_c_str()).map_err(
            |errno| match errno {
                rustix::io::Errno::PERM => MountError::NotPermitted(self.mount_point.clone()),
                e => failed("mount", &self.mount_point)(e.into()),
            },
        )?;
        Ok(fd)
    }

    /// The options that the FUSE driver reads (fs/fuse/inode.c).
    fn kernel_data(&self, fd: i32) -> String {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let allow_other = if self.allow_other { ",allow_other" } else { "" };
        format!(
            "fd={fd},rootmode=40000,user_id={user},group_id={group},default_permissions,\
             max_read={READ_BYTES_MAX}{allow_other}"
        )
    }

    fn mount_by_helper(&self) -> Result<OwnedFd, MountError> {
        let action = "talk to fusermount3 for";
        let (ours, theirs) = UnixStream::pair().map_err(failed(action, &self.mount_point))?;
        // Its end of the socket goes in as standard input: no other child can inherit it.
        let output = helper()?
            .env("_FUSE_COMMFD", "0")
            .arg("-o")
            .arg(OsStr::from_bytes(&self.helper_options()))
            .arg("--")
            .arg(&self.mount_point)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .output()
            .map_err(failed("run fusermount3 for", &self.mount_point))?;
        if !output.status.success() {
            return Err(self.refused(&output.stderr));
        }
        receive_fd(&ours).map_err(failed(action, &self.mount_point))
    }

    fn refused(&self, said: &[u8]) -> MountError {
        MountError::Helper {
            mount_point: self.mount_point.clone(),
            said: String::from_utf8_lossy(said).trim().to_owned(),
        }
    }

    /// The option string for fusermount3, which wants commas and backslashes of the store's path
    /// escaped.
    fn helper_options(&self) -> Vec<u8> {
        let mut text = b"fsname=".to_vec();
        for &byte in self.store.as_os_str().as_bytes() {
            if matches!(byte, b',' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        let rest = format!(",subtype=tallyfs,default_permissions,max_read={READ_BYTES_MAX}");
        text.extend_from_slice(rest.as_bytes());
        for (flag, name) in FLAG_NAMES {
            if self.flags.contains(flag) {
                text.extend_from_slice(name.as_bytes());
            }
        }
        if self.allow_other {
            text.extend_from_slice(b",allow_other");
        }
        text
    }
}

/// The flags that fusermount3 takes by name; it sets `nosuid` and `nodev` by itself.
const FLAG_NAMES: [(MountFlags, &str); 5] = [
    (MountFlags::RDONLY, ",ro"),
    (MountFlags::NOATIME, ",noatime"),
    (MountFlags::NOEXEC, ",noexec"),
    (MountFlags::SYNCHRONOUS, ",sync"),
    (MountFlags::DIRSYNC, ",dirsync"),
];

impl MountGuard {
    /// Where the mount is.
    pub fn mount_point(&self) -> &Path {
        &self.entry.mount_point
    }

    /// Takes the mount away, if it is still the one that was made; a busy one is detached.
    ///
    /// # Errors
    /// [`MountError::Covered`] when another mount lies over it; what the system answers.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        let path = self.mount_point();
        if self.is_done.load(Ordering::Acquire) {
            return Ok(Unmounted::Already);
        }
        let table = MountTable::read().map_err(failed("list mounts for", path))?;
        let is_ours = |entry: &MountEntry| {
            entry.id == self.entry.id && entry.device == self.entry.device && entry.is_of(&self.entry.source)
        };
        if table.topmost(path).is_some_and(is_ours) {
            let how = unmount(path)?;
            self.is_done.store(true, Ordering::Release);
            return Ok(how);
        }
        let ours_below = table
            .of_store(&self.entry.source)
            .any(|entry| is_ours(entry) && entry.mount_point == path);
        if ours_below {
            return Err(MountError::Covered(path.to_owned()));
        }
        Ok(Unmounted::Already)
    }
}

impl MountGuard {
    /// The mount stays: another process serves it from now on.
    pub fn leave(&self) {
        self.is_done.store(true, Ordering::Release);
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        if let Err(e) = self.unmount() {
            log::error!("{e}");
        }
    }
}

/// Detaches whatever is on top at `path`: for a mount of ours whose daemon is dead.
pub(super) fn detach_dead(path: &Path) -> io::Result<()> {
    let result = if rustix::process::geteuid().is_root() {
        detach(path)
    } else {
        run_helper(path, "-uz")
    };
    result.map_err(io::Error::other)
}

/// Detaches the mount of `store` at `path`, which nobody serves, where there is one; never that of another store.
///
/// # Errors
/// See [`MountError`].
pub(super) fn detach_of_store(path: &Path, store: &Path) -> Result<(), MountError> {
    let table = MountTable::read().map_err(failed("list mounts for", path))?;
    if table.topmost(path).is_some_and(|entry| entry.is_of(store)) {
        detach_dead(path).map_err(failed("detach", path))?;
    }
    Ok(())
}

fn unmount(path: &Path) -> Result<Unmounted, MountError> {
    if !rustix::process::geteuid().is_root() {
        return match run_helper(path, "-u") {
            Ok(()) => Ok(Unmounted::Now),
            Err(_) => run_helper(path, "-uz").map(|()| Unmounted::WhenUnused),
        };
    }
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(Unmounted::Now),
        Err(rustix::io::Errno::BUSY) => detach(path).map(|()| Unmounted::WhenUnused),
        Err(e) => Err(failed("unmount", path)(e.into())),
    }
}

fn detach(path: &Path) -> Result<(), MountError> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|e| failed("detach", path)(e.into()))
}

fn run_helper(path: &Path, flag: &str) -> Result<(), MountError> {
    let output = helper()?
        .arg(flag)
        .arg("--")
        .arg(path)
        .output()
        .map_err(failed("run fusermount3 for", path))?;
    if output.status.success() {
        return Ok(());
    }
    Err(MountError::Helper {
        mount_point: path.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// fusermount3 with an empty environment: nothing of ours, least of all a key, goes to it.
fn helper() -> Result<Command, MountError> {
    let path = FUSERMOUNT_PATHS
        .iter()
        .find(|path| Path::new(path).exists())
        .ok_or(MountError::NoHelper)?;
    let mut command = Command::new(path);
    command.env_clear();
    Ok(command)
}

/// The descriptor of /dev/fuse that fusermount3 sends.
fn receive_fd(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("it sent no descriptor"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn plan(dir: &Path) -> MountPlan {
        let real = fs::canonicalize(dir).unwrap();
        let plan = MountPlan {
            store: real.join(r"a store, with\signs"),
            mount_point: real.join("mount point"),
            flags: MountFlags::NOSUID | MountFlags::NODEV,
            allow_other: false,
        };
        fs::create_dir(&plan.store).unwrap();
        fs::create_dir(&plan.mount_point).unwrap();
        plan
    }

    fn entry_at(path: &Path) -> Option<MountEntry> {
        MountTable::read().unwrap().topmost(path).cloned()
    }

    /// Whoever mounts: root directly, an ordinary user through fusermount3.
    #[test]
    fn a_mount_shows_type_and_store_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let mounted = plan.mount().unwrap();
        let entry = entry_at(&plan.mount_point).unwrap();
        assert_eq!(entry.fs_type, "fuse.tallyfs");
        assert_eq!(entry.source, plan.store);
        assert_eq!(mounted.guard.unmount().unwrap(), Unmounted::Now);
        assert_eq!(entry_at(&plan.mount_point), None);
        assert_eq!(mounted.guard.unmount().unwrap(), Unmounted::Already);
    }

    #[test]
    fn a_guard_that_is_dropped_unmounts() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        drop(plan.mount().unwrap());
        assert_eq!(entry_at(&plan.mount_point), None);
    }

    #[test]
    fn the_mount_of_another_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let first = plan.mount().unwrap();
        first.guard.unmount().unwrap();
        let second = plan.mount().unwrap();
        assert_eq!(first.guard.unmount().unwrap(), Unmounted::Already);
        assert!(entry_at(&plan.mount_point).is_some());
        drop(second);
    }

    #[test]
    fn a_strangers_mount_in_the_place_of_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let ours = plan.mount().unwrap();
        unmount(ours.guard.mount_point()).unwrap();
        let other = MountPlan {
            store: "/someone/else".into(),
            ..plan.clone()
        };
        let theirs = other.mount().unwrap();
        assert_eq!(ours.guard.unmount().unwrap(), Unmounted::Already);
        assert!(entry_at(&plan.mount_point).is_some());
        drop(theirs);
    }

    #[test]
    fn a_mount_that_is_covered_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        if !rustix::process::geteuid().is_root() {
            return; // fusermount3 looks at the first mount's root, and nobody answers here
        }
        let plan = plan(dir.path());
        let below = plan.mount().unwrap();
        let above = plan.mount().unwrap();
        assert!(matches!(below.guard.unmount(), Err(MountError::Covered(_))));
        assert_eq!(above.guard.unmount().unwrap(), Unmounted::Now);
        assert_eq!(below.guard.unmount().unwrap(), Unmounted::Now);
    }

    #[test]
    fn a_dead_mount_of_the_same_store_is_cleared_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let Mounted { fd, guard } = plan.mount().unwrap();
        drop(fd);
        let path = super::super::mount_point::prepare(&plan.mount_point, &plan.store, false);
        assert_eq!(path.unwrap(), plan.mount_point);
        assert_eq!(guard.unmount().unwrap(), Unmounted::Already);
    }

    #[test]
    fn a_dead_mount_of_another_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path());
        let Mounted { fd, guard } = plan.mount().unwrap();
        drop(fd);
        let other = dir.path().join("other");
        let error = super::super::mount_point::prepare(&plan.mount_point, &other, false);
        assert!(error.unwrap_err().to_string().contains("umount -l"));
        drop(guard);
    }

    #[test]
    fn the_helper_gets_the_store_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path());
        plan.store = r"/a,b\c".into();
        plan.flags |= MountFlags::RDONLY;
        plan.allow_other = true;
        let text = String::from_utf8(plan.helper_options()).unwrap();
        assert!(text.starts_with(r"fsname=/a\,b\\c,subtype=tallyfs,"), "{text}");
        assert!(text.ends_with(",ro,allow_other"), "{text}");
    }
}
