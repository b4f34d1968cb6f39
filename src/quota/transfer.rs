//! Renames: charges that move between chains, in two steps with the I/O between them.
//!
//! The beginning checks and takes the destination; [`Transfer::commit`] gives the source back; dropping the
//! [`Transfer`] undoes everything. Only accounts that are not above both places are asked and charged, so a move
//! inside a full tenant is allowed.
//!
//! Files: the source stays charged, the destination's room is reserved. Directories: they hang below both places
//! until the end (see `gate`), so growth during the I/O is within the limits of both. One move of directories at a
//! time, and none while files are under way: `common` must mean the same at both steps. The caller takes every lock
//! that the I/O needs before the beginning, and holds the inode locks of moved and replaced files throughout.

use super::account::Account;
use super::gate::{Asked, Flight, Gate, NO_SLOT, obstacle};
use super::ledger::{Hindrance, Ledger};
use super::limits::Refusal;
use crate::units::Meters;
use std::sync::Arc;

/// What a rename moves.
pub enum Moved {
    /// An inode that is not a directory, with what it is charged with.
    File(Meters),
    /// A directory with all that is below it.
    Dir(Arc<Account>),
}

impl Moved {
    /// All of it, as the accounts above are charged for it now.
    fn amount(&self) -> Meters {
        match self {
            Self::File(meters) => *meters,
            Self::Dir(dir) => dir.total().saturating_add(Meters::ONE_DIR),
        }
    }

    /// What the directory that holds it directly is charged with.
    fn own(&self) -> Meters {
        match self {
            Self::File(meters) => *meters,
            Self::Dir(_) => Meters::ONE_DIR,
        }
    }

    fn reserved(&self) -> Meters {
        match self {
            Self::File(_) => Meters::ZERO,
            Self::Dir(dir) => dir.reserved(),
        }
    }

    fn booked(&self) -> Meters {
        match self {
            Self::File(_) => Meters::ZERO,
            Self::Dir(dir) => dir.booked.load(),
        }
    }

    fn dir(&self) -> Option<&Arc<Account>> {
        match self {
            Self::File(_) => None,
            Self::Dir(dir) => Some(dir),
        }
    }
}

/// One of the two names that `RENAME_EXCHANGE` swaps.
pub struct ExchangeSide<'a> {
    /// The directory that holds the name.
    pub parent: &'a Arc<Account>,
    /// The name.
    pub name: &'a [u8],
    /// What it names before the exchange.
    pub moved: Moved,
}

/// A rename under way. Dropped: nothing has happened.
#[must_use = "dropping it undoes the transfer"]
pub struct Transfer {
    ledger: Arc<Ledger>,
    work: Option<Work>,
}

enum Work {
    Files(FileWork),
    Tree(TreeWork),
}

/// Files alone: `moved` goes to `to`, `back` comes to `from`, `credit` of `to` ends.
struct FileWork {
    from: Arc<Account>,
    to: Arc<Account>,
    moved: Meters,
    back: Meters,
    credit: Meters,
}

/// At least one directory: `moved` goes from `a_home` to `b_home`, `back` the other way, `credit` of `b_home` ends.
struct TreeWork {
    a_home: Arc<Account>,
    b_home: Arc<Account>,
    moved: Moved,
    back: Moved,
    credit: Meters,
    /// Names of `moved` and of `back` before.
    names: [Box<[u8]>; 2],
}

impl Ledger {
    /// Begins to move an inode that is not a directory. `credit` is what the file that it replaces gives back at once (zero
    /// when that one stays open or linked). `from` and `to` may be the same.
    ///
    /// # Errors
    /// An account above `to` alone that has no room for `moved` less `credit`.
    pub fn transfer(
        self: &Arc<Self>,
        from: &Arc<Account>,
        to: &Arc<Account>,
        moved: Meters,
        credit: Meters,
    ) -> Result<Transfer, Refusal> {
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        self.begin_files(FileWork {
            from,
            to,
            moved,
            back: Meters::ZERO,
            credit,
        })
    }

    /// Begins to move a directory with all that is below it. `credit` is what the empty directory that it replaces gives
    /// back ([`Meters::ONE_DIR`]). From here on it is found below its new parent. A directory that would
    /// come to lie inside itself is left alone: the rename itself answers EINVAL.
    ///
    /// # Errors
    /// An account above the new place alone that has no room.
    pub fn move_directory(
        self: &Arc<Self>,
        dir: &Arc<Account>,
        new_parent: &Arc<Account>,
        new_name: &[u8],
        credit: Meters,
    ) -> Result<Transfer, Refusal> {
        let Some(a_home) = dir.parent() else {
            return Ok(self.idle());
        };
        self.begin_tree(TreeWork {
            a_home,
            b_home: Arc::clone(new_parent),
            moved: Moved::Dir(Arc::clone(dir)),
            back: Moved::File(Meters::ZERO),
            credit,
            names: [dir.name().into(), new_name.into()],
        })
    }

