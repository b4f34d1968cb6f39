//! What the admission lock guards: the shape of the tree, and every change of a counter.
//!
//! Nodes sit in a slab and know their parent by index, so a charge walks up without a lock, a reference count or
//! an allocation per level, and always along the tree as it is now. A slot is used again only when nobody but the
//! slab holds its account, so an [`Account`]'s slot is valid for as long as anyone can name it.
//!
//! While a directory is being moved (its I/O is under way) it hangs below both places: whatever changes in it is
//! charged to the new chain and to the old one, so that both ways out, commit and going back, keep every limit.

use super::account::Account;
use super::limits::Meter;
use super::terms::Ceiling;
use crate::units::Meters;
use std::collections::VecDeque;
use std::sync::Arc;

/// No slot: above the root.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// How many removed accounts one removal looks at to give slots back.
const SWEEP_COUNT: usize = 8;

struct Node {
    account: Arc<Account>,
    parent: u32,
}

/// A move of directories whose I/O is under way. There is one at most.
pub(super) struct Flight {
    /// Directories that hang below two parents, with the slot of the old one.
    pub(super) movers: [Option<(u32, u32)>; 2],
    /// First account shared by both ways up.
    pub(super) stop: u32,
    /// How much less than all that hangs there the accounts of the old and of the new way are charged with:
    /// what will leave them when the move ends, whichever way it ends.
    pub(super) early_old: Meters,
    pub(super) early_new: Meters,
}

/// Everything behind the admission lock.
#[derive(Default)]
pub(super) struct Gate {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    /// Removed, perhaps still held by somebody.
    removed: VecDeque<u32>,
    pub(super) flight: Option<Flight>,
    /// Transfers of files whose I/O is under way.
    pub(super) transfers_count: u32,
    /// Requests that wait for others to settle.
    pub(super) waiting_count: usize,
}

