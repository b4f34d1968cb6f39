//! Damage: looking for it, saving what it left, and mending what can be mended without a guess.

mod books;
mod examine;
mod finding;
mod fsck;
mod salvage;

pub use finding::{Finding, Findings, Kind};
pub use fsck::{Checked, Repair, Subject, fsck};
pub use salvage::{SalvageError, Salvaged, salvage};
