//! Periods, soft limits and warnings, by a clock that is moved by hand.

use super::*;
use crate::clock::ManualClock;
use crate::period::{CivilDate, DAY_S, Zone};
use std::time::Duration;

/// 2026-11-21, a Saturday, at midnight UTC.
const SATURDAY_S: i64 = 1_795_219_200;

struct World {
    clock: Arc<ManualClock>,
    ledger: Arc<Ledger>,
    acme: Arc<Account>,
}

impl World {
    fn at(start_s: i64) -> Self {
        let clock = Arc::new(ManualClock::at(Duration::from_secs(start_s.unsigned_abs())));
        let ledger = Ledger::with_clock(Ino(1), Limits::NONE, clock.clone());
        let acme = ledger.insert(ledger.root(), Ino(2), 1, b"acme");
        Self { clock, ledger, acme }
    }

    fn with(start_s: i64, limits: Limits) -> Self {
        let world = Self::at(start_s);
        world.ledger.set_limits(&world.acme, limits);
        world
    }

    fn set_zone(&self, name: &str) {
        let policy = Policy {
            limits: self.acme.limits(),
            zone: Zone::named(name).unwrap(),
            steps: Steps::default(),
        };
        self.ledger.set_policy(&self.acme, &policy);
    }

    fn set_time(&self, unix_s: i64) {
        self.clock.set_now(Duration::from_secs(unix_s.unsigned_abs()));
    }

    /// The clock shows a time for so long, looked at every second.
    fn stays_at(&self, unix_s: i64, seconds: u64) -> Vec<EventKind> {
        let mut events = Vec::new();
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.set_time(unix_s);
            events.extend(self.tick());
        }
        events
    }

    fn tick(&self) -> Vec<EventKind> {
        self.ledger.tick().into_iter().map(|event| event.kind).collect()
    }

    /// Writes all or nothing.
    fn grow(&self, bytes: u64) -> Result<(), Refusal> {
        let amount = Meters::of_bytes(bytes);
        self.ledger.reserve(&self.acme, amount).map(|room| room.claim(amount))
    }

    fn create(&self) -> Result<(), Refusal> {
        let amount = Meters::of_file(0);
        self.ledger.reserve(&self.acme, amount).map(|room| room.claim(amount))
    }

    fn period(&self) -> (String, u64, u64) {
        let period = self.acme.period(self.ledger.now_s()).unwrap();
        (
            period.day.day_key(),
            period.used(Meter::DayBytes),
            period.used(Meter::MonthBytes),
        )
    }
}

fn per_day(bytes: u64) -> Limits {
    Limits {
        day_bytes: Some(bytes),
        ..Limits::NONE
    }
}

#[test]
fn q52_a_day_that_is_full_refuses_with_its_end_and_the_next_begins_at_zero() {
    let world = World::with(SATURDAY_S + 100, per_day(1000));
    world.grow(1000).unwrap();
    let refusal = world.grow(1).unwrap_err();
    let resets_at_s = SATURDAY_S + DAY_S;
    assert_eq!(
        (
            refusal.meter,
            refusal.reason,
            refusal.used,
            refusal.limit,
            refusal.errno()
        ),
        (
            Meter::DayBytes,
            Reason::Period { resets_at_s },
            1000,
            1000,
            libc::EDQUOT
        )
    );
    assert!(refusal.to_string().contains(&resets_at_s.to_string()), "{refusal}");
    world.ledger.uncharge(&world.acme, Meters::of_bytes(1000));
    assert!(world.grow(1).is_err(), "what is deleted is not given back to the day");
    world.set_time(resets_at_s - 1);
    assert!(world.grow(1).is_err());
    world.set_time(resets_at_s);
    world.grow(400).unwrap();
    assert_eq!(world.period(), ("2026-11-22".into(), 400, 1400));
}

#[test]
fn a_period_of_the_mount_is_edquot_too() {
    let world = World::at(SATURDAY_S);
    world.ledger.set_limits(world.ledger.root(), per_day(10));
    assert_eq!(world.grow(11).unwrap_err().errno(), libc::EDQUOT);
}

