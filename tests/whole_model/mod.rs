//! The whole file system against a plain model: the same steps to both, the same answers from both,
//! and now and then everything compared: names, contents, and what every directory is charged with.

// Each test program uses its own part of this module.
#![allow(dead_code)]

pub mod bare_side;
pub mod limits;
pub mod model;
pub mod op;
pub mod run;
