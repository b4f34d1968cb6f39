//! Kernel file handles: a name for an inode that outlives its path and this process.
//!
//! `name_to_handle_at` gives one, `open_by_handle_at` opens it again (which needs
//! `CAP_DAC_READ_SEARCH`). The bytes are the backing file system's own and are only compared,
//! stored and given back. They differ from the handle of an inode of the same number that was
//! deleted before, so their hash serves as the generation that FUSE wants.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;

/// Largest handle the kernel makes (`MAX_HANDLE_SZ` in linux/exportfs.h).
const HANDLE_BYTES_MAX: usize = 128;

/// Handles up to this length lie in the value itself: ext4 needs 8 bytes, xfs 12, btrfs 20.
const INLINE_BYTES_MAX: usize = 22;

/// Kinds whose layout the kernel fixes (linux/exportfs.h): a number of 32 bits and a generation, as ext4 has it.
const INO32_GENERATION: i32 = 1;
/// A number of 64 bits and a generation: xfs.
const INO64_GENERATION: i32 = 0x81;
/// A number of 64 bits, a subvolume and a generation: btrfs.
const BTRFS: i32 = 0x4d;

/// The kernel's `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; HANDLE_BYTES_MAX],
}

/// The bytes of a handle; short ones without an allocation. A length up to
/// [`INLINE_BYTES_MAX`] is always `Inline` with zeroes behind it, so derived equality holds.
#[derive(Clone, PartialEq, Eq, Hash)]
enum HandleBytes {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Heap(Box<[u8]>),
}

/// An owned handle of one inode of one file system.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    kind: i32,
    bytes: HandleBytes,
}

