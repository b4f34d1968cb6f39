//! What somebody should hear of an account, kept until it is saved together with the state that led to it. So a kill
//! before the save lets it be noticed again, and one after it finds it saved: each is told once.

use super::limits::Meter;
use super::terms::SavedTerms;
use super::warnings::EventKind;
use std::fmt;

/// More events of one account than this are dropped, the oldest first, while nothing can be saved.
const WAITING_MAX: usize = 64;
/// A refusal that goes on is told again after this time.
const REFUSED_AGAIN_S: i64 = 3600;
/// Usage that has fallen this many points below the limit ends a burst of refusals.
const REFUSED_ENDS_BELOW: u64 = 5;

/// An event, and when it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noted {
    /// Seconds since 1970.
    pub at_s: i64,
    /// Counts the account's events since the start: no two have the same.
    pub number: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What is to be saved of an account beside its counters, of one instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenTerms {
    /// The state.
    pub saved: SavedTerms,
    /// What happened since the last time that was saved. It goes into the same transaction.
    pub noted: Vec<Noted>,
    /// How many older events went because nothing could be saved for too long.
    pub dropped_count: usize,
}

/// Events that are not saved.
#[derive(Default, Debug)]
pub(super) struct Waiting {
    events: Vec<Noted>,
    count: u64,
    /// Told by whoever takes: nobody logs under the lock.
    dropped_count: usize,
}

impl Waiting {
    pub(super) fn note(&mut self, kind: EventKind, at_s: i64) {
        self.count += 1;
        let number = self.count;
        self.events.push(Noted { at_s, number, kind });
        self.shorten();
    }

    pub(super) fn take(&mut self) -> Vec<Noted> {
        std::mem::take(&mut self.events)
    }

    /// How many were dropped since the last call.
    pub(super) fn take_dropped_count(&mut self) -> usize {
        std::mem::take(&mut self.dropped_count)
    }

    /// What was taken could not be saved, and is older than what came meanwhile.
    pub(super) fn give_back(&mut self, mut taken: Vec<Noted>) {
        taken.append(&mut self.events);
        self.events = taken;
        self.shorten();
    }

    fn shorten(&mut self) {
        let surplus = self.events.len().saturating_sub(WAITING_MAX);
        self.events.drain(..surplus);
        self.dropped_count += surplus;
    }
}

/// When refusals were told of, by meter: once for a burst, which ends when usage has fallen well below the limit or
/// an hour has passed. Most accounts have none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RefusalsTold(Vec<Burst>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Burst {
    meter: Meter,
    told_s: i64,
    /// Usage was near the limit since: then a fall ends the burst. One large request may be refused far below it.
    was_near: bool,
}

fn is_near(used: u64, limit: u64) -> bool {
    u128::from(used) * 100 >= u128::from(limit) * u128::from(100 - REFUSED_ENDS_BELOW)
}

impl RefusalsTold {
    fn burst(&mut self, meter: Meter) -> Option<&mut Burst> {
        self.0.iter_mut().find(|burst| burst.meter == meter)
    }

    fn begin(&mut self, meter: Meter, told_s: i64, was_near: bool) {
        self.0.retain(|burst| burst.meter != meter);
        self.0.push(Burst {
            meter,
            told_s,
            was_near,
        });
    }

    /// Whether a refusal begins a burst; from then on it has.
    pub(super) fn is_news(&mut self, meter: Meter, used: u64, limit: u64, now_s: i64) -> bool {
        let is_near = is_near(used, limit);
        match self.burst(meter) {
            // A time that is yet to come was told before the clock was set back.
            Some(burst) if (0..REFUSED_AGAIN_S).contains(&now_s.saturating_sub(burst.told_s)) => {
                burst.was_near |= is_near;
                false
            }
            _ => {
                self.begin(meter, now_s, is_near);
                true
            }
        }
    }

    /// Ends a burst when usage has fallen, or the limit is gone.
    pub(super) fn watch(&mut self, meter: Meter, used: u64, limit: Option<u64>) {
        let Some(burst) = self.burst(meter) else {
            return;
        };
        match limit {
            Some(limit) if is_near(used, limit) => burst.was_near = true,
            Some(_) if !burst.was_near => {}
            Some(_) | None => self.0.retain(|burst| burst.meter != meter),
        }
    }

