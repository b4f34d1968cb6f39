//! Days in UTC and the few strftime letters that recording paths use.
#![allow(clippy::disallowed_methods, reason = "a program of its own reads the real clock")]

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A day and an hour of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Day {
    year: u64,
    month: u64,
    of_month: u64,
    hour: u64,
}

impl Day {
    /// The day by the clock, in UTC.
    pub fn today() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970");
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Years from March on, so that the leap day is the last one of a year (Howard Hinnant, days_from_civil).
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let of_month = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self {
            year,
            month,
            of_month,
            hour: seconds / 3_600,
        }
    }

    /// `layout` with %Y %m %d %b %H filled in; anything else stays as it is.
    pub fn format(self, layout: &str) -> String {
        layout
            .replace("%Y", &format!("{:04}", self.year))
            .replace("%m", &format!("{:02}", self.month))
            .replace("%d", &format!("{:02}", self.of_month))
            .replace("%H", &format!("{:02}", self.hour))
            .replace("%b", MONTHS[usize::try_from(self.month - 1).unwrap_or(0)])
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u64> = text.split('-').map_while(|part| part.parse().ok()).collect();
        match numbers[..] {
            [year, month @ 1..=12, day @ 1..=31] => Ok(Self {
                year,
                month,
                of_month: day,
                hour: 0,
            }),
            _ => Err(format!("'{text}' is not a day, write YYYY-MM-DD")),
        }
    }
}
