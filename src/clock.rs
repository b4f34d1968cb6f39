//! The only source of time. Everything else is handed a [`Clock`], so that tests move it by hand.
#![expect(clippy::disallowed_methods, reason = "real time is read here")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Wall-clock time since 1970-01-01 UTC. May be set back by an administrator.
    fn now(&self) -> Duration;
    /// Time since some fixed moment. Never goes back.
    fn monotonic(&self) -> Duration;
    /// Whole seconds of [`Clock::now`], as days and periods are reckoned.
    fn now_s(&self) -> i64 {
        i64::try_from(self.now().as_secs()).unwrap_or(i64::MAX)
    }
}

/// A reading of the machine's monotonic clock, for the shortest of times: it costs the reading and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Instant);

impl Moment {
    /// Nanoseconds from here to a later one.
    pub fn ns_until(self, later: Self) -> u64 {
        let took = later.0.saturating_duration_since(self.0);
        // 584 years are enough.
        took.as_secs().wrapping_mul(1_000_000_000) + u64::from(took.subsec_nanos())
    }
}

/// The clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// `monotonic` counts from here.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Now.
    pub fn moment(&self) -> Moment {
        Moment(Instant::now())
    }

    /// What [`Clock::monotonic`] told at a moment.
    pub fn monotonic_at(&self, moment: Moment) -> Duration {
        moment.0.saturating_duration_since(self.started)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // A clock before 1970 reads as 1970: no recording is older.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Time since the machine began, by the clock that all its processes share.
pub fn machine_monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// A clock that stands still until it is moved. For tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ns: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl ManualClock {
    /// Starts at this wall-clock time, to the nanosecond.
    pub fn at(now: Duration) -> Self {
        let clock = Self::default();
        clock.set_now(now);
        clock
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        self.now_ns.fetch_add(nanoseconds(by), Ordering::SeqCst);
        self.monotonic_ns.fetch_add(nanoseconds(by), Ordering::SeqCst);
    }

    /// Sets the wall clock alone, also backwards.
    pub fn set_now(&self, now: Duration) {
        self.now_ns.store(nanoseconds(now), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }
}

/// What does not fit, in the year 2554, is the last that does.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_wall_clock_back_leaves_the_monotonic_one() {
        let clock = ManualClock::at(Duration::from_secs(100));
        clock.advance(Duration::from_secs(5));
        clock.set_now(Duration::from_secs(3));
        assert_eq!((clock.now().as_secs(), clock.monotonic().as_secs()), (3, 5));
    }

    #[test]
    fn moments_are_readings_of_the_monotonic_clock() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        let (first, second) = (clock.moment(), clock.moment());
        let after = clock.monotonic();
        assert!(before <= clock.monotonic_at(first) && clock.monotonic_at(second) <= after);
        let took = clock.monotonic_at(second).saturating_sub(clock.monotonic_at(first));
        assert_eq!(u128::from(first.ns_until(second)), took.as_nanos());
        assert_eq!(second.ns_until(first), 0);
    }

    #[test]
    fn the_machine_lives_after_2020() {
        let clock = SystemClock::new();
        assert!(clock.now().as_secs() > 1_577_836_800);
        assert!(clock.monotonic() <= clock.monotonic());
    }
}
