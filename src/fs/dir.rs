//! Reading directories: straight from the backing one, with its own positions, so that telldir and
//! seekdir hold while names come and go.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};

use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::is_figure;
use crate::fs::handles::Handle;
use crate::fs::node::Node;
use crate::fs::{Entry, FileSystem};
use crate::id::{Fh, Ino};
use crate::quota::OperationKind;
use crate::store::tree::stat_fd;

/// Bytes of names fetched from the backing directory at a time: about what goes into one answer, for the
/// rest is fetched again.
const NAMES_BYTES: usize = 32 * 1024;
/// The same with an entry for each name, which takes four to five times as much in the answer.
const ENTRIES_BYTES: usize = 8 * 1024;
/// Room for "." at least, whatever name comes first: 255 bytes and what stands before them.
const BEGINNING_BYTES: usize = 512;
/// A directory that did not change for longer than this is at rest: ten ticks of the slowest clock that Linux stamps
/// inodes with (`CONFIG_HZ=100`). Two changes within one tick could not be told apart.
const REST: Duration = Duration::from_millis(100);
/// The same where stamps may be whole seconds, as those of ext4 with 128-byte inodes are.
const REST_WHOLE_SECONDS: Duration = Duration::from_secs(1);

/// One directory being read. The lock keeps two readers of one handle apart.
///
/// Many directories are opened only to be named by their descriptors: one of our own is spent on the
/// first reading.
#[derive(Default)]
pub struct Stream {
    directory: Mutex<Option<Backing>>,
}

/// The backing directory of a stream.
struct Backing {
    file: File,
    /// Names were read from its beginning; see [`begin`].
    has_begun: bool,
}

/// A directory opened for reading.
#[derive(Clone, Copy, Debug)]
pub struct OpenedDirectory {
    /// Its handle.
    pub fh: Fh,
    /// Whether the kernel may remember its names.
    pub remembered: Remembered,
}

/// What the kernel does with the names of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembered {
    /// It asks for them each time: they change just now, and whoever goes back to a position in the midst of
    /// them wants to see that.
    Not,
    /// It forgets what it has, and remembers what is read next.
    Anew,
    /// It answers from what it has of an earlier reading.
    Kept,
}

/// A name in a listing.
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: Ino,
    /// Position behind this name.
    pub next: u64,
    /// Type.
    pub kind: FileType,
    /// The name.
    pub name: &'a std::ffi::CStr,
    /// What a look-up of the name would answer, when it was asked for. Absent for "." and "..", and where
    /// the look-up fails: the name is there all the same.
    pub entry: Option<Entry>,
}

/// What the reader wants with each name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// Names alone.
    Names,
    /// A look-up of each.
    WithEntries,
}

impl FileSystem {
    /// Opens a directory for reading.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE.
    pub fn opendir(&self, number: u64) -> FsResult<OpenedDirectory> {
        if is_figure(number) {
            return Ok(OpenedDirectory {
                fh: self.open_figure_directory(number)?,
                remembered: Remembered::Not,
            });
        }
        let node = self.node(number)?;
        if !node.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        self.count(&node, OperationKind::List);
        let remembered = self.remembered(&node);
        let pin = self.nodes.pin(&node);
        let fh = self.handles.insert(Handle::directory(pin, Stream::default()));
        Ok(OpenedDirectory { fh, remembered })
    }

    /// What is changed through the mount the kernel notices by itself, when a reading begins. The time of change is
    /// for what the daemon makes and removes by itself, and others behind its back.
    fn remembered(&self, node: &Node) -> Remembered {
        let Ok(stat) = node.with_path(&self.tree, |fd| stat_fd(fd)) else {
            return Remembered::Not;
        };
        let (s, ns) = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        let changed = Duration::new(s.try_into().unwrap_or(0), ns);
        let is_at_rest = self.clock.now().saturating_sub(changed) > rest_after(changed);
        let changed_ns = if is_at_rest { changed.as_nanos() as u64 } else { 0 };
        let before_ns = node.listed_at_ns.swap(changed_ns, Ordering::Relaxed);
        match is_at_rest {
            false => Remembered::Not,
            true if before_ns == changed_ns => Remembered::Kept,
            true => Remembered::Anew,
        }
    }

