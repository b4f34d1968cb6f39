//! The file system over a disk that fails: whatever call of the store fails, is cut short or hangs,
//! the caller gets its errno, no acknowledged byte is lost, and the books are what a scan finds.
//!
//! `TALLYFS_FAULT_ROUNDS=20000 cargo test --features fault-points --test store_faults -- --nocapture`
//! runs longer; `TALLYFS_FAULT_SEED` starts at another seed. A failure prints its seed.

mod importing;
#[path = "../common/rng.rs"]
mod rng;
mod slow;
mod world;

use world::World;

#[expect(
    clippy::disallowed_methods,
    reason = "a test takes its own settings from the environment"
)]
fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn no_failing_call_loses_a_byte_or_a_charge() {
    let first = from_env("TALLYFS_FAULT_SEED", 1);
    let rounds = from_env("TALLYFS_FAULT_ROUNDS", 40);
    let mut met = world::Met::default();
    for seed in first..first + rounds {
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.step();
        }
        met.add(&world.finish());
    }
    println!("{met}");
    met.assert_complete();
}
