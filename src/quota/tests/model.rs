//! The ledger against a plain recomputation, over random operations.
//!
//! The model knows which files lie where and recomputes everything from that. After each step: every figure is the
//! model's, what was asked was answered as the model would, and no account went above a limit (or, above it already
//! because the limit was lowered, higher still).

use super::ops::{Ending, Op, meters, op};
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

use crate::clock::SystemClock;

struct Dir {
    account: Arc<Account>,
    parent: Option<usize>,
    files: Vec<u64>,
}

struct Model {
    ledger: Arc<Ledger>,
    dirs: Vec<Option<Dir>>,
    held: Vec<(usize, Reservation)>,
    next_ino: u64,
    /// used + reserved of each account after the last step.
    before: HashMap<Ino, Meters>,
    /// Directories of a rename under way: nobody removes them.
    locked: Vec<usize>,
    /// The directory that it replaces: nobody makes anything in it.
    replaced: Option<usize>,
}

impl Model {
    fn new() -> Self {
        let clock = Arc::new(SystemClock::new());
        let ledger = Arc::new(Ledger::build(Ino(1), Limits::NONE, Duration::ZERO, clock));
        let root = Dir {
            account: Arc::clone(ledger.root()),
            parent: None,
            files: Vec::new(),
        };
        let dirs = vec![Some(root)];
        let (held, before, locked, replaced) = (Vec::new(), HashMap::new(), Vec::new(), None);
        Self {
            ledger,
            dirs,
            held,
            next_ino: 2,
            before,
            locked,
            replaced,
        }
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.dirs.len())
            .filter(|index| self.dirs[*index].is_some())
            .collect()
    }

    fn pick(&self, at: usize) -> usize {
        let alive = self.alive();
        alive[at % alive.len()]
    }

    fn dir(&self, index: usize) -> &Dir {
        self.dirs[index].as_ref().unwrap()
    }

    fn dir_mut(&mut self, index: usize) -> &mut Dir {
        self.dirs[index].as_mut().unwrap()
    }

    fn account(&self, index: usize) -> Arc<Account> {
        Arc::clone(&self.dir(index).account)
    }

    /// Innermost first.
    fn chain(&self, index: usize) -> Vec<usize> {
        std::iter::successors(Some(index), |index| self.dir(*index).parent).collect()
    }

    fn apart(&self, index: usize, other: usize) -> Vec<usize> {
        let other = self.chain(other);
        self.chain(index)
            .into_iter()
            .filter(|index| !other.contains(index))
            .collect()
    }

    fn children(&self, index: usize) -> Vec<usize> {
        self.alive()
            .into_iter()
            .filter(|child| self.dir(*child).parent == Some(index))
            .collect()
    }

    fn own(&self, index: usize) -> Meters {
        let files = &self.dir(index).files;
        meters(
            files.iter().sum(),
            files.len() as u64,
            self.children(index).len() as u64,
        )
    }

    fn below(&self, index: usize) -> Vec<usize> {
        self.alive()
            .into_iter()
            .filter(|below| self.chain(*below).contains(&index))
            .collect()
    }

    fn total(&self, index: usize) -> Meters {
        self.below(index)
            .into_iter()
            .fold(Meters::ZERO, |sum, below| sum.saturating_add(self.own(below)))
    }

    fn reserved(&self, index: usize) -> Meters {
        let below = self.below(index);
        let here = self.held.iter().filter(|(at, _)| below.contains(at));
        here.fold(Meters::ZERO, |sum, (_, reservation)| {
            sum.saturating_add(reservation.amount())
        })
    }

    fn fits(&self, payers: &[usize], wanted: Meters) -> bool {
        payers.iter().all(|payer| {
            let limits = self.dir(*payer).account.limits();
            let now = self.total(*payer).saturating_add(self.reserved(*payer));
            [
                (limits.bytes, now.bytes, wanted.bytes),
                (limits.files, now.files, wanted.files),
                (limits.dirs, now.dirs, wanted.dirs),
            ]
            .into_iter()
            .all(|(limit, now, wanted)| wanted == 0 || limit.is_none_or(|limit| now + wanted <= limit))
        })
    }

    /// `settled`: nothing is under way, so the figures have to be the model's.
    fn check(&mut self, settled: bool) {
        for index in self.alive() {
            let account = self.account(index);
            if settled {
                assert_eq!(account.own(), self.own(index), "own of {account:?}");
                assert_eq!(account.total(), self.total(index), "total of {account:?}");
                assert_eq!(account.reserved(), self.reserved(index), "reserved of {account:?}");
            }
            let now = account.total().saturating_add(account.reserved());
            let before = self.before.insert(account.ino(), now).unwrap_or_default();
            let limits = account.limits();
            for (limit, now, before) in [
                (limits.bytes, now.bytes, before.bytes),
                (limits.files, now.files, before.files),
                (limits.dirs, now.dirs, before.dirs),
            ] {
                assert!(
                    limit.is_none_or(|limit| now <= limit.max(before)),
                    "{now} after {before}: {account:?}"
                );
            }
        }
        assert_eq!(self.ledger.miscounts_count(), 0);
    }

    /// Asks the ledger, and holds it to the model's answer when nothing is under way.
    fn try_charge(&mut self, at: usize, wanted: Meters, settled: bool) -> Option<Reservation> {
        let answer = self.ledger.reserve(&self.account(at), wanted).ok();
        if settled {
            assert_eq!(answer.is_some(), self.fits(&self.chain(at), wanted));
        }
        answer
    }

    fn apply(&mut self, op: Op, settled: bool) {
        match op {
            Op::Mkdir { at } => self.mkdir(at, settled),
            Op::Rmdir { dir } => self.rmdir(dir),
            Op::Create { at, len } => self.create(at, len, settled),
            Op::Unlink { at } => {
                let at = self.pick(at);
                if let Some(len) = self.dir_mut(at).files.pop() {
                    self.ledger.uncharge(&self.account(at), Meters::of_file(len));
                }
            }
            Op::Hold { at, amount } => {
                let at = self.pick(at);
                if self.replaced == Some(at) {
                    return;
                }
                if let Some(reservation) = self.try_charge(at, amount, settled) {
                    self.held.push((at, reservation));
                }
            }
            Op::Settle { which, part } => self.settle(which, part),
            Op::Limit { at, limits } => {
                let account = self.account(self.pick(at));
                self.ledger.set_limits(&account, limits);
            }
            // Renames within renames are one after another in the ledger too.
            _ if !settled => {}
            Op::RenameFile { from, to, over, ending } => self.rename_file(from, to, over, ending),
            Op::MoveDir { dir, to, over, ending } => self.move_dir(dir, to, over, ending),
            Op::ExchangeFiles { a, b, ending } => self.exchange_files(a, b, ending),
            Op::ExchangeFileDir { a, dir, ending } => self.exchange_file_dir(a, dir, ending),
            Op::ExchangeDirs { a, b, ending } => self.exchange_dirs(a, b, ending),
        }
        self.check(settled);
    }

    fn mkdir(&mut self, at: usize, settled: bool) {
        let at = self.pick(at);
        if self.replaced == Some(at) {
            return;
        }
        if let Some(reservation) = self.try_charge(at, Meters::ONE_DIR, settled) {
            let ino = self.next_ino;
            self.next_ino += 1;
            let account = self
                .ledger
                .insert(&self.account(at), Ino(ino), 0, ino.to_string().as_bytes());
            reservation.claim(Meters::ONE_DIR);
            self.dirs.push(Some(Dir {
                account,
                parent: Some(at),
                files: Vec::new(),
            }));
        }
    }

    fn is_empty(&self, dir: usize) -> bool {
        self.own(dir).is_zero() && self.held.iter().all(|(at, _)| *at != dir)
    }

    fn rmdir(&mut self, dir: usize) {
        let dir = self.pick(dir);
        let Some(parent) = self.dir(dir).parent else {
            return;
        };
        if self.is_empty(dir) && !self.locked.contains(&dir) {
            self.ledger.uncharge(&self.account(parent), Meters::ONE_DIR);
            self.forget(dir);
        }
    }

    fn forget(&mut self, dir: usize) {
        self.ledger.remove(self.account(dir).ino());
        self.dirs[dir] = None;
    }

    fn create(&mut self, at: usize, len: u64, settled: bool) {
        let at = self.pick(at);
        if self.replaced == Some(at) {
            return;
        }
        if let Some(reservation) = self.try_charge(at, Meters::of_file(len), settled) {
            reservation.claim(Meters::of_file(len));
            self.dir_mut(at).files.push(len);
        }
    }

    /// Claims a part of what was held, as one file if a file was held.
    fn settle(&mut self, which: usize, part: u64) {
        if self.held.is_empty() {
            return;
        }
        let (at, reservation) = self.held.swap_remove(which % self.held.len());
        let amount = reservation.amount();
        if amount.files == 0 || part == 0 {
            drop(reservation);
            return;
        }
        let len = amount.bytes * part / 4;
        reservation.claim(Meters::of_file(len));
        self.dir_mut(at).files.push(len);
    }

    /// Runs what happens during the I/O, then ends the transfer.
    fn end(&mut self, transfer: Transfer, ending: Ending) -> bool {
        self.check(false);
        for op in ending.meanwhile {
            self.apply(op, false);
        }
        if ending.happened {
            transfer.commit();
        } else {
            drop(transfer);
        }
        ending.happened
    }

    fn rename_file(&mut self, from: usize, to: usize, over: bool, ending: Ending) {
        let (from, to) = (self.pick(from), self.pick(to));
        let Some(moved) = self.dir_mut(from).files.pop() else {
            return;
        };
        let replaced = if over { self.dir_mut(to).files.pop() } else { None };
        let credit = replaced.map_or(Meters::ZERO, Meters::of_file);
        let answer = self
            .ledger
            .transfer(&self.account(from), &self.account(to), Meters::of_file(moved), credit);
        // The model asks with both where they were.
        let put_back = |model: &mut Self| {
            model.dir_mut(to).files.extend(replaced);
            model.dir_mut(from).files.push(moved);
        };
        put_back(self);
        let need = Meters::of_file(moved).saturating_sub(credit);
        assert_eq!(answer.is_ok(), self.fits(&self.apart(to, from), need));
        let Ok(transfer) = answer else { return };
        let position = self.dir(from).files.len() - 1;
        self.dir_mut(from).files.remove(position);
        if replaced.is_some() {
            let position = self.dir(to).files.len() - 1;
            self.dir_mut(to).files.remove(position);
        }
        self.locked.extend([from, to]);
        if self.end(transfer, ending) {
            self.dir_mut(to).files.push(moved);
        } else {
            put_back(self);
        }
        self.locked.clear();
    }

    fn move_dir(&mut self, dir: usize, to: usize, over: bool, ending: Ending) {
        let (dir, to) = (self.pick(dir), self.pick(to));
        let Some(from) = self.dir(dir).parent else {
            return;
        };
        if self.chain(to).contains(&dir) {
            return;
        }
        let empty = |child: &usize| *child != dir && self.is_empty(*child);
        let replaced = self.children(to).into_iter().find(empty).filter(|_| over);
        let credit = replaced.map_or(Meters::ZERO, |_| Meters::ONE_DIR);
        let need = self
            .total(dir)
            .saturating_add(Meters::ONE_DIR)
            .saturating_sub(credit)
            .saturating_add(self.reserved(dir));
        let expected = self.fits(&self.apart(to, from), need);
        let answer = self
            .ledger
            .move_directory(&self.account(dir), &self.account(to), b"new", credit);
        assert_eq!(answer.is_ok(), expected);
        let Ok(transfer) = answer else { return };
        self.locked = replaced.into_iter().chain([dir, from, to]).collect();
        self.replaced = replaced;
        if self.end(transfer, ending) {
            self.dir_mut(dir).parent = Some(to);
            if let Some(replaced) = replaced {
                self.forget(replaced);
            }
        }
        self.replaced = None;
        self.locked.clear();
    }

    fn exchange_files(&mut self, a: usize, b: usize, ending: Ending) {
        let (a, b) = (self.pick(a), self.pick(b));
        let (Some(&moved), Some(&back)) = (self.dir(a).files.last(), self.dir(b).files.last()) else {
            return;
        };
        if a == b {
            return;
        }
        let (moved_meters, back_meters) = (Meters::of_file(moved), Meters::of_file(back));
        let expected = self.fits(&self.apart(b, a), moved_meters.saturating_sub(back_meters))
            && self.fits(&self.apart(a, b), back_meters.saturating_sub(moved_meters));
        let (a_account, b_account) = (self.account(a), self.account(b));
        let answer = self.ledger.exchange(
            ExchangeSide {
                parent: &a_account,
                name: b"a",
                moved: Moved::File(moved_meters),
            },
            ExchangeSide {
                parent: &b_account,
                name: b"b",
                moved: Moved::File(back_meters),
            },
        );
        assert_eq!(answer.is_ok(), expected);
        let Ok(transfer) = answer else { return };
        self.dir_mut(a).files.pop();
        self.dir_mut(b).files.pop();
        self.locked = vec![a, b];
        let (to_a, to_b) = if self.end(transfer, ending) {
            (back, moved)
        } else {
            (moved, back)
        };
        self.dir_mut(a).files.push(to_a);
        self.dir_mut(b).files.push(to_b);
        self.locked.clear();
    }

    fn exchange_file_dir(&mut self, a: usize, dir: usize, ending: Ending) {
        let (a, dir) = (self.pick(a), self.pick(dir));
        let Some(home) = self.dir(dir).parent else {
            return;
        };
        let Some(&file) = self.dir(a).files.last() else {
            return;
        };
        if self.chain(a).contains(&dir) {
            return;
        }
        let tree = self.total(dir).saturating_add(Meters::ONE_DIR);
        let (file_meters, held) = (Meters::of_file(file), self.reserved(dir));
        let expected = self.fits(&self.apart(home, a), file_meters.saturating_sub(tree))
            && self.fits(
                &self.apart(a, home),
                tree.saturating_sub(file_meters).saturating_add(held),
            );
        let (a_account, home_account) = (self.account(a), self.account(home));
        let answer = self.ledger.exchange(
            ExchangeSide {
                parent: &a_account,
                name: b"a",
                moved: Moved::File(file_meters),
            },
            ExchangeSide {
                parent: &home_account,
                name: b"b",
                moved: Moved::Dir(self.account(dir)),
            },
        );
        assert_eq!(answer.is_ok(), expected);
        let Ok(transfer) = answer else { return };
        self.dir_mut(a).files.pop();
        self.locked = vec![a, dir, home];
        if self.end(transfer, ending) {
            self.dir_mut(home).files.push(file);
            self.dir_mut(dir).parent = Some(a);
        } else {
            self.dir_mut(a).files.push(file);
        }
        self.locked.clear();
    }

    fn exchange_dirs(&mut self, a: usize, b: usize, ending: Ending) {
        let (a, b) = (self.pick(a), self.pick(b));
        let (Some(a_home), Some(b_home)) = (self.dir(a).parent, self.dir(b).parent) else {
            return;
        };
        if self.chain(a).contains(&b) || self.chain(b).contains(&a) {
            return;
        }
        let (a_tree, b_tree) = (self.total(a), self.total(b));
        let expected = self.fits(
            &self.apart(b_home, a_home),
            a_tree.saturating_sub(b_tree).saturating_add(self.reserved(a)),
        ) && self.fits(
            &self.apart(a_home, b_home),
            b_tree.saturating_sub(a_tree).saturating_add(self.reserved(b)),
        );
        let (a_account, b_account) = (self.account(a_home), self.account(b_home));
        let answer = self.ledger.exchange(
            ExchangeSide {
                parent: &a_account,
                name: b"a",
                moved: Moved::Dir(self.account(a)),
            },
            ExchangeSide {
                parent: &b_account,
                name: b"b",
                moved: Moved::Dir(self.account(b)),
            },
        );
        assert_eq!(answer.is_ok(), expected);
        let Ok(transfer) = answer else { return };
        self.locked = vec![a, b, a_home, b_home];
        if self.end(transfer, ending) {
            self.dir_mut(a).parent = Some(b_home);
            self.dir_mut(b).parent = Some(a_home);
        }
        self.locked.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_what_a_recomputation_says(ops in proptest::collection::vec(op(), 1..80)) {
        let mut model = Model::new();
        for op in ops {
            model.apply(op, true);
        }
        model.held.clear();
        model.check(true);
        prop_assert!(model.ledger.inconsistent().is_empty());
    }
}
