//! UTC days and months: civil dates from Unix seconds and back, and the period keys counters belong to.
//!
//! The arithmetic is the proleptic Gregorian calendar by eras of 400 years (146,097 days), with years
//! that begin in March so that the leap day comes last.

mod zone;

pub use zone::Zone;

use std::fmt;

/// Seconds of a UTC day; leap seconds do not exist in Unix time.
pub const DAY_S: i64 = 86_400;

const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;
const MONTH_NAMES: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A day of the calendar. Ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CivilDate {
    /// Such as 2026; below 10,000 for anything a clock shows.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl CivilDate {
    /// The UTC day that holds this second.
    pub fn from_unix_s(unix_s: i64) -> Self {
        Self::from_days(unix_s.div_euclid(DAY_S))
    }

    fn from_days(days: i64) -> Self {
        let shifted = days.saturating_add(EPOCH_DAYS);
        let era = shifted.div_euclid(ERA_DAYS);
        let day_of_era = shifted.rem_euclid(ERA_DAYS);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year: i32::try_from(year).unwrap_or(i32::MAX),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day_of_year - (153 * march_month + 2) / 5 + 1).unwrap_or(1),
        }
    }

    /// A date that exists, or `None`.
    pub fn new(year: i32, month: u8, day: u8) -> Option<Self> {
        let date = Self { year, month, day };
        let valid = (1..=12).contains(&month) && day >= 1 && Self::from_days(date.days()) == date;
        valid.then_some(date)
    }

    /// Days since 1970-01-01.
    fn days(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let march_month = (i64::from(self.month) + 9) % 12;
        let day_of_year = (153 * march_month + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * ERA_DAYS + day_of_era - EPOCH_DAYS
    }

    /// First second of this UTC day.
    pub fn start_unix_s(self) -> i64 {
        self.days() * DAY_S
    }

    /// The day after.
    #[must_use]
    pub fn next(self) -> Self {
        Self::from_days(self.days() + 1)
    }

    /// The first day of the month after.
    #[must_use]
    pub fn next_month(self) -> Self {
        let (year, month) = match self.month {
            12 => (self.year + 1, 1),
            month => (self.year, month + 1),
        };
        Self { year, month, day: 1 }
    }

    /// First second after this day: when its period ends.
    pub fn next_day_start_unix_s(self) -> i64 {
        self.next().start_unix_s()
    }

    /// `2026-11-21`.
    pub fn day_key(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `2026-11`.
    pub fn month_key(self) -> String {
        format!("{:04}-{:02}", self.year, self.month)
    }

    /// Reads a day key; `None` when it is not one or the day does not exist.
    pub fn from_day_key(key: &str) -> Option<Self> {
        let (month_key, day) = (key.get(..7)?, key.get(7..)?);
        let first = Self::from_month_key(month_key)?;
        let date = Self::new(first.year, first.month, day.get(1..)?.parse().ok()?)?;
        (date.day_key() == key).then_some(date)
    }

    /// Reads a month key as the first day of the month.
    pub fn from_month_key(key: &str) -> Option<Self> {
        let date = Self::new(key.get(..4)?.parse().ok()?, key.get(5..)?.parse().ok()?, 1)?;
        (date.month_key() == key).then_some(date)
    }

    /// `Jan` to `Dec`, whatever the locale: FreeSWITCH's `%b`.
    pub fn month_name(self) -> &'static str {
        MONTH_NAMES[usize::from(self.month.clamp(1, 12) - 1)]
    }
}

/// `2026-11-21T00:00:00Z`: a time as texts and rows have it, in UTC.
pub fn timestamp(unix_s: u64) -> String {
    let day = CivilDate::from_unix_s(unix_s.cast_signed()).day_key();
    let (hours, minutes, seconds) = (unix_s / 3600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{day}T{hours:02}:{minutes:02}:{seconds:02}Z")
}

/// True for `Jan` to `Dec`, in this spelling alone.
pub fn is_month_name(text: &[u8]) -> bool {
    MONTH_NAMES.iter().any(|name| name.as_bytes() == text)
}

/// 1 for `Jan` to 12 for `Dec`.
pub fn month_of_name(text: &[u8]) -> Option<u8> {
    let index = MONTH_NAMES.iter().position(|name| name.as_bytes() == text)?;
    u8::try_from(index + 1).ok()
}

impl fmt::Display for CivilDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.day_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        for (unix_s, key, name) in [
            (0, "1970-01-01", "Jan"),
            (-1, "1969-12-31", "Dec"),
            (951_782_400, "2000-02-29", "Feb"),
            (1_795_219_200, "2026-11-21", "Nov"),
            (1_795_219_200 + DAY_S - 1, "2026-11-21", "Nov"),
            (4_107_542_400, "2100-03-01", "Mar"),
        ] {
            let date = CivilDate::from_unix_s(unix_s);
            assert_eq!((date.day_key().as_str(), date.month_name()), (key, name));
        }
        assert_eq!(CivilDate::from_unix_s(1_795_219_200).month_key(), "2026-11");
    }

    #[test]
    fn days_that_do_not_exist_are_none() {
        for key in [
            "2026-02-29",
            "2100-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-01",
            "2026-11-1",
            "2026-11-00",
            "",
            "2026-11+01",
            "x026-11-01",
        ] {
            assert_eq!(CivilDate::from_day_key(key), None, "{key}");
        }
        assert_eq!(CivilDate::from_month_key("2026-1"), None);
        assert_eq!(
            CivilDate::from_month_key("2026-11").map(CivilDate::day_key),
            Some("2026-11-01".to_owned())
        );
    }

    proptest! {
        #[test]
        fn keys_and_seconds_go_there_and_back(unix_s in -62_000_000_000_i64..250_000_000_000) {
            let date = CivilDate::from_unix_s(unix_s);
            prop_assert!(date.start_unix_s() <= unix_s && unix_s < date.next_day_start_unix_s());
            prop_assert_eq!(date.next_day_start_unix_s() - date.start_unix_s(), DAY_S);
            prop_assert_eq!(CivilDate::from_day_key(&date.day_key()), Some(date));
            prop_assert!(date < date.next());
        }
    }
}
