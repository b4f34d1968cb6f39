//! TallyFS: a FUSE file system for call recordings.
//!
//! Every byte is counted before it exists and sealed as it is written. ARCHITECTURE.md has the map.

pub mod admin;
pub mod alert;
pub mod audio;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod db;
pub mod fs;
pub mod fuse;
pub mod id;
pub mod mend;
pub mod metrics;
pub mod period;
pub mod private_file;
pub mod quota;
pub mod recovery;
pub mod sealed;
pub mod store;
pub mod sys;
pub mod units;