impl FileHandle {
    /// The handle of what `fd` has open (`O_PATH` will do).
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the backing file system has no handles; `EBADF`, `ENOMEM`.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        Self::from_kernel(&fd, c"", libc::AT_EMPTY_PATH)
    }

    /// The handle of `name` in `dir`; a symbolic link is not followed.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES` as for a look-up; `EOPNOTSUPP` where there are no handles.
    pub fn at(dir: impl AsFd, name: &CStr) -> io::Result<Self> {
        Self::from_kernel(&dir, name, 0)
    }

    fn from_kernel(dir: &impl AsFd, name: &CStr, flags: i32) -> io::Result<Self> {
        let mut raw = RawHandle {
            handle_bytes: HANDLE_BYTES_MAX as u32,
            handle_type: 0,
            f_handle: [0; HANDLE_BYTES_MAX],
        };
        let mut mount_id = 0;
        // SAFETY: `dir` is open for the call, `name` ends in a zero byte, and `raw` begins like a
        // `struct file_handle` and is followed by the number of bytes that `handle_bytes` names.
        let rc = unsafe {
            libc::name_to_handle_at(
                dir.as_fd().as_raw_fd(),
                name.as_ptr(),
                (&raw mut raw).cast(),
                &raw mut mount_id,
                flags,
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        let len = (raw.handle_bytes as usize).min(HANDLE_BYTES_MAX);
        Ok(Self::new(raw.handle_type, &raw.f_handle[..len]))
    }

    /// A handle from its parts, as [`FileHandle::kind`] and [`FileHandle::bytes`] gave them.
    /// Bytes past the kernel's longest handle are cut off: such a handle opens nothing.
    pub fn new(kind: i32, bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(HANDLE_BYTES_MAX)];
        let held = if bytes.len() <= INLINE_BYTES_MAX {
            let mut inline = [0; INLINE_BYTES_MAX];
            inline[..bytes.len()].copy_from_slice(bytes);
            HandleBytes::Inline {
                len: bytes.len() as u8,
                bytes: inline,
            }
        } else {
            HandleBytes::Heap(bytes.into())
        };
        Self { kind, bytes: held }
    }

    /// Opens the inode again. `mount` is any descriptor on the same mounted file system, not
    /// opened with `O_PATH`.
    ///
    /// # Errors
    /// `ESTALE` when the inode is gone; `EPERM` without `CAP_DAC_READ_SEARCH`.
    pub fn open(&self, mount: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
        let bytes = self.bytes();
        let mut raw = RawHandle {
            handle_bytes: bytes.len() as u32,
            handle_type: self.kind,
            f_handle: [0; HANDLE_BYTES_MAX],
        };
        raw.f_handle[..bytes.len()].copy_from_slice(bytes);
        let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
        // SAFETY: `mount` is open for the call and `raw` is a `struct file_handle` followed by
        // as many bytes as it says.
        let fd = unsafe { libc::open_by_handle_at(mount.as_fd().as_raw_fd(), (&raw mut raw).cast(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The inode number in the bytes, where the kind says where it lies; `None` for other kinds.
    pub fn ino(&self) -> Option<u64> {
        let bytes = self.bytes();
        match (self.kind, bytes.len()) {
            (INO32_GENERATION, 8) => bytes.first_chunk().map(|ino| u64::from(u32::from_ne_bytes(*ino))),
            (INO64_GENERATION, 12) | (BTRFS, 20) => bytes.first_chunk().map(|ino| u64::from_ne_bytes(*ino)),
            _ => None,
        }
    }

    /// The handle of another inode of the same file system, of whatever generation; `None` where there is no such
    /// handle. ext4 takes generation 0 for any (`ext4_nfs_get_inode`); other file systems open nothing with it.
    pub fn of_any_generation(&self, ino: u64) -> Option<Self> {
        let number = u32::try_from(ino).ok()?;
        let is_known = self.kind == INO32_GENERATION && self.bytes().len() == 8;
        is_known.then(|| Self::new(self.kind, &[number.to_ne_bytes(), [0; 4]].concat()))
    }

    /// The handle type, a number of the backing file system's own.
    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// The handle's bytes, at most 128.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            HandleBytes::Inline { len, bytes } => &bytes[..usize::from(*len)],
            HandleBytes::Heap(bytes) => bytes,
        }
    }

    /// 32-bit FNV-1a over type and bytes: tells two inodes of one number apart in all but one of
    /// 2^32 cases.
    pub fn generation(&self) -> u32 {
        const OFFSET: u32 = 0x811c_9dc5;
        const PRIME: u32 = 0x0100_0193;
        self.kind
            .to_le_bytes()
            .iter()
            .chain(self.bytes())
            .fold(OFFSET, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME))
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHandle({}:", self.kind)?;
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_handle_by_name_equals_the_handle_of_the_open_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("b"), "other").unwrap();
        let dir_fd = File::open(dir.path()).unwrap();
        let by_name = FileHandle::at(&dir_fd, c"a").unwrap();
        assert_eq!(by_name, FileHandle::of(&file).unwrap());
        assert_ne!(by_name, FileHandle::at(&dir_fd, c"b").unwrap());
    }

    #[test]
    fn a_handle_names_the_inode_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("a")).unwrap();
        let handle = FileHandle::of(&file).unwrap();
        let ino = file.metadata().unwrap().ino();
        assert!(handle.ino().is_none_or(|named| named == ino), "{handle:?} of {ino}");
        let bytes: Vec<u8> = 0x0102_0304_u32
            .to_ne_bytes()
            .into_iter()
            .chain(7_u32.to_ne_bytes())
            .collect();
        assert_eq!(FileHandle::new(INO32_GENERATION, &bytes).ino(), Some(0x0102_0304));
        let long: Vec<u8> = (1_u64 << 40)
            .to_ne_bytes()
            .into_iter()
            .chain(7_u32.to_ne_bytes())
            .collect();
        assert_eq!(FileHandle::new(INO64_GENERATION, &long).ino(), Some(1 << 40));
        assert_eq!(
            FileHandle::new(INO32_GENERATION, &long).ino(),
            None,
            "tmpfs has it elsewhere"
        );
        assert_eq!(FileHandle::new(9, &bytes).ino(), None);
    }

    #[test]
    fn a_handle_follows_no_symbolic_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let dir_fd = File::open(dir.path()).unwrap();
        let target = FileHandle::at(&dir_fd, c"a").unwrap();
        assert_ne!(target, FileHandle::at(&dir_fd, c"link").unwrap());
    }

    #[test]
    fn a_handle_opens_its_file_after_a_rename_and_not_after_unlink() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "content").unwrap();
        let dir_fd = File::open(dir.path()).unwrap();
        let handle = FileHandle::at(&dir_fd, c"a").unwrap();
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let fd = match handle.open(&dir_fd, OFlags::RDONLY) {
            Ok(fd) => fd,
            // Ordinary users may not open by handle: then that refusal is what we check.
            Err(e) => return assert_eq!(e.raw_os_error(), Some(libc::EPERM)),
        };
        let inode = fs::metadata(dir.path().join("b")).unwrap().ino();
        assert_eq!(File::from(fd).metadata().unwrap().ino(), inode);
        fs::remove_file(dir.path().join("b")).unwrap();
        let gone = handle.open(&dir_fd, OFlags::RDONLY).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESTALE));
    }

    #[test]
    fn long_and_short_handles_keep_their_bytes() {
        for len in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 128] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let handle = FileHandle::new(7, &bytes);
            assert_eq!(handle.bytes(), bytes);
            assert_eq!(handle, FileHandle::new(7, &bytes));
            assert_ne!(handle, FileHandle::new(8, &bytes));
        }
        assert!(size_of::<FileHandle>() <= 32);
    }

    #[test]
    fn the_generation_is_fnv_1a_over_type_and_bytes() {
        // FNV-1a of "\x01\0\0\0foo", worked out with an independent implementation.
        assert_eq!(FileHandle::new(1, b"foo").generation(), 0x3543_a2ec);
        assert_ne!(
            FileHandle::new(1, b"foo").generation(),
            FileHandle::new(2, b"foo").generation()
        );
    }
}
