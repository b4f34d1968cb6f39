//! The in-memory ledger: every byte, file and directory is charged here before it exists.
//!
//! A directory is an [`Account`]. `own` is what lies directly in it, `total` is `own` plus the totals of its
//! sub-directories, `reserved` is what is promised to operations whose I/O is under way and to open recordings, for itself
//! and all below.
//! Invariants: `total == own + sum of the children's totals`, and `total + reserved <= hard limit` for every meter
//! at every instant (unless a limit was set below what was there, or usage was forced in by recovery).
//!
//! All changes happen under one admission lock held for tens of nanoseconds, never over I/O; all figures are
//! atomics that anyone may read without it. Accounts with limits, tenants and the mount have terms beside them: what
//! their day and month have used, soft limits, warnings (see `terms`). Not here: files, SQL. The lock order is:
//! `DashMap` shard, admission lock, place or terms of an account.

mod account;
mod booking;
mod bucket;
mod external;
mod gate;
mod ledger;
mod limits;
mod operations;
mod overrides;
mod reservation;
mod terms;
mod told;
mod transfer;
mod trend;
mod warnings;
mod watch;
mod write;

#[cfg(test)]
mod tests;

pub use account::{Account, FlowCounts, MeterState};
pub use booking::Booking;
pub use bucket::{BucketQuota, BucketStats};
pub use external::{Exceeded, External, ExternalAmount, ExternalError, ExternalLimits, ExternalUsage, SavedExternal};
pub use ledger::{Available, Ledger, Room, Usage};
pub use limits::{Limits, Meter, Reason, Refusal};
pub use operations::{OperationCounts, OperationKind};
pub use overrides::{Bound, LimitKey, LimitOverrides, LimitUnit};
pub use reservation::Reservation;
pub use terms::{PeriodUsage, SavedTerms};
pub use told::{Noted, RefusalsTold, TakenTerms};
pub use transfer::{ExchangeSide, Moved, Transfer};
pub use trend::Trend;
pub use warnings::{EventKind, Steps, Warned};
pub use watch::{Event, Policy};
pub use write::WriteAsk;