#[test]
fn q52_a_month_ends_with_its_last_day_and_files_count_in_both() {
    let limits = Limits {
        day_files: Some(3),
        month_files: Some(4),
        ..Limits::NONE
    };
    // 2026-11-29.
    let world = World::with(SATURDAY_S + 8 * DAY_S, limits);
    for _ in 0..3 {
        world.create().unwrap();
    }
    assert_eq!(world.create().unwrap_err().meter, Meter::DayFiles);
    world.set_time(SATURDAY_S + 9 * DAY_S);
    world.create().unwrap();
    assert_eq!(world.create().unwrap_err().meter, Meter::MonthFiles);
    world.set_time(SATURDAY_S + 10 * DAY_S);
    world.create().unwrap();
}

#[test]
fn a_write_is_cut_where_the_day_ends_on_a_whole_frame() {
    let world = World::with(SATURDAY_S, per_day(1003));
    let ask = WriteAsk {
        plain_offset: 0,
        size: 4096,
        old_length: 0,
    };
    let (size, room) = world.ledger.reserve_write(&world.acme, ask).unwrap();
    assert_eq!(size, 1000);
    room.claim(Meters::of_bytes(size));
    let next = WriteAsk {
        plain_offset: 1000,
        old_length: 1000,
        ..ask
    };
    assert_eq!(
        world
            .ledger
            .reserve_write(&world.acme, next)
            .map(|_| ())
            .unwrap_err()
            .meter,
        Meter::DayBytes
    );
}

#[test]
fn q52_what_is_promised_over_midnight_counts_in_the_new_day_and_keeps_its_limit() {
    let world = World::with(SATURDAY_S + DAY_S - 1, per_day(1000));
    let under_way = world.ledger.reserve(&world.acme, Meters::of_bytes(600)).unwrap();
    world.set_time(SATURDAY_S + DAY_S);
    world.grow(400).unwrap();
    under_way.claim(Meters::of_bytes(600));
    assert_eq!(world.period(), ("2026-11-22".into(), 1000, 1000));
    assert!(world.grow(1).is_err());
}

#[test]
fn q52_a_clock_set_back_ends_no_period_and_begins_none() {
    let world = World::with(SATURDAY_S + 5, per_day(1000));
    world.grow(700).unwrap();
    world.set_time(SATURDAY_S - 5);
    assert_eq!(world.stays_at(SATURDAY_S - 5, 200), []);
    assert_eq!(world.period(), ("2026-11-21".into(), 700, 700));
    assert!(world.grow(301).is_err());
}

#[test]
fn a_clock_that_leaps_counts_once_it_has_stayed_there_for_a_minute() {
    let world = World::with(SATURDAY_S, per_day(1000));
    world.grow(700).unwrap();
    assert_eq!(world.stays_at(SATURDAY_S + 40 * DAY_S, 59), []);
    assert_eq!(world.period().0, "2026-11-21");
    // Set right again: nothing has happened, and the minute begins anew.
    assert_eq!(world.stays_at(SATURDAY_S + 60, 5), []);
    assert_eq!(world.stays_at(SATURDAY_S + 40 * DAY_S, 60), []);
    assert_eq!(world.period(), ("2026-11-21".into(), 700, 700));
    let told = world.stays_at(SATURDAY_S + 40 * DAY_S, 2);
    assert!(told.contains(&EventKind::Leapt { days: 40 }), "{told:?}");
    assert_eq!(world.period(), ("2026-12-31".into(), 0, 0));
}

