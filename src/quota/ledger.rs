//! The ledger: all accounts, who is where, and charges that need no permission.
//!
//! Requests that may be refused are in `reservation` and `transfer`; the changes themselves in `gate`.

use super::account::{Account, FlowCounts};
use super::gate::{Gate, NO_SLOT, Obstacle};
use super::limits::{Limits, Meter, Refusal};
use super::operations::OperationKind;
use super::terms::Ceiling;
use crate::clock::{Clock, SystemClock};
use crate::id::Ino;
use crate::units::Meters;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a request waits for others to settle while nobody settles at all. Then it is refused:
/// a stuck disk must not hang calls that have nothing to do with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The in-memory truth of all accounts.
pub struct Ledger {
    root: Arc<Account>,
    accounts: DashMap<Ino, Arc<Account>>,
    gate: Mutex<Gate>,
    /// Signalled whenever something is given back, settled or allowed.
    settled: Condvar,
    miscounts: AtomicU64,
    patience: Duration,
    pub(super) clock: Arc<dyn Clock>,
    /// Accounts with terms, by inode: those that time passes for.
    pub(super) watched: DashMap<Ino, Arc<Account>>,
    /// Whether any account ever kept room for recordings.
    pub(super) has_bookings: AtomicBool,
}

/// One account's figures of one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Directly in it.
    pub own: Meters,
    /// In it and below.
    pub total: Meters,
    /// Promised.
    pub reserved: Meters,
    /// Hard limits.
    pub limits: Limits,
}

/// How much one meter has left, and whose limit says so.
#[derive(Clone, Debug)]
pub struct Room {
    /// What still fits.
    pub remaining: u64,
    /// What the deciding account uses.
    pub used: u64,
    /// Its limit.
    pub limit: u64,
    /// The deciding account: the innermost of those with the least left.
    pub account: Arc<Account>,
}

/// What is left for a directory over its whole chain; `None` where nothing limits it.
#[derive(Clone, Debug, Default)]
pub struct Available {
    /// Plaintext bytes.
    pub bytes: Option<Room>,
    /// Inodes other than directories.
    pub files: Option<Room>,
}

impl Ledger {
    /// A ledger with the root of the mount alone, by the clock of the machine.
    pub fn new(root_ino: Ino, limits: Limits) -> Arc<Self> {
        Self::with_clock(root_ino, limits, Arc::new(SystemClock::new()))
    }

