//! Every file below the data directory, in the order of names, for those who look at all of them.
//!
//! The order is fixed (directory by directory, names as bytes), so that a walk can go on behind the path
//! at which an earlier one stopped. No link is followed and no other file system entered; what vanishes
//! on the way was not there.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use crate::store::tree::STATX_WANTED;

/// One entry that is no directory.
pub struct Found<'a> {
    /// Relative to the data directory.
    pub path: &'a [u8],
    /// Its attributes.
    pub stat: &'a Statx,
    /// The directory that it lies in.
    pub parent_ino: u64,
    dir: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Found<'_> {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(u32::from(self.stat.stx_mode)) == FileType::RegularFile
    }

    /// Its name in its directory.
    pub fn name(&self) -> &[u8] {
        self.name.to_bytes()
    }

    /// Opens it for reading, without a trace in its access time where that is allowed.
    ///
    /// # Errors
    /// As openat(2).
    pub fn open(&self) -> io::Result<File> {
        open_quietly(self.dir, self.name)
    }

    /// Opens it for reading and writing.
    ///
    /// # Errors
    /// As openat(2).
    pub fn open_for_repair(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(self.dir, self.name, flags, Mode::empty())?.into())
    }
}

/// Opens a file for reading, without a trace in its access time where that is allowed.
///
/// # Errors
/// As openat(2).
pub fn open_quietly(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let quiet = rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty());
    match quiet {
        // Of a file that belongs to somebody else.
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into()),
        other => Ok(other?.into()),
    }
}

/// What to walk.
#[derive(Clone, Copy, Default)]
pub struct Range<'a> {
    /// Directory or file below the data directory; empty for all of it.
    pub below: &'a [u8],
    /// Files up to this path were looked at before.
    pub after: Option<&'a [u8]>,
}

/// Calls `visit` for every entry of the range that is no directory. Directories that cannot be read go to
/// `failed` with their path, and the walk goes on.
///
/// # Errors
/// When the beginning of the range cannot be opened.
pub fn walk(
    data: BorrowedFd<'_>,
    range: Range<'_>,
    visit: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    failed: &mut dyn FnMut(&[u8], io::Error),
) -> io::Result<()> {
    let device = stat_at(data, c"")?;
    let mut walk = Walk {
        device: (device.stx_dev_major, device.stx_dev_minor),
        path: Vec::new(),
        visit,
        failed,
    };
    let (mut dir, mut rest) = (open_dir(data, c".")?, range.below);
    let mut after = range.after;
    while !rest.is_empty() {
        let (name, tail) = split(rest);
        after = match after.map(split) {
            Some((first, tail)) if first == name => Some(tail),
            _ => None,
        };
        let c_name = CString::new(name).map_err(|_| Errno::INVAL)?;
        walk.push(name);
        let stat = stat_at(dir.as_fd(), &c_name)?;
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::Directory && tail.is_empty() {
            let parent_ino = stat_at(dir.as_fd(), c"")?.stx_ino;
            let _ = walk.meet(dir.as_fd(), &c_name, &stat, parent_ino);
            return Ok(());
        }
        dir = open_dir(dir.as_fd(), &c_name)?;
        rest = tail;
    }
    let _ = walk.directory(&dir, after);
    Ok(())
}

struct Walk<'a> {
    device: (u32, u32),
    path: Vec<u8>,
    visit: &'a mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    failed: &'a mut dyn FnMut(&[u8], io::Error),
}

