//! TallyFS: a FUSE file system for call recordings.

pub mod clock;
pub mod config;
pub mod fs;
pub mod fuse;
pub mod id;
pub mod period;
pub mod quota;
pub mod sealed;
pub mod store;
pub mod sys;
pub mod units;
pub mod cli {
    pub fn main() -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
}
