//! One directory as a payer: its figures, its place in the tree, its flow counters.
//!
//! Figures change only under the ledger's admission lock (the writers here are `pub(super)`), so a plain
//! load and store is enough to change them. Several figures read one after another are not one instant;
//! [`super::Ledger::usage`] gives that.

use super::limits::{AtomicLimits, Limits, Meter, Reason, UNLIMITED};
use super::operations::{OperationCounts, OperationKind};
use super::overrides::LimitOverrides;
use super::terms::{Ceiling, PeriodUsage, Terms};
use super::told::{Noted, TakenTerms};
use crate::id::Ino;
use crate::units::Meters;
use parking_lot::RwLock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A directory's counters and limits. Kept alive by whoever may still charge it, also after `rmdir`.
pub struct Account {
    ino: Ino,
    /// Index of this account's node; valid as long as the account lives.
    pub(super) slot: u32,
    generation: AtomicU32,
    /// Epoch of the dirty log that last named this directory. Owned by the dirty log.
    pub dirty_epoch: AtomicU64,
    pub(super) own: AtomicMeters,
    pub(super) total: AtomicMeters,
    pub(super) reserved: AtomicMeters,
    /// The part of it that stands for open recordings.
    pub(super) booked: AtomicMeters,
    pub(super) limits: AtomicLimits,
    tenant: AtomicBool,
    flow: OnceLock<Box<Flow>>,
    /// Most directories have none.
    terms: OnceLock<Box<Terms>>,
    place: RwLock<Place>,
}

/// Where an account stands. Written under the admission lock.
pub(super) struct Place {
    pub(super) parent: Option<Arc<Account>>,
    pub(super) name: Box<[u8]>,
    level: Option<Arc<str>>,
    /// Most directories have none.
    overrides: LimitOverrides,
}

impl Account {
    pub(super) fn new(ino: Ino, generation: u32, slot: u32, parent: Option<Arc<Self>>, name: &[u8]) -> Self {
        Self {
            ino,
            slot,
            generation: AtomicU32::new(generation),
            dirty_epoch: AtomicU64::new(0),
            own: AtomicMeters::default(),
            total: AtomicMeters::default(),
            reserved: AtomicMeters::default(),
            booked: AtomicMeters::default(),
            limits: AtomicLimits::new(Limits::NONE),
            tenant: AtomicBool::new(false),
            flow: OnceLock::new(),
            terms: OnceLock::new(),
            place: RwLock::new(Place {
                parent,
                name: name.into(),
                level: None,
                overrides: LimitOverrides::NONE,
            }),
        }
    }

    /// Backing inode of the directory.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Generation of the backing inode: tells a reused inode number from the old one.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Sets the generation once it is known.
    pub fn set_generation(&self, generation: u32) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// Last component of the path; empty for the root.
    pub fn name(&self) -> Vec<u8> {
        self.place.read().name.to_vec()
    }

