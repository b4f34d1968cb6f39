//! Counters that others feed: messages of a day and bytes sent in a month, per tenant, as the quota tracker has them.
//!
//! They have nothing to do with files, and a tenant here need not have a directory. The engine of periods is that of
//! accounts (`terms`): messages are what files are there, bytes sent what growth is.

use super::limits::{Limits, Meter, Reason};
use super::terms::{Ceiling, PeriodUsage, SavedTerms, Terms};
use crate::clock::Clock;
use crate::period::Zone;
use crate::units::Meters;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Tenants that are tracked at most: each takes under 1 KB of memory and a row.
pub const TENANTS_MAX: usize = 100_000;
/// Longest name of a tenant, in bytes.
pub const TENANT_BYTES_MAX: usize = 255;

/// Limits of a tenant; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ExternalLimits {
    /// Messages of a day.
    pub messages: Option<u64>,
    /// Bytes sent in a month.
    pub bandwidth_bytes: Option<u64>,
}

/// What is counted, or asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ExternalAmount {
    /// Messages.
    pub messages: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

impl ExternalAmount {
    fn meters(self) -> Meters {
        Meters {
            files: self.messages,
            bytes: self.bytes_sent,
            dirs: 0,
        }
    }
}

/// One of the two counters that is at its limit, or would pass it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// [`Meter::DayFiles`] for messages, [`Meter::MonthBytes`] for bytes sent.
    pub meter: Meter,
    /// What is used.
    pub used: u64,
    /// The limit.
    pub limit: u64,
    /// What was asked for on top.
    pub wanted: u64,
    /// When the period ends, seconds since 1970.
    pub resets_at_s: i64,
}

/// A tenant's counters of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalUsage {
    /// What the day and the month have used: messages are files.
    pub period: PeriodUsage,
    /// The limits.
    pub limits: ExternalLimits,
}

/// A tenant as it is saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedExternal {
    /// Its name.
    pub tenant: String,
    /// Its limits.
    pub limits: ExternalLimits,
    /// Its counters.
    pub counters: SavedTerms,
}

/// Why nothing was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExternalError {
    /// A name that no tenant has.
    #[error("a tenant_id has 1 to {TENANT_BYTES_MAX} bytes and no control characters")]
    Name,
    /// The table is full.
    #[error("{TENANTS_MAX} tenants are tracked already, and no more can be")]
    Full,
}

struct Tenant {
    terms: Terms,
    /// One request at a time asks and counts.
    turn: Mutex<ExternalLimits>,
}

/// All tenants.
pub struct External {
    tenants: DashMap<String, Arc<Tenant>>,
    defaults: ExternalLimits,
    /// Periods end by themselves; otherwise by a reset alone.
    rolls: bool,
    zone: Zone,
    clock: Arc<dyn Clock>,
}

impl External {
    /// No tenants yet. `defaults` are the limits of those that get none, written down at first use.
    pub fn new(defaults: ExternalLimits, rolls: bool, zone: Zone, clock: Arc<dyn Clock>) -> Self {
        Self {
            tenants: DashMap::new(),
            defaults,
            rolls,
            zone,
            clock,
        }
    }

