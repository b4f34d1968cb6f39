//! What can go wrong with a recording's backing file, with the errno that the caller of the file
//! system gets.

use std::io;

use crate::sealed::SealedError;

/// Why a sealed file could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file below said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Sealed bytes that do not open.
    #[error("{place} does not open: {cause}")]
    Sealed {
        /// Which page.
        place: PageName,
        /// Why.
        cause: SealedError,
    },
    /// The size on disk and the head page tell different lengths.
    #[error("the backing file has size {size_on_disk} but its head says {plain_length} bytes of plaintext")]
    SizeDisagrees {
        /// Size of the backing file.
        size_on_disk: u64,
        /// Length in the head page.
        plain_length: u64,
    },
    /// An old copy of the backing file was put back.
    #[error(
        "its head has generation {found:#x}, older than {known:#x} which was known: an old copy was put back; \
         restore the newer one, or take this one with `tallyfs fsck --accept PATH`"
    )]
    OldCopy {
        /// Generation in the head page.
        found: u64,
        /// Generation in the database.
        known: u64,
    },
    /// An earlier sync failed, and what was written since the last good one cannot be written again.
    #[error("an earlier sync failed and what was written since may be lost; check the disk, then write the file anew")]
    SyncFailed,
    /// A sync failed, and this page is not on the disk as it was written.
    #[error("{0} was lost by a failed sync; check the disk, then write the file anew")]
    Lost(PageName),
    /// More bytes than a recording can have.
    #[error("longer than a file can be")]
    TooLong,
}

/// Names a page in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageName {
    /// A head page.
    Head,
    /// The page of a block.
    Block(u64),
}

impl std::fmt::Display for PageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head => write!(f, "the head page"),
            Self::Block(block) => write!(f, "the page of block {block}"),
        }
    }
}

impl StoreError {
    /// The errno for the caller of the file system.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Io(e) => e.raw_os_error().unwrap_or(libc::EIO),
            Self::TooLong => libc::EFBIG,
            Self::Sealed {
                cause: SealedError::KeyMissing(_),
                ..
            } => libc::ENOKEY,
            Self::Sealed {
                cause: SealedError::KeyDestroyed(_),
                ..
            } => libc::EKEYREVOKED,
            Self::Sealed { .. }
            | Self::SizeDisagrees { .. }
            | Self::OldCopy { .. }
            | Self::SyncFailed
            | Self::Lost(_) => libc::EIO,
        }
    }

    /// Whether the bytes on disk are wrong (and not merely out of reach just now).
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Sealed { .. } | Self::SizeDisagrees { .. } | Self::OldCopy { .. } | Self::Lost(_)
        )
    }
}
