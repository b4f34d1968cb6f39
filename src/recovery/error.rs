//! Why a count could not be made.

use std::io;
use std::path::PathBuf;

/// A failed scan or replay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk would not say. No count is better than a wrong one.
    #[error("{}: {operation}: {source}; usage cannot be counted until it can be read", path.display())]
    Read {
        /// Relative to the data directory.
        path: PathBuf,
        operation: &'static str,
        source: io::Error,
    },
    /// Rows and dirty log do not account for what is on disk: a full scan is needed.
    #[error("{}: {reason}; everything has to be scanned", path.display())]
    Disagree { path: PathBuf, reason: &'static str },
}

impl Error {
    /// A full scan can still succeed.
    pub fn asks_for_scan(&self) -> bool {
        matches!(self, Self::Disagree { .. })
    }
}
