//! A crossing and its notice are one transaction: whatever a kill comes between, there is one of each in the end.

mod common;

use std::ffi::OsStr;
use std::sync::Arc;

use common::bare::{Bare, ROOT};
use rusqlite::Connection;
use tallyfs::fs::{NewMode, OpenMode};
use tallyfs::quota::{Account, EventKind, Ledger};

const CONFIG: &str = "[[rules]]\npath = \"{tenant}\"\n[rules.limits.tenant]\nmax_bytes = 10000\nsoft_bytes = 9000\n\
                      [[alerts.receivers]]\nname = \"ops\"\nexec = [\"/bin/true\"]\n\
                      [[alerts.receivers]]\nname = \"others\"\nexec = [\"/bin/true\"]\nkinds = [\"over_soft\"]\n";

/// Kind and receiver of each notice in the outbox.
fn outbox(bare: &Bare) -> Vec<String> {
    let db = Connection::open(bare.paths().database()).expect("the database");
    let mut rows = db
        .prepare("SELECT kind || ' ' || receiver FROM outbox ORDER BY created_s, kind, receiver")
        .expect("the table");
    let rows = rows.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

fn acme(ledger: &Ledger) -> Arc<Account> {
    let accounts = ledger.accounts();
    let acme = accounts.into_iter().find(|account| account.path() == b"acme");
    acme.expect("the tenant")
}

fn tick(bare: &Bare) -> usize {
    bare.fs().ledger().tick().len()
}

/// A store with a recording of so many bytes in the tenant, that nobody has looked at yet.
fn store_with(bytes: usize) -> Bare {
    let bare = Bare::with_config(CONFIG);
    let entry = bare.fs().mkdir(1, OsStr::new("acme"), NewMode::exactly(0o755), ROOT);
    let acme = entry.expect("a directory").attr.ino.0;
    record(&bare, acme, "a", bytes);
    bare
}

fn record(bare: &Bare, directory: u64, name: &str, bytes: usize) {
    let how = OpenMode {
        writes: true,
        ..OpenMode::default()
    };
    let mode = NewMode::exactly(0o644);
    let made = bare.fs().create(directory, OsStr::new(name), mode, how, ROOT);
    let fh = made.expect("a file").1.fh;
    assert_eq!(bare.write(fh, 0, &vec![1; bytes]), Ok(bytes));
    bare.fs().release(fh).expect("closed");
}

#[test]
fn a_kill_before_the_save_lets_the_crossing_be_noticed_again_and_one_after_it_does_not() {
    let mut bare = store_with(8500);
    assert_eq!(tick(&bare), 1, "80 %");
    bare.kill();
    bare.start();
    assert_eq!(outbox(&bare), [] as [&str; 0]);
    assert_eq!(tick(&bare), 1, "noticed again");
    bare.save();
    assert_eq!(outbox(&bare), ["near_limit ops"]);
    bare.kill();
    bare.start();
    assert_eq!(tick(&bare), 0, "known");
    bare.save();
    assert_eq!(outbox(&bare), ["near_limit ops"]);
}

#[test]
fn a_save_between_a_request_and_the_next_look_tells_nothing_and_loses_nothing() {
    let mut bare = store_with(8500);
    tick(&bare);
    bare.save();
    let acme = acme(bare.fs().ledger()).ino().0;
    record(&bare, acme, "b", 1000);
    // The next request sees that the limit is passed.
    record(&bare, acme, "c", 4);
    bare.save();
    bare.kill();
    bare.start();
    let told = bare.fs().ledger().tick();
    let soft = |kind: &EventKind| matches!(kind, EventKind::OverSoft { .. });
    assert!(told.iter().any(|event| soft(&event.kind)), "{told:?}");
    bare.save();
    assert_eq!(outbox(&bare), ["near_limit ops", "over_soft ops", "over_soft others"]);
}

#[test]
fn notices_that_could_not_be_saved_are_saved_later_and_once() {
    let mut bare = store_with(8500);
    let other = Connection::open(bare.paths().database()).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    tick(&bare);
    assert!(bare.try_save().is_err());
    other.execute_batch("ROLLBACK").expect("unlocked");
    assert_eq!(outbox(&bare), [] as [&str; 0]);
    bare.save();
    bare.save();
    assert_eq!(outbox(&bare), ["near_limit ops"]);
}
