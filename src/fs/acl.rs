//! POSIX access control lists: they lie in the backing inodes, whose file system keeps mode and list
//! together and hands default lists down; the kernel decides by them.
//!
//! What is left to do here is what the backing file system cannot know, because the daemon asks it
//! and not the caller: the caller's umask, and whether the caller may keep set-group-id.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;

use rustix::io::Errno as Answer;

use crate::fs::errno::FsResult;
use crate::fs::node::Node;
use crate::fs::{Caller, FileSystem};
use crate::store::tree::{get_xattr, set_mode, stat_fd};
use crate::sys::thread_groups;

/// The list that says who may do what.
const ACCESS: &CStr = c"system.posix_acl_access";
/// Of directories: the list that new names in it get.
const DEFAULT: &CStr = c"system.posix_acl_default";

/// The mode that a new inode is to have.
#[derive(Clone, Copy, Debug)]
pub struct NewMode {
    /// Type and mode bits, as the caller gave them.
    pub bits: u32,
    /// What the caller's umask takes away where no default list says otherwise.
    pub umask: u32,
}

impl NewMode {
    /// A mode that no umask cuts.
    pub fn exactly(bits: u32) -> Self {
        Self { bits, umask: 0 }
    }

    /// The permission bits to create an inode in `dir` with.
    pub(super) fn permissions_in(self, dir: BorrowedFd<'_>) -> io::Result<u32> {
        let permissions = self.bits & 0o777;
        if permissions & self.umask == 0 || has_default_list(dir)? {
            return Ok(permissions);
        }
        Ok(permissions & !self.umask)
    }
}

fn has_default_list(dir: BorrowedFd<'_>) -> io::Result<bool> {
    match get_xattr(dir, DEFAULT, &mut []) {
        Ok(_) => Ok(true),
        Err(e)
            if [Answer::NODATA, Answer::OPNOTSUPP]
                .map(|no| Some(no.raw_os_error()))
                .contains(&e.raw_os_error()) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// Whether an extended attribute is one of the two lists.
pub(super) fn is_list(name: &OsStr) -> bool {
    [ACCESS, DEFAULT].iter().any(|list| list.to_bytes() == name.as_bytes())
}

impl FileSystem {
    /// A list was set, which may have changed the mode. An owner outside of the group cannot mark it
    /// to run with the group's rights, and so loses the mark.
    pub(super) fn list_was_set(&self, node: &Node, caller: Caller) -> FsResult<()> {
        node.with_path(&self.tree, |fd| {
            let stat = stat_fd(fd)?;
            let mut mode = u32::from(stat.stx_mode);
            if mode & libc::S_ISGID != 0 && !is_member(caller, stat.stx_gid) {
                mode &= !libc::S_ISGID;
                set_mode(fd, mode)?;
            }
            node.mode.store(mode, Ordering::Release);
            Ok(())
        })
    }
}

/// Whether the caller is root or in a group. A caller that has gone is in none.
pub(super) fn is_member(caller: Caller, gid: u32) -> bool {
    caller.uid == 0 || caller.gid == gid || thread_groups(caller.thread).is_ok_and(|groups| groups.contains(&gid))
}
