//! What is set on accounts, and what time does to them: periods that end, grace that runs out, warnings that are due.

use super::account::Account;
use super::gate::NO_SLOT;
use super::ledger::Ledger;
use super::limits::{Limits, Refusal};
use super::terms::{SavedTerms, Terms};
use super::warnings::{EventKind, Steps};
use crate::period::Zone;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Everything that is set on an account.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Policy {
    /// Its limits.
    pub limits: Limits,
    /// Where its days begin.
    pub zone: Zone,
    /// When to warn.
    pub steps: Steps,
}

/// Something about an account that somebody should know.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which one.
    pub account: Arc<Account>,
    /// What happened.
    pub kind: EventKind,
}

impl Ledger {
    /// Seconds since 1970.
    pub fn now_s(&self) -> i64 {
        self.clock.now_s()
    }

    /// Sets all limits and leaves the rest. Below what is used: nothing is taken away, growth is refused.
    pub fn set_limits(&self, account: &Account, limits: Limits) {
        let gate = self.lock();
        if !limits.is_none() && account.terms().is_none() {
            self.watch(gate.account(account.slot));
        }
        if limits.recording_bytes.is_some() {
            self.has_bookings.store(true, Ordering::Relaxed);
        }
        account.limits.store(limits);
        if let Some(terms) = account.terms() {
            terms.set_limits(limits);
        }
        drop(gate);
        self.allowed();
    }

    /// Sets all that can be set.
    pub fn set_policy(&self, account: &Account, policy: &Policy) {
        self.set_limits(account, policy.limits);
        if let Some(terms) = account.terms() {
            terms.set_zone(policy.zone.clone(), policy.steps, self.now_s());
        }
    }

    /// Names the level of an account and says whether history is kept for it.
    pub fn set_level(&self, account: &Account, level: Option<&str>, is_tenant: bool) {
        let gate = self.lock();
        account.set_level(level, is_tenant);
        if is_tenant {
            self.watch(gate.account(account.slot));
        }
    }

    /// Counts periods for an account from now on.
    pub(super) fn watch(&self, account: &Arc<Account>) {
        account.keep_terms(self.now_s());
        self.watched.insert(account.ino(), Arc::clone(account));
    }

    /// Accounts that have limits, tenants, and the mount.
    pub fn watched(&self) -> Vec<Arc<Account>> {
        self.watched.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// Lets time pass for all of them. To be called about once a second, also while nothing happens. The events are for
    /// the log; they wait in their accounts to be saved.
    pub fn tick(&self) -> Vec<Event> {
        let (now_s, monotonic) = (self.now_s(), self.clock.monotonic());
        let mut events = Vec::new();
        for account in self.watched() {
            let Some(terms) = account.terms() else { continue };
            let gate = self.lock();
            let told = terms.tick(account.limits(), account.total(), now_s, monotonic);
            drop(gate);
            events.extend(told.into_iter().map(|kind| Event {
                account: Arc::clone(&account),
                kind,
            }));
        }
        events
    }

    /// Something of them is not saved.
    pub fn has_changed_terms(&self) -> bool {
        let changed = |account: &Arc<Account>| account.terms().is_some_and(Terms::is_changed);
        self.watched.iter().any(|entry| changed(&entry))
    }

    /// Takes over what was saved of an account, if its periods are still counted.
    pub fn load_terms(&self, account: &Account, saved: &SavedTerms) {
        let _gate = self.lock();
        if let Some(terms) = account.terms() {
            terms.load(saved, self.now_s());
        }
    }

    /// Lets somebody hear of a refusal by the account, once for a burst.
    pub fn note_refusal(&self, account: &Account, refusal: &Refusal) {
        let _gate = self.lock();
        if let Some(terms) = account.terms() {
            terms.note_refusal(refusal, self.now_s());
        }
    }

    /// Begins the day and the month of an account anew. False where they are not counted.
    pub fn reset_period(&self, account: &Account) -> bool {
        let gate = self.lock();
        let known = account.terms().map(|terms| terms.reset(self.now_s())).is_some();
        drop(gate);
        self.allowed();
        known
    }

    /// A file that was made at `born_s` goes, and it never held anything: it was no recording.
    pub fn refund_file(&self, home: &Account, born_s: i64) {
        let gate = self.lock();
        for terms in gate.way_up(home.slot, NO_SLOT).filter_map(|payer| payer.terms()) {
            terms.refund_file(born_s);
        }
    }
}
