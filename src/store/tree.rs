//! The data directory as a tree of inodes: every call is relative to a directory descriptor and
//! follows no link, so that nothing planted in the tree leads out of the store.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::id::Ino;
use crate::store::fault_points::{self, Call};
use crate::sys::FileHandle;

/// What statx is asked for everywhere.
pub const STATX_WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// How an inode is found again: a descriptor that is kept, or a handle that can be opened.
pub enum Anchor {
    /// An `O_PATH` descriptor.
    Descriptor(OwnedFd),
    /// A handle; needs `CAP_DAC_READ_SEARCH`, and costs no descriptor.
    Handle(FileHandle),
}

/// An inode that was found by its number.
pub struct FoundInode {
    /// Opens it again.
    pub handle: FileHandle,
    /// Path of its directory below the data directory.
    pub parent: Vec<u8>,
    /// Name in there.
    pub name: CString,
}

/// Whether reading a recording or a directory moves its access time, as the backing file system has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessTimes {
    /// As the backing is mounted: mostly once a day.
    Move,
    /// Never: the mount is `noatime` or read-only.
    Stay,
}

/// The tree below `STORE/data`.
pub struct Tree {
    root: OwnedFd,
    by_handle: bool,
    device: (u32, u32),
    access_times: AccessTimes,
    descriptors_left: AtomicU64,
}

impl Tree {
    /// The tree of an open data directory. At most `descriptor_budget` directories are kept open.
    ///
    /// # Errors
    /// When the directory cannot be examined.
    pub fn new(root: OwnedFd, descriptor_budget: u64, access_times: AccessTimes) -> io::Result<Self> {
        let stat = rustix::fs::statx(&root, c"", AtFlags::EMPTY_PATH, STATX_WANTED)?;
        let by_handle = FileHandle::of(&root)
            .and_then(|handle| handle.open(&root, OFlags::PATH))
            .is_ok();
        Ok(Self {
            root,
            by_handle,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            access_times,
            descriptors_left: AtomicU64::new(descriptor_budget),
        })
    }

    /// The data directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Handle generation of the data directory; 0 where there are no handles.
    pub fn root_generation(&self) -> u32 {
        FileHandle::of(&self.root).map_or(0, |handle| handle.generation())
    }

