//! Charge first: requests that may be refused, and what is held for them until their I/O is done.
//!
//! A thread holds one [`Reservation`] at a time while it asks for another only if the two cannot meet in a limited
//! account: at a limit a request waits for the unfinished operations of others, and two that wait for each other
//! end only by the ledger's patience.

use super::account::Account;
use super::booking::{Booking, draw};
use super::gate::{Asked, Gate, Obstacle, obstacle};
use super::ledger::{Hindrance, Ledger};
use super::limits::{Meter, Reason, Refusal, UNLIMITED};
use super::terms::Ceiling;
use super::write::WriteAsk;
use crate::units::Meters;
use std::sync::Arc;

/// Room held for an operation in an account, on its whole chain. Dropped: all of it is given back.
#[must_use = "dropping it gives the room back"]
pub struct Reservation {
    ledger: Arc<Ledger>,
    account: Arc<Account>,
    amount: Meters,
}

impl Reservation {
    /// What is held.
    pub fn amount(&self) -> Meters {
        self.amount
    }

    /// For whom.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Turns what really came to be into usage and gives the rest back, on the chain as it is now. More than was held is
    /// a bug; it is charged all the same, for it exists.
    pub fn claim(mut self, actual: Meters) {
        if actual.min(self.amount) != actual {
            self.ledger
                .report_miscount(&self.account, "claiming more than was reserved");
        }
        self.settle(actual);
    }

    /// A new file came to be. The bytes that were held with it stay kept for what is recorded into it.
    pub fn claim_recording(mut self) -> Option<Booking> {
        let promised = std::mem::take(&mut self.amount);
        let gate = self.ledger.lock();
        let exact = gate.settle(&self.account, promised, Meters::of_file(0));
        if promised.bytes > 0 {
            gate.book(&self.account, promised.bytes);
        }
        self.ledger.finish(gate, exact, &self.account, "booking a recording");
        (promised.bytes > 0).then(|| Booking::new(Arc::clone(&self.ledger), Arc::clone(&self.account), promised.bytes))
    }

    fn settle(&mut self, actual: Meters) {
        let promised = std::mem::take(&mut self.amount);
        if promised.is_zero() && actual.is_zero() {
            return;
        }
        let gate = self.ledger.lock();
        let exact = gate.settle(&self.account, promised, actual);
        self.ledger.finish(gate, exact, &self.account, "settling a reservation");
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle(Meters::ZERO);
    }
}

impl Ledger {
    /// Holds an amount on every account of the chain, or on none.
    ///
    /// # Errors
    /// The account that refuses, innermost first. Only when the amount did not fit at some instant of the call even if
    /// every unfinished operation had given back what it held.
    pub fn reserve(self: &Arc<Self>, account: &Arc<Account>, wanted: Meters) -> Result<Reservation, Refusal> {
        let now_s = self.now_s();
        let mut gate = self.lock();
        let held = self.when_it_fits(&mut gate, |gate| hold_if_free(gate, account, wanted, now_s));
        drop(gate);
        match held {
            Ok(()) => Ok(self.reservation(account, wanted)),
            Err(obstacle) => Err(self.refusal(obstacle)),
        }
    }

    /// Holds the growth of a write, all of it or as much as fits now (see [`WriteAsk`] and QUOTA.md section 2). Returns
    /// how many bytes may be written: 0 only when 0 were asked for.
    ///
    /// # Errors
    /// Nothing of it fits: the innermost account that refuses; the smallest file size of the chain is asked first.
    pub fn reserve_write(
        self: &Arc<Self>,
        account: &Arc<Account>,
        ask: WriteAsk,
    ) -> Result<(u64, Reservation), Refusal> {
        self.reserve_recording_write(account, ask, &mut None)
    }

    /// The same, drawn from what the recording has booked as far as that goes.
    ///
    /// # Errors
    /// As [`Ledger::reserve_write`].
    pub fn reserve_recording_write(
        self: &Arc<Self>,
        account: &Arc<Account>,
        ask: WriteAsk,
        booking: &mut Option<Booking>,
    ) -> Result<(u64, Reservation), Refusal> {
        if ask.growth() == 0 {
            return Ok((ask.size, self.reservation(account, Meters::ZERO)));
        }
        let now_s = self.now_s();
        let mut gate = self.lock();
        let cut = self.when_it_fits(&mut gate, |gate| {
            let sized = within_file_size(gate, account, ask).map_err(Hindrance::Full)?;
            draw(gate, account, booking, sized.growth(), |gate| {
                let cut = within_room(gate, account, sized, now_s).map_err(Hindrance::Full)?;
                gate.hold(account, Meters::of_bytes(cut.growth()));
                Ok((cut.growth(), cut))
            })
        });
        drop(gate);
        match cut {
            Ok(cut) => Ok((cut.size, self.reservation(account, Meters::of_bytes(cut.growth())))),
            Err(obstacle) => Err(self.refusal(obstacle)),
        }
    }

