//! Hashes of contents and what the database knows of sealed files, step by step: each test has the
//! threads of the daemon come at the worst moment.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::bare::{Bare, ROOT};
use sha2::{Digest, Sha256};
use tallyfs::daemon::baseline::Unhashed;
use tallyfs::db;
use tallyfs::fs::{Errno, Found, FsResult, NewMode, OpenMode, Opened, ROOT_NODE, SetAttr};
use tallyfs::id::Ino;
use tallyfs::store::sealed_file::{HeadFacts, SealedFile};

const NAME: &str = "call.wav";

fn both() -> OpenMode {
    OpenMode {
        reads: true,
        writes: true,
        ..OpenMode::default()
    }
}

fn write(bare: &Bare, opened: &Opened, plain_offset: u64, data: &[u8]) {
    assert_eq!(bare.write(opened.fh, plain_offset, data), Ok(data.len()));
}

/// A recording from start to end; the kernel forgets it.
fn record(bare: &Bare, content: &[u8]) -> u64 {
    let mode = NewMode::exactly(0o644);
    let (entry, opened) = bare
        .fs()
        .create(ROOT_NODE, OsStr::new(NAME), mode, both(), ROOT)
        .expect("a new file");
    write(bare, &opened, 0, content);
    end(bare, entry.attr.ino.0, &opened);
    entry.attr.ino.0
}

fn end(bare: &Bare, ino: u64, opened: &Opened) {
    bare.fs().release(opened.fh).expect("open");
    bare.fs().forget(ino, 1);
}

fn open(bare: &Bare, how: OpenMode) -> FsResult<(u64, Opened)> {
    let ino = match bare.fs().lookup(ROOT_NODE, OsStr::new(NAME), ROOT)? {
        Found::Entry(entry) => entry.attr.ino.0,
        Found::Absent | Found::AbsentForNow | Found::Figure(_) => return Err(Errno::ENOENT),
    };
    bare.fs().open(ino, how, ROOT).map(|opened| (ino, opened))
}

fn change(bare: &Bare, plain_offset: u64, data: &[u8]) {
    let (ino, opened) = open(bare, both()).expect("sound");
    write(bare, &opened, plain_offset, data);
    end(bare, ino, &opened);
}

fn backing(bare: &Bare) -> PathBuf {
    bare.data().join(NAME)
}

/// The head on disk.
fn head(bare: &Bare) -> HeadFacts {
    let file = File::open(backing(bare)).expect("there");
    let sealed = SealedFile::load_by_head(Arc::new(file), Arc::new(bare.ring())).expect("sound");
    sealed.head_facts().expect("not empty")
}

fn sha256(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

#[test]
fn a_hash_of_what_was_changed_meanwhile_reaches_no_head() {
    let bare = Bare::new();
    let mut content = vec![1; 30_000];
    record(&bare, &content);
    bare.commit_tick();
    // Hashed, and changed before the committer comes by.
    bare.fs().hash_next(Duration::ZERO);
    change(&bare, 9_000, &[2; 5_000]);
    bare.commit_tick();
    assert_eq!(head(&bare).content_sha256, [0; 32], "not known yet");
    bare.fs().hash_next(Duration::ZERO);
    bare.commit_tick();
    content[9_000..14_000].fill(2);
    assert_eq!(head(&bare).content_sha256, sha256(&content));
}

#[test]
fn what_a_stop_left_without_a_hash_gets_one_after_the_next_start() {
    let mut bare = Bare::new();
    // More than the hasher reads at once.
    let content: Vec<u8> = (0..2_500_000_u32).map(|n| (n / 251) as u8).collect();
    record(&bare, &content);
    bare.commit_tick();
    bare.remount();
    assert_eq!(head(&bare).content_sha256, [0; 32], "nobody hashed it");
    Unhashed::new(&bare.paths().database()).feed(bare.fs());
    bare.fs().hash_next(Duration::ZERO);
    bare.commit_tick();
    assert_eq!(head(&bare).content_sha256, sha256(&content));
    bare.stop();
}

#[test]
fn an_old_copy_is_refused_before_anything_of_the_new_one_is_saved() {
    let bare = Bare::new();
    record(&bare, &vec![4; 20_000]);
    bare.commit_tick();
    let old = fs::read(backing(&bare)).unwrap();
    change(&bare, 0, &vec![5; 20_000]);
    bare.commit_tick();
    for _ in 0..2 {
        bare.fs().hash_next(Duration::ZERO);
    }
    bare.commit_tick();
    fs::write(backing(&bare), &old).unwrap();
    let reads = OpenMode {
        reads: true,
        ..OpenMode::default()
    };
    assert_eq!(open(&bare, reads).map(|_| ()), Err(Errno::EIO));
}

#[test]
fn a_file_cut_to_zero_is_forgotten_though_a_kill_left_no_time_to_save_it() {
    let mut bare = Bare::new();
    let ino = record(&bare, &vec![6; 20_000]);
    bare.commit_tick();
    bare.save();
    let known = |bare: &Bare| {
        let reader = db::open_read_only(&bare.paths().database()).expect("a database");
        reader.sealed(Ino(ino)).expect("readable").is_some()
    };
    assert!(known(&bare));
    let (node, opened) = open(&bare, both()).expect("sound");
    let to_zero = SetAttr {
        plain_length: Some(0),
        ..SetAttr::default()
    };
    bare.fs().setattr(node, &to_zero, ROOT).expect("cut");
    end(&bare, node, &opened);
    bare.kill();
    assert!(known(&bare), "nothing was saved");
    bare.start();
    assert_eq!(fs::metadata(backing(&bare)).unwrap().len(), 0);
    assert!(!known(&bare));
}

#[test]
fn rows_that_two_killed_daemons_left_missing_are_made_by_the_third() {
    let mut bare = Bare::new();
    let ino = record(&bare, &vec![7; 20_000]);
    bare.commit_tick();
    let is_known = |bare: &Bare| {
        let reader = db::open_read_only(&bare.paths().database()).expect("a database");
        reader.sealed(Ino(ino)).expect("readable").is_some()
    };
    // Sealed, and not saved; then a start that saves all, and a kill before it looks at the directory.
    for _ in 0..2 {
        bare.kill();
        bare.start();
        bare.save();
        assert!(!is_known(&bare));
    }
    let unsaved = bare.take_unsaved();
    assert!(!unsaved.is_empty());
    for directory in unsaved {
        assert!(bare.fs().take_up_directory(directory).is_continue());
        bare.fs().notes().taken_up(directory);
    }
    bare.save();
    assert!(is_known(&bare));
    bare.kill();
    bare.start();
    assert_eq!(bare.take_unsaved(), [], "taken up once");
}

#[test]
fn a_change_on_its_way_to_the_database_counts_when_a_file_is_opened() {
    let bare = Bare::new();
    record(&bare, &vec![4; 20_000]);
    bare.commit_tick();
    let old = fs::read(backing(&bare)).unwrap();
    change(&bare, 0, &vec![5; 20_000]);
    bare.commit_tick();
    for _ in 0..2 {
        bare.fs().hash_next(Duration::ZERO);
    }
    bare.commit_tick();
    let _on_its_way = bare.fs().notes().take();
    fs::write(backing(&bare), &old).unwrap();
    assert_eq!(open(&bare, both()).map(|_| ()), Err(Errno::EIO));
}
