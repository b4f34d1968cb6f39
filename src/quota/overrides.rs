//! Limits as somebody wrote them, each on its own: those that are written replace what a template says, and the
//! others leave it.

use super::limits::Limits;
use crate::units::{exact_bytes, exact_seconds, parse_bytes, parse_seconds};
use std::fmt;

/// A limit as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// `"none"` or 0.
    Unlimited,
    /// Never 0.
    At(u64),
}

impl Bound {
    /// As the ledger takes it.
    pub fn limit(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::At(limit) => Some(limit),
        }
    }

    /// 0 is unlimited.
    pub fn from_number(number: u64) -> Self {
        if number == 0 { Self::Unlimited } else { Self::At(number) }
    }
}

/// Names of the limits, as extended attributes and the configuration have them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LimitKey {
    /// Plaintext bytes.
    MaxBytes,
    /// Inodes other than directories.
    MaxFiles,
    /// Directories.
    MaxDirs,
    /// Length of one file.
    MaxFileSize,
    /// Plaintext bytes that may be passed for the time of grace.
    SoftBytes,
    /// The same of files.
    SoftFiles,
    /// How long a soft limit may be passed, in seconds; unlimited: it only warns.
    Grace,
    /// New files of a day.
    DayMaxFiles,
    /// Growth of a day.
    DayMaxBytes,
    /// New files of a month.
    MonthMaxFiles,
    /// Growth of a month.
    MonthMaxBytes,
    /// Bytes that are kept for each new recording while it is open.
    ReservePerRecording,
}

/// What the value of a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitUnit {
    /// Bytes, with or without a unit such as `GiB`.
    Bytes,
    /// Plain numbers.
    Count,
    /// Seconds, with or without a unit such as `d`.
    Time,
}

impl LimitKey {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 12] = [
        Self::MaxBytes,
        Self::MaxFiles,
        Self::MaxDirs,
        Self::MaxFileSize,
        Self::SoftBytes,
        Self::SoftFiles,
        Self::Grace,
        Self::DayMaxFiles,
        Self::DayMaxBytes,
        Self::MonthMaxFiles,
        Self::MonthMaxBytes,
        Self::ReservePerRecording,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxBytes => "max_bytes",
            Self::MaxFiles => "max_files",
            Self::MaxDirs => "max_dirs",
            Self::MaxFileSize => "max_file_size",
            Self::SoftBytes => "soft_bytes",
            Self::SoftFiles => "soft_files",
            Self::Grace => "grace",
            Self::DayMaxFiles => "day.max_files",
            Self::DayMaxBytes => "day.max_bytes",
            Self::MonthMaxFiles => "month.max_files",
            Self::MonthMaxBytes => "month.max_bytes",
            Self::ReservePerRecording => "reserve_per_recording_bytes",
        }
    }

    /// What its values count.
    pub fn unit(self) -> LimitUnit {
        match self {
            Self::MaxBytes
            | Self::MaxFileSize
            | Self::SoftBytes
            | Self::DayMaxBytes
            | Self::MonthMaxBytes
            | Self::ReservePerRecording => LimitUnit::Bytes,
            Self::MaxFiles | Self::MaxDirs | Self::SoftFiles | Self::DayMaxFiles | Self::MonthMaxFiles => {
                LimitUnit::Count
            }
            Self::Grace => LimitUnit::Time,
        }
    }

    /// The limit of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// Reads a value: bytes with or without a unit (`5Gi`), a count, or a time (`7d`); 0 and `none` are unlimited.
    ///
    /// # Errors
    /// Says what would be allowed.
    pub fn parse(self, text: &str) -> Result<Bound, String> {
        self.unit().parse(text)
    }

    /// The shortest text that reads back as exactly this limit.
    pub fn exact(self, bound: Bound) -> String {
        self.unit().exact(bound)
    }
}

impl LimitUnit {
    /// See [`LimitKey::parse`].
    ///
    /// # Errors
    /// Says what would be allowed.
    pub fn parse(self, text: &str) -> Result<Bound, String> {
        if text == "none" {
            return Ok(Bound::Unlimited);
        }
        let number = match self {
            Self::Bytes => parse_bytes(text).map_err(|e| e.to_string())?,
            Self::Count => text
                .parse()
                .map_err(|_| format!("'{text}' is no whole number; allowed: 10000, or \"none\""))?,
            Self::Time => parse_seconds(text)?,
        };
        Ok(Bound::from_number(number))
    }

