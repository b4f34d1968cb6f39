//! Damage: looking for it, saving what it left, and mending what can be mended without a guess.

mod books;
mod examine;
mod finding;
mod fsck;
mod known;
mod salvage;
mod scrub;

pub use finding::{Finding, Findings, Kind};
pub use fsck::{Checked, Repair, Subject, fsck};
pub use known::trusted;
pub use salvage::{SalvageError, Salvaged, salvage};
pub use scrub::{Pace, Progress, scrub};

/// When the rows of sealed files were lost, in seconds since 1970; `None`: they were not.
pub fn baseline_lost(subject: &Subject<'_>) -> Option<u64> {
    known::Known::open(subject.root, &subject.ring).lost_since_s()
}
