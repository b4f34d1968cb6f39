//! The log of refused requests: one line for a burst, because a conference that cannot record tries
//! again about forty times a second.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::id::Ino;
use crate::quota::{Meter, Refusal};

/// Refusals of one account and meter closer together than this are one burst.
const BURST: Duration = Duration::from_secs(30);
/// Accounts remembered; the oldest go when there are more.
const REMEMBERED_COUNT: usize = 10_000;

#[derive(Default)]
struct Burst {
    logged_at: Duration,
    unlogged_count: u64,
}

/// Who was refused lately.
#[derive(Default)]
pub struct Refusals {
    bursts: Mutex<HashMap<(Ino, u8), Burst>>,
}

impl Refusals {
    /// Logs a refusal unless its burst was logged already.
    pub fn note(&self, refusal: &Refusal, now: Duration) {
        let Some(unlogged) = self.is_news(refusal, now) else {
            return;
        };
        if unlogged > 0 {
            log::warn!("{refusal} (and {unlogged} times more since the last line about it)");
        } else {
            log::warn!("{refusal}");
        }
    }

    fn is_news(&self, refusal: &Refusal, now: Duration) -> Option<u64> {
        let meter = match refusal.meter {
            Meter::Bytes => 0,
            Meter::Files => 1,
            Meter::Dirs => 2,
            Meter::FileSize => 3,
        };
        let mut bursts = self.bursts.lock();
        if bursts.len() >= REMEMBERED_COUNT {
            bursts.retain(|_, burst| now.saturating_sub(burst.logged_at) < BURST);
        }
        let known = bursts.contains_key(&(refusal.account, meter));
        let burst = bursts.entry((refusal.account, meter)).or_default();
        if known && now.saturating_sub(burst.logged_at) < BURST {
            burst.unlogged_count += 1;
            return None;
        }
        burst.logged_at = now;
        Some(std::mem::take(&mut burst.unlogged_count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_line_and_the_next_one_tells_how_many_there_were() {
        let refusals = Refusals::default();
        let refusal = Refusal {
            account: Ino(7),
            path: "acme".into(),
            meter: Meter::Bytes,
            used: 10,
            limit: 10,
            wanted: 1,
            is_mount: false,
        };
        assert_eq!(refusals.is_news(&refusal, Duration::from_secs(100)), Some(0));
        assert_eq!(refusals.is_news(&refusal, Duration::from_secs(101)), None);
        assert_eq!(refusals.is_news(&refusal, Duration::from_secs(102)), None);
        assert_eq!(refusals.is_news(&refusal, Duration::from_secs(131)), Some(2));
        let other = Refusal {
            meter: Meter::Files,
            ..refusal
        };
        assert_eq!(
            refusals.is_news(&other, Duration::from_secs(131)),
            Some(0),
            "another meter is another burst"
        );
    }
}
