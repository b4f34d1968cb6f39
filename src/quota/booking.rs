//! Room for a whole recording, promised when it is made: a call is refused at its start rather than cut in the middle.
//!
//! What is booked is part of what is reserved on the whole chain, so that nobody else gets it and every move takes it
//! along; `booked` beside it says how much of that stands for as long as a call does, so that nobody waits for it as for
//! an operation under way.

use super::account::Account;
use super::gate::Gate;
use super::ledger::{Hindrance, Ledger};
use super::overrides::LimitKey;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is left of the room of one recording. Dropped: it is given back.
pub struct Booking {
    ledger: Arc<Ledger>,
    account: Arc<Account>,
    left: u64,
}

impl Booking {
    /// The caller has booked these bytes.
    pub(super) fn new(ledger: Arc<Ledger>, account: Arc<Account>, left: u64) -> Self {
        Self { ledger, account, left }
    }

    /// Bytes that are not drawn yet.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if self.left == 0 {
            return;
        }
        let gate = self.ledger.lock();
        let exact = gate.unbook(&self.account, self.left);
        self.ledger
            .finish(gate, exact, &self.account, "giving booked room back");
    }
}

impl Ledger {
    /// Bytes that a new recording in the account books: what the innermost account above it says that says anything.
    pub fn recording_bytes(&self, account: &Account) -> u64 {
        if !self.has_bookings.load(Ordering::Relaxed) {
            return 0;
        }
        let gate = self.lock();
        let mut said = gate
            .chain(account)
            .filter_map(|(payer, _)| payer.limits().get(LimitKey::ReservePerRecording));
        said.next().unwrap_or(0)
    }
}

/// Draws up to so many bytes of what is booked in this account, as far as `attempt` then holds them: it is told how many
/// were drawn, and answers how many it held.
pub(super) fn draw<T>(
    gate: &mut Gate,
    account: &Account,
    booking: &mut Option<Booking>,
    wanted: u64,
    attempt: impl FnOnce(&mut Gate) -> Result<(u64, T), Hindrance>,
) -> Result<T, Hindrance> {
    // Moved to another account, it is cut like others.
    let Some(booking) = booking
        .as_mut()
        .filter(|booking| std::ptr::eq(Arc::as_ptr(&booking.account), account))
    else {
        return attempt(gate).map(|(_, done)| done);
    };
    let drawn = booking.left.min(wanted);
    // Never below zero: the booking itself holds them.
    let _ = gate.unbook(account, drawn);
    let answer = attempt(gate);
    let used = answer.as_ref().map_or(0, |(held, _)| drawn.min(*held));
    gate.book(account, drawn - used);
    booking.left -= used;
    answer.map(|(_, done)| done)
}
