//! What an account has beside hard limits: soft limits with their grace, limits per day and month with what the
//! period has used, and which warnings were given.
//!
//! A period belongs to the account's time zone. It never goes back; it goes on by one at the first request behind its
//! end, and by more only once the clock has shown that for a while (see [`Terms::tick`]): a clock that leaps ahead and
//! is set right again must not end a month. What is promised to operations under way counts in whichever period it
//! comes to be, so both keep their limits. Changed under the admission lock; the lock in here is for readers.

use super::limits::{Limits, Meter, Reason, Refusal, UNLIMITED};
use super::told::{Noted, RefusalsTold, TakenTerms, Waiting};
use super::warnings::{EventKind, Steps, Warned};
use crate::period::{CivilDate, Zone};
use crate::units::Meters;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the clock must show a day that does not follow the last one before it counts.
const LEAP_STABLE: Duration = Duration::from_mins(1);

/// What of an account is not in its counters, as it is saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedTerms {
    /// The day that is being counted, in the account's time zone.
    pub day: CivilDate,
    /// Bytes and files of that day.
    pub day_used: Meters,
    /// Bytes and files of its month.
    pub month_used: Meters,
    /// Since when the soft limit of bytes is passed, seconds since 1970.
    pub bytes_over_since_s: Option<i64>,
    /// The same of files.
    pub files_over_since_s: Option<i64>,
    /// Warnings that were given and not taken back.
    pub warned: Warned,
    /// The passing of the soft limit of bytes that was told of; it may be later than `bytes_over_since_s`.
    pub bytes_over_told_s: Option<i64>,
    /// The same of files.
    pub files_over_told_s: Option<i64>,
    /// Refusals that were told of.
    pub refusals: RefusalsTold,
}

/// What a period has used, and until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodUsage {
    /// The day, in the account's time zone.
    pub day: CivilDate,
    /// Bytes and files of the day.
    pub day_used: Meters,
    /// Bytes and files of its month.
    pub month_used: Meters,
    /// When the next day begins, seconds since 1970.
    pub day_ends_s: i64,
    /// When the next month begins, seconds since 1970.
    pub month_ends_s: i64,
    /// Name of the time zone.
    pub zone: String,
}

impl PeriodUsage {
    /// When the period of a meter ends, seconds since 1970.
    pub fn ends_s(&self, meter: Meter) -> i64 {
        match meter {
            Meter::MonthFiles | Meter::MonthBytes => self.month_ends_s,
            _ => self.day_ends_s,
        }
    }

    /// What one meter of a period has used.
    pub fn used(&self, meter: Meter) -> u64 {
        match meter {
            Meter::MonthFiles | Meter::MonthBytes => meter.of(self.month_used),
            _ => meter.of(self.day_used),
        }
    }
}

/// A limit that is in force, with what counts against it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceiling {
    pub(super) meter: Meter,
    pub(super) used: u64,
    pub(super) limit: u64,
    pub(super) reason: Reason,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Terms {
    /// There are soft limits or limits of a period: requests have to look.
    binding: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    zone: Zone,
    /// Periods end by themselves.
    rolls: bool,
    steps: Steps,
    day: CivilDate,
    day_ends_s: i64,
    month_ends_s: i64,
    day_used: Meters,
    month_used: Meters,
    /// A day further ahead than the next one was seen at this time of the monotonic clock.
    leap_since: Option<Duration>,
    bytes_over_since_s: Option<i64>,
    files_over_since_s: Option<i64>,
    warned: Warned,
    /// Since when the soft limit was passed that was told of, by meter: bytes, files.
    over_told_s: [Option<i64>; 2],
    refusals: RefusalsTold,
    /// Events that are not saved.
    waiting: Waiting,
    /// Something here is not saved.
    changed: bool,
}

