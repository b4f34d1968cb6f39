//! Limits of an account, and the answer when one of them refuses.

use super::overrides::LimitKey;
use crate::id::Ino;
use crate::units::{Meters, format_bytes};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Limits of an account. `None` is unlimited; `Some(0)` is a limit of zero (texts and rows that mean
/// "unlimited" by 0 turn it into `None` before they come here).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Plaintext bytes below the account.
    pub bytes: Option<u64>,
    /// Inodes other than directories below the account.
    pub files: Option<u64>,
    /// Directories below the account.
    pub dirs: Option<u64>,
    /// Plaintext length of any one file below the account.
    pub file_size: Option<u64>,
    /// Bytes that may be passed for the time of grace.
    pub soft_bytes: Option<u64>,
    /// The same of files.
    pub soft_files: Option<u64>,
    /// Seconds for which a soft limit may be passed; `None`: it warns and never refuses.
    pub grace_s: Option<u64>,
    /// New files of a day.
    pub day_files: Option<u64>,
    /// Growth of a day in plaintext bytes.
    pub day_bytes: Option<u64>,
    /// New files of a month.
    pub month_files: Option<u64>,
    /// Growth of a month in plaintext bytes.
    pub month_bytes: Option<u64>,
    /// Bytes that are kept for each new recording while it is open.
    pub recording_bytes: Option<u64>,
}

/// Grace of a soft limit that says nothing else: a week, as with XFS and ext4.
const GRACE_DEFAULT_S: u64 = 7 * 86_400;

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

impl Limits {
    /// Unlimited in everything.
    pub const NONE: Self = Self {
        bytes: None,
        files: None,
        dirs: None,
        file_size: None,
        soft_bytes: None,
        soft_files: None,
        grace_s: Some(GRACE_DEFAULT_S),
        day_files: None,
        day_bytes: None,
        month_files: None,
        month_bytes: None,
        recording_bytes: None,
    };

    fn cell(&mut self, key: LimitKey) -> &mut Option<u64> {
        match key {
            LimitKey::MaxBytes => &mut self.bytes,
            LimitKey::MaxFiles => &mut self.files,
            LimitKey::MaxDirs => &mut self.dirs,
            LimitKey::MaxFileSize => &mut self.file_size,
            LimitKey::SoftBytes => &mut self.soft_bytes,
            LimitKey::SoftFiles => &mut self.soft_files,
            LimitKey::Grace => &mut self.grace_s,
            LimitKey::DayMaxFiles => &mut self.day_files,
            LimitKey::DayMaxBytes => &mut self.day_bytes,
            LimitKey::MonthMaxFiles => &mut self.month_files,
            LimitKey::MonthMaxBytes => &mut self.month_bytes,
            LimitKey::ReservePerRecording => &mut self.recording_bytes,
        }
    }

    /// One of them.
    pub fn get(mut self, key: LimitKey) -> Option<u64> {
        *self.cell(key)
    }

    /// The same with another one of them.
    #[must_use]
    pub fn with(mut self, key: LimitKey, limit: Option<u64>) -> Self {
        *self.cell(key) = limit;
        self
    }

    /// True when nothing is limited.
    pub fn is_none(&self) -> bool {
        let grace_s = Self::NONE.grace_s;
        Self { grace_s, ..*self } == Self::NONE
    }

    /// True when there is more to look at than the hard limits.
    pub(super) fn has_terms(&self) -> bool {
        let Self {
            soft_bytes,
            soft_files,
            day_files,
            day_bytes,
            month_files,
            month_bytes,
            ..
        } = self;
        [soft_bytes, soft_files, day_files, day_bytes, month_files, month_bytes]
            .into_iter()
            .any(Option::is_some)
    }
}

/// What a limit is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Meter {
    /// Plaintext bytes.
    Bytes,
    /// Inodes other than directories.
    Files,
    /// Directories.
    Dirs,
    /// Length of one file.
    FileSize,
    /// New files of a day.
    DayFiles,
    /// Growth of a day.
    DayBytes,
    /// New files of a month.
    MonthFiles,
    /// Growth of a month.
    MonthBytes,
}

impl Meter {
    /// The three that accounts count.
    pub(super) const COUNTED: [Self; 3] = [Self::Bytes, Self::Files, Self::Dirs];

    /// Those that begin anew with each period.
    pub const FLOWS: [Self; 4] = [Self::DayFiles, Self::DayBytes, Self::MonthFiles, Self::MonthBytes];