    /// Begins to swap two names.
    ///
    /// # Errors
    /// An account above one of the places alone that has no room for what comes less what goes.
    pub fn exchange(self: &Arc<Self>, a: ExchangeSide<'_>, b: ExchangeSide<'_>) -> Result<Transfer, Refusal> {
        let (a_home, b_home) = (Arc::clone(a.parent), Arc::clone(b.parent));
        if let (Moved::File(moved), Moved::File(back)) = (&a.moved, &b.moved) {
            let (moved, back) = (*moved, *back);
            return self.begin_files(FileWork {
                from: a_home,
                to: b_home,
                moved,
                back,
                credit: Meters::ZERO,
            });
        }
        let names = [a.name.into(), b.name.into()];
        self.begin_tree(TreeWork {
            a_home,
            b_home,
            moved: a.moved,
            back: b.moved,
            credit: Meters::ZERO,
            names,
        })
    }

    fn begin_files(self: &Arc<Self>, work: FileWork) -> Result<Transfer, Refusal> {
        let now_s = self.now_s();
        let mut gate = self.lock();
        let held = self.when_it_fits(&mut gate, |gate| {
            if gate.flight.is_some() {
                return Err(Hindrance::Busy);
            }
            work.begin(gate, now_s)
        });
        drop(gate);
        match held {
            Ok(()) => Ok(Transfer {
                ledger: Arc::clone(self),
                work: Some(Work::Files(work)),
            }),
            Err(obstacle) => Err(self.refusal(obstacle)),
        }
    }

    fn begin_tree(self: &Arc<Self>, work: TreeWork) -> Result<Transfer, Refusal> {
        let now_s = self.now_s();
        let mut gate = self.lock();
        let begun = self.when_it_fits(&mut gate, |gate| {
            if gate.flight.is_some() || gate.transfers_count > 0 {
                return Err(Hindrance::Busy);
            }
            work.begin(gate, now_s)
        });
        drop(gate);
        match begun {
            Ok(Begun::UnderWay) => Ok(Transfer {
                ledger: Arc::clone(self),
                work: Some(Work::Tree(work)),
            }),
            Ok(Begun::Impossible) => Ok(self.idle()),
            Err(obstacle) => Err(self.refusal(obstacle)),
        }
    }

    fn idle(self: &Arc<Self>) -> Transfer {
        Transfer {
            ledger: Arc::clone(self),
            work: None,
        }
    }
}

impl Transfer {
    /// The rename has happened: the source is given back.
    pub fn commit(mut self) {
        self.end(true);
    }

