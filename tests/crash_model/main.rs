//! The crash model: no fsync'd byte is lost and no stale byte comes back, whatever the power takes.
//!
//! `TALLYFS_CRASH_IMAGES=50000 cargo test --test crash_model -- --nocapture` looks at that many crash
//! images (`--features rule-switches` adds the proof that every write rule is needed); `TALLYFS_CRASH_SEED` starts at another seed. A failure prints its seed.

mod disk;
#[path = "../common/env.rs"]
mod env;
mod history;
#[cfg(feature = "rule-switches")]
mod mutations;
mod oracle;
#[path = "../common/rng.rs"]
mod rng;

use env::from_env;
use history::{Counts, History, Options};

/// Runs histories until `images` crash images were looked at.
fn run(first_seed: u64, images: u64) -> Result<Counts, (u64, Counts, String)> {
    let mut counts = Counts::default();
    let mut seed = first_seed;
    while counts.images < images {
        let mut history = History::new(seed, Options::of(seed));
        let outcome = history.run();
        counts.images += history.counts.images;
        counts.kills += history.counts.kills;
        counts.made_up += history.counts.made_up;
        counts.histories += 1;
        if let Err(loss) = outcome {
            let log: Vec<String> = loss.log.iter().rev().take(40).rev().cloned().collect();
            return Err((seed, counts, format!("{}\n  {}", loss.what, log.join("\n  "))));
        }
        seed += 1;
    }
    Ok(counts)
}

#[test]
fn q22_no_power_cut_loses_what_was_synced() {
    let images = from_env("TALLYFS_CRASH_IMAGES", 3000);
    let seed = from_env("TALLYFS_CRASH_SEED", 1);
    match run(seed, images) {
        Ok(counts) => println!(
            "{} crash images and {} kills in {} histories, {} failed syncs made up for: 0 losses",
            counts.images, counts.kills, counts.histories, counts.made_up
        ),
        Err((seed, counts, what)) => panic!("TALLYFS_CRASH_SEED={seed} after {} images: {what}", counts.images),
    }
}

/// A recording in frames, synced, with one more frame behind; then block 3 goes bad.
fn damaged_in_the_middle() -> Result<(), String> {
    use tallyfs::store::backing::Backing;
    use tallyfs::store::sealed_file::WriteOptions;

    let disk = disk::Disk::new(disk::State::default(), 1);
    let mut file = history::File::new_empty(disk.clone(), history::ring(), WriteOptions::default());
    for frame in 0..130 {
        let at = file.plain_length();
        file.write(at, &rng::content(frame, 320)).map_err(|e| e.to_string())?;
        if frame >= 127 {
            file.sync_now().map_err(|e| e.to_string())?;
        }
    }
    disk.write_at(&[0xee; 4096], tallyfs::sealed::body_offset(3))
        .map_err(|e| e.to_string())?;
    let file = history::File::load(disk, history::ring(), WriteOptions::default()).map_err(|e| e.to_string())?;
    let found = history::read_all(&file);
    let unreadable = found.pieces.iter().filter(|(_, _, piece)| piece.is_none()).count();
    if found.length == 130 * 320 && unreadable == 1 {
        return Ok(());
    }
    Err(format!("length {} and {unreadable} unreadable blocks", found.length))
}

#[test]
fn a_bad_block_of_an_unclean_file_is_not_its_end() {
    assert_eq!(damaged_in_the_middle(), Ok(()));
}
