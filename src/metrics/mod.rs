//! Figures that are taken where requests are answered, and so must cost next to nothing: a few atomic additions, no lock,
//! no allocation, and no name. Names and text are the business of whoever tells them.

mod histogram;
mod requests;

pub use histogram::{BUCKETS, Histogram, Snapshot, bound_ns};
pub use requests::{RequestKind, RequestTimes};
