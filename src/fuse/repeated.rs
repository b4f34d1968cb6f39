//! Requests that the kernel sends again, because the process that read them died before it answered: what was done
//! already is answered as done, and not done twice.
//!
//! While a name is being made, moved or removed the kernel lets nobody else change its directory. So a new name that is
//! there already, and an old one that is gone, can only be the work of the earlier process on this very request.

use std::ffi::OsStr;

use fuser::{INodeNo, Request};

use crate::fs::{Entry, Errno, FileSystem, FsResult, RenameKind, is_repeated};

/// Whether an earlier process has read the request.
pub fn is_sent_again(request: &Request) -> bool {
    is_repeated(request.unique().0)
}

/// The answer to making a name.
pub fn made(
    fs: &FileSystem,
    request: &Request,
    made: FsResult<Entry>,
    parent: INodeNo,
    name: &OsStr,
) -> FsResult<Entry> {
    match made {
        Err(Errno::EEXIST) if is_sent_again(request) => fs.made_before(parent.0, name),
        other => other,
    }
}

/// The answer to removing something: `absent` says that it is not there.
pub fn gone(request: &Request, done: FsResult<()>, absent: Errno) -> FsResult<()> {
    match done {
        Err(e) if e == absent && is_sent_again(request) => Ok(()),
        other => other,
    }
}

/// A place in the tree.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// Directory.
    pub parent: INodeNo,
    /// Name in it.
    pub name: &'a OsStr,
}

/// Renames, or finds it done.
pub fn rename(fs: &FileSystem, request: &Request, from: Name<'_>, to: Name<'_>, kind: RenameKind) -> FsResult<()> {
    let unique = request.unique().0;
    if kind == RenameKind::Exchange {
        if is_sent_again(request) && fs.is_exchanged(unique, from.parent.0, from.name) {
            fs.renamed_before(from.parent.0, from.name);
            fs.renamed_before(to.parent.0, to.name);
            return Ok(());
        }
        fs.begin_exchange(unique, from.parent.0, from.name);
    }
    let done = fs.rename(from.parent.0, from.name, to.parent.0, to.name, kind);
    match done {
        Err(Errno::ENOENT) if is_sent_again(request) && fs.renamed_before(to.parent.0, to.name) => Ok(()),
        other => other,
    }
}
