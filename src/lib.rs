//! TallyFS: a FUSE file system for call recordings.

pub mod cli;
pub mod daemon;
pub mod id;
pub mod sys;
pub mod units;