    /// Looks a name up without following it: its attributes and its handle.
    ///
    /// # Errors
    /// ENOENT and other errors of statx(2); EXDEV when something else is mounted there.
    pub fn stat_at(&self, dir: impl AsFd, name: &CStr) -> io::Result<Statx> {
        fault_points::pass(Call::Stat)?;
        let stat = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, STATX_WANTED)?;
        if (stat.stx_dev_major, stat.stx_dev_minor) == self.device {
            Ok(stat)
        } else {
            Err(Errno::XDEV.into())
        }
    }

    /// The handle behind a name; its generation tells a reused inode number.
    ///
    /// # Errors
    /// As name_to_handle_at(2).
    pub fn handle_at(&self, dir: impl AsFd, name: &CStr) -> io::Result<FileHandle> {
        fault_points::pass(Call::Handle)?;
        FileHandle::at(dir, name)
    }

    /// The handle of an open inode.
    ///
    /// # Errors
    /// As name_to_handle_at(2).
    pub fn handle_of(&self, fd: impl AsFd) -> io::Result<FileHandle> {
        fault_points::pass(Call::Handle)?;
        FileHandle::of(fd)
    }

    /// Anchors the inode that `stat` and `handle` were just told of `name`.
    ///
    /// # Errors
    /// As open(2), EMFILE when an ordinary user's daemon has no descriptor left. ESTALE when the name went to
    /// another inode between the calls: the kernel asks again.
    pub fn anchor(&self, dir: impl AsFd, name: &CStr, handle: FileHandle, stat: &Statx) -> io::Result<Anchor> {
        let is_directory = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory;
        if self.by_handle && !(is_directory && self.take_descriptor()) {
            // Most kinds of handle tell the number themselves, without one more call.
            let is_same = handle.ino() == Some(stat.stx_ino)
                || self.with_handle(&handle, |fd| Ok(stat_fd(fd)?.stx_ino == stat.stx_ino))?;
            return if is_same {
                Ok(Anchor::Handle(handle))
            } else {
                Err(Errno::STALE.into())
            };
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let kept = rustix::fs::openat(dir, name, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|fd| {
                let is_same = FileHandle::of(&fd)? == handle && stat_fd(&fd)?.stx_ino == stat.stx_ino;
                if is_same { Ok(fd) } else { Err(Errno::STALE.into()) }
            });
        match kept {
            Ok(fd) => Ok(Anchor::Descriptor(fd)),
            Err(e) => {
                self.give_descriptor_back();
                Err(e)
            }
        }
    }

    /// Anchors the new inode of a file that is open, which nobody else knows yet.
    ///
    /// # Errors
    /// As open(2), EMFILE when an ordinary user's daemon has no descriptor left.
    pub fn anchor_new(&self, file: &File, handle: FileHandle) -> io::Result<Anchor> {
        if self.by_handle {
            return Ok(Anchor::Handle(handle));
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, proc_path(file.as_fd()).as_c_str(), flags, Mode::empty())?;
        Ok(Anchor::Descriptor(fd))
    }

    fn take_descriptor(&self) -> bool {
        self.descriptors_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    /// Gives back what [`Tree::anchor`] took of the budget; called when a node goes.
    pub fn release_anchor(&self, anchor: &Anchor) {
        if matches!(anchor, Anchor::Descriptor(_)) {
            self.give_descriptor_back();
        }
    }

    fn give_descriptor_back(&self) {
        // Without handles none is taken of the budget.
        if self.by_handle {
            self.descriptors_left.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Finds an inode, that was looked up not long ago, by nothing but its number: where it lies, and its handle.
    ///
    /// # Errors
    /// ESTALE where the backing file system tells numbers only together with generations, where the inode is gone, and
    /// where the kernel does not have its name in mind any more.
    pub fn find(&self, ino: Ino) -> io::Result<FoundInode> {
        let stale = || io::Error::from(Errno::STALE);
        let root = FileHandle::of(&self.root)?;
        let any = root.of_any_generation(ino.0).ok_or_else(stale)?;
        let place = |fd: BorrowedFd<'_>| rustix::fs::readlinkat(CWD, proc_path(fd).as_c_str(), Vec::new());
        let base = place(self.root.as_fd())?;
        self.with_handle(&any, |fd| {
            let path = place(fd)?.into_bytes();
            let below = path
                .strip_prefix(base.as_bytes())
                .and_then(|below| below.strip_prefix(b"/"));
            let below = below.ok_or_else(stale)?;
            let name_at = below
                .iter()
                .rposition(|&byte| byte == b'/')
                .map_or(0, |slash| slash + 1);
            Ok(FoundInode {
                handle: FileHandle::of(fd)?,
                parent: below[..name_at.saturating_sub(1)].to_vec(),
                name: CString::new(&below[name_at..])?,
            })
        })
    }

    /// Whether an inode that is open can be opened again by the next process.
    pub fn opens_by_handle(&self) -> bool {
        self.by_handle
    }

    /// Lends an `O_PATH` descriptor of an anchored inode.
    ///
    /// # Errors
    /// ESTALE when the inode is gone.
    pub fn with_path<T>(&self, anchor: &Anchor, work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match anchor {
            Anchor::Descriptor(fd) => work(fd.as_fd()),
            Anchor::Handle(handle) => self.with_handle(handle, work),
        }
    }

    fn with_handle<T>(&self, handle: &FileHandle, work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        fault_points::pass(Call::Handle)?;
        let fd = handle.open(&self.root, OFlags::PATH | OFlags::CLOEXEC)?;
        work(fd.as_fd())
    }

    /// Opens an anchored inode for I/O.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, anchor: &Anchor, flags: OFlags) -> io::Result<File> {
        fault_points::pass(Call::Open)?;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | self.for_reading();
        let fd = match anchor {
            Anchor::Descriptor(fd) => rustix::fs::openat(CWD, proc_path(fd.as_fd()).as_c_str(), flags, Mode::empty())?,
            Anchor::Handle(handle) => handle.open(&self.root, flags)?,
        };
        Ok(fd.into())
    }

    /// Opens an anchored inode for I/O of the daemon's own, which leaves no trace in its access time where
    /// that is allowed.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_quietly(&self, anchor: &Anchor, flags: OFlags) -> io::Result<File> {
        match self.open(anchor, flags | OFlags::NOATIME) {
            // Of a file that belongs to somebody else.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => self.open(anchor, flags),
            other => other,
        }
    }

    /// From now on reading through a descriptor of [`Tree::open_quietly`] is a client's.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn end_quiet(&self, file: &File) -> io::Result<()> {
        match self.access_times {
            // None of the other flags that can be set is in use.
            AccessTimes::Move => Ok(rustix::fs::fcntl_setfl(file, OFlags::empty())?),
            AccessTimes::Stay => Ok(()),
        }
    }

    fn for_reading(&self) -> OFlags {
        match self.access_times {
            AccessTimes::Move => OFlags::empty(),
            AccessTimes::Stay => OFlags::NOATIME,
        }
    }

    /// Creates and opens a regular file; the name must be free.
    ///
    /// # Errors
    /// As openat(2) with `O_CREAT | O_EXCL`.
    pub fn create(&self, dir: impl AsFd, name: &CStr, mode: u32) -> io::Result<File> {
        fault_points::pass(Call::Create)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = flags | self.for_reading();
        Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode & 0o777))?.into())
    }

    /// Opens a directory by its path below the root, one component after the other; it may be of any length.
    ///
    /// # Errors
    /// As openat2(2); nothing outside the tree is ever reached.
    pub fn open_path(&self, path: &[u8]) -> io::Result<OwnedFd> {
        fault_points::pass(Call::Open)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let mut rest = if path.is_empty() { b"." } else { path };
        let mut at: Option<OwnedFd> = None;
        loop {
            let cut = piece_len(rest);
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let fd = rustix::fs::openat2(from, &rest[..cut], flags, Mode::empty(), resolve)?;
            if cut == rest.len() {
                return Ok(fd);
            }
            at = Some(fd);
            rest = &rest[cut + 1..];
        }
    }
}