    /// Holds the growth of a file to a new length (truncate up, fallocate), all or nothing. Not longer: nothing is held.
    ///
    /// # Errors
    /// Like [`Ledger::reserve`]; before that the smallest file size of the chain.
    pub fn reserve_length(
        self: &Arc<Self>,
        account: &Arc<Account>,
        old_length: u64,
        new_length: u64,
    ) -> Result<Reservation, Refusal> {
        self.reserve_recording_length(account, old_length, new_length, &mut None)
    }

    /// The same, drawn from what the recording has booked as far as that goes.
    ///
    /// # Errors
    /// As [`Ledger::reserve_length`].
    pub fn reserve_recording_length(
        self: &Arc<Self>,
        account: &Arc<Account>,
        old_length: u64,
        new_length: u64,
        booking: &mut Option<Booking>,
    ) -> Result<Reservation, Refusal> {
        let growth = Meters::of_bytes(new_length.saturating_sub(old_length));
        if growth.is_zero() {
            return Ok(self.reservation(account, growth));
        }
        let now_s = self.now_s();
        let mut gate = self.lock();
        let held = self.when_it_fits(&mut gate, |gate| match smallest_file_size(gate, account) {
            Some((payer, limit)) if new_length > limit => Err(Hindrance::Full(file_size_obstacle(
                payer, limit, old_length, new_length,
            ))),
            _ => draw(gate, account, booking, growth.bytes, |gate| {
                hold_if_free(gate, account, growth, now_s)?;
                Ok((growth.bytes, ()))
            }),
        });
        drop(gate);
        match held {
            Ok(()) => Ok(self.reservation(account, growth)),
            Err(obstacle) => Err(self.refusal(obstacle)),
        }
    }

    fn reservation(self: &Arc<Self>, account: &Arc<Account>, amount: Meters) -> Reservation {
        Reservation {
            ledger: Arc::clone(self),
            account: Arc::clone(account),
            amount,
        }
    }
}

fn hold_if_free(gate: &Gate, account: &Account, wanted: Meters, now_s: i64) -> Result<(), Hindrance> {
    let payers = gate.chain(account).map(|(payer, _)| payer);
    if let Some(found) = obstacle(payers, wanted, Asked::Growth, now_s) {
        return Err(Hindrance::Full(found));
    }
    gate.hold(account, wanted);
    Ok(())
}

/// The innermost account with the smallest limit of one file's size.
fn smallest_file_size<'a>(gate: &'a Gate, account: &Account) -> Option<(&'a Arc<Account>, u64)> {
    let payers = gate
        .chain(account)
        .map(|(payer, _)| (payer, payer.limits.raw(Meter::FileSize)));
    payers
        .filter(|(_, limit)| *limit != UNLIMITED)
        .min_by_key(|(_, limit)| *limit)
}

fn file_size_obstacle(payer: &Arc<Account>, limit: u64, used: u64, wanted: u64) -> Obstacle {
    Obstacle {
        account: Arc::clone(payer),
        ceiling: Ceiling {
            meter: Meter::FileSize,
            used,
            limit,
            reason: Reason::Hard,
        },
        wanted,
        lasting: true,
    }
}

fn within_file_size(gate: &Gate, account: &Account, ask: WriteAsk) -> Result<WriteAsk, Obstacle> {
    let Some((payer, limit)) = smallest_file_size(gate, account) else {
        return Ok(ask);
    };
    let wanted = ask.old_length.saturating_add(ask.growth());
    ask.within_file_size(limit)
        .ok_or_else(|| file_size_obstacle(payer, limit, ask.old_length, wanted))
}

fn within_room(gate: &Gate, account: &Account, ask: WriteAsk, now_s: i64) -> Result<WriteAsk, Obstacle> {
    let mut cut = ask;
    let mut for_now = None;
    for (payer, _) in gate.chain(account) {
        let of_bytes = payer.growth_meters().iter().filter(|meter| meter.is_bytes());
        for ceiling in of_bytes.filter_map(|&meter| payer.ceiling(meter, now_s)) {
            let left = ceiling.limit.saturating_sub(ceiling.used);
            let settled_room = left.saturating_sub(payer.booked.load().bytes);
            let room = left.saturating_sub(payer.reserved.load().bytes);
            if let Some(smaller) = cut.within_room(room) {
                cut = smaller;
                continue;
            }
            let found = Obstacle {
                account: Arc::clone(payer),
                ceiling,
                wanted: ask.growth(),
                lasting: ask.within_room(settled_room).is_none(),
            };
            if found.lasting {
                return Err(found);
            }
            for_now.get_or_insert(found);
        }
    }
    for_now.map_or(Ok(cut), Err)
}
