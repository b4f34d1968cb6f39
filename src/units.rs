//! Amounts that accounts are charged with, byte counts as text and back, and bytes as hex digits.
//!
//! Text in: a suffix letter means powers of 1,024 (`5G`, `5Gi`, `5GiB`), only a plain `B` behind the
//! letter means powers of 1,000 (`5GB`). Text out: always powers of 1,024. Nothing here rounds a limit.

use std::fmt::{self, Write as _};

/// What one account counts: plaintext bytes, inodes that are not directories, directories.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meters {
    /// Sum of plaintext lengths of regular files.
    pub bytes: u64,
    /// Inodes other than directories, each once.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
}

impl Meters {
    /// Nothing at all.
    pub const ZERO: Self = Self {
        bytes: 0,
        files: 0,
        dirs: 0,
    };
    /// One directory, as its parent's chain is charged for it.
    pub const ONE_DIR: Self = Self {
        bytes: 0,
        files: 0,
        dirs: 1,
    };

    /// Bytes alone: the growth of a file.
    pub const fn of_bytes(bytes: u64) -> Self {
        Self { bytes, ..Self::ZERO }
    }

    /// One inode that is not a directory, with its plaintext length.
    pub const fn of_file(len: u64) -> Self {
        Self {
            bytes: len,
            files: 1,
            dirs: 0,
        }
    }

    /// True when all three are zero.
    pub const fn is_zero(self) -> bool {
        self.bytes == 0 && self.files == 0 && self.dirs == 0
    }

    /// `None` when one of the three would pass `u64::MAX`.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            bytes: self.bytes.checked_add(other.bytes)?,
            files: self.files.checked_add(other.files)?,
            dirs: self.dirs.checked_add(other.dirs)?,
        })
    }

    /// `None` when one of the three would fall below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            bytes: self.bytes.checked_sub(other.bytes)?,
            files: self.files.checked_sub(other.files)?,
            dirs: self.dirs.checked_sub(other.dirs)?,
        })
    }

    /// Each of the three on its own, held at `u64::MAX`.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
            dirs: self.dirs.saturating_add(other.dirs),
        }
    }

    /// Each of the three on its own, held at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
            dirs: self.dirs.saturating_sub(other.dirs),
        }
    }

    /// The smaller of each of the three.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.min(other.bytes),
            files: self.files.min(other.files),
            dirs: self.dirs.min(other.dirs),
        }
    }
}

/// A text that is no byte count. The message says what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{text}' is not a byte count ({reason}); allowed: a whole number of bytes, or a number with K, M, G, T, P or E \
     (also Ki or KiB, powers of 1024) or KB, MB, GB, TB, PB, EB (powers of 1000), such as 10GiB"
)]
pub struct ByteCountError {
    text: String,
    reason: &'static str,
}

/// Reads a byte count. Fractions are taken when they come out at a whole number of bytes (`1.5GiB`).
pub fn parse_bytes(text: &str) -> Result<u64, ByteCountError> {
    parse(text.trim()).map_err(|reason| ByteCountError {
        text: text.to_owned(),
        reason,
    })
}

fn parse(text: &str) -> Result<u64, &'static str> {
    if text.starts_with('-') {
        return Err("it is negative");
    }
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let unit = u128::from(unit_bytes(suffix.trim_start()).ok_or("unknown unit")?);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err("no number");
    }
    let too_large = "it is above 16 EiB";
    let whole: u64 = whole.parse().map_err(|_| too_large)?;
    let fraction = fraction.trim_end_matches('0');
    // 10^18 divides nothing that is left of a whole number of bytes in 64 bits, and fits.
    let places = u32::try_from(fraction.len())
        .ok()
        .filter(|n| *n <= 18)
        .ok_or("it is not a whole number of bytes")?;
    let scale = 10_u128.pow(places);
    let part: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| "no number")?
    };
    // Both products are below 2^64 * 2^60.
    let part_bytes = part * unit;
    if !part_bytes.is_multiple_of(scale) {
        return Err("it is not a whole number of bytes");
    }
    u64::try_from(u128::from(whole) * unit + part_bytes / scale).map_err(|_| too_large)
}

fn unit_bytes(suffix: &str) -> Option<u64> {
    if suffix.is_empty() || suffix == "B" {
        return Some(1);
    }
    let mut rest = suffix.chars();
    let power = match rest.next()?.to_ascii_uppercase() {
        'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        'P' => 5,
        'E' => 6,
        _ => return None,
    };
    match rest.as_str() {
        "" | "i" | "iB" => 1024_u64.checked_pow(power),
        "B" => 1000_u64.checked_pow(power),
        _ => None,
    }
}