    /// The directory above; `None` for the root.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.place.read().parent.clone()
    }

    /// True for the root of the mount.
    pub fn is_root(&self) -> bool {
        self.place.read().parent.is_none()
    }

    /// Path components from the mount down to here; empty for the root.
    pub fn components(&self) -> Vec<Vec<u8>> {
        let mut components = Vec::new();
        let mut above = self.step_up(&mut components);
        while let Some(account) = above {
            above = account.step_up(&mut components);
        }
        components.reverse();
        components
    }

    fn step_up(&self, components: &mut Vec<Vec<u8>>) -> Option<Arc<Self>> {
        let place = self.place.read();
        let parent = place.parent.clone()?;
        components.push(place.name.to_vec());
        Some(parent)
    }

    /// Path relative to the mount, for messages; empty for the root.
    pub fn path(&self) -> Vec<u8> {
        self.components().join(&b'/')
    }

    /// The same as text, for people and as a key; bytes that are none are replaced.
    pub fn display_path(&self) -> String {
        String::from_utf8_lossy(&self.path()).into_owned()
    }

    /// What lies directly in the directory.
    pub fn own(&self) -> Meters {
        self.own.load()
    }

    /// What lies in it and below.
    pub fn total(&self) -> Meters {
        self.total.load()
    }

    /// What is promised to unfinished operations in it and below.
    pub fn reserved(&self) -> Meters {
        self.reserved.load()
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.limits.load(self.terms().map_or(Limits::NONE, Terms::limits))
    }

    /// The limit of a meter that is in force at this time, with what counts against it.
    pub(super) fn ceiling(&self, meter: Meter, now_s: i64) -> Option<Ceiling> {
        let (limit, total) = (self.limits.raw(meter), self.total.load());
        if let Some(terms) = self.binding_terms() {
            return terms.ceiling(meter, limit, total, now_s);
        }
        (limit != UNLIMITED).then(|| Ceiling {
            meter,
            used: meter.of(total),
            limit,
            reason: Reason::Hard,
        })
    }

    /// Meters on which it can refuse growth.
    pub(super) fn growth_meters(&self) -> &'static [Meter] {
        if self.binding_terms().is_some() {
            &Meter::GROWTH
        } else {
            &Meter::COUNTED
        }
    }

    pub(super) fn terms(&self) -> Option<&Terms> {
        self.terms.get().map(AsRef::as_ref)
    }

    fn binding_terms(&self) -> Option<&Terms> {
        self.terms().filter(|terms| terms.are_binding())
    }

    pub(super) fn keep_terms(&self, now_s: i64) -> &Terms {
        self.terms.get_or_init(|| Box::new(Terms::new(now_s)))
    }

    /// What its day and month have used; `None` where that is not counted: at directories without limits that are no
    /// tenants.
    pub fn period(&self, now_s: i64) -> Option<PeriodUsage> {
        self.terms().map(|terms| terms.period(now_s))
    }

    /// How one meter stands; `None` for a file's size, and for a period that is not counted.
    pub fn state_of(&self, meter: Meter, now_s: i64) -> Option<MeterState> {
        let period = if Meter::FLOWS.contains(&meter) {
            Some(self.period(now_s)?)
        } else {
            None
        };
        let limits = self.limits();
        let soft = match meter {
            Meter::Bytes => limits.soft_bytes,
            Meter::Files => limits.soft_files,
            _ => None,
        };
        let used = match &period {
            Some(period) => period.used(meter),
            None if meter == Meter::FileSize => return None,
            None => meter.of(self.total()),
        };
        Some(MeterState {
            used,
            limit: limits.get(meter.hard_limit()),
            soft,
            until_s: period
                .map(|period| period.ends_s(meter))
                .or_else(|| self.grace_ends_s(meter)),
            warned_percent: self.terms().map_or(0, |terms| terms.warned_percent(meter)),
        })
    }

    /// When the grace of a soft limit ends that is passed, seconds since 1970; `None`: not passed, or it never ends.
    pub fn grace_ends_s(&self, meter: Meter) -> Option<i64> {
        self.terms()?.grace_ends_s(meter)
    }

    /// What is to be saved beside the counters, if it changed since the last call, with the events that changed it.
    pub fn take_changed_terms(&self) -> Option<TakenTerms> {
        self.terms()?.take_changed()
    }

    /// The same whether or not it changed.
    pub fn take_terms(&self) -> Option<TakenTerms> {
        Some(self.terms()?.take())
    }

    /// What was taken could not be saved.
    pub fn terms_not_saved(&self, noted: Vec<Noted>) {
        if let Some(terms) = self.terms() {
            terms.not_saved(noted);
        }
    }

    /// Limits that were set on the directory itself, over those of its path.
    pub fn overrides(&self) -> LimitOverrides {
        self.place.read().overrides.clone()
    }

    /// Remembers what was set on the directory; [`super::Ledger::set_limits`] makes it count.
    pub fn set_overrides(&self, overrides: LimitOverrides) {
        self.place.write().overrides = overrides;
    }

    /// Name of its level (`tenant`, `campaign`), when a rule gives it one.
    pub fn level(&self) -> Option<String> {
        self.place.read().level.as_deref().map(str::to_owned)
    }

    /// It is a tenant: history is kept for it.
    pub fn is_tenant(&self) -> bool {
        self.tenant.load(Ordering::Relaxed)
    }

    pub(super) fn set_level(&self, level: Option<&str>, is_tenant: bool) {
        self.place.write().level = level.map(Arc::from);
        self.tenant.store(is_tenant, Ordering::Relaxed);
        if is_tenant {
            self.keep_flow();
        }
    }

    pub(super) fn set_place(&self, parent: Option<&Arc<Self>>, name: &[u8]) {
        let mut place = self.place.write();
        let old = std::mem::replace(&mut place.parent, parent.cloned());
        place.name = name.into();
        drop(place);
        drop(old);
    }

    pub(super) fn cut_from_parent(&self) -> Option<Arc<Self>> {
        self.place.write().parent.take()
    }

    pub(super) fn keep_flow(&self) {
        self.flow.get_or_init(Box::default);
    }

    pub(super) fn flow(&self) -> Option<&Flow> {
        self.flow.get().map(AsRef::as_ref)
    }

    /// What was done and is not taken yet.
    pub fn pending_operations(&self) -> OperationCounts {
        self.flow().map(Flow::operations).unwrap_or_default()
    }

    /// Takes what was added and deleted since the last call. Zero where no flow is kept.
    pub fn take_flow(&self) -> FlowCounts {
        self.flow().map(Flow::take).unwrap_or_default()
    }

    /// Puts back what was taken but could not be saved.
    pub fn give_back_flow(&self, counts: FlowCounts) {
        if let Some(flow) = self.flow() {
            flow.add(counts);
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        f.debug_struct("Account")
            .field("ino", &self.ino)
            .field("path", &String::from_utf8_lossy(&path))
            .field("own", &self.own())
            .field("total", &self.total())
            .field("reserved", &self.reserved())
            .field("limits", &self.limits())
            .finish_non_exhaustive()
    }
}

