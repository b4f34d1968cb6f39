//! Changes of mode, owner, times and length, with and without an open handle.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Timespec, Timestamps};

use crate::fs::errno::FsResult;
use crate::fs::node::Node;
use crate::fs::{Attr, Caller, FileSystem};
use crate::store::tree::{set_mode, set_owner, set_times, stat_fd};

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewTime {
    /// The time of the call.
    Now,
    /// Seconds and nanoseconds since 1970.
    At(i64, u32),
}

/// What to change; `None` leaves it alone.
#[derive(Clone, Copy, Default, Debug)]
pub struct SetAttr {
    /// Permission bits with suid, sgid and sticky.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Plaintext length.
    pub plain_length: Option<u64>,
    /// Last access.
    pub atime: Option<NewTime>,
    /// Last change of content.
    pub mtime: Option<NewTime>,
}

impl FileSystem {
    /// Changes attributes and returns the new ones.
    ///
    /// # Errors
    /// As truncate, chmod, chown and utimensat.
    pub fn setattr(&self, number: u64, set: &SetAttr, caller: Caller) -> FsResult<Attr> {
        let node = self.node(number)?;
        if let Some(length) = set.plain_length {
            self.truncate_node(&node, length)?;
            self.drop_privileges(&node, caller)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            node.with_path(&self.tree, |fd| set_owner(fd, set.uid, set.gid))?;
        }
        if let Some(mode) = set.mode {
            node.with_path(&self.tree, |fd| set_mode(fd, mode))?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            self.set_times(&node, set)?;
        }
        let attr = self.attr_of(&node)?;
        let kind_bits = node.mode.load(Ordering::Acquire) & libc::S_IFMT;
        node.mode
            .store(kind_bits | u32::from(attr.permissions), Ordering::Release);
        Ok(attr)
    }

    fn set_times(&self, node: &Arc<Node>, set: &SetAttr) -> FsResult<()> {
        let times = Timestamps {
            last_access: timespec(set.atime),
            last_modification: timespec(set.mtime),
        };
        // Under the file's lock: sealing puts the times back that it found.
        let _state = node.file.state.lock();
        node.with_path(&self.tree, |fd| set_times(fd, &times))
    }

    /// A change that left every byte as it was still counts as one; called under the file's lock.
    pub(super) fn touch(&self, node: &Node) -> FsResult<()> {
        let times = Timestamps {
            last_access: timespec(None),
            last_modification: timespec(Some(NewTime::Now)),
        };
        node.with_path(&self.tree, |fd| set_times(fd, &times))
    }
}

fn timespec(time: Option<NewTime>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        Some(NewTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
        Some(NewTime::At(tv_sec, nanoseconds)) => Timespec {
            tv_sec,
            tv_nsec: i64::from(nanoseconds),
        },
    }
}

/// Access and modification time of a backing file, to be put back after sealing touched it.
pub(super) fn times_of(fd: impl std::os::fd::AsFd) -> std::io::Result<Timestamps> {
    let stat = stat_fd(fd)?;
    let time = |t: rustix::fs::StatxTimestamp| Timespec {
        tv_sec: t.tv_sec,
        tv_nsec: i64::from(t.tv_nsec),
    };
    Ok(Timestamps {
        last_access: time(stat.stx_atime),
        last_modification: time(stat.stx_mtime),
    })
}
