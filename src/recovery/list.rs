//! Reading one directory: what a scan and a replay share, so that they cannot count differently.
//!
//! Everything is relative to the descriptor of the data directory; no symbolic link is followed
//! and no other file system entered. An entry that vanishes while it is looked at was not there.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::error::Error;
use crate::db::{DirRow, LinkRow};
use crate::id::Ino;
use crate::quota::LimitOverrides;
use crate::sealed::length::{SizeOnDisk, classify};
use crate::store::tree::{limits_text, piece_len};
use crate::units::Meters;

/// One getdents call takes this much: some 3,000 names.
pub(super) const LISTING_BUFFER_BYTES: usize = 128 * 1024;

/// What a count gets from its surroundings.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    /// Generation of a directory's inode, 0 where the file system has none.
    pub generation: &'a (dyn Fn(BorrowedFd<'_>) -> u32 + Sync),
    /// Limits that were set on a directory.
    pub limits: &'a (dyn Fn(BorrowedFd<'_>) -> LimitOverrides + Sync),
    /// Time on any clock that does not go back.
    pub now: &'a (dyn Fn() -> Duration + Sync),
}

/// Limits that were set on a directory, as it carries them; none, with a line in the log, where they cannot be read.
pub fn limits_on(directory: BorrowedFd<'_>) -> LimitOverrides {
    let read = limits_text(directory).map_err(|e| e.to_string());
    let limits = read.and_then(|text| LimitOverrides::parse(&text.unwrap_or_default()));
    limits.unwrap_or_else(|e| {
        let ino = rustix::fs::fstat(directory).map_or(0, |stat| stat.st_ino);
        log::error!("limits of directory inode {ino}: {e}; they do not count until they are set anew");
        LimitOverrides::NONE
    })
}

/// A file that was being written: its length is in its pages. Counted with 0 bytes; the caller
/// recovers it and adds the length with [`Counted::add_recovered`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Unclean {
    pub parent: Ino,
    pub name: Vec<u8>,
    pub ino: Ino,
    pub nlink: u32,
}

/// A file of a size that no sealed file has. Counted as a file with 0 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Damaged {
    /// Relative to the data directory.
    pub path: PathBuf,
    pub size: u64,
}

/// What it took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Directories that were listed.
    pub directories_read: u64,
    /// Other entries that were looked at.
    pub files_read: u64,
    pub elapsed: Duration,
}

/// A count of the data directory, in a fixed order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Counted {
    /// By inode number. The root is its own parent.
    pub dirs: Vec<DirRow>,
    /// By inode number and parent; only inodes with several links.
    pub links: Vec<LinkRow>,
    /// Each inode once. A replay lists those in the directories it re-read.
    pub unclean: Vec<Unclean>,
    pub damaged: Vec<Damaged>,
    /// Directories on other file systems, neither entered nor counted. Relative paths.
    pub foreign: Vec<PathBuf>,
    pub stats: Stats,
}

impl Counted {
    /// Adds the length that recovering an unclean file found. Finds the row by bisection, so the
    /// rows have to be in their order still.
    pub fn add_recovered(&mut self, file: &Unclean, plain_len: u64) {
        let first = self.links.partition_point(|row| row.ino < file.ino);
        let mut rows = self.links[first..]
            .iter_mut()
            .take_while(|row| row.ino == file.ino)
            .peekable();
        if rows.peek().is_some() {
            rows.for_each(|row| row.bytes = plain_len);
        } else if let Ok(at) = self.dirs.binary_search_by_key(&file.parent, |row| row.ino) {
            self.dirs[at].own.bytes += plain_len;
        }
    }
}

/// The tree that is counted.
#[derive(Clone, Copy)]
pub(super) struct Root<'a> {
    pub fd: BorrowedFd<'a>,
    pub ino: Ino,
    device: u64,
}

/// A directory that is open.
pub(super) struct Opened {
    pub fd: OwnedFd,
    pub ino: Ino,
}

/// Why a directory is not read, short of an error.
pub(super) enum Absent {
    Vanished,
    Foreign,
}

