//! Handles that go on in the next process, in this process and by hand: kept, told twice, closed, without a name.

mod common;

use std::ffi::OsStr;
use std::fs;

use common::bare::{Bare, ROOT};
use tallyfs::fs::{NewMode, OpenMode, RenameKind, TakenOver, WriteAsked};
use tallyfs::id::Fh;

const REQUEST: u64 = 42;

/// A file that the kernel has been told of, with five bytes in it.
fn told(bare: &Bare, name: &str) -> Fh {
    let how = OpenMode {
        reads: true,
        writes: true,
        ..OpenMode::default()
    };
    let made = bare
        .fs()
        .create(1, OsStr::new(name), NewMode::exactly(0o644), how, ROOT);
    let fh = made.expect("a file").1.fh;
    bare.fs().keep(fh, REQUEST);
    assert_eq!(bare.write(fh, 0, b"audio"), Ok(5));
    fh
}

fn restart(bare: &mut Bare) -> TakenOver {
    bare.kill();
    bare.start();
    bare.recovered().taken_over
}

fn goes_on(handles_count: usize) -> TakenOver {
    TakenOver {
        handles_count,
        lost_count: 0,
    }
}

#[test]
fn a_handle_that_is_told_twice_is_kept_once_and_closed_once() {
    let mut bare = Bare::new();
    bare.keep_handles();
    let fh = told(&bare, "call.wav");
    assert_eq!(restart(&mut bare), goes_on(1));
    // The kernel did not hear of it, and asks again.
    let again = bare.fs().opened_before(REQUEST).expect("it was opened");
    assert_eq!(again.fh, fh);
    bare.fs().keep(fh, REQUEST);
    assert_eq!(restart(&mut bare), goes_on(1));
    bare.fs().release(fh).expect("it is open");
    assert_eq!(restart(&mut bare), goes_on(0));
}

#[test]
fn a_file_without_a_name_is_charged_in_the_next_process_until_it_is_closed() {
    let mut bare = Bare::new();
    bare.keep_handles();
    let fh = told(&bare, "call.wav");
    bare.fs().unlink(1, OsStr::new("call.wav")).expect("it is there");
    let orphans = bare.paths().orphans();
    for _ in 0..2 {
        assert_eq!(restart(&mut bare), goes_on(1));
        assert_eq!(bare.fs().ledger().root().total().bytes, 5);
        assert_eq!(fs::read_dir(&orphans).expect("it is there").count(), 1);
    }
    bare.fs().release(fh).expect("it is open");
    assert_eq!(bare.fs().ledger().root().total().bytes, 0);
    assert_eq!(fs::read_dir(&orphans).expect("it is there").count(), 0);
}

#[test]
fn an_append_that_is_sent_again_goes_where_it_went() {
    let mut bare = Bare::new();
    bare.keep_handles();
    let how = OpenMode {
        writes: true,
        appends: true,
        ..OpenMode::default()
    };
    let made = bare
        .fs()
        .create(1, OsStr::new("log"), NewMode::exactly(0o644), how, ROOT);
    let fh = made.expect("a file").1.fh;
    bare.fs().keep(fh, REQUEST);
    let append = |bare: &Bare, is_repeated| {
        let asked = WriteAsked {
            plain_offset: 0,
            data: b"audio",
            caller: ROOT,
            drops_privileges: false,
            from_mapping: false,
            is_repeated,
        };
        bare.fs().write(fh, &asked)
    };
    assert_eq!(append(&bare, false), Ok(5));
    assert_eq!(restart(&mut bare), goes_on(1));
    assert_eq!(append(&bare, true), Ok(5));
    assert_eq!(bare.fs().ledger().root().total().bytes, 5);
    assert_eq!(append(&bare, false), Ok(5));
    assert_eq!(
        bare.fs().ledger().root().total().bytes,
        10,
        "the next one goes to the end"
    );
}

#[test]
fn an_exchange_is_known_as_done_or_not_begun() {
    let mut bare = Bare::new();
    bare.keep_handles();
    let (a, b) = (OsStr::new("a"), OsStr::new("b"));
    told(&bare, "a");
    told(&bare, "b");
    bare.fs().begin_exchange(REQUEST, 1, a);
    restart(&mut bare);
    assert!(!bare.fs().is_exchanged(REQUEST, 1, a), "begun and not carried out");
    bare.fs().begin_exchange(REQUEST, 1, a);
    bare.fs()
        .rename(1, a, 1, b, RenameKind::Exchange)
        .expect("both are there");
    restart(&mut bare);
    assert!(bare.fs().is_exchanged(REQUEST, 1, a));
    assert!(!bare.fs().is_exchanged(REQUEST + 2, 1, a), "another one");
}

#[test]
fn what_was_opened_for_a_request_that_got_an_error_is_closed() {
    let mut bare = Bare::new();
    bare.keep_handles();
    let fh = told(&bare, "call.wav");
    assert_eq!(bare.fs().close_unanswered(&[REQUEST]), 0, "it is this process's own");
    assert_eq!(restart(&mut bare), goes_on(1));
    assert_eq!(bare.fs().close_unanswered(&[REQUEST - 2, REQUEST + 2]), 0);
    assert_eq!(bare.fs().close_unanswered(&[REQUEST - 2, REQUEST]), 1);
    assert!(bare.fs().release(fh).is_err(), "nobody has it");
    assert_eq!(bare.fs().close_unanswered(&[REQUEST]), 0);
    assert_eq!(restart(&mut bare), goes_on(0));
}