    fn tenant(&self, name: &str) -> Result<Arc<Tenant>, ExternalError> {
        if let Some(known) = self.tenants.get(name) {
            return Ok(Arc::clone(&known));
        }
        check_name(name)?;
        if self.tenants.len() >= TENANTS_MAX {
            return Err(ExternalError::Full);
        }
        Ok(match self.tenants.entry(name.to_owned()) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(vacant) => {
                let tenant = self.make(self.defaults);
                tenant.terms.not_saved(Vec::new());
                Arc::clone(&vacant.insert(tenant))
            }
        })
    }

    fn make(&self, limits: ExternalLimits) -> Arc<Tenant> {
        let now_s = self.clock.now_s();
        let terms = Terms::new(now_s);
        terms.set_rolls(self.rolls);
        terms.set_zone(self.zone.clone(), super::Steps::default(), now_s);
        terms.set_limits(terms_of(limits));
        Arc::new(Tenant {
            terms,
            turn: Mutex::new(limits),
        })
    }

    /// Counts, also beyond a limit: it has happened. Returns what is exceeded now.
    ///
    /// # Errors
    /// See [`ExternalError`].
    pub fn increment(&self, name: &str, amount: ExternalAmount) -> Result<Vec<Exceeded>, ExternalError> {
        let tenant = self.tenant(name)?;
        let _turn = tenant.turn.lock();
        tenant.terms.go_on(self.clock.now_s());
        tenant.terms.count(amount.meters());
        Ok(self.exceeded(&tenant, ExternalAmount::default()))
    }

    /// Counts if all of it fits, or nothing. Returns what stands against it.
    ///
    /// # Errors
    /// See [`ExternalError`].
    pub fn try_increment(&self, name: &str, amount: ExternalAmount) -> Result<Vec<Exceeded>, ExternalError> {
        let tenant = self.tenant(name)?;
        let _turn = tenant.turn.lock();
        let refused = self.would_exceed(&tenant, amount);
        if refused.is_empty() {
            tenant.terms.count(amount.meters());
        }
        Ok(refused)
    }

    /// What is at its limit, or would be passed by this amount. A tenant that is not known has the default limits.
    ///
    /// # Errors
    /// See [`ExternalError`].
    pub fn check(&self, name: &str, amount: ExternalAmount) -> Result<Vec<Exceeded>, ExternalError> {
        check_name(name)?;
        let known = self.tenants.get(name).map(|known| Arc::clone(&known));
        let tenant = known.unwrap_or_else(|| self.make(self.defaults));
        let mut found = self.exceeded(&tenant, amount);
        let more = self.would_exceed(&tenant, amount);
        found.extend(
            more.into_iter()
                .filter(|more| found.iter().all(|known| known.meter != more.meter))
                .collect::<Vec<_>>(),
        );
        Ok(found)
    }

    /// Sets limits that are given and leaves the others.
    ///
    /// # Errors
    /// See [`ExternalError`].
    pub fn set_limits(
        &self,
        name: &str,
        change: impl FnOnce(ExternalLimits) -> ExternalLimits,
    ) -> Result<(), ExternalError> {
        let tenant = self.tenant(name)?;
        let mut limits = tenant.turn.lock();
        *limits = change(*limits);
        tenant.terms.set_limits(terms_of(*limits));
        tenant.terms.not_saved(Vec::new());
        Ok(())
    }

    /// Begins both counters anew. False for a tenant that is not known.
    pub fn reset(&self, name: &str) -> bool {
        let known = self.tenants.get(name).map(|known| Arc::clone(&known));
        known.map(|tenant| tenant.terms.reset(self.clock.now_s())).is_some()
    }

    /// One tenant's counters.
    pub fn usage(&self, name: &str) -> Option<ExternalUsage> {
        let tenant = self.tenants.get(name).map(|known| Arc::clone(&known))?;
        Some(self.usage_of(&tenant))
    }

    /// The same; a tenant that is not known has used nothing and has the default limits.
    pub fn usage_or_new(&self, name: &str) -> ExternalUsage {
        self.usage(name)
            .unwrap_or_else(|| self.usage_of(&self.make(self.defaults)))
    }

    fn usage_of(&self, tenant: &Tenant) -> ExternalUsage {
        let limits = *tenant.turn.lock();
        ExternalUsage {
            period: tenant.terms.period(self.clock.now_s()),
            limits,
        }
    }

    /// All tenants, by name.
    pub fn list(&self) -> Vec<(String, ExternalUsage)> {
        let known = self.tenants.iter();
        let all: Vec<_> = known
            .map(|entry| (entry.key().clone(), Arc::clone(entry.value())))
            .collect();
        let mut told: Vec<_> = all
            .into_iter()
            .map(|(name, tenant)| (name, self.usage_of(&tenant)))
            .collect();
        told.sort_by(|(a, _), (b, _)| a.cmp(b));
        told
    }

    /// Lets time pass. To be called about once a second.
    pub fn tick(&self) {
        let (now_s, monotonic): (i64, Duration) = (self.clock.now_s(), self.clock.monotonic());
        for entry in &self.tenants {
            entry.terms.tick(Limits::NONE, Meters::ZERO, now_s, monotonic);
        }
    }

    /// Something is not saved.
    pub fn is_changed(&self) -> bool {
        self.tenants.iter().any(|entry| entry.terms.is_changed())
    }

    /// What changed since the last call, or everything.
    pub fn take(&self, everything: bool) -> Vec<SavedExternal> {
        let mut taken = Vec::new();
        for entry in &self.tenants {
            // Nobody is told of them.
            let changed = entry.terms.take_changed().map(|taken| taken.saved);
            if changed.is_some() || everything {
                taken.push(SavedExternal {
                    tenant: entry.key().clone(),
                    limits: *entry.turn.lock(),
                    counters: changed.unwrap_or_else(|| entry.terms.take().saved),
                });
            }
        }
        taken
    }

    /// What was taken could not be saved.
    pub fn not_saved(&self, taken: &[SavedExternal]) {
        for saved in taken {
            if let Some(tenant) = self.tenants.get(&saved.tenant) {
                tenant.terms.not_saved(Vec::new());
            }
        }
    }

    /// Takes over what was saved.
    pub fn load(&self, saved: &[SavedExternal]) {
        for SavedExternal {
            tenant: name,
            limits,
            counters,
        } in saved
        {
            let tenant = self.make(*limits);
            tenant.terms.load(counters, self.clock.now_s());
            self.tenants.insert(name.clone(), tenant);
        }
    }

    fn ceilings(&self, tenant: &Tenant) -> impl Iterator<Item = Ceiling> {
        let now_s = self.clock.now_s();
        let ceiling = move |meter| tenant.terms.ceiling(meter, u64::MAX, Meters::ZERO, now_s);
        let found = [Meter::DayFiles, Meter::MonthBytes].map(ceiling);
        found.into_iter().flatten()
    }

    /// Counters that have nothing left.
    fn exceeded(&self, tenant: &Tenant, amount: ExternalAmount) -> Vec<Exceeded> {
        let full = self.ceilings(tenant).filter(|ceiling| ceiling.used >= ceiling.limit);
        full.map(|ceiling| told(ceiling, amount)).collect()
    }

    /// Counters that would be passed.
    fn would_exceed(&self, tenant: &Tenant, amount: ExternalAmount) -> Vec<Exceeded> {
        let asked = self.ceilings(tenant).map(|ceiling| told(ceiling, amount));
        asked
            .filter(|asked| asked.wanted > 0 && asked.used.saturating_add(asked.wanted) > asked.limit)
            .collect()
    }
}

