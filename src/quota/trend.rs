//! Where usage is heading: the line through what each of the last days ended with, and the day on which it meets a limit.

use crate::period::CivilDate;

/// Nobody plans further ahead; a line drawn through a month says nothing about it either.
const DAYS_AHEAD_MAX: f64 = 3650.0;
/// With fewer days there is no line.
const DAYS_MIN: usize = 3;

/// Growth of one account.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trend {
    /// Bytes of a day; negative when it shrinks.
    pub bytes_per_day: f64,
}

impl Trend {
    /// From the totals of days, the oldest first; a day that is missing changed nothing. `None` with less than three days.
    pub fn of(totals: &[(CivilDate, u64)]) -> Option<Self> {
        let sizes = without_gaps(totals);
        if sizes.len() < DAYS_MIN {
            return None;
        }
        let count = float(sizes.len() as u64);
        let (mean_day, mean_size) = ((count - 1.0) / 2.0, sizes.iter().sum::<f64>() / count);
        let (mut together, mut alone) = (0.0, 0.0);
        for (day, size) in sizes.iter().enumerate() {
            let off = float(day as u64) - mean_day;
            together += off * (size - mean_size);
            alone += off * off;
        }
        Some(Self {
            bytes_per_day: together / alone,
        })
    }

    /// The day on which `used` bytes of today will have come to `limit`; `None`: not within ten years.
    pub fn full_on(&self, today: CivilDate, used: u64, limit: u64) -> Option<CivilDate> {
        if used >= limit {
            return Some(today);
        }
        let days = float(limit - used) / self.bytes_per_day;
        if !(0.0..=DAYS_AHEAD_MAX).contains(&days) {
            return None;
        }
        // At most 3,650 steps.
        let whole = (0..).take_while(|&passed| f64::from(passed) < days.floor());
        Some(whole.fold(today, |day, _: u32| day.next()))
    }
}

/// One size for each day from the first to the last.
fn without_gaps(totals: &[(CivilDate, u64)]) -> Vec<f64> {
    let mut sizes = Vec::new();
    let Some(&(first, _)) = totals.first() else {
        return sizes;
    };
    let (mut day, mut size) = (first, 0);
    for &(at, total) in totals {
        while day < at {
            sizes.push(float(size));
            day = day.next();
        }
        size = total;
        if day == at {
            sizes.push(float(size));
            day = day.next();
        }
    }
    sizes
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(key: &str) -> CivilDate {
        CivilDate::from_day_key(key).unwrap()
    }

    fn trend(totals: &[(&str, u64)]) -> Option<f64> {
        let totals: Vec<_> = totals.iter().map(|(key, size)| (day(key), *size)).collect();
        Trend::of(&totals).map(|trend| trend.bytes_per_day)
    }

    #[test]
    fn steady_growth_is_found_and_days_without_a_row_stand_still() {
        assert_eq!(
            trend(&[("2026-02-27", 100), ("2026-02-28", 200), ("2026-03-01", 300)]),
            Some(100.0)
        );
        assert_eq!(trend(&[("2026-11-01", 500), ("2026-11-04", 500)]), Some(0.0));
        // 100 100 100 400, by hand: the sum of the products is 450, that of the squares 5.
        assert_eq!(trend(&[("2026-11-01", 100), ("2026-11-04", 400)]), Some(90.0));
        assert!(trend(&[("2026-11-01", 900), ("2026-11-02", 500), ("2026-11-03", 100)]).unwrap() < 0.0);
        assert_eq!(trend(&[("2026-11-01", 1), ("2026-11-02", 2)]), None);
        assert_eq!(trend(&[]), None);
    }

    #[test]
    fn the_day_of_the_limit_is_told_if_it_comes_within_ten_years() {
        let full_on = |bytes_per_day, used, limit| {
            let trend = Trend { bytes_per_day };
            trend.full_on(day("2026-11-29"), used, limit).map(CivilDate::day_key)
        };
        assert_eq!(full_on(100.0, 500, 1000).as_deref(), Some("2026-12-04"));
        assert_eq!(full_on(100.0, 500, 1001).as_deref(), Some("2026-12-04"));
        assert_eq!(full_on(100.0, 1000, 1000).as_deref(), Some("2026-11-29"));
        assert_eq!(full_on(1e9, 500, 1000).as_deref(), Some("2026-11-29"));
        for never in [0.0, -5.0, 0.001, f64::NAN] {
            assert_eq!(full_on(never, 500, 1000), None, "{never}");
        }
    }
}
