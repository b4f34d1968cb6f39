//! The model of the whole, with a fuzzer that makes the decisions.
#![no_main]

mod common;
#[path = "../../whole_model/mod.rs"]
mod whole_model;

/// Longer sequences find little that shorter ones do not.
const STEPS_MAX: usize = 200;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let ops = whole_model::op::decode(bytes, STEPS_MAX);
    if let Err(e) = whole_model::run::run(&mut whole_model::bare_side::BareSide::new(), &ops) {
        panic!("{e}\n{ops:#?}");
    }
});