fn check_name(name: &str) -> Result<(), ExternalError> {
    let is_one = !name.is_empty() && name.len() <= TENANT_BYTES_MAX && !name.chars().any(char::is_control);
    is_one.then_some(()).ok_or(ExternalError::Name)
}

fn told(ceiling: Ceiling, amount: ExternalAmount) -> Exceeded {
    let resets_at_s = match ceiling.reason {
        Reason::Period { resets_at_s } => resets_at_s,
        Reason::Hard | Reason::GraceOver => i64::MAX,
    };
    Exceeded {
        meter: ceiling.meter,
        used: ceiling.used,
        limit: ceiling.limit,
        wanted: ceiling.meter.of(amount.meters()),
        resets_at_s,
    }
}

fn terms_of(limits: ExternalLimits) -> Limits {
    Limits {
        day_files: limits.messages,
        month_bytes: limits.bandwidth_bytes,
        ..Limits::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const DAY: Duration = Duration::from_hours(24);
    const LIMITS: ExternalLimits = ExternalLimits {
        messages: Some(3),
        bandwidth_bytes: Some(1000),
    };

    fn world(rolls: bool) -> (Arc<ManualClock>, External) {
        // 2026-11-21.
        let clock = Arc::new(ManualClock::at(Duration::from_hours(498_672)));
        let external = External::new(LIMITS, rolls, Zone::default(), clock.clone());
        (clock, external)
    }

    fn amount(messages: u64, bytes_sent: u64) -> ExternalAmount {
        ExternalAmount { messages, bytes_sent }
    }

    fn used(external: &External) -> (u64, u64) {
        let period = external.usage("acme").unwrap().period;
        (period.used(Meter::DayFiles), period.used(Meter::MonthBytes))
    }

    #[test]
    fn increments_count_beyond_a_limit_and_say_what_is_exceeded() {
        let (_, external) = world(true);
        assert_eq!(external.increment("acme", amount(2, 10)), Ok(vec![]));
        let exceeded = external.increment("acme", amount(2, 10)).unwrap();
        assert_eq!(
            (exceeded.len(), exceeded[0].meter, exceeded[0].used),
            (1, Meter::DayFiles, 4)
        );
        assert_eq!(used(&external), (4, 20));
        assert_eq!(external.check("acme", amount(0, 0)).unwrap().len(), 1);
        assert_eq!(external.check("acme", amount(0, 981)).unwrap().len(), 2);
    }

    #[test]
    fn an_increment_that_must_fit_counts_all_or_nothing() {
        let (_, external) = world(true);
        assert_eq!(external.try_increment("acme", amount(3, 1000)), Ok(vec![]));
        let refused = external.try_increment("acme", amount(1, 0)).unwrap();
        assert_eq!((refused[0].wanted, refused[0].limit), (1, 3));
        assert_eq!(used(&external), (3, 1000));
    }

    #[test]
    fn messages_end_with_the_day_and_bytes_with_the_month_unless_resets_are_off() {
        for (rolls, after_a_day, after_ten) in [(true, (0, 500), (0, 0)), (false, (3, 500), (3, 500))] {
            let (clock, external) = world(rolls);
            external.increment("acme", amount(3, 500)).unwrap();
            clock.advance(DAY);
            assert_eq!(used(&external), after_a_day, "{rolls}");
            for _ in 0..9 {
                clock.advance(DAY);
                external.tick();
            }
            assert_eq!(used(&external), after_ten, "{rolls}");
            assert!(external.reset("acme"));
            assert_eq!(used(&external), (0, 0));
        }
    }

    #[test]
    fn what_is_saved_is_loaded_with_its_limits() {
        let (clock, external) = world(true);
        external.increment("acme", amount(2, 10)).unwrap();
        let unlimited = |limits| ExternalLimits {
            messages: None,
            ..limits
        };
        external.set_limits("acme", unlimited).unwrap();
        let saved = external.take(false);
        assert_eq!(
            (saved.len(), external.take(false).len(), external.is_changed()),
            (1, 0, false)
        );
        external.not_saved(&saved);
        assert_eq!(external.take(false), saved);
        let again = External::new(ExternalLimits::default(), true, Zone::default(), clock);
        again.load(&saved);
        assert_eq!(again.list(), external.list());
        assert_eq!(again.check("acme", amount(100, 991)).unwrap().len(), 1);
    }

    #[test]
    fn names_that_nobody_has_are_refused_and_asking_makes_no_tenant() {
        let (_, external) = world(true);
        for name in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(external.increment(name, amount(1, 1)), Err(ExternalError::Name));
        }
        assert_eq!(external.check("new", amount(4, 0)).unwrap().len(), 1);
        assert_eq!(external.list(), []);
        assert!(!external.reset("new"));
    }
}
