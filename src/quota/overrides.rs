//! Limits as somebody wrote them, each on its own: those that are written replace what a template says, and the
//! others leave it.

use super::limits::Limits;
use crate::units::{exact_bytes, parse_bytes};
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitKey {
    /// Plaintext bytes.
    MaxBytes,
    /// Inodes other than directories.
    MaxFiles,
    /// Directories.
    MaxDirs,
    /// Length of one file.
    MaxFileSize,
}

impl LimitKey {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::MaxBytes, Self::MaxFiles, Self::MaxDirs, Self::MaxFileSize];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxBytes => "max_bytes",
            Self::MaxFiles => "max_files",
            Self::MaxDirs => "max_dirs",
            Self::MaxFileSize => "max_file_size",
        }
    }

    /// The limit of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// Reads a value: bytes with or without a unit (`5Gi`), or a count; 0 and `none` are unlimited.
    ///
    /// # Errors
    /// Says what would be allowed.
    pub fn parse(self, text: &str) -> Result<Bound, String> {
        if text == "none" {
            return Ok(Bound::Unlimited);
        }
        let number = match self {
            Self::MaxBytes | Self::MaxFileSize => parse_bytes(text).map_err(|e| e.to_string())?,
            Self::MaxFiles | Self::MaxDirs => text
                .parse()
                .map_err(|_| format!("'{text}' is no whole number; allowed: 10000, or \"none\""))?,
        };
        Ok(Bound::from_number(number))
    }

    /// The shortest text that reads back as exactly this limit.
    pub fn exact(self, bound: Bound) -> String {
        match bound {
            Bound::Unlimited => "none".to_owned(),
            Bound::At(number) => match self {
                Self::MaxBytes | Self::MaxFileSize => exact_bytes(number),
                Self::MaxFiles | Self::MaxDirs => number.to_string(),
            },
        }
    }
}

/// `None` leaves the template's value.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LimitOverrides {
    /// Plaintext bytes.
    pub bytes: Option<Bound>,
    /// Inodes other than directories.
    pub files: Option<Bound>,
    /// Directories.
    pub dirs: Option<Bound>,
    /// Length of one file.
    pub file_size: Option<Bound>,
}

impl LimitOverrides {
    /// Nothing is written.
    pub const NONE: Self = Self {
        bytes: None,
        files: None,
        dirs: None,
        file_size: None,
    };

    /// True when nothing is written.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// These limits where they are written, the others where not.
    #[must_use]
    pub fn over(self, template: Limits) -> Limits {
        let pick = |bound: Option<Bound>, otherwise| bound.map_or(otherwise, Bound::limit);
        Limits {
            bytes: pick(self.bytes, template.bytes),
            files: pick(self.files, template.files),
            dirs: pick(self.dirs, template.dirs),
            file_size: pick(self.file_size, template.file_size),
        }
    }

    /// One of them.
    pub fn get(&self, key: LimitKey) -> Option<Bound> {
        match key {
            LimitKey::MaxBytes => self.bytes,
            LimitKey::MaxFiles => self.files,
            LimitKey::MaxDirs => self.dirs,
            LimitKey::MaxFileSize => self.file_size,
        }
    }

    /// The same with one of them written, or no longer written.
    #[must_use]
    pub fn with(mut self, key: LimitKey, bound: Option<Bound>) -> Self {
        match key {
            LimitKey::MaxBytes => self.bytes = bound,
            LimitKey::MaxFiles => self.files = bound,
            LimitKey::MaxDirs => self.dirs = bound,
            LimitKey::MaxFileSize => self.file_size = bound,
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
        let written = LimitOverrides {
            bytes: Some(Bound::At(5 << 30)),
            files: Some(Bound::Unlimited),
            dirs: None,
            file_size: Some(Bound::At(1001)),
        };
        assert_eq!(written.to_string(), "max_bytes=5GiB max_files=none max_file_size=1001");
        assert_eq!(LimitOverrides::parse(&written.to_string()), Ok(written));
        assert_eq!(LimitOverrides::parse(""), Ok(LimitOverrides::NONE));
        let template = Limits {
            bytes: Some(1),
            files: Some(2),
            dirs: Some(3),
            file_size: None,
        };
        let over = written.over(template);
        assert_eq!(
            (over.bytes, over.files, over.dirs, over.file_size),
            (Some(5 << 30), None, Some(3), Some(1001))
        );
    }

    #[test]
    fn what_is_no_limit_says_so() {
        for (text, part) in [
            ("max_bytes", "name=value"),
            ("max_byte=5", "'max_byte'"),
            ("max_bytes=-1", "negative"),
            ("max_files=1Ki", "whole number"),
        ] {
            let error = LimitOverrides::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
