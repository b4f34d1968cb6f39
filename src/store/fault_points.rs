//! Where tests make the disk fail: every call of the store on it asks here first. A build without the
//! feature `fault-points` asks nothing, and no product is built with it.

use std::io;

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Call {
    /// read(2) of a recording.
    Read,
    /// write(2) of a recording.
    Write,
    /// fdatasync(2) or syncfs(2).
    Sync,
    /// ftruncate(2).
    SetSize,
    /// fallocate(2) with `PUNCH_HOLE`.
    Punch,
    /// statx(2), or a size.
    Stat,
    /// A file handle, or an inode opened by one.
    Handle,
    /// Opening for I/O.
    Open,
    /// A new regular file.
    Create,
    /// mkdir(2).
    MakeDirectory,
    /// mknod(2), symlink(2).
    MakeNode,
    /// link(2).
    Link,
    /// unlink(2).
    Unlink,
    /// rmdir(2).
    RemoveDirectory,
    /// rename(2).
    Rename,
    /// chmod(2), chown(2), utimensat(2).
    SetAttributes,
    /// An append to the dirty log, or a new one.
    DirtyLog,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is carried out.
    Goes,
    /// It fails with this errno, and nothing was done.
    Fails(i32),
    /// A read or write moves at most so many bytes.
    MovesAtMost(usize),
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::cell::RefCell;

    use super::{Call, Fate};

    type Plan = Box<dyn FnMut(Call) -> Fate>;

    thread_local! {
        static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    }

    /// Asks `plan` before every call of this thread, or nobody from now on. It may block.
    pub fn arm(plan: Option<Plan>) {
        PLAN.set(plan);
    }

    pub(super) fn fate(call: Call) -> Fate {
        PLAN.with_borrow_mut(|plan| plan.as_mut().map_or(Fate::Goes, |plan| plan(call)))
    }
}

#[cfg(feature = "fault-points")]
pub use armed::arm;

/// Asks before a call that moves no bytes.
///
/// # Errors
/// What the test wants.
#[cfg(feature = "fault-points")]
pub fn pass(call: Call) -> io::Result<()> {
    match armed::fate(call) {
        Fate::Fails(errno) => Err(io::Error::from_raw_os_error(errno)),
        Fate::Goes | Fate::MovesAtMost(_) => Ok(()),
    }
}

/// Asks before a read or write of `bytes`: how many of them it may move.
///
/// # Errors
/// What the test wants.
#[cfg(feature = "fault-points")]
pub fn movable(call: Call, bytes: usize) -> io::Result<usize> {
    match armed::fate(call) {
        Fate::Goes => Ok(bytes),
        Fate::MovesAtMost(most) => Ok(most.min(bytes)),
        Fate::Fails(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// No test asks.
///
/// # Errors
/// None.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub const fn pass(_: Call) -> io::Result<()> {
    Ok(())
}

/// No test asks.
///
/// # Errors
/// None.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub const fn movable(_: Call, bytes: usize) -> io::Result<usize> {
    Ok(bytes)
}