/// Longest path that is handed to the kernel in one piece; longer ones are walked in stages.
const PATH_PIECE_BYTES_MAX: usize = 4000;

/// Length of the longest start of a path that ends before a slash, or at the end, and is short enough.
pub fn piece_len(path: &[u8]) -> usize {
    if path.len() <= PATH_PIECE_BYTES_MAX {
        return path.len();
    }
    let fits = path[..PATH_PIECE_BYTES_MAX].iter().rposition(|&byte| byte == b'/');
    fits.unwrap_or(path.len())
}

/// Attributes of the inode behind a descriptor.
///
/// # Errors
/// As statx(2).
pub fn stat_fd(fd: impl AsFd) -> io::Result<Statx> {
    fault_points::pass(Call::Stat)?;
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STATX_WANTED)?)
}

/// mkdir(2) in a directory.
///
/// # Errors
/// As mkdirat(2).
pub fn make_directory(dir: impl AsFd, name: &CStr, mode: u32) -> io::Result<()> {
    fault_points::pass(Call::MakeDirectory)?;
    Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode & 0o777))?)
}

/// mknod(2) in a directory; the type is in the mode.
///
/// # Errors
/// As mknodat(2).
pub fn make_node(dir: impl AsFd, name: &CStr, mode: u32, device: u64) -> io::Result<()> {
    fault_points::pass(Call::MakeNode)?;
    let kind = FileType::from_raw_mode(mode);
    let mode = Mode::from_raw_mode(mode & 0o777);
    Ok(rustix::fs::mknodat(dir, name, kind, mode, device)?)
}

