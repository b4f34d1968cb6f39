//! The store on disk.

pub mod dirty_log;
