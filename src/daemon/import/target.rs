//! The store that is imported into, through the same layer as a mount: every byte is charged before it exists, and limits
//! refuse as they do there.
//!
//! A file comes to be under a name of ours and gets its own when it is whole; dropped before, it is gone again. A kill
//! leaves the former, which the next import clears away.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FileType, Statx};
use sha2::{Digest, Sha256};

use super::remarks::Why;
use super::source::{Attribute, attributes};
use crate::clock::Clock;
use crate::fs::{
    Attr, Caller, Errno, FileSystem, Found, FsResult, Listing, NewMode, NewTime, OpenMode, ROOT_NODE, RenameKind,
    SetAttr, WriteAsked,
};
use crate::id::{Fh, Ino};
use crate::quota::Account;
use crate::units::{Meters, hex};

/// How the names of files that are not whole yet begin; so many hex digits follow.
const HALF_PREFIX: &[u8] = b".tallyfs-import-";
const HALF_DIGITS: usize = 32;
/// Lists of access control. A directory of the store may hand them down, and the tree's own are to be there.
const LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Names of attributes that are remembered as left out.
const LEFT_OUT_MAX: usize = 100;
/// Set-user-id and set-group-id, which are nobody else's to give.
const PRIVILEGE_BITS: u32 = libc::S_ISUID | libc::S_ISGID;

/// The store.
pub struct Target {
    fs: Arc<FileSystem>,
    clock: Arc<dyn Clock>,
    us: Caller,
    /// Attributes of kinds that the mount does not have, and how often they were met.
    left_out: Mutex<BTreeMap<OsString, u64>>,
}

/// An inode that the file system keeps in mind until this is dropped.
pub struct Known {
    fs: Arc<FileSystem>,
    /// Its number, as requests name it.
    pub number: u64,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.fs.forget(self.number, 1);
    }
}

/// Whether the owner could be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// It is the tree's.
    Kept,
    /// It is whoever imports.
    Ours,
}

/// A new file that is not whole yet.
pub struct Half {
    fs: Arc<FileSystem>,
    parent: u64,
    name: OsString,
    known: Known,
    fh: Option<Fh>,
    is_kept: bool,
}

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(fh) = self.fh.take() {
            let _ = self.fs.release(fh);
        }
        if !self.is_kept
            && let Err(e) = self.fs.unlink(self.parent, &self.name)
        {
            log::warn!("{}: cannot be removed: {}", self.name.display(), system_text(e));
        }
    }
}

/// The name of the half file that becomes `name`.
pub fn half_name(name: &CStr) -> OsString {
    let digest = Sha256::digest(name.to_bytes());
    let mut half = HALF_PREFIX.to_vec();
    half.extend(hex(&digest[..HALF_DIGITS / 2]).into_bytes());
    OsStr::from_bytes(&half).to_owned()
}

