//! The one error that leaves the file system layer: the errno that the kernel is answered.

use std::io;

use crate::quota::Refusal;
use crate::store::error::StoreError;

/// An errno, as errno(3) numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

/// What every request of the file system returns.
pub type FsResult<T> = Result<T, Errno>;

impl Errno {
    /// No such file or directory.
    pub const ENOENT: Self = Self(libc::ENOENT);
    /// File exists.
    pub const EEXIST: Self = Self(libc::EEXIST);
    /// Input or output error.
    pub const EIO: Self = Self(libc::EIO);
    /// Bad file descriptor.
    pub const EBADF: Self = Self(libc::EBADF);
    /// Stale file handle.
    pub const ESTALE: Self = Self(libc::ESTALE);
    /// Is a directory.
    pub const EISDIR: Self = Self(libc::EISDIR);
    /// Not a directory.
    pub const ENOTDIR: Self = Self(libc::ENOTDIR);
    /// Invalid argument.
    pub const EINVAL: Self = Self(libc::EINVAL);
    /// Cross-device link.
    pub const EXDEV: Self = Self(libc::EXDEV);
    /// Operation not supported.
    pub const EOPNOTSUPP: Self = Self(libc::EOPNOTSUPP);
    /// No such device or address.
    pub const ENXIO: Self = Self(libc::ENXIO);
    /// Operation not permitted.
    pub const EPERM: Self = Self(libc::EPERM);
    /// No data available.
    pub const ENODATA: Self = Self(libc::ENODATA);
    /// File too large.
    pub const EFBIG: Self = Self(libc::EFBIG);
}

impl From<io::Error> for Errno {
    fn from(e: io::Error) -> Self {
        Self(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Self(e.raw_os_error())
    }
}

impl From<StoreError> for Errno {
    fn from(e: StoreError) -> Self {
        Self(e.errno())
    }
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.errno())
    }
}