/// How one meter of an account stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeterState {
    /// What counts.
    pub used: u64,
    /// The limit that is never passed.
    pub limit: Option<u64>,
    /// The one that may be passed for a time.
    pub soft: Option<u64>,
    /// When the period or the grace ends, seconds since 1970.
    pub until_s: Option<i64>,
    /// The highest step that was warned of and is still near; 0: none.
    pub warned_percent: u8,
}

impl MeterState {
    /// Nothing more fits.
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.used >= limit)
    }

    /// The soft limit is passed.
    pub fn is_over_soft(&self) -> bool {
        self.soft.is_some_and(|soft| self.used > soft)
    }
}

/// [`Meters`] that are read without a lock. Changed under the admission lock alone, hence no
/// read-modify-write instructions.
#[derive(Debug, Default)]
pub(super) struct AtomicMeters {
    bytes: AtomicU64,
    files: AtomicU64,
    dirs: AtomicU64,
}

impl AtomicMeters {
    pub(super) fn load(&self) -> Meters {
        Meters {
            bytes: self.bytes.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            dirs: self.dirs.load(Ordering::Relaxed),
        }
    }

    pub(super) fn store(&self, meters: Meters) {
        self.bytes.store(meters.bytes, Ordering::Relaxed);
        self.files.store(meters.files, Ordering::Relaxed);
        self.dirs.store(meters.dirs, Ordering::Relaxed);
    }

    /// Adds one amount and takes another, as one change. Returns false when a figure would have
    /// fallen below zero (a bug elsewhere); that figure is zero then.
    #[must_use]
    pub(super) fn change(&self, added: Meters, taken: Meters) -> bool {
        let before = self.load().saturating_add(added);
        self.store(before.saturating_sub(taken));
        before.checked_sub(taken).is_some()
    }

    pub(super) fn add(&self, added: Meters) {
        self.store(self.load().saturating_add(added));
    }
}

/// What was added and deleted under a tenant over some stretch of time; never refunded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowCounts {
    /// Files that came to be.
    pub files_added: u64,
    /// Files that went.
    pub files_deleted: u64,
    /// Growth of files.
    pub bytes_added: u64,
    /// Bytes given back by deletion.
    pub bytes_deleted: u64,
    /// What was done.
    pub operations: OperationCounts,
}

#[derive(Debug, Default)]
pub(super) struct Flow {
    files_added: AtomicU64,
    files_deleted: AtomicU64,
    bytes_added: AtomicU64,
    bytes_deleted: AtomicU64,
    operations: [AtomicU64; OperationKind::ALL.len()],
}

impl Flow {
    pub(super) fn add(&self, counts: FlowCounts) {
        self.files_added.fetch_add(counts.files_added, Ordering::Relaxed);
        self.files_deleted.fetch_add(counts.files_deleted, Ordering::Relaxed);
        self.bytes_added.fetch_add(counts.bytes_added, Ordering::Relaxed);
        self.bytes_deleted.fetch_add(counts.bytes_deleted, Ordering::Relaxed);
        for (cell, count) in self.operations.iter().zip(counts.operations.0) {
            if count > 0 {
                cell.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn note(&self, operation: OperationKind) {
        self.operations[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn operations(&self) -> OperationCounts {
        OperationCounts(self.operations.each_ref().map(|cell| cell.load(Ordering::Relaxed)))
    }

    fn take(&self) -> FlowCounts {
        FlowCounts {
            files_added: self.files_added.swap(0, Ordering::Relaxed),
            files_deleted: self.files_deleted.swap(0, Ordering::Relaxed),
            bytes_added: self.bytes_added.swap(0, Ordering::Relaxed),
            bytes_deleted: self.bytes_deleted.swap(0, Ordering::Relaxed),
            operations: OperationCounts(self.operations.each_ref().map(|cell| cell.swap(0, Ordering::Relaxed))),
        }
    }
}
