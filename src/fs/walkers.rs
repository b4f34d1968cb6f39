//! Who is on the way down: threads that were told that a directory is absent and will make it.
//!
//! FreeSWITCH makes a missing path from the top down, and on that way it takes EEXIST for failure. So a
//! thread that was told that a tenant or a date directory is absent goes on seeing the date
//! directories below it as absent until it made them itself, and its mkdir then succeeds although
//! another call was first. Everybody else sees what is there.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::id::Ino;

/// Threads remembered; beyond that the outdated ones go, and then nobody new is noted.
const WALKERS_MAX: usize = 10_000;
/// Names remembered of one thread, of each kind; the oldest go.
const NAMES_MAX: usize = 64;

/// A name in a directory.
pub type Place = (Ino, Vec<u8>);

#[derive(Default)]
struct Walker {
    absent: VecDeque<(Place, Duration)>,
    made: VecDeque<Place>,
}

/// The threads, by their kernel number.
#[derive(Default)]
pub struct Walkers {
    count: AtomicUsize,
    walkers: Mutex<HashMap<u32, Walker>>,
}

impl Walkers {
    /// `thread` was told that `place` is absent. What it was told counts for `lifetime`, however
    /// often it asks again.
    pub fn told_absent(&self, thread: u32, place: Place, now: Duration, lifetime: Duration) {
        let mut walkers = self.walkers.lock();
        if walkers.len() >= WALKERS_MAX {
            walkers.retain(|_, walker| walker.is_on_the_way(now, lifetime));
        }
        if walkers.len() < WALKERS_MAX || walkers.contains_key(&thread) {
            let walker = walkers.entry(thread).or_default();
            walker.made.retain(|made| *made != place);
            if !walker
                .absent
                .iter()
                .any(|(absent, since)| *absent == place && is_fresh(*since, now, lifetime))
            {
                push_bounded(&mut walker.absent, (place, now));
            }
        }
        self.count.store(walkers.len(), Ordering::Release);
    }

    /// Whether anybody is on the way at all; cheap.
    pub fn are_any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether `thread` may still make `place` although it is there: it was told that the place or
    /// one above it (`way`, the place itself included) is absent, and has not made it since.
    pub fn may_make(&self, thread: u32, place: &Place, way: &[Place], now: Duration, lifetime: Duration) -> bool {
        let mut walkers = self.walkers.lock();
        let Some(walker) = walkers.get(&thread) else {
            return false;
        };
        if !walker.is_on_the_way(now, lifetime) {
            walkers.remove(&thread);
            self.count.store(walkers.len(), Ordering::Release);
            return false;
        }
        let told = |(absent, since): &(Place, Duration)| is_fresh(*since, now, lifetime) && way.contains(absent);
        !walker.made.contains(place) && walker.absent.iter().any(told)
    }

    /// `thread` made `place`, or was told so.
    pub fn made(&self, thread: u32, place: Place) {
        if let Some(walker) = self.walkers.lock().get_mut(&thread) {
            push_bounded(&mut walker.made, place);
        }
    }
}

impl Walker {
    fn is_on_the_way(&self, now: Duration, lifetime: Duration) -> bool {
        self.absent.iter().any(|(_, since)| is_fresh(*since, now, lifetime))
    }
}

fn is_fresh(since: Duration, now: Duration, lifetime: Duration) -> bool {
    now.saturating_sub(since) < lifetime
}

fn push_bounded<T>(names: &mut VecDeque<T>, name: T) {
    if names.len() == NAMES_MAX {
        names.pop_front();
    }
    names.push_back(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(5);
    const NOW: Duration = Duration::from_secs(100);

    fn place(dir: u64, name: &str) -> Place {
        (Ino(dir), name.as_bytes().to_vec())
    }

    #[test]
    fn who_was_told_that_the_tenant_is_absent_may_make_all_below_once() {
        let walkers = Walkers::default();
        let (tenant, year) = (place(1, "acme"), place(7, "2026"));
        let way = [year.clone(), tenant.clone()];
        walkers.told_absent(40, tenant, NOW, LIFETIME);
        assert!(walkers.are_any());
        assert!(walkers.may_make(40, &year, &way, NOW, LIFETIME));
        assert!(
            !walkers.may_make(41, &year, &way, NOW, LIFETIME),
            "everybody else sees what is there"
        );
        walkers.made(40, year.clone());
        assert!(!walkers.may_make(40, &year, &way, NOW, LIFETIME), "now it is its own");
    }

    #[test]
    fn what_a_thread_was_told_is_forgotten_after_a_while() {
        let walkers = Walkers::default();
        let year = place(7, "2026");
        walkers.told_absent(40, year.clone(), NOW, LIFETIME);
        assert!(!walkers.may_make(40, &year, std::slice::from_ref(&year), NOW + LIFETIME, LIFETIME));
        assert!(!walkers.are_any());
    }
}
