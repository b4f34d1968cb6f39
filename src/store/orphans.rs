//! Recordings whose last name is gone while somebody has them open, kept under a name of their own beside the data: a
//! process that dies would take them with it otherwise.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::id::Ino;
use crate::store::tree::{STATX_WANTED, link, unlink};

/// Readable for nobody else: names and modes of what lies here are those of recordings.
const MODE: u32 = 0o700;

/// The directory of those without a name.
pub struct Orphans {
    directory: OwnedFd,
}

impl Orphans {
    /// Opens the directory at `path`, and makes it where there is none.
    ///
    /// # Errors
    /// As mkdir(2) and open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { directory })
    }

    /// Gives an inode, whose last name is about to go, a name here.
    ///
    /// # Errors
    /// As link(2).
    pub fn keep(&self, inode: BorrowedFd<'_>, ino: Ino) -> io::Result<()> {
        let name = name_of(ino);
        match link(inode, &self.directory, &name) {
            // Of an inode that had the number before, and was not taken away.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                unlink(&self.directory, &name)?;
                link(inode, &self.directory, &name)
            }
            other => other,
        }
    }

    /// Nobody has it open any more.
    pub fn let_go(&self, ino: Ino) {
        match unlink(&self.directory, &name_of(ino)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => log::warn!("a deleted recording (inode {ino}) still takes room in the store: {e}"),
        }
    }

    /// Whether an inode has its only name here.
    pub fn holds(&self, ino: Ino) -> bool {
        rustix::fs::statx(&self.directory, name_of(ino), AtFlags::SYMLINK_NOFOLLOW, STATX_WANTED)
            .is_ok_and(|stat| stat.stx_ino == ino.0 && stat.stx_nlink == 1)
    }

    /// Removes all but those that are wanted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn remove_all_but(&self, is_wanted: impl Fn(Ino) -> bool) -> io::Result<()> {
        for entry in Dir::read_from(self.directory.as_fd())? {
            let entry = entry?;
            let Some(ino) = ino_of(entry.file_name().to_bytes()) else {
                continue;
            };
            if !is_wanted(ino) {
                self.let_go(ino);
            }
        }
        Ok(())
    }

    /// Removes those that did not lose their other name, because the process died right before that: they would be
    /// counted as files with several names.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn remove_those_with_names(&self) -> io::Result<()> {
        self.remove_all_but(|ino| self.holds(ino))
    }
}

fn name_of(ino: Ino) -> CString {
    CString::new(ino.to_string()).expect("digits hold no zero byte")
}

fn ino_of(name: &[u8]) -> Option<Ino> {
    std::str::from_utf8(name).ok()?.parse().ok().map(Ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_inode_outlives_its_last_name_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let orphans = Orphans::open(&dir.path().join("orphans")).unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "content").unwrap();
        let open = File::open(&file).unwrap();
        let ino = Ino(open.metadata().unwrap().ino());
        orphans.keep(open.as_fd(), ino).unwrap();
        assert!(!orphans.holds(ino), "it has another name");
        orphans.remove_those_with_names().unwrap();
        assert_eq!(open.metadata().unwrap().nlink(), 1);
        orphans.keep(open.as_fd(), ino).unwrap();
        fs::remove_file(&file).unwrap();
        drop(open);
        assert!(orphans.holds(ino));
        orphans.remove_those_with_names().unwrap();
        orphans.remove_all_but(|open| open == ino).unwrap();
        assert_eq!(
            fs::read(dir.path().join("orphans").join(ino.to_string())).unwrap(),
            b"content"
        );
        orphans.remove_all_but(|_| false).unwrap();
        assert!(!orphans.holds(ino));
        orphans.let_go(ino);
    }

    #[test]
    fn a_number_that_came_again_takes_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let orphans = Orphans::open(&dir.path().join("orphans")).unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "new").unwrap();
        let open = File::open(&file).unwrap();
        let ino = Ino(open.metadata().unwrap().ino());
        let stale = dir.path().join("orphans").join(ino.to_string());
        fs::write(&stale, "old").unwrap();
        orphans.keep(open.as_fd(), ino).unwrap();
        assert_eq!(fs::read(&stale).unwrap(), b"new");
    }
}
