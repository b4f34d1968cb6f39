//! Attributes as the mount shows them: the backing inode's, with the plaintext length.

use rustix::fs::{FileType, Statx};

use crate::id::Ino;

/// Attributes of one inode. Times are seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Plaintext bytes of a file; what the backing says otherwise.
    pub size: u64,
    /// Blocks of 512 bytes on the backing disk.
    pub blocks: u64,
    /// Last access.
    pub atime: (i64, u32),
    /// Last change of content.
    pub mtime: (i64, u32),
    /// Last change of the inode.
    pub ctime: (i64, u32),
    /// Creation.
    pub btime: (i64, u32),
    /// Type.
    pub kind: FileType,
    /// Permission bits with suid, sgid and sticky.
    pub permissions: u16,
    /// Names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device numbers of a device inode, major and minor.
    pub device: (u32, u32),
}

impl Attr {
    /// Attributes from the backing inode; `plain_length` of regular files.
    pub fn of(stat: &Statx, plain_length: Option<u64>) -> Self {
        let time = |t: rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
        Self {
            ino: Ino(stat.stx_ino),
            size: plain_length.unwrap_or(stat.stx_size),
            blocks: stat.stx_blocks,
            atime: time(stat.stx_atime),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            btime: time(stat.stx_btime),
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            permissions: stat.stx_mode & 0o7777,
            links: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
        }
    }
}
