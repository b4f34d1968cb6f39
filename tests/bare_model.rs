//! The model of the whole, without FUSE.
//!
//! `TALLYFS_MODEL_SEEDS=1000 TALLYFS_MODEL_OPS=400 cargo test --test bare_model -- --nocapture` takes that many
//! sequences of that many steps; `TALLYFS_MODEL_SEED` starts at another seed. A failure prints its seed and
//! the shortest sequence that still fails.

mod common;
mod whole_model;

use common::env::from_env;
use whole_model::bare_side::BareSide;
use whole_model::op::{How, Kind, Op, sequence};
use whole_model::run::{Counts, run_or_shrink};

#[test]
fn the_file_system_does_what_the_model_does() {
    let first = from_env("TALLYFS_MODEL_SEED", 1);
    let seeds = from_env("TALLYFS_MODEL_SEEDS", 80);
    let ops = from_env("TALLYFS_MODEL_OPS", 250) as usize;
    let mut counts = Counts::default();
    for seed in first..first + seeds {
        let name = format!("TALLYFS_MODEL_SEED={seed}");
        counts = counts.plus(run_or_shrink(&name, &sequence(seed, ops), BareSide::new));
    }
    println!("{seeds} sequences of {ops} steps: no difference; {counts:?}");
    assert!(
        counts.done > 0 && counts.over_limit > 0 && counts.cut > 0,
        "the sequences reach neither contents nor limits: {counts:?}"
    );
}

/// Rare among drawn sequences: names inside and beside a directory that moves.
#[test]
fn an_inode_with_several_names_is_charged_anew_when_a_directory_moves() {
    let mkdir = |path: &str| Op::Mkdir { path: path.to_owned() };
    let how = How {
        writes: true,
        creates: true,
        ..How::default()
    };
    let ops = [
        mkdir("a"),
        mkdir("a/a"),
        mkdir("b"),
        Op::Open {
            slot: 0,
            path: "a/a/c".to_owned(),
            how,
        },
        Op::Write {
            slot: 0,
            at: 0,
            bytes: 5_000,
        },
        Op::Link {
            path: "a/a/c".to_owned(),
            new: "a/c".to_owned(),
        },
        Op::Rename {
            path: "a/a".to_owned(),
            new: "b/a".to_owned(),
            kind: Kind::Replace,
        },
        Op::Kill,
    ];
    run_or_shrink("names on both sides", &ops, BareSide::new);
}