const LETTERS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// For people: `512 B`, `1.2 GiB`. Rounded down, so that "used" never looks like the limit before it is.
pub fn format_bytes(bytes: u64) -> String {
    let mut unit = 1_u64;
    let mut letter = None;
    for next in LETTERS {
        if bytes / unit < 1024 {
            break;
        }
        unit <<= 10;
        letter = Some(next);
    }
    let Some(letter) = letter else {
        return format!("{bytes} B");
    };
    // The remainder is below 2^60, so ten times it fits.
    let tenth = (bytes % unit) * 10 / unit;
    format!("{}.{tenth} {letter}iB", bytes / unit)
}

/// For configuration: the shortest text that reads back as exactly this many bytes (`10GiB`, `1500`).
pub fn exact_bytes(bytes: u64) -> String {
    let power = (bytes.trailing_zeros() / 10).min(6) as usize;
    if bytes == 0 || power == 0 {
        return bytes.to_string();
    }
    format!("{}{}iB", bytes >> (10 * power), LETTERS[power - 1])
}

impl fmt::Display for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes, {} files, {} directories",
            self.bytes, self.files, self.dirs
        )
    }
}

/// Units of time and their seconds, the largest first.
const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Reads a time: seconds, or a whole number with `d`, `h`, `m` or `s`.
///
/// # Errors
/// Says what would be allowed.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let found = TIME_UNITS
        .iter()
        .find_map(|(unit, unit_s)| Some((trimmed.strip_suffix(unit)?, *unit_s)));
    let (number, unit_s) = found.unwrap_or((trimmed, 1));
    let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    let seconds = digits.then(|| number.parse().ok().and_then(|number: u64| number.checked_mul(unit_s)));
    seconds
        .flatten()
        .ok_or_else(|| format!("'{text}' is no time; allowed: whole numbers with d, h, m or s, such as 7d or 90m"))
}

/// The shortest text that reads back as exactly these seconds.
pub fn exact_seconds(seconds: u64) -> String {
    let fits = |unit_s: u64| seconds > 0 && seconds.is_multiple_of(unit_s);
    let found = TIME_UNITS.iter().find(|(_, unit_s)| fits(*unit_s));
    let (unit, unit_s) = found.copied().unwrap_or(("s", 1));
    format!("{}{unit}", seconds / unit_s)
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes all.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_letter_is_binary_and_only_a_bare_b_makes_it_decimal() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("100B", 100),
            ("5G", 5 << 30),
            ("5g", 5 << 30),
            ("5Gi", 5 << 30),
            ("5GiB", 5 << 30),
            ("5 GiB", 5 << 30),
            ("5GB", 5_000_000_000),
            ("500M", 500 << 20),
            ("1.5GiB", 3 << 29),
            ("0.1kB", 100),
            ("1.50K", 1536),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_byte_count_is_refused_with_what_is() {
        for text in [
            "",
            "-1",
            "-5G",
            "G",
            "1.1K",
            "1.",
            ".5K",
            "1.2.3K",
            "5X",
            "5Gb",
            "5GIB",
            "16E",
            "1e6",
            "18446744073709551616",
            "5 G iB",
        ] {
            let message = parse_bytes(text).unwrap_err().to_string();
            assert!(message.contains("10GiB") && message.contains(text), "{message}");
        }
    }

    #[test]
    fn people_read_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_288_490_189, "1.2 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn exact_text_reads_back(bytes in any::<u64>(), shift in 0_u32..64) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse_bytes(&exact_bytes(bytes)), Ok(bytes));
        }
    }

    proptest! {
        #[test]
        fn times_read_back(seconds in any::<u64>()) {
            prop_assert_eq!(parse_seconds(&exact_seconds(seconds)), Ok(seconds));
        }
    }

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        let read = ["7d", "90m", " 12 ", "0s"].map(parse_seconds);
        assert_eq!(read, [Ok(604_800), Ok(5400), Ok(12), Ok(0)]);
        for text in ["", "d", "1.5h", "-1d", "+1d", "7w", "999999999999999999d"] {
            assert!(parse_seconds(text).unwrap_err().contains("7d"), "{text}");
        }
    }
}
