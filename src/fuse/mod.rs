//! The adapter to FUSE: decode a request, call one function of `fs`, reply. Nothing else.
//!
//! A reply is the last thing that a method does, after every guard is gone: the kernel may send the
//! release of a handle the moment the reply is written.

mod adapter;
mod convert;
mod handshake;
mod look_out;
mod readers;
mod repeated;
mod session;
mod sync_gate;
mod unanswered;

#[cfg(feature = "fault-points")]
pub use handshake::pretend_no_resend;
pub use readers::Drain;
pub use session::{Invalidator, Session};