impl Gate {
    /// Puts an account below a parent; `make` gets its slot.
    pub(super) fn place(&mut self, parent: u32, make: impl FnOnce(u32) -> Account) -> Arc<Account> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 directories fit in memory")
        });
        let account = Arc::new(make(slot));
        self.nodes[slot as usize] = Some(Node {
            account: Arc::clone(&account),
            parent,
        });
        account
    }

    /// Forgets an account once nobody holds it any more.
    pub(super) fn retire(&mut self, slot: u32) {
        self.removed.push_back(slot);
        for _ in 0..self.removed.len().min(SWEEP_COUNT) {
            let Some(slot) = self.removed.pop_front() else {
                break;
            };
            let held = self.nodes[slot as usize]
                .as_ref()
                .is_some_and(|node| Arc::strong_count(&node.account) > 1);
            if held {
                self.removed.push_back(slot);
            } else {
                self.nodes[slot as usize] = None;
                self.free.push(slot);
            }
        }
    }

    /// Takes all accounts out, for the end of the ledger.
    pub(super) fn take_accounts(&mut self) -> Vec<Arc<Account>> {
        std::mem::take(&mut self.nodes)
            .into_iter()
            .flatten()
            .map(|node| node.account)
            .collect()
    }

    fn node(&self, slot: u32) -> &Node {
        self.nodes[slot as usize]
            .as_ref()
            .expect("the slot of a held account is in use")
    }

    pub(super) fn account(&self, slot: u32) -> &Arc<Account> {
        &self.node(slot).account
    }

    pub(super) fn parent(&self, slot: u32) -> u32 {
        self.node(slot).parent
    }

    pub(super) fn set_parent(&mut self, slot: u32, parent: u32) {
        self.nodes[slot as usize]
            .as_mut()
            .expect("the slot of a held account is in use")
            .parent = parent;
    }

    /// Slots in use, with the parent's.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, &Arc<Account>, u32)> {
        self.nodes
            .iter()
            .flatten()
            .map(|node| (node.account.slot, &node.account, node.parent))
    }

    pub(super) fn slots_len(&self) -> usize {
        self.nodes.len()
    }

    /// From an account up to, not including, `stop` ([`NO_SLOT`]: past the root), by parents alone.
    pub(super) fn way_up(&self, from: u32, stop: u32) -> impl Iterator<Item = &Arc<Account>> {
        let mut next = from;
        std::iter::from_fn(move || {
            if next == stop || next == NO_SLOT {
                return None;
            }
            let node = self.node(next);
            next = node.parent;
            Some(&node.account)
        })
    }

    /// The deepest account that is on both ways up.
    pub(super) fn common(&self, a: u32, b: u32) -> u32 {
        let (a_depth, b_depth) = (self.way_up(a, NO_SLOT).count(), self.way_up(b, NO_SLOT).count());
        let (mut a, mut b) = (a, b);
        for _ in b_depth..a_depth {
            a = self.parent(a);
        }
        for _ in a_depth..b_depth {
            b = self.parent(b);
        }
        while a != b {
            a = self.parent(a);
            b = self.parent(b);
        }
        a
    }

    /// Every account that a change in `account` is charged to, innermost first, each once.
    pub(super) fn chain(&self, account: &Account) -> Chain<'_> {
        Chain {
            gate: self,
            next: account.slot,
            leg: Leg::Straight,
        }
    }

    /// Adds to what lies directly in an account.
    pub(super) fn charge(&self, account: &Account, added: Meters) {
        account.own.add(added);
        for (payer, _) in self.chain(account) {
            payer.total.add(added);
        }
    }

    /// Takes from what lies directly in an account. False when it did not hold that much: then all of it is gone.
    #[must_use]
    pub(super) fn uncharge(&mut self, account: &Account, taken: Meters) -> bool {
        let own = account.own.load();
        let real = own.min(taken);
        account.own.store(own.saturating_sub(real));
        let mut exact = real == taken;
        let early = self
            .flight
            .as_ref()
            .map(|flight| (flight.early_old.min(real), flight.early_new.min(real)));
        let (early_old, early_new) = early.unwrap_or_default();
        let mut under_way = false;
        for (payer, leg) in self.chain(account) {
            let kept = match leg {
                Leg::Straight => Meters::ZERO,
                Leg::OldWay { .. } => early_old,
                Leg::NewWay { .. } => early_new,
            };
            under_way |= !matches!(leg, Leg::Straight);
            exact &= payer.total.change(Meters::ZERO, real.saturating_sub(kept));
        }
        if under_way && let Some(flight) = &mut self.flight {
            flight.early_old = flight.early_old.saturating_sub(early_old);
            flight.early_new = flight.early_new.saturating_sub(early_new);
        }
        exact
    }

    /// Promises an amount to an operation in an account.
    pub(super) fn hold(&self, account: &Account, amount: Meters) {
        for (payer, _) in self.chain(account) {
            payer.reserved.add(amount);
        }
    }

    /// Keeps room for a recording.
    pub(super) fn book(&self, account: &Account, bytes: u64) {
        let amount = Meters::of_bytes(bytes);
        for (payer, _) in self.chain(account) {
            payer.reserved.add(amount);
            payer.booked.add(amount);
        }
    }

    /// Gives room of a recording back. False when less was kept.
    #[must_use]
    pub(super) fn unbook(&self, account: &Account, bytes: u64) -> bool {
        let amount = Meters::of_bytes(bytes);
        let mut exact = true;
        for (payer, _) in self.chain(account) {
            exact &= payer.reserved.change(Meters::ZERO, amount) & payer.booked.change(Meters::ZERO, amount);
        }
        exact
    }

    /// Ends a promise: takes it from `reserved` and adds what really came to be.
    #[must_use]
    pub(super) fn settle(&self, account: &Account, promised: Meters, actual: Meters) -> bool {
        let mut exact = true;
        account.own.add(actual);
        for (payer, leg) in self.chain(account) {
            exact &= payer.reserved.change(Meters::ZERO, promised);
            payer.total.add(actual);
            if let Some(terms) = payer.terms().filter(|_| !matches!(leg, Leg::NewWay { .. })) {
                terms.count(actual);
            }
        }
        exact
    }
}

