//! Any bytes to any parser of outside bytes; the first byte chooses which.
#![no_main]

#[path = "../../parsers/mod.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::any(bytes));
