//! The log of refused requests: one line for a burst, because a conference that cannot record tries
//! again about forty times a second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::id::Ino;
use crate::quota::{Meter, Reason, Refusal};

/// Refusals of one account and meter closer together than this are one burst.
const BURST: Duration = Duration::from_secs(30);
/// Accounts remembered; the oldest go when there are more.
const REMEMBERED_COUNT: usize = 10_000;

#[derive(Default)]
struct Burst {
    logged_at: Duration,
    unlogged_count: u64,
}

/// A refusal and when it was, since 1970.
#[derive(Clone, Debug)]
pub struct Refused {
    pub refusal: Refusal,
    pub at: Duration,
}

/// Who was refused lately.
#[derive(Default)]
pub struct Refusals {
    bursts: Mutex<HashMap<(Ino, &'static str), Burst>>,
    last: Mutex<HashMap<Ino, Refused>>,
    counts: [[AtomicU64; Reason::KEYS.len()]; Meter::ALL.len()],
}

impl Refusals {
    /// The last one by an account.
    pub fn last(&self, account: Ino) -> Option<Refused> {
        self.last.lock().get(&account).cloned()
    }

    /// How many there were, by meter and by the name of the reason.
    pub fn counts(&self) -> Vec<(Meter, &'static str, u64)> {
        let of = |meter: Meter| {
            let counts = Reason::KEYS.into_iter().zip(&self.counts[meter as usize]);
            counts.map(move |(reason, count)| (meter, reason, count.load(Ordering::Relaxed)))
        };
        Meter::ALL.into_iter().flat_map(of).collect()
    }

    fn remember(&self, refusal: &Refusal, at: Duration) {
        let mut last = self.last.lock();
        if last.len() >= REMEMBERED_COUNT && !last.contains_key(&refusal.account) {
            let oldest = last.iter().min_by_key(|(_, refused)| refused.at).map(|(&ino, _)| ino);
            oldest.and_then(|ino| last.remove(&ino));
        }
        let refusal = refusal.clone();
        last.insert(refusal.account, Refused { refusal, at });
    }

    /// Remembers a refusal, and logs it unless its burst was logged already. `now` is of any clock, `at` since 1970.
    pub fn note(&self, refusal: &Refusal, now: Duration, at: Duration) {
        self.counts[refusal.meter as usize][refusal.reason.index()].fetch_add(1, Ordering::Relaxed);
        self.remember(refusal, at);
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
        let meter = refusal.meter.key();
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
    use crate::quota::Reason;

    #[test]
    fn a_burst_is_one_line_and_the_next_one_tells_how_many_there_were() {
        let refusals = Refusals::default();
        let refusal = Refusal {
            account: Ino(7),
            path: "acme".into(),
            meter: Meter::Bytes,
            reason: Reason::Hard,
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