    /// See [`LimitKey::exact`].
    pub fn exact(self, bound: Bound) -> String {
        match (bound, self) {
            (Bound::Unlimited, _) => "none".to_owned(),
            (Bound::At(number), Self::Bytes) => exact_bytes(number),
            (Bound::At(number), Self::Count) => number.to_string(),
            (Bound::At(number), Self::Time) => exact_seconds(number),
        }
    }
}

/// Limits that are written; the others leave the template's value.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LimitOverrides(
    /// Most directories have none, and there may be millions. Never a box of nothing.
    Option<Box<[Option<Bound>; LimitKey::ALL.len()]>>,
);

impl LimitOverrides {
    /// Nothing is written.
    pub const NONE: Self = Self(None);

    /// True when nothing is written.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// These limits where they are written, the others where not.
    #[must_use]
    pub fn over(&self, template: Limits) -> Limits {
        let written = LimitKey::ALL.into_iter().filter_map(|key| Some((key, self.get(key)?)));
        written.fold(template, |limits, (key, bound)| limits.with(key, bound.limit()))
    }

    /// Every limit written out, so that nothing of a template is left.
    pub fn all_of(limits: Limits) -> Self {
        LimitKey::ALL.into_iter().fold(Self::NONE, |all, key| {
            let limit = limits.get(key);
            let bound = limit.map(Bound::At);
            // What limits nothing by itself needs no word.
            if limit == Limits::NONE.get(key) {
                all
            } else {
                all.with(key, bound.or(Some(Bound::Unlimited)))
            }
        })
    }

    /// One of them.
    pub fn get(&self, key: LimitKey) -> Option<Bound> {
        self.0.as_ref()?[key as usize]
    }

    /// The same with one of them written, or no longer written.
    #[must_use]
    pub fn with(mut self, key: LimitKey, bound: Option<Bound>) -> Self {
        let written = self.0.get_or_insert_default();
        written[key as usize] = bound;
        if written.iter().all(Option::is_none) {
            self.0 = None;
        }
        self
    }

    /// Reads what [`LimitOverrides`] displays: `max_bytes=5GiB max_files=none`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut read = Self::NONE;
        for word in text.split_ascii_whitespace() {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("'{word}' is not name=value"))?;
            let key = LimitKey::named(name).ok_or_else(|| format!("'{name}' is the name of no limit"))?;
            read = read.with(key, Some(key.parse(value)?));
        }
        Ok(read)
    }
}

impl fmt::Display for LimitOverrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for key in LimitKey::ALL {
            if let Some(bound) = self.get(key) {
                write!(f, "{gap}{}={}", key.name(), key.exact(bound))?;
                gap = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_the_rest_is_the_templates() {
        let text = "max_bytes=5GiB max_files=none max_file_size=1001 soft_bytes=1GiB grace=36h day.max_files=7";
        let written = LimitOverrides::parse(text).unwrap();
        assert_eq!(written.to_string(), text);
        assert_eq!(written.get(LimitKey::Grace), Some(Bound::At(36 * 3600)));
        assert_eq!(LimitOverrides::parse(""), Ok(LimitOverrides::NONE));
        let template = Limits {
            bytes: Some(1),
            files: Some(2),
            dirs: Some(3),
            month_bytes: Some(4),
            ..Limits::NONE
        };
        let expected = Limits {
            bytes: Some(5 << 30),
            files: None,
            file_size: Some(1001),
            soft_bytes: Some(1 << 30),
            grace_s: Some(36 * 3600),
            day_files: Some(7),
            ..template
        };
        assert_eq!(written.over(template), expected);
        assert_eq!(LimitOverrides::all_of(expected).over(Limits::NONE), expected);
    }

    #[test]
    fn what_is_no_limit_says_so() {
        for (text, part) in [
            ("max_bytes", "name=value"),
            ("max_byte=5", "'max_byte'"),
            ("max_bytes=-1", "negative"),
            ("max_files=1Ki", "whole number"),
            ("grace=week", "7d"),
        ] {
            let error = LimitOverrides::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