/// symlink(2) in a directory.
///
/// # Errors
/// As symlinkat(2).
pub fn make_symlink(target: &Path, dir: impl AsFd, name: &CStr) -> io::Result<()> {
    fault_points::pass(Call::MakeNode)?;
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// One more name for the inode behind a descriptor.
///
/// # Errors
/// As linkat(2).
pub fn link(inode: BorrowedFd<'_>, dir: impl AsFd, name: &CStr) -> io::Result<()> {
    fault_points::pass(Call::Link)?;
    let path = proc_path(inode);
    Ok(rustix::fs::linkat(
        CWD,
        path.as_c_str(),
        dir,
        name,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

/// Removes a name that is not a directory's.
///
/// # Errors
/// As unlinkat(2).
pub fn unlink(dir: impl AsFd, name: &CStr) -> io::Result<()> {
    fault_points::pass(Call::Unlink)?;
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes an empty directory.
///
/// # Errors
/// As rmdir(2).
pub fn remove_directory(dir: impl AsFd, name: &CStr) -> io::Result<()> {
    fault_points::pass(Call::RemoveDirectory)?;
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Renames between two directories.
///
/// # Errors
/// As renameat2(2).
pub fn rename(
    (from, name): (impl AsFd, &CStr),
    (to, new_name): (impl AsFd, &CStr),
    flags: RenameFlags,
) -> io::Result<()> {
    fault_points::pass(Call::Rename)?;
    Ok(rustix::fs::renameat_with(from, name, to, new_name, flags)?)
}

/// Makes everything on the file system of `fd` durable.
///
/// # Errors
/// As syncfs(2).
pub fn sync_all(fd: impl AsFd) -> io::Result<()> {
    fault_points::pass(Call::Sync)?;
    Ok(rustix::fs::syncfs(fd)?)
}

/// The path under which the kernel follows a descriptor, `O_PATH` ones included.
pub fn proc_path(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("digits hold no zero byte")
}

/// chmod(2) on a descriptor, `O_PATH` ones included.
///
/// # Errors
/// As chmod(2).
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    fault_points::pass(Call::SetAttributes)?;
    Ok(rustix::fs::chmodat(
        CWD,
        proc_path(fd).as_c_str(),
        Mode::from_raw_mode(mode & 0o7777),
        AtFlags::empty(),
    )?)
}

/// chown(2) on a descriptor; `None` leaves one alone.
///
/// # Errors
/// As chown(2).
pub fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    fault_points::pass(Call::SetAttributes)?;
    Ok(rustix::fs::chownat(
        fd,
        c"",
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
        AtFlags::EMPTY_PATH,
    )?)
}

/// utimensat(2) on a descriptor.
///
/// # Errors
/// As utimensat(2).
pub fn set_times(fd: BorrowedFd<'_>, times: &Timestamps) -> io::Result<()> {
    fault_points::pass(Call::SetAttributes)?;
    Ok(rustix::fs::utimensat(
        CWD,
        proc_path(fd).as_c_str(),
        times,
        AtFlags::empty(),
    )?)
}

/// setxattr(2) on a descriptor.
///
/// # Errors
/// As setxattr(2).
pub fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    Ok(rustix::fs::setxattr(proc_path(fd).as_c_str(), name, value, flags)?)
}

/// getxattr(2) on a descriptor; an empty buffer only asks whether it is there.
///
/// # Errors
/// As getxattr(2).
pub fn get_xattr(fd: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::fs::getxattr(proc_path(fd).as_c_str(), name, buffer)?)
}

/// Where a backing directory carries the limits that were set on it; no client can name this attribute.
const LIMITS_ATTRIBUTE: &CStr = c"user.tallyfs.limits";
/// Longest text of limits.
const LIMITS_BYTES_MAX: usize = 4096;

/// The limits that were set on a directory, as text; `None` for most.
///
/// # Errors
/// As getxattr(2), except where there is no such attribute or the file system has none at all.
pub fn limits_text(directory: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let mut value = [0; LIMITS_BYTES_MAX];
    match get_xattr(directory, LIMITS_ATTRIBUTE, &mut value) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&value[..bytes]).into_owned())),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets the limits of a directory that is open for reading; an empty text takes them away. Durable on return.
///
/// # Errors
/// As setxattr(2) and fsync(2).
pub fn set_limits_text(directory: BorrowedFd<'_>, text: &str) -> io::Result<()> {
    fault_points::pass(Call::SetAttributes)?;
    if text.is_empty() {
        match remove_xattr(directory, LIMITS_ATTRIBUTE) {
            Err(e) if e.raw_os_error() == Some(libc::ENODATA) => {}
            other => other?,
        }
    } else {
        set_xattr(directory, LIMITS_ATTRIBUTE, text.as_bytes(), 0)?;
    }
    fault_points::pass(Call::Sync)?;
    Ok(rustix::fs::fsync(directory)?)
}

/// listxattr(2) on a descriptor.
///
/// # Errors
/// As listxattr(2).
pub fn list_xattr(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::fs::listxattr(proc_path(fd).as_c_str(), buffer)?)
}

/// removexattr(2) on a descriptor.
///
/// # Errors
/// As removexattr(2).
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::removexattr(proc_path(fd).as_c_str(), name)?)
}
