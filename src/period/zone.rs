//! Time zones: which civil day a moment belongs to where an account lives, and when that day ends.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::CivilDate;

/// A time zone by its IANA name. Cheap to copy about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of this name: from the machine's database, or from the one that is compiled in.
    ///
    /// # Errors
    /// Says what a name looks like.
    pub fn named(name: &str) -> Result<Self, String> {
        TimeZone::get(name)
            .map(Self)
            .map_err(|_| format!("'{name}' is no time zone; allowed: names such as UTC, Europe/Berlin or Asia/Kolkata"))
    }

    /// The civil day that holds this second.
    pub fn date_at(&self, unix_s: i64) -> CivilDate {
        let date = self.0.to_datetime(moment(unix_s)).date();
        CivilDate {
            year: i32::from(date.year()),
            month: date.month().unsigned_abs(),
            day: date.day().unsigned_abs(),
        }
    }

    /// First second after this day. Where a clock change takes midnight away, the day begins with the first second there is.
    pub fn end_of_day_s(&self, day: CivilDate) -> i64 {
        self.start_s(day.next())
    }

    /// First second after the month of this day.
    pub fn end_of_month_s(&self, day: CivilDate) -> i64 {
        self.start_s(day.next_month())
    }

    fn start_s(&self, day: CivilDate) -> i64 {
        let start = civil(day).and_then(|date| date.to_zoned_datetime(self.0.clone()).ok());
        start.map_or_else(|| day.start_unix_s(), |start| start.timestamp().as_second())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

fn civil(day: CivilDate) -> Option<Date> {
    let (month, day_of_month) = (i8::try_from(day.month).ok()?, i8::try_from(day.day).ok()?);
    Date::new(i16::try_from(day.year).ok()?, month, day_of_month).ok()
}

/// What lies outside of jiff's years is its first or last moment.
fn moment(unix_s: i64) -> Timestamp {
    Timestamp::from_second(unix_s).unwrap_or(if unix_s < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(name: &str) -> Zone {
        Zone::named(name).unwrap()
    }

    #[test]
    fn a_day_with_a_clock_change_is_shorter_or_longer() {
        let berlin = zone("Europe/Berlin");
        let length_h = |day: CivilDate| (berlin.end_of_day_s(day) - berlin.start_s(day)) / 3600;
        let day = |month, day| CivilDate::new(2026, month, day).unwrap();
        assert_eq!(length_h(day(3, 29)), 23);
        assert_eq!(length_h(day(10, 25)), 25);
        assert_eq!(length_h(day(11, 28)), 24);
        let utc = Zone::default();
        assert_eq!(
            (utc.end_of_day_s(day(3, 29)), utc.to_string().as_str()),
            (day(3, 30).start_unix_s(), "UTC")
        );
    }

    #[test]
    fn midnight_that_does_not_exist_is_the_first_second_after_it() {
        // Beirut, 2026-03-29: 00:00 becomes 01:00.
        let beirut = zone("Asia/Beirut");
        let day = CivilDate::new(2026, 3, 29).unwrap();
        let start = beirut.start_s(day);
        assert_eq!((beirut.date_at(start), beirut.date_at(start - 1).day), (day, 28));
    }

    #[test]
    fn an_unknown_zone_says_what_is_allowed() {
        assert!(Zone::named("Mars/Phobos").unwrap_err().contains("Europe/Berlin"));
    }

    proptest! {
        #[test]
        fn every_second_lies_in_its_day(unix_s in 0_i64..4_000_000_000, name in prop::sample::select(vec!["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia", "Africa/Cairo"])) {
            let zone = zone(name);
            let day = zone.date_at(unix_s);
            prop_assert!(zone.start_s(day) <= unix_s && unix_s < zone.end_of_day_s(day));
            prop_assert!(zone.end_of_day_s(day) <= zone.end_of_month_s(day));
            prop_assert_eq!(zone.date_at(zone.end_of_month_s(day)).day, 1);
        }
    }
}