#[test]
fn q52_the_day_is_that_of_the_accounts_zone_also_when_clocks_change() {
    // Berlin, 2026-10-25: 25 hours, from 22:00 UTC to 23:00 UTC.
    let start_s = CivilDate::from_day_key("2026-10-24").unwrap().start_unix_s() + 22 * 3600;
    let world = World::with(start_s - 1, per_day(1000));
    world.set_zone("Europe/Berlin");
    world.grow(10).unwrap();
    assert_eq!(world.period().0, "2026-10-24");
    world.set_time(start_s);
    world.grow(1000).unwrap();
    world.set_time(start_s + 25 * 3600 - 1);
    assert_eq!(
        world.grow(1).unwrap_err().reason,
        Reason::Period {
            resets_at_s: start_s + 25 * 3600
        }
    );
    world.set_time(start_s + 25 * 3600);
    world.grow(1000).unwrap();
    assert_eq!(world.period(), ("2026-10-26".into(), 1000, 2010));
}

#[test]
fn an_empty_file_that_goes_in_its_period_gives_its_count_back() {
    let limits = Limits {
        day_files: Some(1),
        ..Limits::NONE
    };
    let world = World::with(SATURDAY_S, limits);
    world.create().unwrap();
    assert!(world.create().is_err());
    world.ledger.refund_file(&world.acme, SATURDAY_S - 1);
    assert!(world.create().is_err(), "made the day before");
    world.ledger.refund_file(&world.acme, SATURDAY_S);
    world.create().unwrap();
}

#[test]
fn what_is_saved_goes_on_after_a_restart_and_a_day_that_is_over_does_not() {
    let world = World::with(SATURDAY_S, per_day(1000));
    world.grow(600).unwrap();
    let saved = world.acme.take_changed_terms().unwrap().saved;
    assert_eq!(world.acme.take_changed_terms(), None);
    let same_day = World::with(SATURDAY_S + 7, per_day(1000));
    same_day.ledger.load_terms(&same_day.acme, &saved);
    assert_eq!(same_day.period(), ("2026-11-21".into(), 600, 600));
    assert!(same_day.grow(401).is_err());
    let later = World::with(SATURDAY_S + 3 * DAY_S, per_day(1000));
    later.ledger.load_terms(&later.acme, &saved);
    assert_eq!(later.period(), ("2026-11-24".into(), 0, 600));
}

#[test]
fn a_reset_begins_the_periods_anew_also_from_a_day_that_has_not_come() {
    let world = World::with(SATURDAY_S, per_day(1000));
    world.stays_at(SATURDAY_S + 3000 * DAY_S, 70);
    world.set_time(SATURDAY_S);
    world.grow(1000).unwrap();
    assert!(world.ledger.reset_period(&world.acme));
    assert_eq!(world.period(), ("2026-11-21".into(), 0, 0));
    world.grow(1000).unwrap();
    let sub = world.ledger.insert(&world.acme, Ino(3), 1, b"eva");
    assert!(
        !world.ledger.reset_period(&sub),
        "periods of an ordinary directory are not counted"
    );
}

fn soft(bytes: u64, grace_s: Option<u64>) -> Limits {
    Limits {
        bytes: Some(2000),
        soft_bytes: Some(bytes),
        grace_s,
        ..Limits::NONE
    }
}

#[test]
fn a_soft_limit_may_be_passed_for_its_grace_and_then_refuses_until_usage_is_below() {
    let world = World::with(SATURDAY_S, soft(1000, Some(100)));
    world.grow(1000).unwrap();
    assert_eq!(world.tick(), []);
    for _ in 0..50 {
        world.grow(1).unwrap();
    }
    let grace_ends_s = Some(SATURDAY_S + 100);
    let told = world.tick();
    assert_eq!(
        told,
        [EventKind::OverSoft {
            meter: Meter::Bytes,
            used: 1050,
            limit: 1000,
            grace_ends_s
        }]
    );
    assert_eq!(world.acme.grace_ends_s(Meter::Bytes), grace_ends_s);
    world.set_time(SATURDAY_S + 99);
    world.grow(1).unwrap();
    world.set_time(SATURDAY_S + 100);
    let refusal = world.grow(1).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.limit, refusal.used),
        (Reason::GraceOver, 1000, 1051)
    );
    assert_eq!(world.ledger.available(&world.acme).bytes.unwrap().remaining, 0);
    assert!(world.create().is_ok(), "grace is of one meter");
    world.ledger.uncharge(&world.acme, Meters::of_bytes(50));
    assert!(world.grow(1).is_err(), "1,001 is above still");
    world.ledger.uncharge(&world.acme, Meters::of_bytes(1));
    world.grow(500).unwrap();
    let told = world.tick();
    assert_eq!(told.len(), 0, "passed again before anybody looked: {told:?}");
    assert_eq!(world.acme.grace_ends_s(Meter::Bytes), Some(SATURDAY_S + 200));
    assert_eq!(world.grow(501).unwrap_err().reason, Reason::Hard);
    world.ledger.uncharge(&world.acme, Meters::of_bytes(1000));
    assert_eq!(
        world.tick(),
        [EventKind::BelowSoft {
            meter: Meter::Bytes,
            used: 500,
            since_s: SATURDAY_S
        }]
    );
}