    /// The same by another clock.
    pub fn with_clock(root_ino: Ino, limits: Limits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::build(root_ino, limits, PATIENCE, clock))
    }

    pub(super) fn build(root_ino: Ino, limits: Limits, patience: Duration, clock: Arc<dyn Clock>) -> Self {
        let mut gate = Gate::default();
        let root = gate.place(NO_SLOT, |slot| Account::new(root_ino, 0, slot, None, b""));
        root.keep_flow();
        let accounts = DashMap::new();
        accounts.insert(root_ino, Arc::clone(&root));
        let (settled, miscounts) = (Condvar::new(), AtomicU64::new(0));
        let ledger = Self {
            root,
            accounts,
            gate: Mutex::new(gate),
            settled,
            miscounts,
            patience,
            clock,
            watched: DashMap::new(),
            has_bookings: AtomicBool::new(false),
        };
        ledger.watch(&ledger.root);
        ledger.set_limits(&ledger.root, limits);
        ledger
    }

    /// The account of the mount.
    pub fn root(&self) -> &Arc<Account> {
        &self.root
    }

    /// The account of a directory.
    pub fn account(&self, ino: Ino) -> Option<Arc<Account>> {
        self.accounts.get(&ino).map(|entry| Arc::clone(&entry))
    }

    /// How many directories there are, the root included.
    pub fn accounts_count(&self) -> usize {
        self.accounts.len()
    }

    /// All accounts, in no order.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// Adds a directory with empty counters. Charges nothing: the parent is charged by the reservation of the `mkdir`.
    /// An account with this inode and generation is returned as it is; one of another generation (the inode number
    /// was used again) is replaced.
    pub fn insert(&self, parent: &Arc<Account>, ino: Ino, generation: u32, name: &[u8]) -> Arc<Account> {
        let place = || {
            self.gate.lock().place(parent.slot, |slot| {
                Account::new(ino, generation, slot, Some(Arc::clone(parent)), name)
            })
        };
        match self.accounts.entry(ino) {
            Entry::Vacant(vacant) => Arc::clone(&vacant.insert(place())),
            Entry::Occupied(known) if known.get().generation() == generation => Arc::clone(known.get()),
            Entry::Occupied(mut reused) => {
                let account = place();
                let old = reused.insert(Arc::clone(&account));
                self.retire(old);
                account
            }
        }
    }

    /// Forgets a directory. What is still charged to it (unlinked files that are open) stays charged to its chain and is
    /// given back through the account as before. Uncharging the directory itself is the caller's.
    pub fn remove(&self, ino: Ino) {
        if ino == self.root.ino() {
            return;
        }
        if let Some((_, account)) = self.accounts.remove(&ino) {
            self.retire(account);
        }
    }

    fn retire(&self, account: Arc<Account>) {
        let slot = account.slot;
        self.watched
            .remove_if(&account.ino(), |_, known| Arc::ptr_eq(known, &account));
        drop(account);
        self.gate.lock().retire(slot);
    }

    /// Gives a directory another name below the same parent.
    pub fn set_name(&self, account: &Account, name: &[u8]) {
        let _gate = self.gate.lock();
        let parent = account.parent();
        account.set_place(parent.as_ref(), name);
    }

    /// Hangs a directory below another parent and moves its totals, whatever the limits say. The parents' `own.dirs` is not
    /// touched: recovery sets it by [`Ledger::adjust_own`] from the listing. False, and nothing done, when the new
    /// parent lies inside the directory.
    pub fn move_forced(&self, dir: &Arc<Account>, parent: &Arc<Account>, name: &[u8]) -> bool {
        let mut gate = self.lock_for_move();
        if dir.slot == self.root.slot || gate.way_up(parent.slot, NO_SLOT).any(|above| Arc::ptr_eq(above, dir)) {
            return false;
        }
        let old_parent = gate.parent(dir.slot);
        let stop = gate.common(old_parent, parent.slot);
        let (total, reserved, booked) = (dir.total(), dir.reserved(), dir.booked.load());
        let mut exact = true;
        for payer in gate.way_up(old_parent, stop) {
            exact &= payer.total.change(Meters::ZERO, total)
                & payer.reserved.change(Meters::ZERO, reserved)
                & payer.booked.change(Meters::ZERO, booked);
        }
        for payer in gate.way_up(parent.slot, stop) {
            payer.total.add(total);
            payer.reserved.add(reserved);
            payer.booked.add(booked);
        }
        gate.set_parent(dir.slot, parent.slot);
        dir.set_place(Some(parent), name);
        self.finish(gate, exact, dir, "moving a directory");
        true
    }

    /// Sets what lies directly in an account, without its totals. For loading; [`Ledger::sum_totals`] follows.
    pub fn load_own(&self, account: &Account, own: Meters) {
        let _gate = self.gate.lock();
        account.own.store(own);
    }

    /// Computes all totals from what lies directly in each account, the deepest first: O(accounts).
    pub fn sum_totals(&self) {
        let gate = self.gate.lock();
        let mut children_left = vec![0_u32; gate.slots_len()];
        for (_, account, parent) in gate.slots() {
            account.total.store(account.own.load());
            if parent != NO_SLOT {
                children_left[parent as usize] += 1;
            }
        }
        for (slot, _, _) in gate.slots() {
            // Climbs from each leaf as long as this was the last child to be added.
            let mut done = slot;
            while children_left[done as usize] == 0 {
                children_left[done as usize] = u32::MAX;
                let parent = gate.parent(done);
                if parent == NO_SLOT {
                    break;
                }
                gate.account(parent).total.add(gate.account(done).total.load());
                children_left[parent as usize] -= 1;
                done = parent;
            }
        }
    }

    /// Adds to an account and its chain, whatever the limits say.
    pub fn charge_forced(&self, account: &Account, added: Meters) {
        self.gate.lock().charge(account, added);
    }

    /// Gives back: takes from an account and its chain.
    pub fn uncharge(&self, account: &Account, taken: Meters) {
        let mut gate = self.gate.lock();
        let exact = gate.uncharge(account, taken);
        self.finish(gate, exact, account, "giving back");
    }

    /// Sets what lies directly in an account to what was found there, and corrects its chain by the difference.
    pub fn adjust_own(&self, account: &Account, found: Meters) {
        let mut gate = self.gate.lock();
        let own = account.own();
        gate.charge(account, found.saturating_sub(own));
        let exact = gate.uncharge(account, own.saturating_sub(found));
        self.finish(gate, exact, account, "correcting");
    }

    /// Counts new files and growth for the history of the tenants above and of the mount.
    pub fn count_added(&self, home: &Account, files: u64, bytes: u64) {
        self.count_flow(
            home,
            FlowCounts {
                files_added: files,
                bytes_added: bytes,
                ..FlowCounts::default()
            },
        );
    }

    /// Counts deletions for the history of the tenants above and of the mount.
    pub fn count_deleted(&self, home: &Account, files: u64, bytes: u64) {
        self.count_flow(
            home,
            FlowCounts {
                files_deleted: files,
                bytes_deleted: bytes,
                ..FlowCounts::default()
            },
        );
    }

    /// Counts what was done for the statistics of the tenants above and of the mount.
    pub fn count_operation(&self, home: &Account, operation: OperationKind) {
        let gate = self.gate.lock();
        let payers = gate.way_up(home.slot, NO_SLOT);
        for flow in payers
            .filter(|payer| payer.is_tenant() || payer.slot == self.root.slot)
            .filter_map(|payer| payer.flow())
        {
            flow.note(operation);
        }
    }

    fn count_flow(&self, home: &Account, counts: FlowCounts) {
        let gate = self.gate.lock();
        let payers = gate.way_up(home.slot, NO_SLOT);
        for flow in payers
            .filter(|payer| payer.is_tenant() || payer.slot == self.root.slot)
            .filter_map(|payer| payer.flow())
        {
            flow.add(counts);
        }
    }

    /// One account's figures of one instant.
    pub fn usage(&self, account: &Account) -> Usage {
        let _gate = self.gate.lock();
        Usage {
            own: account.own(),
            total: account.total(),
            reserved: account.reserved(),
            limits: account.limits(),
        }
    }

    /// The least that is left over the chain: what `df` of the directory says.
    pub fn available(&self, account: &Account) -> Available {
        let now_s = self.now_s();
        let gate = self.gate.lock();
        let mut least = Available::default();
        for payer in gate.way_up(account.slot, NO_SLOT) {
            narrow(&mut least.bytes, payer, Meter::Bytes, now_s);
            narrow(&mut least.files, payer, Meter::Files, now_s);
        }
        least
    }

    /// The deepest directory that holds both.
    pub fn common_ancestor(&self, a: &Account, b: &Account) -> Arc<Account> {
        let gate = self.gate.lock();
        Arc::clone(gate.account(gate.common(a.slot, b.slot)))
    }

    /// True when the same limited accounts are above both: a hard link between them changes nobody's bill.
    pub fn same_limited_chain(&self, a: &Account, b: &Account) -> bool {
        let gate = self.gate.lock();
        let stop = gate.common(a.slot, b.slot);
        [a, b]
            .into_iter()
            .all(|end| gate.way_up(end.slot, stop).all(|payer| payer.limits().is_none()))
    }

    /// How often a figure would have fallen below zero. Anything but 0 is a bug.
    pub fn miscounts_count(&self) -> u64 {
        self.miscounts.load(Ordering::Relaxed)
    }

    /// How many requests wait just now for others to settle.
    pub fn waiting_count(&self) -> usize {
        self.gate.lock().waiting_count
    }

    /// Accounts whose totals are not the sum of what lies below. Empty unless there is a bug: for `check` and tests.
    pub fn inconsistent(&self) -> Vec<Ino> {
        let gate = self.gate.lock();
        let mut expected = vec![Meters::ZERO; gate.slots_len()];
        for (slot, account, _) in gate.slots() {
            for above in gate.way_up(slot, NO_SLOT) {
                let sum = &mut expected[above.slot as usize];
                *sum = sum.saturating_add(account.own());
            }
        }
        let wrong = gate
            .slots()
            .filter(|(slot, account, _)| account.total() != expected[*slot as usize]);
        let inos: HashSet<Ino> = wrong.map(|(_, account, _)| account.ino()).collect();
        inos.into_iter().collect()
    }

    /// Wakes whoever waits: what refused them may be gone.
    pub(super) fn allowed(&self) {
        self.settled.notify_all();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock()
    }

    /// The lock with no move or transfer under way. Those hold nothing that the caller could hold.
    pub(super) fn lock_for_move(&self) -> MutexGuard<'_, Gate> {
        let mut gate = self.gate.lock();
        while gate.flight.is_some() || gate.transfers_count > 0 {
            self.wait(&mut gate, None);
        }
        gate
    }

    /// Tries until it fits, or does not fit for good, or nobody has settled for [`PATIENCE`]. A move under way counts as
    /// unsettled: it may go back.
    pub(super) fn when_it_fits<T>(
        &self,
        gate: &mut MutexGuard<'_, Gate>,
        mut attempt: impl FnMut(&mut Gate) -> Result<T, Hindrance>,
    ) -> Result<T, Obstacle> {
        let mut last_look = false;
        loop {
            match attempt(gate) {
                Ok(done) => return Ok(done),
                Err(Hindrance::Busy) => {
                    self.wait(gate, None);
                }
                Err(Hindrance::Full(obstacle)) => {
                    if last_look || (obstacle.lasting && gate.flight.is_none()) {
                        return Err(obstacle);
                    }
                    last_look = self.wait(gate, Some(self.patience));
                }
            }
        }
    }

    /// Waits for the next settlement. True when none came in time.
    fn wait(&self, gate: &mut MutexGuard<'_, Gate>, at_most: Option<Duration>) -> bool {
        gate.waiting_count += 1;
        let timed_out = if let Some(patience) = at_most {
            self.settled.wait_for(gate, patience).timed_out()
        } else {
            self.settled.wait(gate);
            false
        };
        gate.waiting_count -= 1;
        timed_out
    }

    /// Ends a change: lets go of the lock, wakes those who wait, reports a miscount.
    pub(super) fn finish(&self, gate: MutexGuard<'_, Gate>, exact: bool, account: &Account, doing: &str) {
        drop(gate);
        self.settled.notify_all();
        if !exact {
            self.report_miscount(account, doing);
        }
    }

    #[cold]
    pub(super) fn report_miscount(&self, account: &Account, doing: &str) {
        self.miscounts.fetch_add(1, Ordering::Relaxed);
        let path = account.path();
        let (path, ino) = (String::from_utf8_lossy(&path), account.ino());
        log::error!("quota miscount while {doing} in '{path}' (inode {ino}): a figure would have fallen below zero");
    }

    #[cold]
    pub(super) fn refusal(&self, obstacle: Obstacle) -> Refusal {
        let Obstacle {
            account,
            ceiling,
            wanted,
            lasting: _,
        } = obstacle;
        Refusal {
            account: account.ino(),
            path: account.display_path(),
            meter: ceiling.meter,
            reason: ceiling.reason,
            used: ceiling.used,
            limit: ceiling.limit,
            wanted,
            is_mount: account.slot == self.root.slot,
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // A chain of parents as deep as the tree must not be dropped by recursion.
        self.accounts.clear();
        self.watched.clear();
        let accounts = self.gate.get_mut().take_accounts();
        for account in &accounts {
            drop(account.cut_from_parent());
        }
    }
}

/// Why an attempt has to be made again.
pub(super) enum Hindrance {
    /// A directory move is under way.
    Busy,
    /// An account refuses.
    Full(Obstacle),
}

fn narrow(least: &mut Option<Room>, payer: &Arc<Account>, meter: Meter, now_s: i64) {
    let Some(Ceiling { used, limit, .. }) = payer.ceiling(meter, now_s) else {
        return;
    };
    let remaining = limit.saturating_sub(used).saturating_sub(meter.of(payer.reserved()));
    if least.as_ref().is_none_or(|room| remaining < room.remaining) {
        *least = Some(Room {
            remaining,
            used,
            limit,
            account: Arc::clone(payer),
        });
    }
}
