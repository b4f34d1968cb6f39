//! The in-memory ledger: every byte, file and directory is charged here before it exists.
//!
//! A directory is an [`Account`]. `own` is what lies directly in it, `total` is `own` plus the totals of its
//! sub-directories, `reserved` is what is promised to operations whose I/O is under way, for itself and all below.
//! Invariants: `total == own + sum of the children's totals`, and `total + reserved <= hard limit` for every meter
//! at every instant (unless a limit was set below what was there, or usage was forced in by recovery).
//!
//! All changes happen under one admission lock held for tens of nanoseconds, never over I/O; all figures are
//! atomics that anyone may read without it. Not here: files, time, SQL. The lock order is: `DashMap` shard,
//! admission lock, place of an account.

mod account;
mod gate;
mod ledger;
mod limits;
mod overrides;
mod reservation;
mod transfer;
mod write;

#[cfg(test)]
mod tests;

pub use account::{Account, FlowCounts};
pub use ledger::{Available, Ledger, Room, Usage};
pub use limits::{Limits, Meter, Refusal};
pub use overrides::{Bound, LimitKey, LimitOverrides};
pub use reservation::Reservation;
pub use transfer::{ExchangeSide, Moved, Transfer};
pub use write::WriteAsk;