impl<'a> Root<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> Result<Self, Error> {
        let stat = rustix::fs::fstat(fd).map_err(|e| failed(b"", "stat", e))?;
        Ok(Self {
            fd,
            ino: Ino(stat.st_ino),
            device: stat.st_dev,
        })
    }

    /// Opens the directory at `path`, relative to the root; empty for the root.
    pub(super) fn open(&self, path: &[u8]) -> Result<Result<Opened, Absent>, Error> {
        let fd = match open_beneath(self.fd, path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {
                return Ok(Err(Absent::Vanished));
            }
            Err(Errno::XDEV) => return Ok(Err(Absent::Foreign)),
            Err(e) => return Err(failed(path, "open", e)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed(path, "stat", e))?;
        if stat.st_dev != self.device {
            return Ok(Err(Absent::Foreign));
        }
        let ino = Ino(stat.st_ino);
        Ok(Ok(Opened { fd, ino }))
    }
}

/// Names of one directory. The names of what is no directory lie one after the other, each ended
/// by a zero byte, so that a million of them is two allocations.
#[derive(Default)]
pub(super) struct Listing {
    pub subdirs: Vec<Vec<u8>>,
    names: Vec<u8>,
    /// Inode number and start of the name, by inode number: the order of the inode table.
    others: Vec<(u64, usize)>,
}

impl Listing {
    /// Lists `dir`. `buffer` is scratch space of any content.
    pub(super) fn read(dir: &Opened, path: &[u8], buffer: &mut Vec<u8>) -> Result<Self, Error> {
        let mut listing = Self::default();
        buffer.clear();
        buffer.reserve(LISTING_BUFFER_BYTES);
        let mut entries = RawDir::new(&dir.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| failed(path, "list", e))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => is_directory(&dir.fd, name, path)?,
                kind => kind == FileType::Directory,
            };
            if is_dir {
                listing.subdirs.push(name.to_bytes().to_vec());
            } else {
                listing.others.push((entry.ino(), listing.names.len()));
                listing.names.extend_from_slice(name.to_bytes_with_nul());
            }
        }
        listing.others.sort_unstable();
        Ok(listing)
    }

    /// Number of entries that are no directories.
    pub(super) fn others_len(&self) -> usize {
        self.others.len()
    }

    /// Looks at some of the entries that are no directories; what they add to the directory's
    /// own figures is returned, the rest goes to `found`.
    pub(super) fn count(
        &self,
        range: std::ops::Range<usize>,
        dir: &Opened,
        path: &[u8],
        root: &Root<'_>,
        found: &mut Found,
    ) -> Result<Meters, Error> {
        let mut own = Meters::default();
        for &(_, start) in &self.others[range] {
            let Ok(name) = CStr::from_bytes_until_nul(&self.names[start..]) else {
                continue;
            };
            let Some(stat) = stat(&dir.fd, name, path)? else {
                continue;
            };
            found.files_read += 1;
            if rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor) == root.device {
                let one = found.take(&stat, name.to_bytes(), dir.ino, path);
                own.bytes += one.bytes;
                own.files += one.files;
            }
        }
        Ok(own)
    }
}

/// What was found besides directories' own figures.
#[derive(Default)]
pub(super) struct Found {
    /// One for every link: inode, parent, length.
    pub links: Vec<(Ino, Ino, u64)>,
    pub unclean: Vec<Unclean>,
    pub damaged: Vec<Damaged>,
    pub foreign: Vec<PathBuf>,
    pub directories_read: u64,
    pub files_read: u64,
}

impl Found {
    pub(super) fn absorb(&mut self, other: Self) {
        self.links.extend(other.links);
        self.unclean.extend(other.unclean);
        self.damaged.extend(other.damaged);
        self.foreign.extend(other.foreign);
        self.directories_read += other.directories_read;
        self.files_read += other.files_read;
    }

