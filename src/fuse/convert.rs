//! FUSE's types to the file system's and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, FopenFlags, Generation, INodeNo, OpenAccMode, OpenFlags, Request, TimeOrNow};

use crate::fs::{Attr, Caller, DirEntry, Errno, NewTime, OpenMode, Opened, OpenedDirectory, Remembered};

/// The daemon is the only writer, so what the kernel knows stays true; what the daemon changes by
/// itself it takes back.
pub const TTL: Duration = Duration::from_hours(1);
/// The kernel takes an EIO for a request of a process that died as not done, and it may have been done: so long nobody sees
/// that.
pub const UNSURE_TTL: Duration = Duration::from_secs(1);

/// No file system numbers inodes from here on.
const NOBODYS_INODE: u64 = 1 << 63;

pub fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        thread: request.pid(),
    }
}

pub fn errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.0)
}

pub fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        crtime: time(attr.btime),
        kind: kind(attr.kind),
        perm: attr.permissions,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: rustix::fs::makedev(attr.device.0, attr.device.1) as u32,
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes for a name that is not there: number 0 says so.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(nanoseconds));
    if seconds >= 0 {
        UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()) + nanoseconds
    } else {
        UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanoseconds
    }
}

pub fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => match time.duration_since(UNIX_EPOCH) {
            Ok(after) => NewTime::At(i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            // fuser takes the nanoseconds of a time before 1970 off where the kernel means them on top.
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                NewTime::At(-whole, before.subsec_nanos())
            }
        },
    }
}

pub fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub fn generation(generation: u32) -> Generation {
    Generation(u64::from(generation))
}

pub fn open_mode(flags: OpenFlags) -> OpenMode {
    let has = |flag: i32| flags.0 & flag != 0;
    OpenMode {
        reads: flags.acc_mode() != OpenAccMode::O_WRONLY,
        writes: flags.acc_mode() != OpenAccMode::O_RDONLY,
        appends: has(libc::O_APPEND),
        truncates: has(libc::O_TRUNC),
        exclusive: has(libc::O_EXCL),
    }
}

pub fn fopen_flags(opened: &Opened, how: OpenMode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    }
    if opened.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if !how.writes {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    flags
}

pub fn listing_flags(opened: OpenedDirectory) -> FopenFlags {
    match opened.remembered {
        Remembered::Not => FopenFlags::empty(),
        Remembered::Anew => FopenFlags::FOPEN_CACHE_DIR,
        Remembered::Kept => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
    }
}

/// Attributes for a listed name that has no entry. The kernel takes them for those of an inode and counts a
/// look-up (but of "." and ".."), which the inode of that name did not get: so they have a number that no
/// inode has, and are void at once.
pub fn without_entry(name: &DirEntry<'_>) -> FileAttr {
    let is_dot = matches!(name.name.to_bytes(), b"." | b"..");
    FileAttr {
        ino: INodeNo(if is_dot { name.ino.0 } else { name.ino.0 | NOBODYS_INODE }),
        kind: kind(name.kind),
        ..absent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time of the kernel's as fuser hands it over.
    fn decoded(seconds: i64, nanoseconds: u32) -> SystemTime {
        let distance = Duration::new(seconds.unsigned_abs(), nanoseconds);
        if seconds >= 0 {
            UNIX_EPOCH + distance
        } else {
            UNIX_EPOCH - distance
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        for (seconds, nanoseconds) in [
            (-2, 250_000_000),
            (-1, 999_999_999),
            (-5, 0),
            (0, 1),
            (1_700_000_000, 5),
        ] {
            assert_eq!(
                new_time(TimeOrNow::SpecificTime(decoded(seconds, nanoseconds))),
                NewTime::At(seconds, nanoseconds)
            );
        }
    }
}