    /// Reads what [`RefusalsTold`] displays: `bytes=1795237260`. What is not known is left out.
    pub fn parse(text: &str) -> Self {
        let mut told = Self::default();
        for word in text.split_ascii_whitespace() {
            let read = word
                .split_once('=')
                .and_then(|(key, at_s)| Some((Meter::named(key)?, at_s.parse().ok()?)));
            if let Some((meter, at_s)) = read {
                told.begin(meter, at_s, false);
            }
        }
        told
    }
}

impl fmt::Display for RefusalsTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for meter in Meter::ALL {
            if let Some(burst) = self.0.iter().find(|burst| burst.meter == meter) {
                write!(f, "{gap}{}={}", meter.key(), burst.told_s)?;
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
    fn a_burst_of_refusals_is_told_once_until_usage_has_fallen_or_an_hour_has_passed() {
        let mut told = RefusalsTold::default();
        let meter = Meter::Bytes;
        assert!(told.is_news(meter, 1000, 1000, 100));
        assert!(!told.is_news(meter, 1000, 1000, 101));
        assert!(
            told.is_news(Meter::DayFiles, 10, 10, 101),
            "another meter is another burst"
        );
        told.watch(meter, 951, Some(1000));
        assert!(!told.is_news(meter, 1000, 1000, 102));
        told.watch(meter, 949, Some(1000));
        assert!(told.is_news(meter, 1000, 1000, 103), "usage had fallen");
        assert!(!told.is_news(meter, 1000, 1000, 3702));
        assert!(told.is_news(meter, 1000, 1000, 3703), "an hour has passed");
        assert!(told.is_news(meter, 1000, 1000, 50), "the clock was set back");
        told.watch(meter, 1000, None);
        assert!(told.is_news(meter, 1000, 1000, 51), "that limit was gone");
    }

    #[test]
    fn a_large_request_that_is_refused_far_below_the_limit_is_told_once_an_hour() {
        let mut told = RefusalsTold::default();
        assert!(told.is_news(Meter::Bytes, 100, 1000, 0));
        told.watch(Meter::Bytes, 100, Some(1000));
        assert!(!told.is_news(Meter::Bytes, 100, 1000, 3599));
        assert!(told.is_news(Meter::Bytes, 100, 1000, 3600));
        told.watch(Meter::Bytes, 990, Some(1000));
        told.watch(Meter::Bytes, 100, Some(1000));
        assert!(told.is_news(Meter::Bytes, 100, 1000, 3601));
    }

    #[test]
    fn what_was_told_outlives_a_restart() {
        let mut told = RefusalsTold::default();
        told.is_news(Meter::Bytes, 10, 10, 100);
        told.is_news(Meter::MonthBytes, 10, 10, 200);
        assert_eq!(told.to_string(), "bytes=100 month.bytes=200");
        let mut again = RefusalsTold::parse(&told.to_string());
        assert_eq!(again.to_string(), told.to_string());
        assert!(!again.is_news(Meter::Bytes, 10, 10, 101));
        again.watch(Meter::MonthBytes, 10, Some(10));
        again.watch(Meter::MonthBytes, 0, Some(10));
        assert!(again.is_news(Meter::MonthBytes, 10, 10, 201));
    }

    #[test]
    fn what_could_not_be_saved_comes_first_the_next_time_and_is_bounded() {
        let mut waiting = Waiting::default();
        let leap = |days| EventKind::Leapt { days };
        waiting.note(leap(2), 1);
        let taken = waiting.take();
        waiting.note(leap(3), 2);
        waiting.give_back(taken);
        let days = |noted: &[Noted]| noted.iter().map(|noted| (noted.number, noted.at_s)).collect::<Vec<_>>();
        assert_eq!(days(&waiting.take()), [(1, 1), (2, 2)]);
        assert!(waiting.take().is_empty());
        for at_s in 0..100 {
            waiting.note(leap(2), at_s);
        }
        let kept = waiting.take();
        assert_eq!((kept.len(), kept[0].at_s), (WAITING_MAX, 36));
        assert_eq!([waiting.take_dropped_count(), waiting.take_dropped_count()], [36, 0]);
    }
}
