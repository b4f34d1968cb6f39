//! Notices on their way to people: what is told, to whom, in which form, and how often is tried.
//!
//! A notice is put into the outbox in the transaction that saves what was noticed ([`Board`]); one thread takes it from
//! there to its receivers ([`Courier`]). Delivery is at least once: a kill between a receiver's answer and the row that
//! notes it sends the same id again. Nothing here is in the way of a request.

mod attempt;
mod backoff;
mod board;
mod body;
mod courier;
mod episode;
mod hook;
mod lane;
mod mail;
mod notice;
mod post;
mod secret;
#[cfg(feature = "aws-lc")]
mod tls;

pub use attempt::{Origin, try_now};
pub use board::{Board, Counts};
pub use courier::{Courier, CourierParts};
pub use notice::{Notice, Status};