impl Walk<'_> {
    fn push(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// One directory, behind `after` in it.
    fn directory(&mut self, dir: &OwnedFd, after: Option<&[u8]>) -> ControlFlow<()> {
        let listed = names(dir).and_then(|names| Ok((names, stat_at(dir.as_fd(), c"")?.stx_ino)));
        let (names, ino) = match listed {
            Ok(listed) => listed,
            Err(e) => {
                (self.failed)(&self.path, e.into());
                return ControlFlow::Continue(());
            }
        };
        let after = after.filter(|after| !after.is_empty()).map(split);
        let length = self.path.len();
        for name in &names {
            let inside = match after {
                Some((first, _)) if name.to_bytes() < first => continue,
                Some((first, [])) if name.to_bytes() == first => continue,
                Some((first, rest)) if name.to_bytes() == first => Some(rest),
                _ => None,
            };
            self.push(name.to_bytes());
            let flow = self.entry(dir, name, ino, inside);
            self.path.truncate(length);
            flow?;
        }
        ControlFlow::Continue(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &CStr, parent_ino: u64, after: Option<&[u8]>) -> ControlFlow<()> {
        let stat = match stat_at(dir.as_fd(), name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return ControlFlow::Continue(()),
            Err(e) => {
                (self.failed)(&self.path, e.into());
                return ControlFlow::Continue(());
            }
        };
        if (stat.stx_dev_major, stat.stx_dev_minor) != self.device {
            return ControlFlow::Continue(());
        }
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::Directory {
            return self.meet(dir.as_fd(), name, &stat, parent_ino);
        }
        match open_dir(dir.as_fd(), name) {
            Ok(dir) => self.directory(&dir, after),
            Err(e) if e.kind() == io::ErrorKind::NotFound => ControlFlow::Continue(()),
            Err(e) => {
                (self.failed)(&self.path, e);
                ControlFlow::Continue(())
            }
        }
    }

    fn meet(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &Statx, parent_ino: u64) -> ControlFlow<()> {
        (self.visit)(&Found {
            path: &self.path,
            stat,
            parent_ino,
            dir,
            name,
        })
    }
}

/// First component and the rest of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

/// The names in a directory but for `.` and `..`, in the order of bytes.
///
/// # Errors
/// As getdents(2).
pub fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory in a directory.
///
/// # Errors
/// As openat(2).
pub fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Attributes of a name, or of the directory itself for an empty one.
///
/// # Errors
/// As statx(2).
pub fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Statx> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH, STATX_WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn paths(root: &std::path::Path, range: Range<'_>) -> Vec<String> {
        let data = File::open(root).unwrap();
        let mut found = Vec::new();
        let mut visit = |entry: &Found<'_>| {
            found.push(String::from_utf8(entry.path.to_vec()).unwrap());
            ControlFlow::Continue(())
        };
        walk(data.as_fd(), range, &mut visit, &mut |path, e| panic!("{path:?}: {e}")).unwrap();
        found
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in ["a/b", "a.d", "c"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for file in ["a/b/1", "a/b/2", "a/z", "a.d/1", "b", "c/1"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/", root.path().join("c/link")).unwrap();
        root
    }

    #[test]
    fn every_file_is_met_once_in_a_fixed_order_and_no_link_is_followed() {
        let root = tree();
        let all = ["a/b/1", "a/b/2", "a/z", "a.d/1", "b", "c/1", "c/link"];
        assert_eq!(paths(root.path(), Range::default()), all);
        let below = |below: &'static str| {
            paths(
                root.path(),
                Range {
                    below: below.as_bytes(),
                    after: None,
                },
            )
        };
        assert_eq!(below("a"), all[..3]);
        assert_eq!(below("a/b/2"), ["a/b/2"]);
    }

    #[test]
    fn a_walk_goes_on_behind_any_path_where_it_stopped() {
        let root = tree();
        let all = paths(root.path(), Range::default());
        for stopped in 0..all.len() {
            let range = Range {
                below: b"",
                after: Some(all[stopped].as_bytes()),
            };
            assert_eq!(paths(root.path(), range), all[stopped + 1..], "behind {}", all[stopped]);
        }
        let gone = Range {
            below: b"a",
            after: Some(b"a/b/11"),
        };
        assert_eq!(paths(root.path(), gone), ["a/b/2", "a/z"], "a file that went meanwhile");
    }
}
