//! The model of the whole, through a real mount: the kernel before it, a daemon that is killed.
//!
//! `TALLYFS_MODEL_OPS=20000 cargo test --test mount_model -- --nocapture` takes that many steps;
//! `TALLYFS_MODEL_SEED` starts at another seed. A failure prints its seed and the shortest sequence that still fails.

mod common;
#[path = "whole_model/mount_side.rs"]
mod mount_side;
mod whole_model;

use common::env::from_env;
use mount_side::MountSide;
use whole_model::op::sequence;
use whole_model::run::{Counts, run_or_shrink};

/// Steps on one store at most.
const STEPS: u64 = 400;
/// Steps of an ordinary run.
const STEPS_ORDINARY: u64 = 120;

#[test]
fn a_mount_does_what_the_model_does() {
    let first = from_env("TALLYFS_MODEL_SEED", 1);
    let ops = from_env("TALLYFS_MODEL_OPS", STEPS_ORDINARY);
    let mut counts = Counts::default();
    for seed in first..first + ops.div_ceil(STEPS) {
        let name = format!("TALLYFS_MODEL_SEED={seed}");
        counts = counts.plus(run_or_shrink(
            &name,
            &sequence(seed, ops.min(STEPS) as usize),
            MountSide::new,
        ));
    }
    println!("{ops} steps through a mount: no difference; {counts:?}");
}
