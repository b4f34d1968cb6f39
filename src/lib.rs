//! TallyFS: a FUSE file system for call recordings.
//!
//! Every byte is counted before it exists and sealed as it is written. ARCHITECTURE.md has the map.

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod id;
pub mod period;
pub mod quota;
pub mod sys;
pub mod units;
