//! What the daemon does with recordings by itself leaves no trace that clients would take for theirs.

mod common;

use std::ffi::OsStr;
use std::fs::{File, FileTimes};
use std::time::{Duration, UNIX_EPOCH};

use common::bare::{Bare, ROOT};
use tallyfs::fs::{NewMode, OpenMode};
use tallyfs::id::Fh;

const LENGTH: usize = 30_000;

/// A sealed recording in the root directory.
fn record(bare: &Bare) -> u64 {
    let how = OpenMode {
        reads: true,
        writes: true,
        ..OpenMode::default()
    };
    let made = bare
        .fs()
        .create(1, OsStr::new("call.wav"), NewMode::exactly(0o644), how, ROOT);
    let (entry, opened) = made.expect("a file");
    assert_eq!(bare.write(opened.fh, 0, &vec![7; LENGTH]).expect("written"), LENGTH);
    bare.fs().release(opened.fh).expect("closed");
    bare.commit_tick();
    entry.attr.ino.0
}

fn read_all(bare: &Bare, fh: Fh) -> usize {
    let mut buffer = vec![0; LENGTH + 1];
    bare.fs().read(fh, 0, &mut buffer).expect("read")
}

#[test]
fn hashing_and_looking_leave_the_access_time_and_reading_moves_it() {
    let mut bare = Bare::new();
    record(&bare);
    let backing = bare.data().join("call.wav");
    let past = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let accessed = || backing.metadata().expect("it is there").accessed().expect("a time");
    let times = FileTimes::new().set_accessed(past).set_modified(past);
    File::options()
        .write(true)
        .open(&backing)
        .expect("it is there")
        .set_times(times)
        .expect("times");
    assert!(
        !bare.fs().hashing().is_idle(),
        "the sealed recording waits for its hash"
    );
    bare.fs().hash_next(Duration::ZERO);
    bare.commit_tick();
    assert_eq!(accessed(), past, "after hashing");
    // Another daemon opens it anew: the head is read, and that is not reading it.
    bare.remount();
    let found = bare.fs().lookup(1, OsStr::new("call.wav"), ROOT).expect("a look-up");
    let tallyfs::fs::Found::Entry(entry) = found else {
        panic!("the recording is gone");
    };
    let opened = bare
        .fs()
        .open(entry.attr.ino.0, OpenMode::default(), ROOT)
        .expect("opened");
    assert_eq!(accessed(), past, "after opening");
    assert_eq!(read_all(&bare, opened.fh), LENGTH);
    assert!(accessed() > past, "reading moves it");
    bare.fs().release(opened.fh).expect("closed");
}

#[test]
fn a_hash_that_is_told_goes_into_the_head_unless_the_content_changes() {
    for (name, changes) in [("whole.wav", false), ("longer.wav", true)] {
        let bare = Bare::new();
        let how = OpenMode {
            writes: true,
            ..OpenMode::default()
        };
        let made = bare
            .fs()
            .create(1, OsStr::new(name), NewMode::exactly(0o644), how, ROOT);
        let (_, opened) = made.expect("a file");
        bare.write(opened.fh, 0, &vec![7; LENGTH]).expect("written");
        bare.fs().know_hash(opened.fh, [9; 32]).expect("taken");
        if changes {
            bare.write(opened.fh, LENGTH as u64, b"more").expect("written");
        }
        bare.fs().release(opened.fh).expect("closed");
        assert_eq!(bare.commit_tick().sealed_count, 1);
        assert_eq!(
            bare.fs().hashing().is_idle(),
            !changes,
            "{name}: read again when the hash is not known"
        );
    }
}