#[test]
fn what_is_told_is_saved_with_the_state_that_led_to_it_or_not_at_all() {
    let world = World::with(SATURDAY_S, soft(1000, Some(100)));
    world.grow(1001).unwrap();
    world.grow(1).unwrap();
    // The second request has seen usage above the limit, and nobody has been told.
    let seen = world.acme.take_changed_terms().unwrap();
    assert_eq!(seen.saved.bytes_over_since_s, Some(SATURDAY_S));
    assert_eq!(seen.noted, []);
    let killed = World::with(SATURDAY_S + 5, soft(1000, Some(100)));
    killed.ledger.charge_forced(&killed.acme, Meters::of_bytes(1001));
    killed.ledger.load_terms(&killed.acme, &seen.saved);
    assert!(matches!(killed.tick()[..], [EventKind::OverSoft { .. }, ..]));
    let told = world.tick();
    let taken = world.acme.take_changed_terms().unwrap();
    let kinds = |noted: &[Noted]| noted.iter().map(|noted| noted.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&taken.noted), told);
    assert_eq!(taken.saved.bytes_over_told_s, Some(SATURDAY_S));
    assert!(world.acme.take_terms().unwrap().noted.is_empty(), "once");
    world.acme.terms_not_saved(taken.noted);
    assert_eq!(kinds(&world.acme.take_changed_terms().unwrap().noted), told);
}

#[test]
fn a_burst_of_refusals_is_told_once_also_over_a_restart() {
    let limits = Limits {
        bytes: Some(1000),
        ..Limits::NONE
    };
    let world = World::with(SATURDAY_S, limits);
    world.grow(1000).unwrap();
    world.tick();
    let refuse = |world: &World| {
        let refusal = world.grow(1).unwrap_err();
        world.ledger.note_refusal(&world.acme, &refusal);
        let noted = world.acme.take_terms().unwrap().noted;
        noted
            .into_iter()
            .filter(|noted| matches!(noted.kind, EventKind::Refused { .. }))
            .count()
    };
    assert_eq!([refuse(&world), refuse(&world)], [1, 0]);
    let again = World::with(SATURDAY_S + 60, limits);
    again.ledger.charge_forced(&again.acme, Meters::of_bytes(1000));
    again
        .ledger
        .load_terms(&again.acme, &world.acme.take_terms().unwrap().saved);
    assert_eq!(refuse(&again), 0);
    again.tick();
    again.ledger.uncharge(&again.acme, Meters::of_bytes(100));
    again.tick();
    again.grow(100).unwrap();
    assert_eq!(refuse(&again), 1, "usage had fallen");
}

#[test]
fn a_soft_limit_without_an_end_of_grace_only_warns() {
    let world = World::with(SATURDAY_S, soft(1000, None));
    world.grow(1500).unwrap();
    world.set_time(SATURDAY_S + 1000 * DAY_S);
    world.grow(500).unwrap();
    assert!(matches!(
        world.tick()[..],
        [EventKind::OverSoft { grace_ends_s: None, .. }, ..]
    ));
}