    /// Hands names from `position` on to `take` until it says that it is full (true). With entries,
    /// every one taken counts as a look-up; one that did not fit is forgotten again.
    ///
    /// # Errors
    /// EBADF; errors of the backing directory.
    pub fn readdir(
        &self,
        fh: Fh,
        position: u64,
        listing: Listing,
        mut take: impl FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        if is_figure(fh.0) {
            return self.list_figures(fh, position, take);
        }
        let handle = self.handles.get(fh)?;
        let stream = handle.stream.as_ref().ok_or(Errno::ENOTDIR)?;
        let mut directory = stream.directory.lock();
        let opened = self.opened(&handle, &mut directory)?;
        if !std::mem::replace(&mut opened.has_begun, true) && position > 0 {
            begin(&opened.file)?;
        }
        let directory = &opened.file;
        rustix::fs::seek(directory, SeekFrom::Start(position))?;
        let mut buffer = Vec::with_capacity(match listing {
            Listing::Names => NAMES_BYTES,
            Listing::WithEntries => ENTRIES_BYTES,
        });
        let mut names = RawDir::new(directory.as_fd(), buffer.spare_capacity_mut());
        while let Some(name) = names.next() {
            let name = name?;
            let is_dot = matches!(name.file_name().to_bytes(), b"." | b"..");
            let mut entry = DirEntry {
                ino: Ino(name.ino()),
                next: name.next_entry_cookie(),
                kind: name.file_type(),
                name: name.file_name(),
                entry: None,
            };
            if listing == Listing::WithEntries && !is_dot {
                match self.listed_entry(&handle, directory.as_fd(), name.file_name()) {
                    Ok(found) => entry.entry = Some(found),
                    // It has gone meanwhile.
                    Err(Errno::ENOENT) => continue,
                    Err(_) => {}
                }
            }
            if take(&entry) {
                if let Some(entry) = entry.entry {
                    self.nodes.forget(entry.attr.ino.0, 1);
                }
                break;
            }
        }
        Ok(())
    }

    fn listed_entry(
        &self,
        handle: &Arc<Handle>,
        directory: std::os::fd::BorrowedFd<'_>,
        name: &std::ffi::CStr,
    ) -> FsResult<Entry> {
        let stat = self.tree.stat_at(directory, name)?;
        self.meet(handle.node(), name, &stat).map(|(_, entry)| entry)
    }

    /// A directory handle is closed.
    ///
    /// # Errors
    /// EBADF.
    pub fn releasedir(&self, fh: Fh) -> FsResult<()> {
        if is_figure(fh.0) {
            return self.close_figure(fh);
        }
        let handle = self.handles.remove(fh)?;
        self.forget_handle(&handle);
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn fsyncdir(&self, fh: Fh) -> FsResult<()> {
        if is_figure(fh.0) {
            return Ok(());
        }
        let handle = self.handles.get(fh)?;
        let stream = handle.stream.as_ref().ok_or(Errno::ENOTDIR)?;
        let mut directory = stream.directory.lock();
        match self.opened(&handle, &mut directory) {
            Ok(directory) => rustix::fs::fsync(&directory.file).map_err(|e| {
                self.failures.count_failed_syncs(1);
                e.into()
            }),
            // It was removed: no name in it is left to be lost.
            Err(Errno::ESTALE) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The backing directory behind a handle, opened by now.
    fn opened<'a>(&self, handle: &Handle, directory: &'a mut Option<Backing>) -> FsResult<&'a mut Backing> {
        match directory {
            Some(open) => Ok(open),
            None => Ok(directory.insert(Backing {
                file: handle.node().open(&self.tree, OFlags::RDONLY | OFlags::DIRECTORY)?,
                has_begun: false,
            })),
        }
    }
}

/// Reads from the beginning once. ext4 takes a descriptor that was first read at the end for one that stands at the end
/// when it is rewound: `last_pos` of its `dir_private_info` is 0 until something was found (fs/ext4/dir.c).
fn begin(directory: &File) -> FsResult<()> {
    let mut buffer = Vec::with_capacity(BEGINNING_BYTES);
    match RawDir::new(directory.as_fd(), buffer.spare_capacity_mut()).next() {
        Some(Err(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

/// How long after a change of this time the next one is certain to have another. A fraction shows that the file system
/// stamps with one.
fn rest_after(changed: Duration) -> Duration {
    if changed.subsec_nanos() == 0 {
        REST_WHOLE_SECONDS
    } else {
        REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_a_whole_second_is_not_trusted_before_the_next_one() {
        assert_eq!(rest_after(Duration::from_secs(1_795_000_000)), Duration::from_secs(1));
        assert_eq!(rest_after(Duration::new(1_795_000_000, 1)), Duration::from_millis(100));
    }
}