    /// Those that growth counts in.
    pub(super) const GROWTH: [Self; 7] = [
        Self::Bytes,
        Self::Files,
        Self::Dirs,
        Self::DayFiles,
        Self::DayBytes,
        Self::MonthFiles,
        Self::MonthBytes,
    ];

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Bytes,
        Self::Files,
        Self::Dirs,
        Self::FileSize,
        Self::DayFiles,
        Self::DayBytes,
        Self::MonthFiles,
        Self::MonthBytes,
    ];

    /// Its name for machines.
    pub fn key(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
            Self::Dirs => "dirs",
            Self::FileSize => "file_size",
            Self::DayFiles => "day.files",
            Self::DayBytes => "day.bytes",
            Self::MonthFiles => "month.files",
            Self::MonthBytes => "month.bytes",
        }
    }

    /// The meter of this name.
    pub fn named(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.key() == key)
    }

    /// The limit that is never passed.
    pub fn hard_limit(self) -> LimitKey {
        match self {
            Self::Bytes => LimitKey::MaxBytes,
            Self::Files => LimitKey::MaxFiles,
            Self::Dirs => LimitKey::MaxDirs,
            Self::FileSize => LimitKey::MaxFileSize,
            Self::DayFiles => LimitKey::DayMaxFiles,
            Self::DayBytes => LimitKey::DayMaxBytes,
            Self::MonthFiles => LimitKey::MonthMaxFiles,
            Self::MonthBytes => LimitKey::MonthMaxBytes,
        }
    }

    /// It counts bytes.
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::Bytes | Self::FileSize | Self::DayBytes | Self::MonthBytes)
    }

    /// This meter's part of an amount; 0 for [`Meter::FileSize`], which is not counted.
    pub(super) fn of(self, meters: Meters) -> u64 {
        match self {
            Self::Bytes | Self::DayBytes | Self::MonthBytes => meters.bytes,
            Self::Files | Self::DayFiles | Self::MonthFiles => meters.files,
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
            Self::DayFiles => "files per day",
            Self::DayBytes => "bytes per day",
            Self::MonthFiles => "files per month",
            Self::MonthBytes => "bytes per month",
        })
    }
}

/// Which kind of limit refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The limit that is never passed.
    Hard,
    /// A soft limit whose time of grace is over.
    GraceOver,
    /// A limit of a day or a month; seconds since 1970 when the next one begins.
    Period {
        /// When it begins.
        resets_at_s: i64,
    },
}

impl Reason {
    /// Names for machines.
    pub const KEYS: [&str; 3] = ["hard", "grace_over", "period"];

    /// Its name for machines.
    pub fn key(self) -> &'static str {
        Self::KEYS[self.index()]
    }

    /// Its place among [`Reason::KEYS`].
    pub fn index(self) -> usize {
        match self {
            Self::Hard => 0,
            Self::GraceOver => 1,
            Self::Period { .. } => 2,
        }
    }

    /// When the limit begins anew, seconds since 1970; `None`: never by itself.
    pub fn resets_at_s(self) -> Option<i64> {
        match self {
            Self::Hard | Self::GraceOver => None,
            Self::Period { resets_at_s } => Some(resets_at_s),
        }
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
    /// Of which kind that limit is.
    pub reason: Reason,
    /// What is used (the old length for [`Meter::FileSize`]).
    pub used: u64,
    /// The limit.
    pub limit: u64,
    /// What was asked for on top (the new length for [`Meter::FileSize`]).
    pub wanted: u64,
    /// The account is the mount as a whole.
    pub is_mount: bool,
}

impl Refusal {
    /// EFBIG for one file's size, ENOSPC for the mount, EDQUOT for a period and for every other account.
    pub fn errno(&self) -> i32 {
        match (self.meter, self.reason, self.is_mount) {
            (Meter::FileSize, ..) => libc::EFBIG,
            (_, Reason::Hard | Reason::GraceOver, true) => libc::ENOSPC,
            _ => libc::EDQUOT,
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
        let kind = match self.reason {
            Reason::Hard => "hard limit",
            Reason::GraceOver => "soft limit, whose grace is over,",
            Reason::Period { .. } => "limit",
        };
        write!(
            f,
            " refused by its {kind} of {meter}: used {used}, limit {limit}, wanted {wanted} more"
        )?;
        if meter.is_bytes() {
            write!(f, " ({} of {})", format_bytes(*used), format_bytes(*limit))?;
        }
        if let Reason::Period { resets_at_s } = self.reason {
            write!(f, "; the next period begins at {resets_at_s} (seconds since 1970)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Stands for "unlimited" in [`AtomicLimits`].
pub(super) const UNLIMITED: u64 = u64::MAX;

/// The hard limits, read without a lock.
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

    /// The hard limits over those of the terms.
    pub(super) fn load(&self, terms: Limits) -> Limits {
        let get = |meter| Some(self.raw(meter)).filter(|limit| *limit != UNLIMITED);
        Limits {
            bytes: get(Meter::Bytes),
            files: get(Meter::Files),
            dirs: get(Meter::Dirs),
            file_size: get(Meter::FileSize),
            ..terms
        }
    }

    /// The limit, [`UNLIMITED`] when there is none here.
    pub(super) fn raw(&self, meter: Meter) -> u64 {
        let cell = match meter {
            Meter::Bytes => &self.bytes,
            Meter::Files => &self.files,
            Meter::Dirs => &self.dirs,
            Meter::FileSize => &self.file_size,
            Meter::DayFiles | Meter::DayBytes | Meter::MonthFiles | Meter::MonthBytes => return UNLIMITED,
        };
        cell.load(Ordering::Relaxed)
    }
}
