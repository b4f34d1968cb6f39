//! Looking for the next request for a moment before sleeping in read(2): a client that sends it as soon as it is answered
//! then wakes neither the thread nor the core of it, which costs more than the answer. Where clients do not, or others
//! want the core, nobody looks. Nor in the bursts of recorders in real time, who are done long before their next frame:
//! looking would make the daemon busy as long as they are, and nobody waits for it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// About what it takes to be woken.
const MOMENT: Duration = Duration::from_micros(15);
/// Looks in vain cost so much of the luck that each that paid brings 1 of.
const BAD_LUCK: u32 = 4;
const LUCK_MAX: u32 = 16;
/// Out of luck: so many answers until the next try.
const PAUSE: u32 = 64;
/// A moment that took so many times as long was another thread's: looking takes the core from somebody.
const OUSTED: u32 = 8;
/// So many answers until the next try then.
const OUSTED_PAUSE: u32 = 512;

/// Without an answer for so long, work has begun anew.
const GAP: Duration = Duration::from_millis(1);
/// So long there has to be work without a gap: longer than the burst of 200 recorders of one process, who send every 20 ms.
const STEADY: Duration = Duration::from_millis(5);

/// Whether looking has paid lately. Used by one thread at a time.
#[derive(Default)]
pub struct LookOut {
    luck: AtomicU32,
    pause: AtomicU32,
    /// Of the clock, in nanoseconds: the first and the latest answer since the last gap.
    first_ns: AtomicU64,
    latest_ns: AtomicU64,
}

impl LookOut {
    /// Looks until a request is there, or for a moment from `began` on, which is now; mostly not at all where it has not
    /// paid.
    pub fn look(&self, clock: &dyn Clock, began: Duration, mut is_waiting: impl FnMut() -> bool) {
        let is_steady = self.note_answer(began);
        let pause = self.pause.load(Ordering::Relaxed);
        if pause > 0 {
            self.pause.store(pause - 1, Ordering::Relaxed);
            return;
        }
        if !is_steady {
            return;
        }
        let (found, took) = loop {
            let found = is_waiting();
            let took = clock.monotonic().saturating_sub(began);
            if found || took >= MOMENT {
                break (found, took);
            }
        };
        let luck = self.luck.load(Ordering::Relaxed);
        let luck = if found {
            (luck + 1).min(LUCK_MAX)
        } else {
            luck.saturating_sub(BAD_LUCK)
        };
        self.luck.store(luck, Ordering::Relaxed);
        if took >= MOMENT * OUSTED {
            self.pause.store(OUSTED_PAUSE, Ordering::Relaxed);
        } else if luck == 0 {
            self.pause.store(PAUSE, Ordering::Relaxed);
        }
    }

    /// Whether there has been work for long enough.
    fn note_answer(&self, now: Duration) -> bool {
        let now_ns = now.as_nanos() as u64;
        let latest_ns = self.latest_ns.swap(now_ns, Ordering::Relaxed);
        if now_ns.saturating_sub(latest_ns) >= GAP.as_nanos() as u64 {
            self.first_ns.store(now_ns, Ordering::Relaxed);
            return false;
        }
        now_ns.saturating_sub(self.first_ns.load(Ordering::Relaxed)) >= STEADY.as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// Moves on by as much at each look at it.
    struct Stepping(AtomicU64, Duration);

    impl Clock for Stepping {
        fn now(&self) -> Duration {
            self.monotonic()
        }

        fn monotonic(&self) -> Duration {
            self.1 * self.0.fetch_add(1, Ordering::Relaxed) as u32
        }
    }

    fn every(step: Duration) -> Stepping {
        Stepping(AtomicU64::new(0), step)
    }

    /// One that has been at work for long.
    fn steady(clock: &Stepping) -> LookOut {
        let look_out = LookOut::default();
        look_out.note_answer(clock.monotonic());
        while !look_out.note_answer(clock.monotonic()) {}
        look_out
    }

    /// How often a thread looked, after each of so many answers; a request comes at the `found_at`th look.
    fn looks(look_out: &LookOut, clock: &Stepping, answers: usize, found_at: u32) -> Vec<u32> {
        let after_one = |_| {
            let mut count = 0;
            look_out.look(clock, clock.monotonic(), || {
                count += 1;
                count == found_at
            });
            count
        };
        (0..answers).map(after_one).collect()
    }

    #[test]
    fn a_thread_looks_until_the_request_is_there_and_for_no_longer_than_a_moment() {
        let clock = every(Duration::from_micros(1));
        let look_out = steady(&clock);
        assert_eq!(looks(&look_out, &clock, 20, 3), [3; 20]);
        assert_eq!(looks(&look_out, &clock, 1, u32::MAX), [15]);
    }

    #[test]
    fn looks_in_vain_are_given_up_and_tried_again_now_and_then() {
        let clock = every(Duration::from_micros(1));
        let look_out = steady(&clock);
        let told = looks(&look_out, &clock, 200, u32::MAX);
        let tried: Vec<usize> = (0..200).filter(|&answer| told[answer] > 0).collect();
        assert_eq!(tried, [0, 65, 130, 195]);
        // Clients are quick again: from the next try on each answer is followed by a look.
        let told = looks(&look_out, &clock, 100, 2);
        let first = told.iter().position(|&count| count > 0).expect("a try");
        assert!(first <= 64 && told[first..].iter().all(|&count| count == 2), "{told:?}");
        // One that is slow now and then is forgiven.
        assert_eq!(looks(&look_out, &clock, 1, u32::MAX), [15]);
        assert_eq!(looks(&look_out, &clock, 1, 2), [2]);
    }

    #[test]
    fn a_thread_that_lost_its_core_leaves_it_to_others_for_a_while() {
        let clock = ManualClock::default();
        let look_out = LookOut::default();
        let answer = |took: Duration| {
            clock.advance(Duration::from_micros(10));
            let mut count = 0;
            look_out.look(&clock, clock.monotonic(), || {
                count += 1;
                clock.advance(took);
                true
            });
            count
        };
        while answer(Duration::from_micros(1)) == 0 {}
        // Found, but only after somebody else had the core.
        assert_eq!(answer(Duration::from_millis(3)), 1);
        // A gap, too: it begins anew when both are over.
        let looked = (0..4000).filter(|_| answer(Duration::from_micros(1)) > 0).count();
        let until_steady = STEADY.as_micros() as usize / 10;
        assert_eq!(looked, 4000 - until_steady.max(512));
    }

    #[test]
    fn bursts_of_recorders_in_real_time_are_not_looked_out_for() {
        let clock = ManualClock::default();
        let look_out = LookOut::default();
        let looked_after = |gap: Duration| {
            clock.advance(gap);
            let mut looked = false;
            look_out.look(&clock, clock.monotonic(), || {
                looked = true;
                true
            });
            looked
        };
        for _ in 0..50 {
            assert!(!looked_after(Duration::from_millis(17)));
            assert!((0..199).all(|_| !looked_after(Duration::from_micros(15))));
        }
        let first = (0..1000).position(|_| looked_after(Duration::from_micros(15)));
        assert_eq!(first, Some(134), "it goes on for longer than a burst");
    }
}
