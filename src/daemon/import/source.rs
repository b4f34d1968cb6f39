//! The tree that is imported, by descriptors, so that no path is too long and nothing planted in it leads elsewhere.
//!
//! Reads leave no trace in access times where that is allowed. What is removed was looked at right before, and is still
//! what was read.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, SeekFrom, Statx};
use rustix::io::Errno;

use crate::store::files::{names, open_dir, open_quietly, stat_at};
use crate::store::tree::stat_fd;

/// Longest list of attributes, and longest value, that Linux gives.
const ATTRIBUTE_BYTES_MAX: usize = 65_536;
/// A list that is no longer than this is fetched at once.
const LIST_BYTES_MOSTLY: usize = 1024;
/// A hole that is shorter is written as zeros: a missing page is less well guarded than one that is there.
const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// A directory of the tree.
pub struct SourceDir {
    fd: OwnedFd,
    /// Below the top, for messages.
    path: Vec<u8>,
    above: Option<(Arc<SourceDir>, CString)>,
    stat: Statx,
}

/// What a file was when it was looked at; any change of it makes another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    id: InodeId,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    names: u32,
}

/// One inode among all file systems.
pub type InodeId = (u32, u32, u64);

/// Which inode it is.
pub fn inode_id(stat: &Statx) -> InodeId {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

/// What kind of inode it is.
pub fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

impl Seen {
    /// From attributes.
    pub fn of(stat: &Statx) -> Self {
        Self {
            id: inode_id(stat),
            size: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            names: stat.stx_nlink,
        }
    }

    /// How many names it had.
    pub fn names(&self) -> u32 {
        self.names
    }

    /// Whether nobody changed the content since. An inode with several names gets a new time of change with
    /// each name that goes, so there the time of modification has to do.
    fn has_same_content(&self, now: &Self) -> bool {
        let is_alone = self.names == 1 && now.names == 1;
        self.id == now.id && self.size == now.size && self.mtime == now.mtime && (!is_alone || self.ctime == now.ctime)
    }
}

impl SourceDir {
    /// The top of a tree.
    ///
    /// # Errors
    /// As open(2).
    pub fn top(path: &Path) -> io::Result<Arc<Self>> {
        let fd = OwnedFd::from(File::open(path)?);
        let stat = stat_fd(&fd)?;
        Ok(Arc::new(Self {
            fd,
            path: Vec::new(),
            above: None,
            stat,
        }))
    }

    /// A directory in this one.
    ///
    /// # Errors
    /// As openat(2).
    pub fn enter(self: &Arc<Self>, name: &CStr) -> io::Result<Arc<Self>> {
        let fd = open_dir(self.fd.as_fd(), name)?;
        let stat = stat_fd(&fd)?;
        Ok(Arc::new(Self {
            fd,
            path: self.path_of(name),
            above: Some((self.clone(), name.to_owned())),
            stat,
        }))
    }

    /// Its name in the directory above; the top has none.
    pub fn name(&self) -> Option<&CStr> {
        self.above.as_ref().map(|(_, name)| name.as_c_str())
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its attributes, as they were before anything in it was looked at.
    pub fn stat(&self) -> &Statx {
        &self.stat
    }

    /// Its path below the top.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of a name in it, below the top.
    pub fn path_of(&self, name: &CStr) -> Vec<u8> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        path
    }

    /// Attributes of a name in it; no link is followed.
    ///
    /// # Errors
    /// As statx(2).
    pub fn look(&self, name: &CStr) -> io::Result<Statx> {
        Ok(stat_at(self.fd.as_fd(), name)?)
    }

    /// Opens a file in it for reading.
    ///
    /// # Errors
    /// As openat(2).
    pub fn open(&self, name: &CStr) -> io::Result<File> {
        open_quietly(self.fd.as_fd(), name)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// As readlinkat(2).
    pub fn link_target(&self, name: &CStr) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Removes a name, unless something else is there by now. True when it went.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove(&self, name: &CStr, seen: &Seen) -> io::Result<bool> {
        if !seen.has_same_content(&Seen::of(&self.look(name)?)) {
            return Ok(false);
        }
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?;
        Ok(true)
    }

    /// Removes this directory when it is empty; the top stays. True when it went.
    ///
    /// # Errors
    /// As rmdir(2), but for one that is not empty.
    pub fn remove_itself(&self) -> io::Result<bool> {
        let Some((above, name)) = &self.above else {
            return Ok(false);
        };
        match rustix::fs::unlinkat(&above.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Who is told what is in a tree. Names come in the order of bytes, directories before what is in them.
pub trait Visitor {
    /// A directory; whether to go in.
    fn enter(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<(), bool>;
    /// All in a directory that was gone into was told.
    fn leave(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<()>;
    /// Anything else.
    fn meet(&mut self, dir: &Arc<SourceDir>, name: &CStr, stat: &Statx) -> ControlFlow<()>;
    /// Something that cannot be looked at.
    fn fail(&mut self, path: &[u8], e: io::Error);
}

/// A directory on the way, and what is left in it.
struct Level {
    dir: Arc<SourceDir>,
    names: std::vec::IntoIter<CString>,
}

/// Tells a visitor all that is below `top`, but not `top` itself. What vanishes on the way was not there.
pub fn walk(top: &Arc<SourceDir>, visitor: &mut dyn Visitor) -> ControlFlow<()> {
    let mut levels = Vec::new();
    levels.extend(level(top, visitor));
    while let Some(last) = levels.last_mut() {
        let Some(name) = last.names.next() else {
            let dir = last.dir.clone();
            levels.pop();
            if !levels.is_empty() {
                visitor.leave(&dir)?;
            }
            continue;
        };
        let dir = last.dir.clone();
        let stat = match dir.look(&name) {
            Ok(stat) => stat,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                visitor.fail(&dir.path_of(&name), e);
                continue;
            }
        };
        if kind(&stat) != FileType::Directory {
            visitor.meet(&dir, &name, &stat)?;
            continue;
        }
        match dir.enter(&name) {
            Ok(inner) => {
                if visitor.enter(&inner)? {
                    levels.push(level(&inner, visitor).unwrap_or_else(|| Level {
                        dir: inner,
                        names: Vec::new().into_iter(),
                    }));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => visitor.fail(&dir.path_of(&name), e),
        }
    }
    ControlFlow::Continue(())
}

fn level(dir: &Arc<SourceDir>, visitor: &mut dyn Visitor) -> Option<Level> {
    match names(&dir.fd) {
        Ok(names) => Some(Level {
            dir: dir.clone(),
            names: names.into_iter(),
        }),
        Err(e) => {
            visitor.fail(dir.path(), e.into());
            None
        }
    }
}

/// A stretch of a file.
pub enum Stretch<'a> {
    /// Bytes at an offset.
    Data(u64, &'a [u8]),
    /// So many zeros that take no room.
    Hole(u64),
}

/// Reads a file of `size` bytes from its beginning; returns the bytes that there were, less when it was cut meanwhile.
///
/// # Errors
/// Those of `take`, and of reading, which `unreadable` wraps.
pub fn read<E>(
    file: &File,
    size: u64,
    buffer: &mut [u8],
    unreadable: impl Fn(io::Error) -> E,
    mut take: impl FnMut(Stretch<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let mut offset = 0;
    while offset < size {
        let (end, is_hole) = stretch_at(file, offset, size);
        if is_hole {
            take(Stretch::Hole(end - offset))?;
            offset = end;
            continue;
        }
        while offset < end {
            let most = usize::try_from(end - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
            match file.read_at(&mut buffer[..most], offset) {
                Ok(0) => return Ok(offset),
                Ok(bytes) => {
                    take(Stretch::Data(offset, &buffer[..bytes]))?;
                    offset += bytes as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(e)),
            }
        }
    }
    Ok(offset)
}

/// Where the stretch at `offset` ends, behind it, and whether it is a hole. Where nobody can tell, all is data.
fn stretch_at(file: &File, offset: u64, size: u64) -> (u64, bool) {
    let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => at.min(size),
        Err(Errno::NXIO) => size,
        Err(_) => return (size, false),
    };
    if data.saturating_sub(offset) >= HOLE_BYTES_MIN {
        return (data, true);
    }
    if data >= size {
        return (size, false);
    }
    match rustix::fs::seek(file, SeekFrom::Hole(data)) {
        Ok(at) if at > data => (at.min(size), false),
        _ => (size, false),
    }
}

/// An extended attribute.
pub struct Attribute {
    /// Its name.
    pub name: OsString,
    /// Its value.
    pub value: Vec<u8>,
}

/// The extended attributes of an open inode whose names `is_wanted`.
///
/// # Errors
/// As flistxattr(2) and fgetxattr(2), except where the file system has none at all.
pub fn attributes(fd: BorrowedFd<'_>, mut is_wanted: impl FnMut(&OsString) -> bool) -> io::Result<Vec<Attribute>> {
    let mut list = vec![0; LIST_BYTES_MOSTLY];
    let bytes = match rustix::fs::flistxattr(fd, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        Err(Errno::RANGE) => {
            list.resize(ATTRIBUTE_BYTES_MAX, 0);
            rustix::fs::flistxattr(fd, &mut list[..])?
        }
        other => other?,
    };
    let mut found = Vec::new();
    for name in list[..bytes].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let os_name = OsString::from_vec(name.to_vec());
        if !is_wanted(&os_name) {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
        match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(bytes) => {
                value.truncate(bytes);
                found.push(Attribute { name: os_name, value });
            }
            // It went meanwhile.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Told {
        fn add(&mut self, what: &str, path: &[u8]) {
            self.0.push(format!("{what} {}", String::from_utf8_lossy(path)));
        }
    }

    impl Visitor for Told {
        fn enter(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<(), bool> {
            self.add("enter", dir.path());
            ControlFlow::Continue(!dir.path().ends_with(b"closed"))
        }
        fn leave(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<()> {
            self.add("leave", dir.path());
            ControlFlow::Continue(())
        }
        fn meet(&mut self, dir: &Arc<SourceDir>, name: &CStr, _: &Statx) -> ControlFlow<()> {
            self.add("meet", &dir.path_of(name));
            ControlFlow::Continue(())
        }
        fn fail(&mut self, path: &[u8], e: io::Error) {
            panic!("{}: {e}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn a_walk_tells_each_name_once_and_follows_no_link() {
        let top = tempfile::tempdir().unwrap();
        for dir in ["a/b", "closed/inside", "empty"] {
            fs::create_dir_all(top.path().join(dir)).unwrap();
        }
        fs::write(top.path().join("a/b/1"), "").unwrap();
        fs::write(top.path().join("z"), "").unwrap();
        std::os::unix::fs::symlink("a", top.path().join("link")).unwrap();
        let mut told = Told::default();
        assert!(walk(&SourceDir::top(top.path()).unwrap(), &mut told).is_continue());
        let expected = [
            "enter a",
            "enter a/b",
            "meet a/b/1",
            "leave a/b",
            "leave a",
            "enter closed",
            "enter empty",
            "leave empty",
            "meet link",
            "meet z",
        ];
        assert_eq!(told.0, expected);
    }

    #[test]
    fn long_holes_are_told_and_all_bytes_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create_new(dir.path().join("sparse")).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"end", 1 << 20).unwrap();
        file.set_len(2 << 20).unwrap();
        let file = File::open(dir.path().join("sparse")).unwrap();
        let (mut hole_bytes, mut content) = (0, Vec::new());
        let read = read(
            &file,
            2 << 20,
            &mut [0; 4096],
            |e| e,
            |stretch| {
                match stretch {
                    Stretch::Data(offset, bytes) => {
                        assert_eq!(offset, content.len() as u64);
                        content.extend_from_slice(bytes);
                    }
                    Stretch::Hole(bytes) => {
                        hole_bytes += bytes;
                        content.resize(content.len() + bytes as usize, 0);
                    }
                }
                Ok(())
            },
        );
        assert_eq!(read.unwrap(), 2 << 20);
        assert!(content == fs::read(dir.path().join("sparse")).unwrap());
        assert!(hole_bytes > 1 << 20, "{hole_bytes}");
    }

    #[test]
    fn what_changed_since_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("call");
        fs::write(&path, "one").unwrap();
        let top = SourceDir::top(dir.path()).unwrap();
        let seen = Seen::of(&top.look(c"call").unwrap());
        fs::write(&path, "more").unwrap();
        assert!(!top.remove(c"call", &seen).unwrap() && path.exists());
        let seen = Seen::of(&top.look(c"call").unwrap());
        assert!(top.remove(c"call", &seen).unwrap() && !path.exists());
    }
}
