//! The database: the only module that speaks SQL. It holds rows, not rules; memory is the truth
//! while the daemon runs, the database is at most a second behind, and losing it loses nothing
//! that a scan cannot bring back.

mod baseline;
mod database;
mod error;
mod external;
mod load;
mod open;
mod operations;
mod outbox;
mod reader;
mod rows;
mod schema;
mod terms;
mod totals;
mod writer;

#[cfg(test)]
mod tests;

pub use database::Database;
pub use error::Error;
pub use open::Found;
pub use reader::{Reader, check_writable, open_read_only};
pub use rows::{
    AuditRow, Batch, DayDelta, DayRow, DirRow, Identity, LastRun, LinkRow, OperationsDelta, OutboxRow, OutboxState,
    PlaceRow, SealedRow, Snapshot, TermsRow,
};
pub use totals::Totals;
pub use writer::{Ask, Collected, Errands, Writer, WriterStatus};