impl Terms {
    /// Terms that ask for nothing, in the day of `now_s`.
    pub(super) fn new(now_s: i64) -> Self {
        let mut state = State {
            limits: Limits::NONE,
            zone: Zone::default(),
            rolls: true,
            steps: Steps::default(),
            day: CivilDate::from_unix_s(now_s),
            day_ends_s: 0,
            month_ends_s: 0,
            day_used: Meters::ZERO,
            month_used: Meters::ZERO,
            leap_since: None,
            bytes_over_since_s: None,
            files_over_since_s: None,
            warned: Warned::default(),
            over_told_s: [None; 2],
            refusals: RefusalsTold::default(),
            waiting: Waiting::default(),
            changed: false,
        };
        state.find_ends();
        Self {
            binding: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// A request has to look at them.
    pub(super) fn are_binding(&self) -> bool {
        self.binding.load(Ordering::Relaxed)
    }

    pub(super) fn limits(&self) -> Limits {
        self.state.lock().limits
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.state.lock().limits = limits;
        self.binding.store(limits.has_terms(), Ordering::Relaxed);
    }

    /// Sets the zone and the steps of warnings. Nothing counted yet: the day becomes that of the zone.
    pub(super) fn set_zone(&self, zone: Zone, steps: Steps, now_s: i64) {
        let mut state = self.state.lock();
        state.steps = steps;
        if state.zone == zone {
            return;
        }
        state.zone = zone;
        let here = state.zone.date_at(now_s);
        if state.day_used.is_zero() && state.month_used.is_zero() {
            state.day = here;
        } else if here > state.day {
            state.enter(here);
        }
        state.find_ends();
    }

    /// Whether periods end by themselves; otherwise by [`Terms::reset`] alone.
    pub(super) fn set_rolls(&self, rolls: bool) {
        self.state.lock().rolls = rolls;
    }

    /// The limit that is in force for one meter; `hard` and `total` are the account's.
    pub(super) fn ceiling(&self, meter: Meter, hard: u64, total: Meters, now_s: i64) -> Option<Ceiling> {
        let mut state = self.state.lock();
        let (used, limit, reason) = match meter {
            Meter::Bytes | Meter::Files => {
                let used = meter.of(total);
                state.watch_soft(meter, used, now_s);
                match state.soft_in_force(meter, now_s).filter(|soft| *soft < hard) {
                    Some(soft) => (used, soft, Reason::GraceOver),
                    None => (used, hard, Reason::Hard),
                }
            }
            Meter::Dirs | Meter::FileSize => (meter.of(total), hard, Reason::Hard),
            Meter::DayFiles | Meter::DayBytes | Meter::MonthFiles | Meter::MonthBytes => {
                state.roll(now_s);
                let limit = state.limits.get(meter.hard_limit()).unwrap_or(UNLIMITED);
                let resets_at_s = state.ends_s(meter);
                (state.used(meter), limit, Reason::Period { resets_at_s })
            }
        };
        (limit != UNLIMITED).then_some(Ceiling {
            meter,
            used,
            limit,
            reason,
        })
    }

    /// Ends a day that is over, so that what is counted next belongs to the one after.
    pub(super) fn go_on(&self, now_s: i64) {
        self.state.lock().roll(now_s);
    }

    /// Counts what came to be.
    pub(super) fn count(&self, grown: Meters) {
        let mut state = self.state.lock();
        let grown = Meters { dirs: 0, ..grown };
        if grown.is_zero() {
            return;
        }
        state.day_used = state.day_used.saturating_add(grown);
        state.month_used = state.month_used.saturating_add(grown);
        state.changed = true;
    }

    /// Takes back the count of a file that was made at `born_s` and never held anything.
    pub(super) fn refund_file(&self, born_s: i64) {
        let mut state = self.state.lock();
        let born = state.zone.date_at(born_s);
        let file = Meters::of_file(0);
        if born == state.day {
            state.day_used = state.day_used.saturating_sub(file);
        }
        if (born.year, born.month) == (state.day.year, state.day.month) {
            state.month_used = state.month_used.saturating_sub(file);
        }
        state.changed = true;
    }

    /// Lets time pass and compares usage with soft limits and steps of warnings. `monotonic` tells how long a leap of the
    /// clock lasts.
    pub(super) fn tick(&self, limits: Limits, total: Meters, now_s: i64, monotonic: Duration) -> Vec<EventKind> {
        let mut state = self.state.lock();
        let mut events = Vec::new();
        state.roll(now_s);
        if let Some(days) = state.leap(now_s, monotonic) {
            events.push(EventKind::Leapt { days });
        }
        for (at, meter) in [Meter::Bytes, Meter::Files].into_iter().enumerate() {
            let used = meter.of(total);
            state.watch_soft(meter, used, now_s);
            let over_since_s = state.over_since(meter);
            let told_s = state.over_told_s[at];
            if told_s.is_some() != over_since_s.is_some() {
                events.push(state.soft_event(meter, used, over_since_s, told_s));
                state.over_told_s[at] = over_since_s;
                state.changed = true;
            }
        }
        let state = &mut *state;
        let (warned_before, refusals_before) = (state.warned.clone(), state.refusals.clone());
        for meter in Meter::ALL {
            let limit = match meter {
                Meter::Bytes => limits.bytes.or(limits.soft_bytes),
                Meter::Files => limits.files.or(limits.soft_files),
                _ => limits.get(meter.hard_limit()),
            };
            let used = if Meter::FLOWS.contains(&meter) {
                state.used(meter)
            } else {
                meter.of(total)
            };
            events.extend(state.warned.crossing(meter, used, limit, &state.steps));
            let hard = limits.get(meter.hard_limit());
            let in_force = [hard, state.soft_in_force(meter, now_s)].into_iter().flatten().min();
            state.refusals.watch(meter, used, in_force);
        }
        for kind in &events {
            state.waiting.note(*kind, now_s);
        }
        state.changed |= !events.is_empty() || state.warned != warned_before || state.refusals != refusals_before;
        events
    }

    /// Takes note of a refusal, unless its burst was told of already.
    pub(super) fn note_refusal(&self, refusal: &Refusal, now_s: i64) {
        let mut state = self.state.lock();
        let Refusal {
            meter,
            reason,
            used,
            limit,
            wanted,
            ..
        } = *refusal;
        if !state.refusals.is_news(meter, used, limit, now_s) {
            return;
        }
        let kind = EventKind::Refused {
            meter,
            reason,
            used,
            limit,
            wanted,
        };
        state.waiting.note(kind, now_s);
        state.changed = true;
    }

    /// What the period has used. The day may be over, if nothing has happened since.
    pub(super) fn period(&self, now_s: i64) -> PeriodUsage {
        let mut state = self.state.lock();
        state.roll(now_s);
        PeriodUsage {
            day: state.day,
            day_used: state.day_used,
            month_used: state.month_used,
            day_ends_s: state.day_ends_s,
            month_ends_s: state.month_ends_s,
            zone: state.zone.to_string(),
        }
    }

    /// Until when the grace of a soft limit runs that is passed; `None` while it is not, or never ends.
    pub(super) fn grace_ends_s(&self, meter: Meter) -> Option<i64> {
        let state = self.state.lock();
        let since = state.over_since(meter)?;
        Some(since.saturating_add_unsigned(state.limits.grace_s?))
    }

    /// The highest step that was warned of.
    pub(super) fn warned_percent(&self, meter: Meter) -> u8 {
        self.state.lock().warned.percent(meter)
    }

    /// Begins the day and the month of the clock anew, whatever day was counted before.
    pub(super) fn reset(&self, now_s: i64) {
        let mut state = self.state.lock();
        state.day = state.zone.date_at(now_s);
        (state.day_used, state.month_used) = (Meters::ZERO, Meters::ZERO);
        state.leap_since = None;
        state.changed = true;
        state.find_ends();
    }

    /// Something is not saved.
    pub(super) fn is_changed(&self) -> bool {
        self.state.lock().changed
    }

    /// What changed since the last call, with the events that changed it.
    pub(super) fn take_changed(&self) -> Option<TakenTerms> {
        let mut state = self.state.lock();
        std::mem::take(&mut state.changed).then(|| state.take())
    }

    /// The same whether or not it changed.
    pub(super) fn take(&self) -> TakenTerms {
        let mut state = self.state.lock();
        state.changed = false;
        state.take()
    }

    /// What was taken could not be saved.
    pub(super) fn not_saved(&self, noted: Vec<Noted>) {
        let mut state = self.state.lock();
        state.waiting.give_back(noted);
        state.changed = true;
    }

    /// Takes over what was saved. A day that is over by now ends at once, however long ago it was.
    pub(super) fn load(&self, saved: &SavedTerms, now_s: i64) {
        let mut state = self.state.lock();
        state.day = saved.day;
        (state.day_used, state.month_used) = (saved.day_used, saved.month_used);
        state.bytes_over_since_s = saved.bytes_over_since_s;
        state.files_over_since_s = saved.files_over_since_s;
        state.warned = saved.warned.clone();
        state.over_told_s = [saved.bytes_over_told_s, saved.files_over_told_s];
        state.refusals = saved.refusals.clone();
        let here = state.zone.date_at(now_s);
        if state.rolls && here > state.day {
            state.enter(here);
        }
        state.find_ends();
    }
}

impl State {
    fn find_ends(&mut self) {
        self.day_ends_s = self.zone.end_of_day_s(self.day);
        self.month_ends_s = self.zone.end_of_month_s(self.day);
    }

    fn enter(&mut self, day: CivilDate) {
        if (day.year, day.month) != (self.day.year, self.day.month) {
            self.month_used = Meters::ZERO;
        }
        self.day = day;
        self.day_used = Meters::ZERO;
        self.leap_since = None;
        self.changed = true;
        self.find_ends();
    }

    /// Goes on to the next day, if it is that.
    fn roll(&mut self, now_s: i64) {
        if self.rolls && now_s >= self.day_ends_s && self.zone.date_at(now_s) == self.day.next() {
            self.enter(self.day.next());
        }
    }

    /// Goes on by several days once the clock has shown that for [`LEAP_STABLE`]. Returns how many.
    fn leap(&mut self, now_s: i64, monotonic: Duration) -> Option<i64> {
        if !self.rolls || now_s < self.day_ends_s {
            self.leap_since = None;
            return None;
        }
        let since = *self.leap_since.get_or_insert(monotonic);
        if monotonic.saturating_sub(since) < LEAP_STABLE {
            return None;
        }
        let (from, to) = (self.day, self.zone.date_at(now_s));
        self.enter(to);
        Some((to.start_unix_s() - from.start_unix_s()) / crate::period::DAY_S)
    }

    fn ends_s(&self, meter: Meter) -> i64 {
        match meter {
            Meter::MonthFiles | Meter::MonthBytes => self.month_ends_s,
            _ => self.day_ends_s,
        }
    }

    fn used(&self, meter: Meter) -> u64 {
        match meter {
            Meter::MonthFiles | Meter::MonthBytes => meter.of(self.month_used),
            _ => meter.of(self.day_used),
        }
    }

    fn soft(&self, meter: Meter) -> Option<u64> {
        match meter {
            Meter::Bytes => self.limits.soft_bytes,
            Meter::Files => self.limits.soft_files,
            _ => None,
        }
    }

    fn over_since(&self, meter: Meter) -> Option<i64> {
        match meter {
            Meter::Bytes => self.bytes_over_since_s,
            Meter::Files => self.files_over_since_s,
            _ => None,
        }
    }

    /// Starts or stops the time of grace.
    fn watch_soft(&mut self, meter: Meter, used: u64, now_s: i64) {
        let is_over = self.soft(meter).is_some_and(|soft| used > soft);
        if is_over == self.over_since(meter).is_some() {
            return;
        }
        let since = is_over.then_some(now_s);
        match meter {
            Meter::Bytes => self.bytes_over_since_s = since,
            _ => self.files_over_since_s = since,
        }
        self.changed = true;
    }

    fn soft_event(&self, meter: Meter, used: u64, over_since_s: Option<i64>, told_s: Option<i64>) -> EventKind {
        match over_since_s {
            Some(since_s) => EventKind::OverSoft {
                meter,
                used,
                limit: self.soft(meter).unwrap_or(UNLIMITED),
                grace_ends_s: self
                    .limits
                    .grace_s
                    .map(|grace_s| since_s.saturating_add_unsigned(grace_s)),
            },
            None => EventKind::BelowSoft {
                meter,
                used,
                since_s: told_s.unwrap_or_default(),
            },
        }
    }

    /// The soft limit, once its grace is over.
    fn soft_in_force(&self, meter: Meter, now_s: i64) -> Option<u64> {
        let soft = self.soft(meter)?;
        let ends_s = self.over_since(meter)?.saturating_add_unsigned(self.limits.grace_s?);
        (now_s >= ends_s).then_some(soft)
    }

    fn take(&mut self) -> TakenTerms {
        TakenTerms {
            saved: self.saved(),
            noted: self.waiting.take(),
            dropped_count: self.waiting.take_dropped_count(),
        }
    }

    fn saved(&self) -> SavedTerms {
        SavedTerms {
            day: self.day,
            day_used: self.day_used,
            month_used: self.month_used,
            bytes_over_since_s: self.bytes_over_since_s,
            files_over_since_s: self.files_over_since_s,
            warned: self.warned.clone(),
            bytes_over_told_s: self.over_told_s[0],
            files_over_told_s: self.over_told_s[1],
            refusals: self.refusals.clone(),
        }
    }
}
