//! Hard limits of an account, and the answer when one of them refuses.

use super::overrides::LimitKey;
use crate::id::Ino;
use crate::units::{Meters, format_bytes};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hard limits. `None` is unlimited; `Some(0)` is a limit of zero (texts and rows that mean
/// "unlimited" by 0 turn it into `None` before they come here).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Plaintext bytes below the account.
    pub bytes: Option<u64>,
    /// Inodes other than directories below the account.
    pub files: Option<u64>,
    /// Directories below the account.
    pub dirs: Option<u64>,
    /// Plaintext length of any one file below the account.
    pub file_size: Option<u64>,
}

impl Limits {
    /// Unlimited in everything.
    pub const NONE: Self = Self {
        bytes: None,
        files: None,
        dirs: None,
        file_size: None,
    };

    /// One of them.
    pub fn get(&self, key: LimitKey) -> Option<u64> {
        match key {
            LimitKey::MaxBytes => self.bytes,
            LimitKey::MaxFiles => self.files,
            LimitKey::MaxDirs => self.dirs,
            LimitKey::MaxFileSize => self.file_size,
        }
    }

    /// True when nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// What a limit is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meter {
    /// Plaintext bytes.
    Bytes,
    /// Inodes other than directories.
    Files,
    /// Directories.
    Dirs,
    /// Length of one file.
    FileSize,
}

impl Meter {
    /// The three that accounts count.
    pub(super) const COUNTED: [Self; 3] = [Self::Bytes, Self::Files, Self::Dirs];

    /// Its name for machines.
    pub fn key(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::Dirs => "dirs",
            Self::FileSize => "file_size",
        }
    }

    /// This meter's amount; 0 for [`Meter::FileSize`], which is not counted.
    pub(super) fn of(self, meters: Meters) -> u64 {
        match self {
            Self::Bytes => meters.bytes,
            Self::Files => meters.files,
            Self::Dirs => meters.dirs,
            Self::FileSize => 0,
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::Dirs => "directories",
            Self::FileSize => "file size",
        })
    }
}

/// Who refused a request, and by what figures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The account that refused.
    pub account: Ino,
    /// Its path below the mount, lossy; empty for the mount itself.
    pub path: String,
    /// Which of its limits.
    pub meter: Meter,
    /// What is used (the old length for [`Meter::FileSize`]).
    pub used: u64,
    /// The hard limit.
    pub limit: u64,
    /// What was asked for on top (the new length for [`Meter::FileSize`]).
    pub wanted: u64,
    /// The account is the mount as a whole.
    pub is_mount: bool,
}

impl Refusal {
    /// EFBIG for one file's size, ENOSPC for the mount, EDQUOT for every other account.
    pub fn errno(&self) -> i32 {
        match (self.meter, self.is_mount) {
            (Meter::FileSize, _) => libc::EFBIG,
            (_, true) => libc::ENOSPC,
            (_, false) => libc::EDQUOT,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            meter,
            used,
            limit,
            wanted,
            ..
        } = self;
        if self.is_mount {
            write!(f, "the mount (inode {account})")?;
        } else {
            write!(f, "'{}' (inode {account})", self.path)?;
        }
        write!(
            f,
            " refused by its hard limit of {meter}: used {used}, limit {limit}, wanted {wanted} more"
        )?;
        if matches!(meter, Meter::Bytes | Meter::FileSize) {
            write!(f, " ({} of {})", format_bytes(*used), format_bytes(*limit))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Stands for "unlimited" in [`AtomicLimits`].
pub(super) const UNLIMITED: u64 = u64::MAX;

/// [`Limits`] that are read without a lock.
#[derive(Debug)]
pub(super) struct AtomicLimits {
    bytes: AtomicU64,
    files: AtomicU64,
    dirs: AtomicU64,
    file_size: AtomicU64,
}

impl AtomicLimits {
    pub(super) fn new(limits: Limits) -> Self {
        let raw = |limit: Option<u64>| AtomicU64::new(limit.unwrap_or(UNLIMITED));
        Self {
            bytes: raw(limits.bytes),
            files: raw(limits.files),
            dirs: raw(limits.dirs),
            file_size: raw(limits.file_size),
        }
    }

    pub(super) fn store(&self, limits: Limits) {
        let put = |cell: &AtomicU64, limit: Option<u64>| {
            cell.store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
        };
        put(&self.bytes, limits.bytes);
        put(&self.files, limits.files);
        put(&self.dirs, limits.dirs);
        put(&self.file_size, limits.file_size);
    }

    pub(super) fn load(&self) -> Limits {
        let get = |meter| Some(self.raw(meter)).filter(|limit| *limit != UNLIMITED);
        Limits {
            bytes: get(Meter::Bytes),
            files: get(Meter::Files),
            dirs: get(Meter::Dirs),
            file_size: get(Meter::FileSize),
        }
    }

    /// The limit, [`UNLIMITED`] when there is none.
    pub(super) fn raw(&self, meter: Meter) -> u64 {
        let cell = match meter {
            Meter::Bytes => &self.bytes,
            Meter::Files => &self.files,
            Meter::Dirs => &self.dirs,
            Meter::FileSize => &self.file_size,
        };
        cell.load(Ordering::Relaxed)
    }
}