    fn end(&mut self, happened: bool) {
        let Some(work) = self.work.take() else { return };
        let mut gate = self.ledger.lock();
        let (exact, home) = match &work {
            Work::Files(work) => (work.end(&mut gate, happened), &work.from),
            Work::Tree(work) => (work.end(&mut gate, happened), &work.a_home),
        };
        self.ledger.finish(gate, exact, home, "ending a rename");
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl FileWork {
    /// What the accounts above `to` alone, and above `from` alone, need on top.
    fn needs(&self) -> [Meters; 2] {
        let leaves_to = self.back.saturating_add(self.credit);
        [
            self.moved.saturating_sub(leaves_to),
            self.back.saturating_sub(self.moved),
        ]
    }

    fn begin(&self, gate: &mut Gate, now_s: i64) -> Result<(), Hindrance> {
        let stop = gate.common(self.from.slot, self.to.slot);
        let ends = [self.to.slot, self.from.slot];
        for (end, need) in ends.into_iter().zip(self.needs()) {
            if let Some(found) = obstacle(gate.way_up(end, stop), need, Asked::Move, now_s) {
                return Err(Hindrance::Full(found));
            }
        }
        for (end, need) in ends.into_iter().zip(self.needs()) {
            gate.way_up(end, stop).for_each(|payer| payer.reserved.add(need));
        }
        gate.transfers_count += 1;
        Ok(())
    }

    fn end(&self, gate: &mut Gate, happened: bool) -> bool {
        gate.transfers_count -= 1;
        let stop = gate.common(self.from.slot, self.to.slot);
        let [need_to, need_from] = self.needs();
        let mut exact = true;
        for payer in gate.way_up(self.to.slot, stop) {
            exact &= payer.reserved.change(Meters::ZERO, need_to);
        }
        for payer in gate.way_up(self.from.slot, stop) {
            exact &= payer.reserved.change(Meters::ZERO, need_from);
        }
        if !happened {
            return exact;
        }
        let leaves_to = self.back.saturating_add(self.credit);
        for payer in gate.way_up(self.to.slot, stop) {
            exact &= payer.total.change(self.moved, leaves_to);
        }
        for payer in gate.way_up(self.from.slot, stop) {
            exact &= payer.total.change(self.back, self.moved);
        }
        for payer in gate.way_up(stop, NO_SLOT) {
            exact &= payer.total.change(Meters::ZERO, self.credit);
        }
        exact &= self.to.own.change(self.moved, leaves_to);
        exact & self.from.own.change(self.back, self.moved)
    }
}

enum Begun {
    UnderWay,
    /// A directory would lie inside itself.
    Impossible,
}

impl TreeWork {
    fn begin(&self, gate: &mut Gate, now_s: i64) -> Result<Begun, Hindrance> {
        if self.closes_a_circle(gate) {
            return Ok(Begun::Impossible);
        }
        let stop = gate.common(self.a_home.slot, self.b_home.slot);
        let (moved, back) = (self.moved.amount(), self.back.amount());
        let early_b = moved.min(back.saturating_add(self.credit));
        let early_a = back.min(moved);
        let arrivals = [
            (self.b_home.slot, moved.saturating_sub(early_b), &self.moved),
            (self.a_home.slot, back.saturating_sub(early_a), &self.back),
        ];
        for (home, charged, arriving) in arrivals {
            let refused = |amount| obstacle(gate.way_up(home, stop), amount, Asked::Move, now_s);
            if let Some(mut found) = refused(charged.saturating_add(arriving.reserved())) {
                // What is only promised inside the tree may be given back too, but for what stands.
                let lasting = refused(charged.saturating_add(arriving.booked()));
                found.lasting &= lasting.is_some_and(|found| found.lasting);
                return Err(Hindrance::Full(found));
            }
        }
        for (home, charged, arriving) in arrivals {
            for payer in gate.way_up(home, stop) {
                payer.total.add(charged);
                payer.reserved.add(arriving.reserved());
                payer.booked.add(arriving.booked());
            }
        }
        let [_, new_name] = &self.names;
        hang(gate, &self.moved, &self.b_home, new_name);
        let [old_name, _] = &self.names;
        hang(gate, &self.back, &self.a_home, old_name);
        let mover = |moved: &Moved, home: &Account| moved.dir().map(|dir| (dir.slot, home.slot));
        gate.flight = Some(Flight {
            movers: [mover(&self.moved, &self.a_home), mover(&self.back, &self.b_home)],
            stop,
            early_old: early_a,
            early_new: early_b,
        });
        Ok(Begun::UnderWay)
    }

    /// The accounts above `a_home` alone hold `moved + back - early`, those above `b_home` alone too (and the credit).
    fn end(&self, gate: &mut Gate, happened: bool) -> bool {
        let Some(flight) = gate.flight.take() else {
            return false;
        };
        let (a_early, b_early) = (flight.early_old, flight.early_new);
        let (a_leaves, b_leaves, credit) = if happened {
            (&self.moved, &self.back, self.credit)
        } else {
            (&self.back, &self.moved, Meters::ZERO)
        };
        let mut exact = true;
        for payer in gate.way_up(self.a_home.slot, flight.stop) {
            exact &= payer.total.change(a_early, a_leaves.amount());
            exact &= payer.reserved.change(Meters::ZERO, a_leaves.reserved());
            exact &= payer.booked.change(Meters::ZERO, a_leaves.booked());
        }
        for payer in gate.way_up(self.b_home.slot, flight.stop) {
            exact &= payer.total.change(b_early, b_leaves.amount().saturating_add(credit));
            exact &= payer.reserved.change(Meters::ZERO, b_leaves.reserved());
            exact &= payer.booked.change(Meters::ZERO, b_leaves.booked());
        }
        if happened {
            for payer in gate.way_up(flight.stop, NO_SLOT) {
                exact &= payer.total.change(Meters::ZERO, self.credit);
            }
            let leaves_b = self.back.own().saturating_add(self.credit);
            exact &= self.b_home.own.change(self.moved.own(), leaves_b);
            return exact & self.a_home.own.change(self.back.own(), self.moved.own());
        }
        let [old_name, new_name] = &self.names;
        hang(gate, &self.moved, &self.a_home, old_name);
        hang(gate, &self.back, &self.b_home, new_name);
        exact
    }

    /// Loops in the tree would be walked for ever under the lock.
    fn closes_a_circle(&self, gate: &Gate) -> bool {
        let holds = |moved: &Moved, home: &Account| {
            moved
                .dir()
                .is_some_and(|dir| gate.way_up(home.slot, NO_SLOT).any(|above| Arc::ptr_eq(above, dir)))
        };
        holds(&self.moved, &self.b_home) || holds(&self.back, &self.a_home)
    }
}

fn hang(gate: &mut Gate, moved: &Moved, home: &Arc<Account>, name: &[u8]) {
    if let Some(dir) = moved.dir() {
        gate.set_parent(dir.slot, home.slot);
        dir.set_place(Some(home), name);
    }
}
