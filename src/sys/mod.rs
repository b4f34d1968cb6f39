//! System calls that no safe crate offers, each behind a safe function.
//!
//! This is the only place in the crate where `unsafe` may stand: one operation per block, each with
//! its `SAFETY` comment. Nothing here knows what a recording or an account is.
#![allow(unsafe_code)]

pub mod allocator;
pub mod descriptors;
pub mod file_context;
pub mod file_handle;
pub mod groups;
pub mod limits;
pub mod locked_bytes;
pub mod shared_words;
pub mod thread_groups;

pub use file_handle::FileHandle;
pub use locked_bytes::LockedBytes;
pub use shared_words::SharedWords;
pub use thread_groups::thread_groups;