#[test]
fn q24_grace_is_each_accounts_own_and_survives_a_restart() {
    let world = World::with(SATURDAY_S, soft(1000, Some(100)));
    let other = world.ledger.insert(world.ledger.root(), Ino(5), 1, b"other");
    world.ledger.set_limits(&other, soft(1000, Some(100)));
    world.grow(1001).unwrap();
    world.tick();
    world.set_time(SATURDAY_S + 60);
    world.ledger.charge_forced(&other, Meters::of_bytes(1001));
    world.tick();
    assert_eq!(world.acme.grace_ends_s(Meter::Bytes), Some(SATURDAY_S + 100));
    assert_eq!(other.grace_ends_s(Meter::Bytes), Some(SATURDAY_S + 160));
    let again = World::with(SATURDAY_S + 90, soft(1000, Some(100)));
    again.ledger.charge_forced(&again.acme, Meters::of_bytes(1001));
    again
        .ledger
        .load_terms(&again.acme, &world.acme.take_terms().unwrap().saved);
    assert_eq!(again.tick(), [], "told before");
    again.grow(1).unwrap();
    again.set_time(SATURDAY_S + 100);
    assert_eq!(again.grow(1).unwrap_err().reason, Reason::GraceOver);
}

#[test]
fn one_warning_per_crossing_also_over_a_restart() {
    let limits = Limits {
        bytes: Some(1000),
        day_bytes: Some(2000),
        ..Limits::NONE
    };
    let world = World::with(SATURDAY_S, limits);
    world.grow(800).unwrap();
    let warning = EventKind::Warning {
        meter: Meter::Bytes,
        percent: 80,
        used: 800,
        limit: 1000,
    };
    assert_eq!(world.tick(), [warning]);
    world.grow(100).unwrap();
    assert_eq!(world.tick(), []);
    let again = World::with(SATURDAY_S, limits);
    again.ledger.charge_forced(&again.acme, Meters::of_bytes(900));
    again
        .ledger
        .load_terms(&again.acme, &world.acme.take_terms().unwrap().saved);
    assert_eq!(again.tick(), []);
    again.ledger.uncharge(&again.acme, Meters::of_bytes(200));
    assert_eq!(again.tick(), []);
    again.grow(300).unwrap();
    assert_eq!(again.tick().len(), 1);
    again.ledger.uncharge(&again.acme, Meters::of_bytes(1000));
    again.grow(400).unwrap();
    let of_the_day = again.tick();
    assert!(
        matches!(
            of_the_day[..],
            [EventKind::Warning {
                meter: Meter::DayBytes,
                percent: 80,
                used: 1600,
                ..
            }]
        ),
        "{of_the_day:?}"
    );
}

#[test]
fn a_rename_does_not_count_in_a_period() {
    let world = World::with(SATURDAY_S, per_day(10));
    let other = world.ledger.insert(world.ledger.root(), Ino(5), 1, b"other");
    world.ledger.charge_forced(&other, Meters::of_file(500));
    let moved = world
        .ledger
        .transfer(&other, &world.acme, Meters::of_file(500), Meters::ZERO);
    moved.unwrap().commit();
    assert_eq!((world.acme.total().bytes, world.period().1), (500, 0));
    let tree = world.ledger.insert(world.ledger.root(), Ino(6), 1, b"tree");
    world.ledger.charge_forced(&tree, Meters::of_file(500));
    let moved = world
        .ledger
        .move_directory(&tree, &world.acme, b"tree", Meters::ZERO)
        .unwrap();
    let amount = Meters::of_bytes(7);
    world.ledger.reserve(&tree, amount).unwrap().claim(amount);
    moved.commit();
    assert_eq!(world.period().1, 0, "what grows while it moves counts where it was");
    assert_eq!(
        (
            world.acme.total().bytes,
            world.ledger.root().period(0).unwrap().used(Meter::DayBytes)
        ),
        (1007, 7)
    );
}

#[test]
fn a_removed_account_is_watched_no_longer_and_its_slot_is_free() {
    let world = World::with(SATURDAY_S, per_day(10));
    assert_eq!(world.ledger.watched().len(), 2);
    world.ledger.remove(Ino(2));
    assert_eq!(world.ledger.watched().len(), 1);
}
