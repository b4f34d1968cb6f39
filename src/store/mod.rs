//! The only module that touches recording files: sealed files over a backing that can be a real
//! file, memory, or a fault-injecting one in tests.

pub mod backing;
pub mod dirty_log;
pub mod error;
#[doc(hidden)]
pub mod fault_points;
pub mod files;
pub mod orphans;
pub mod sealed_file;
pub mod tree;
