//! Counting what is on disk: all of it after a power cut, what the dirty log names after a kill,
//! and the comparison of two counts. Nothing here writes.

mod check;
mod error;
mod list;
mod replay;
mod scan;

#[cfg(test)]
mod tests;

pub use check::{Difference, compare};
pub use error::Error;
pub use list::{Counted, Damaged, Probe, Stats, Unclean, limits_on};
pub use replay::replay;
pub use scan::scan;
