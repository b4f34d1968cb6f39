//! When to try again, and when to give up. Pure: time and chance are passed in.

use std::time::Duration;

use crate::config::Alerts;

/// Before the second attempt, at most.
const FIRST: Duration = Duration::from_secs(2);
/// Longest pause between two attempts, unless a receiver asks for more.
const LONGEST: Duration = Duration::from_mins(10);
/// A receiver that asks for more than this gets this.
const ASKED_MAX: Duration = Duration::from_hours(1);
const DOUBLED_MAX: u32 = 16;
const _: () = assert!(FIRST.as_secs() << DOUBLED_MAX > LONGEST.as_secs());

/// Between the attempt with this number (from 1) and the next. `chance` spreads it over its upper half, so that many
/// that failed together do not come back together.
pub fn pause(attempts: u32, asked: Option<Duration>, chance: u16) -> Duration {
    let doubled = attempts.saturating_sub(1).min(DOUBLED_MAX);
    let longest = (FIRST * (1 << doubled)).min(LONGEST);
    let half = longest / 2;
    let spread = half * u32::from(chance) / u32::from(u16::MAX);
    (half + spread).max(asked.unwrap_or_default().min(ASKED_MAX))
}

/// The longest that [`pause`] gives: an attempt that is due later was planned before the clock was set back.
pub const PAUSE_MAX: Duration = ASKED_MAX;

/// Nobody tries any more.
pub fn is_over(alerts: &Alerts, attempts: u32, created_s: u64, now_s: u64) -> bool {
    alerts.attempts_max.is_some_and(|most| u64::from(attempts) >= most)
        || alerts
            .give_up_after_s
            .is_some_and(|after_s| now_s.saturating_sub(created_s) >= after_s)
}

/// Random enough to spread attempts.
pub fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness all wait the same.
    let _ = getrandom::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_end_and_are_spread() {
        let longest = |attempts| pause(attempts, None, u16::MAX).as_secs();
        assert_eq!(
            [1, 2, 3, 9, 10, 11, u32::MAX].map(longest),
            [2, 4, 8, 512, 600, 600, 600]
        );
        assert_eq!(pause(1, None, 0), Duration::from_secs(1));
        assert_eq!(pause(u32::MAX, None, 0), Duration::from_mins(5));
        assert_eq!(pause(1, Some(Duration::from_secs(30)), 0).as_secs(), 30);
        assert_eq!(pause(1, Some(Duration::MAX), 0), ASKED_MAX);
    }

    #[test]
    fn a_notice_is_given_up_by_attempts_or_by_time() {
        let alerts = |attempts_max, give_up_after_s| Alerts {
            give_up_after_s,
            attempts_max,
            ..Alerts::default()
        };
        let both = alerts(Some(3), Some(100));
        assert!(!is_over(&both, 2, 1000, 1099));
        assert!(is_over(&both, 3, 1000, 1000));
        assert!(is_over(&both, 1, 1000, 1100));
        assert!(!is_over(&both, 1, 1000, 0), "the clock was set back");
        assert!(!is_over(&alerts(None, None), u32::MAX, 0, u64::MAX));
    }
}
