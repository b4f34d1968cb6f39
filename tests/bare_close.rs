//! Putting a store away with handles that no release came for any more.

mod common;

use std::ffi::OsStr;

use common::bare::{Bare, ROOT};
use tallyfs::fs::{NewMode, OpenMode};

/// The second daemon has nothing to do but to be killed.
#[test]
fn a_recording_that_two_kills_left_unsealed_is_given_back_whole() {
    let mut bare = Bare::new();
    let how = OpenMode {
        writes: true,
        ..OpenMode::default()
    };
    let made = bare
        .fs()
        .create(1, OsStr::new("call.wav"), NewMode::exactly(0o644), how, ROOT);
    assert_eq!(bare.write(made.expect("a file").1.fh, 0, b"audio"), Ok(5));
    for _ in 0..2 {
        bare.kill();
        bare.start();
        assert_eq!(bare.fs().ledger().root().total().bytes, 5);
    }
    bare.fs().unlink(1, OsStr::new("call.wav")).expect("it is there");
    assert_eq!(bare.fs().ledger().root().total().bytes, 0);
}

#[test]
fn files_and_directories_that_are_still_open_are_put_away() {
    let mut bare = Bare::new();
    let how = OpenMode {
        reads: true,
        writes: true,
        ..OpenMode::default()
    };
    bare.fs().opendir(1).expect("a directory opens");
    let made = bare
        .fs()
        .create(1, OsStr::new("call.wav"), NewMode::exactly(0o644), how, ROOT);
    assert_eq!(bare.write(made.expect("a file").1.fh, 0, b"audio"), Ok(5));
    bare.remount();
    let kept = std::fs::metadata(bare.data().join("call.wav")).expect("it is there");
    assert_eq!(kept.len(), 20_480 + 5, "sealed at the stop");
}