    /// Counts one entry.
    fn take(&mut self, stat: &Statx, name: &[u8], parent: Ino, path: &[u8]) -> Meters {
        let ino = Ino(stat.stx_ino);
        let bytes = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => match classify(stat.stx_size) {
                SizeOnDisk::Clean(len) => len,
                SizeOnDisk::Unclean => {
                    let nlink = stat.stx_nlink;
                    let name = name.to_vec();
                    self.unclean.push(Unclean {
                        parent,
                        name,
                        ino,
                        nlink,
                    });
                    0
                }
                SizeOnDisk::Damaged => {
                    let path = to_path(&child(path, name));
                    let size = stat.stx_size;
                    self.damaged.push(Damaged { path, size });
                    0
                }
            },
            _ => 0,
        };
        if stat.stx_nlink > 1 {
            self.links.push((ino, parent, bytes));
            return Meters::default();
        }
        Meters {
            bytes,
            files: 1,
            dirs: 0,
        }
    }

    /// Puts everything into its fixed order. `kept` are link rows that were not read anew.
    pub(super) fn into_counted(self, mut dirs: Vec<DirRow>, kept: Vec<LinkRow>, elapsed: Duration) -> Counted {
        dirs.sort_unstable_by_key(|row| row.ino);
        let mut rows: HashMap<(Ino, Ino), LinkRow> = HashMap::new();
        for (ino, parent, bytes) in self.links {
            let row = rows.entry((ino, parent)).or_insert(LinkRow {
                ino,
                parent,
                names: 0,
                bytes,
            });
            row.names += 1;
        }
        let mut links: Vec<LinkRow> = rows.into_values().chain(kept).collect();
        links.sort_unstable_by_key(|row| (row.ino, row.parent));
        let mut unclean = self.unclean;
        unclean.sort_unstable_by(|a, b| (a.ino, a.parent, &a.name).cmp(&(b.ino, b.parent, &b.name)));
        unclean.dedup_by_key(|file| file.ino);
        let mut damaged = self.damaged;
        damaged.sort_unstable();
        let mut foreign = self.foreign;
        foreign.sort_unstable();
        Counted {
            dirs,
            links,
            unclean,
            damaged,
            foreign,
            stats: Stats {
                directories_read: self.directories_read,
                files_read: self.files_read,
                elapsed,
            },
        }
    }
}

/// Path of an entry.
pub(super) fn child(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut child = Vec::with_capacity(path.len() + 1 + name.len());
    child.extend_from_slice(path);
    if !path.is_empty() {
        child.push(b'/');
    }
    child.extend_from_slice(name);
    child
}

pub(super) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

fn failed(path: &[u8], operation: &'static str, e: Errno) -> Error {
    Error::Read {
        path: to_path(path),
        operation,
        source: e.into(),
    }
}

fn is_directory(dir: &OwnedFd, name: &CStr, path: &[u8]) -> Result<bool, Error> {
    let stat = stat(dir, name, path)?;
    Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory))
}

/// `None` for what is not there any more.
fn stat(dir: &OwnedFd, name: &CStr, path: &[u8]) -> Result<Option<Statx>, Error> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::INO | StatxFlags::SIZE;
    match rustix::fs::statx(dir, name, flags, mask) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(e) => Err(failed(&child(path, name.to_bytes()), "stat", e)),
    }
}

/// Opens a directory by a path without `..`, as far as need be in stages.
fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    loop {
        let cut = piece_len(rest);
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        let fd = open_piece(from, &rest[..cut])?;
        if cut == rest.len() {
            return Ok(fd);
        }
        at = Some(fd);
        rest = &rest[cut + 1..];
    }
}

fn open_piece(from: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_empty() {
        return rustix::fs::openat(from, c".", flags, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_by_component(from, path, flags),
        other => other,
    }
}

/// The same without openat2: no component is a symbolic link, and names never are `..`.
fn open_by_component(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for name in path.split(|&byte| byte == b'/') {
        let from = at.as_ref().map_or(from, AsFd::as_fd);
        at = Some(rustix::fs::openat(from, name, flags, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_before_a_slash() {
        let path = [b"a".repeat(2500), b"b".repeat(2500), b"c".repeat(10)].join(&b'/');
        assert_eq!(piece_len(&path), 2500);
        assert_eq!(piece_len(&path[2501..]), 2511);
        assert_eq!(piece_len(b""), 0);
    }

    #[test]
    fn without_openat2_links_are_not_followed_either() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        let root = std::fs::File::open(temp.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        assert!(open_by_component(root.as_fd(), b"a/b", flags).is_ok());
        assert!(open_by_component(root.as_fd(), b"link/b", flags).is_err());
        assert!(open_beneath(root.as_fd(), b"a/b").is_ok());
        assert!(open_beneath(root.as_fd(), b"link/b").is_err());
        assert!(open_beneath(root.as_fd(), b"a/../a").is_ok());
        assert!(open_beneath(root.as_fd(), b"..").is_err());
    }
}