/// Where a walk up the chain is.
#[derive(Clone, Copy)]
pub(super) enum Leg {
    /// Below a directory under way, above where its two ways meet, or nothing is under way.
    Straight,
    /// On the way that a directory under way had before.
    OldWay { new_parent: u32, stop: u32 },
    /// On its new way, below where both meet.
    NewWay { stop: u32 },
}

/// Walks a chain. See [`Gate::chain`].
pub(super) struct Chain<'a> {
    gate: &'a Gate,
    next: u32,
    leg: Leg,
}

impl<'a> Iterator for Chain<'a> {
    type Item = (&'a Arc<Account>, Leg);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.next;
        if slot == NO_SLOT {
            return None;
        }
        if let Leg::NewWay { stop } = self.leg
            && slot == stop
        {
            self.leg = Leg::Straight;
        }
        let here = self.leg;
        let node = self.gate.node(slot);
        self.next = node.parent;
        if let Some(flight) = &self.gate.flight {
            self.turn(slot, flight);
        }
        Some((&node.account, here))
    }
}

impl Chain<'_> {
    /// Takes the old way first where a directory under way is left, and comes back to the new one where both meet.
    fn turn(&mut self, slot: u32, flight: &Flight) {
        if matches!(self.leg, Leg::Straight)
            && let Some((_, old_parent)) = flight.movers.iter().flatten().find(|(mover, _)| *mover == slot)
        {
            self.leg = Leg::OldWay {
                new_parent: self.next,
                stop: flight.stop,
            };
            self.next = *old_parent;
        }
        if let Leg::OldWay { new_parent, stop } = self.leg
            && self.next == stop
        {
            self.leg = Leg::NewWay { stop };
            self.next = new_parent;
        }
    }
}

/// Why a request does not fit just now.
pub(super) struct Obstacle {
    pub(super) account: Arc<Account>,
    pub(super) ceiling: Ceiling,
    pub(super) wanted: u64,
    /// It would not fit either if every unfinished operation gave back what it holds. Open recordings are none.
    pub(super) lasting: bool,
}

/// Which limits an amount is checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// All: it comes to be.
    Growth,
    /// Those of what is there: it is elsewhere already.
    Move,
}

/// Checks an amount against accounts, innermost first. Of those that refuse, the first that refuses for good
/// decides; without one, the first that refuses for now.
pub(super) fn obstacle<'a>(
    payers: impl Iterator<Item = &'a Arc<Account>>,
    wanted: Meters,
    asked: Asked,
    now_s: i64,
) -> Option<Obstacle> {
    let mut for_now = None;
    for payer in payers {
        let meters = match asked {
            Asked::Growth => payer.growth_meters(),
            Asked::Move => &Meter::COUNTED,
        };
        for &meter in meters {
            let Some(found) = meter_obstacle(payer, meter, meter.of(wanted), now_s) else {
                continue;
            };
            if found.lasting {
                return Some(found);
            }
            for_now.get_or_insert(found);
        }
    }
    for_now
}

fn meter_obstacle(payer: &Arc<Account>, meter: Meter, wanted: u64, now_s: i64) -> Option<Obstacle> {
    if wanted == 0 {
        return None;
    }
    let ceiling = payer.ceiling(meter, now_s)?;
    let held = meter.of(payer.reserved.load());
    let settled = ceiling.used.saturating_add(wanted);
    if settled.saturating_add(held) <= ceiling.limit {
        return None;
    }
    Some(Obstacle {
        account: Arc::clone(payer),
        ceiling,
        wanted,
        lasting: settled.saturating_add(meter.of(payer.booked.load())) > ceiling.limit,
    })
}