/// Whether a name is one that imports give to half files.
pub fn is_half_name(name: &[u8]) -> bool {
    name.strip_prefix(HALF_PREFIX).is_some_and(|digits| {
        digits.len() == HALF_DIGITS && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn system_text(e: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(e.0)
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

impl Target {
    /// Over an open store.
    pub fn new(fs: Arc<FileSystem>, clock: Arc<dyn Clock>) -> Self {
        let us = Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            thread: 0,
        };
        Self {
            fs,
            clock,
            us,
            left_out: Mutex::default(),
        }
    }

    /// Attributes that did not come along, by name.
    pub fn left_out(&self) -> BTreeMap<OsString, u64> {
        self.left_out.lock().clone()
    }

    fn leave_out(&self, name: &OsStr) {
        let mut left_out = self.left_out.lock();
        if left_out.len() < LEFT_OUT_MAX || left_out.contains_key(name) {
            *left_out.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<FileSystem> {
        &self.fs
    }

    /// The directory that the mount will show at its top.
    pub fn top(&self) -> Known {
        self.known(ROOT_NODE)
    }

    fn known(&self, number: u64) -> Known {
        Known {
            fs: self.fs.clone(),
            number,
        }
    }

    fn account(&self, directory: u64) -> Option<Arc<Account>> {
        if directory == ROOT_NODE {
            return Some(self.fs.ledger().root().clone());
        }
        self.fs.ledger().account(Ino(directory))
    }

    /// Does `work` in a directory of the store, and tells what an error of it means.
    fn ask<T>(&self, directory: u64, action: &str, work: impl FnOnce() -> FsResult<T>) -> Result<T, Why> {
        let asked_at = self.clock.now();
        work().map_err(|e| self.why(directory, action, e, asked_at))
    }

    fn why(&self, directory: u64, action: &str, e: Errno, asked_at: Duration) -> Why {
        let may_be_limit = matches!(e.0, libc::EDQUOT | libc::ENOSPC | libc::EFBIG);
        if may_be_limit
            && let Some(account) = self.account(directory)
            && let Some(refusal) = self.fs.refusal_since(&account, asked_at)
        {
            return Why::Limit(refusal);
        }
        match e.0 {
            libc::ENOSPC | libc::EDQUOT => Why::DiskFull,
            _ => Why::Store {
                action: action.to_owned(),
                source: system_text(e),
            },
        }
    }

    /// What a name in the store stands for.
    pub fn find(&self, directory: &Known, name: &CStr) -> Result<Option<(Known, Attr)>, Why> {
        let found = self.ask(directory.number, "look a name up", || {
            self.fs.lookup(directory.number, os(name), self.us)
        })?;
        Ok(match found {
            Found::Entry(entry) => Some((self.known(entry.attr.ino.0), entry.attr)),
            Found::Absent | Found::AbsentForNow | Found::Figure(_) => None,
        })
    }

    /// A directory in another one, made where it is missing. Tells whether it was made.
    pub fn directory(&self, above: &Known, name: &CStr) -> Result<(Known, bool), Why> {
        if let Some((known, attr)) = self.find(above, name)? {
            if attr.kind != FileType::Directory {
                return Err(Why::Exists("the store has a file of this name".to_owned()));
            }
            self.open_to_us(&known, &attr)?;
            return Ok((known, false));
        }
        let entry = self.ask(above.number, "make a directory", || {
            self.fs.mkdir(above.number, os(name), NewMode::exactly(0o700), self.us)
        })?;
        Ok((self.known(entry.attr.ino.0), true))
    }

    /// A directory that an earlier import finished may be closed to its owner, which root does not mind.
    fn open_to_us(&self, directory: &Known, attr: &Attr) -> Result<(), Why> {
        let mode = u32::from(attr.permissions);
        if self.us.uid == 0 || mode & 0o700 == 0o700 {
            return Ok(());
        }
        let set = SetAttr {
            mode: Some(mode | 0o700),
            ..SetAttr::default()
        };
        self.ask(directory.number, "open a directory to its owner", || {
            self.fs.setattr(directory.number, &set, self.us).map(|_| ())
        })
    }

    /// The directory at a path, made as far as it is missing, for everybody to enter as `mkdir -p` makes it.
    pub fn make_way(&self, path: &[u8]) -> Result<Known, Why> {
        let mut at = self.top();
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            let name = std::ffi::CString::new(name).map_err(|e| Why::Store {
                action: "make a directory".to_owned(),
                source: e.into(),
            })?;
            let (next, is_new) = self.directory(&at, &name)?;
            if is_new {
                let set = SetAttr {
                    mode: Some(0o755),
                    ..SetAttr::default()
                };
                self.ask(next.number, "set the mode of a directory", || {
                    self.fs.setattr(next.number, &set, self.us)
                })?;
            }
            at = next;
        }
        Ok(at)
    }

    /// Removes what a killed import left in a directory.
    pub fn clear_halves(&self, directory: &Known) -> Result<(), Why> {
        self.ask(
            directory.number,
            "clear a directory of what an earlier import left",
            || {
                let opened = self.fs.opendir(directory.number)?;
                let mut halves = Vec::new();
                let mut position = 0;
                loop {
                    let before = position;
                    let listed = self.fs.readdir(opened.fh, position, Listing::Names, |entry| {
                        if entry.kind != FileType::Directory && is_half_name(entry.name.to_bytes()) {
                            halves.push(os(entry.name).to_owned());
                        }
                        position = entry.next;
                        false
                    });
                    if listed.is_err() || position == before {
                        self.fs.releasedir(opened.fh)?;
                        listed?;
                        break;
                    }
                }
                halves
                    .iter()
                    .try_for_each(|name| self.fs.unlink(directory.number, name))
            },
        )
    }

    /// Begins a file of `bytes` bytes, which there has to be room for.
    pub fn begin(&self, directory: &Known, name: &CStr, bytes: u64) -> Result<Half, Why> {
        if let Some(account) = self.account(directory.number) {
            // Asked for before anything is read. Others may take the room meanwhile: then the write is refused.
            let ledger = self.fs.ledger();
            drop(ledger.reserve_length(&account, 0, bytes).map_err(Why::Limit)?);
            drop(ledger.reserve(&account, Meters::of_file(bytes)).map_err(Why::Limit)?);
        }
        let name = half_name(name);
        let how = OpenMode {
            reads: true,
            writes: true,
            exclusive: true,
            ..OpenMode::default()
        };
        let (entry, opened) = self.ask(directory.number, "make a file", || {
            self.fs
                .create(directory.number, &name, NewMode::exactly(0o600), how, self.us)
        })?;
        Ok(Half {
            fs: self.fs.clone(),
            parent: directory.number,
            name,
            known: self.known(entry.attr.ino.0),
            fh: Some(opened.fh),
            is_kept: false,
        })
    }

    /// Writes all of `data`; a gap before it becomes a hole.
    pub fn write(&self, half: &Half, plain_offset: u64, data: &[u8]) -> Result<(), Why> {
        let Some(fh) = half.fh else { return Ok(()) };
        let mut done = 0;
        while done < data.len() {
            let asked = WriteAsked {
                plain_offset: plain_offset + done as u64,
                data: &data[done..],
                caller: self.us,
                drops_privileges: false,
                from_mapping: false,
                is_repeated: false,
            };
            done += self.ask(half.parent, "write", || self.fs.write(fh, &asked))?;
        }
        Ok(())
    }

    /// The last bytes are there: sets the length, for a hole at the end, and closes the file. `content_sha256` is what
    /// its heads will tell.
    pub fn close(&self, half: &mut Half, length: u64, content_sha256: [u8; 32]) -> Result<(), Why> {
        let Some(fh) = half.fh else { return Ok(()) };
        self.ask(half.parent, "set the length of a file", || {
            let number = half.known.number;
            if self.fs.getattr(number)?.size < length {
                let set = SetAttr {
                    plain_length: Some(length),
                    ..SetAttr::default()
                };
                self.fs.setattr(number, &set, self.us)?;
            }
            self.fs.know_hash(fh, content_sha256)
        })?;
        half.fh = None;
        self.ask(half.parent, "close a file", || self.fs.release(fh))
    }

    /// Gives an inode the attributes of the one behind `fd`: extended ones, owner, mode and times, in the order in which
    /// none undoes another.
    pub fn give_attributes(&self, number: u64, fd: BorrowedFd<'_>, stat: &Statx) -> Result<Owner, Why> {
        let wanted = attributes(fd, |name| {
            let is_kept = FileSystem::keeps_attribute(name);
            if !is_kept {
                self.leave_out(name);
            }
            is_kept
        });
        let wanted = wanted.map_err(Why::source("read its extended attributes"))?;
        // No room for an attribute is not a full disk: most file systems give them one block of each inode.
        let refused = |name: &OsStr, e| Why::Store {
            action: format!("keep its attribute {}", name.display()),
            source: system_text(e),
        };
        for Attribute { name, value } in &wanted {
            let set = self.fs.setxattr(number, name, value, 0, self.us);
            set.map_err(|e| refused(name, e))?;
        }
        for list in LISTS.map(OsStr::new) {
            if wanted.iter().any(|attribute| attribute.name == list) {
                continue;
            }
            match self.fs.removexattr(number, list, self.us) {
                Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(refused(list, e)),
            }
        }
        self.give_owner(number, stat, Some(u32::from(stat.stx_mode) & 0o7777))
    }

    /// Owner, mode and times.
    fn give_owner(&self, number: u64, stat: &Statx, mode: Option<u32>) -> Result<Owner, Why> {
        let is_ours = (stat.stx_uid, stat.stx_gid) == (self.us.uid, self.us.gid);
        let owner = if self.us.uid == 0 || is_ours {
            Owner::Kept
        } else {
            Owner::Ours
        };
        let is_root = self.us.uid == 0;
        let at = |time: rustix::fs::StatxTimestamp| Some(NewTime::At(time.tv_sec, time.tv_nsec));
        let set = SetAttr {
            mode: mode.map(|mode| match owner {
                Owner::Kept => mode,
                Owner::Ours => mode & !PRIVILEGE_BITS,
            }),
            uid: is_root.then_some(stat.stx_uid),
            gid: is_root.then_some(stat.stx_gid),
            plain_length: None,
            atime: at(stat.stx_atime),
            mtime: at(stat.stx_mtime),
        };
        self.ask(number, "keep owner, mode and times", || {
            self.fs.setattr(number, &set, self.us)
        })?;
        Ok(owner)
    }

    /// Reads a file through as a reader of the mount would: its length and hash.
    pub fn hash(&self, number: u64, buffer: &mut [u8]) -> Result<(u64, [u8; 32]), Why> {
        let how = OpenMode {
            reads: true,
            ..OpenMode::default()
        };
        let opened = self.ask(number, "open a file", || self.fs.open(number, how, self.us))?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let read = loop {
            match self.fs.read(opened.fh, length, buffer) {
                Ok(0) => break Ok(()),
                Ok(bytes) => {
                    hash.update(&buffer[..bytes]);
                    length += bytes as u64;
                }
                Err(e) => break Err(e),
            }
        };
        let closed = self.fs.release(opened.fh);
        match read.and(closed) {
            Ok(()) => Ok((length, hash.finalize().into())),
            // The store's own check of its pages.
            Err(Errno::EIO) => Err(Why::Unverified),
            Err(e) => Err(self.why(number, "read a file back", e, self.clock.now())),
        }
    }

    /// Gives a whole file the name that it is to have.
    pub fn publish(&self, half: Half, name: &CStr) -> Result<Known, Why> {
        self.give_name(half.parent, &half.name, name)?;
        Ok(half.keep())
    }

    fn give_name(&self, directory: u64, half: &OsStr, name: &CStr) -> Result<(), Why> {
        let asked_at = self.clock.now();
        let named = self
            .fs
            .rename(directory, half, directory, os(name), RenameKind::NoReplace);
        named.map_err(|e| match e {
            Errno::EEXIST => Why::Exists("the store has something of this name by now".to_owned()),
            e => self.why(directory, "give a file its name", e, asked_at),
        })
    }

    /// Makes a symbolic link with owner and times, whole or not at all.
    pub fn symlink(&self, directory: &Known, name: &CStr, target: &OsStr, stat: &Statx) -> Result<Owner, Why> {
        let number = directory.number;
        let half = half_name(name);
        let entry = self.ask(number, "make a symbolic link", || {
            self.fs.symlink(number, &half, target.as_ref(), self.us)
        })?;
        let half = Half {
            fs: self.fs.clone(),
            parent: number,
            name: half,
            known: self.known(entry.attr.ino.0),
            fh: None,
            is_kept: false,
        };
        let owner = self.give_owner(half.known.number, stat, None)?;
        self.publish(half, name)?;
        Ok(owner)
    }

    /// Target of a symbolic link of the store.
    pub fn link_target(&self, link: &Known) -> Result<Vec<u8>, Why> {
        self.ask(link.number, "read a symbolic link", || self.fs.readlink(link.number))
    }

    /// Gives a file one more name.
    pub fn link(&self, file: &Known, directory: &Known, name: &CStr) -> Result<Known, Why> {
        let number = directory.number;
        let asked_at = self.clock.now();
        match self.fs.link(file.number, number, os(name)) {
            Ok(entry) => Ok(self.known(entry.attr.ino.0)),
            Err(Errno::EXDEV) => Err(Why::Store {
                action: "give a file names in directories with limits of their own".to_owned(),
                source: std::io::Error::other("whose bytes they are could not be told; copy this one by hand"),
            }),
            Err(e) => Err(self.why(number, "give a file one more name", e, asked_at)),
        }
    }
}

impl Half {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.known.number
    }

    /// It is no half any more.
    fn keep(mut self) -> Known {
        self.is_kept = true;
        Known {
            fs: self.fs.clone(),
            number: std::mem::replace(&mut self.known.number, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_halves_are_told_from_names_of_recordings() {
        let half = half_name(c"call 7.wav");
        assert!(is_half_name(half.as_bytes()), "{}", half.display());
        assert_ne!(half, half_name(c"call 8.wav"));
        for name in ["call 7.wav", ".tallyfs-import-", ".tallyfs-import-notes.txt", ""] {
            assert!(!is_half_name(name.as_bytes()), "{name}");
        }
    }
}
