//! The database goes wrong while recordings run: they go on, log and `status` say what is wrong and
//! what to do, and the figures are right when it is over.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::command::text;
use common::{Mount, Setup, make_file, run, wait};
use rusqlite::Connection;

fn database(mount: &Mount) -> PathBuf {
    mount.store().join("tallyfs.db")
}

fn open(path: &Path) -> Connection {
    Connection::open(path).expect("the database opens beside the daemon")
}

fn status(mount: &Mount) -> String {
    run(common::mount::tallyfs(), &["status", text(&mount.store())])
}

/// A recording from start to end; nobody notices the database.
#[track_caller]
fn record(mount: &Mount, name: &str) {
    let dir = mount.dir("acme/sales");
    make_file(&dir.join(name), 9_000);
    assert_eq!(common::read(&dir.join(name)).len(), 9_000);
}

#[track_caller]
fn wait_for_log(mount: &Mount, words: &str) {
    wait::until(words, || mount.log().contains(words).then_some(()));
}

/// The figures are saved again, and true; so they are after a stop.
#[track_caller]
fn all_is_well(mount: Mount) {
    record(&mount, "afterwards.wav");
    mount.assert_usage_true();
    let status = status(&mount);
    assert!(!status.contains("database:"), "{status}");
    mount.finish();
}

#[test]
fn a_database_that_is_locked_stops_no_recording() {
    let mount = Mount::new();
    record(&mount, "before.wav");
    let other = open(&database(&mount));
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    record(&mount, "meanwhile.wav");
    wait_for_log(&mount, "another program holds the database locked");
    let said = status(&mount);
    assert!(said.contains("another program holds the database locked"), "{said}");
    record(&mount, "later.wav");
    other.execute_batch("ROLLBACK").expect("unlocked");
    drop(other);
    all_is_well(mount);
}

#[test]
fn a_database_that_is_deleted_is_made_anew() {
    let mut mount = Mount::new();
    record(&mount, "before.wav");
    mount.assert_usage_true();
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", database(&mount).display());
        fs::remove_file(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    record(&mount, "meanwhile.wav");
    wait_for_log(&mount, "all rows are written again");
    mount.assert_usage_true();
    mount.stop();
    fs::remove_file(database(&mount)).expect("deleted while nobody runs");
    let said = status(&mount);
    assert!(said.contains("missing; the next mount makes it anew"), "{said}");
    mount.start();
    all_is_well(mount);
}

#[test]
fn a_database_that_is_damaged_is_set_aside_and_everything_counted_again() {
    let mut mount = Mount::new();
    record(&mount, "before.wav");
    mount.assert_usage_true();
    let path = database(&mount);
    let size = fs::metadata(&path).expect("the database").len();
    let mut file = fs::File::options().write(true).open(&path).expect("to be damaged");
    file.write_all(&vec![0xa5; size as usize]).expect("damage");
    record(&mount, "meanwhile.wav");
    let said = status(&mount);
    assert!(said.contains("the database is damaged"), "{said}");
    assert!(said.contains("sets it aside"), "{said}");
    record(&mount, "later.wav");
    mount.kill9();
    let log = mount.log();
    assert!(
        log.contains("damaged") && log.contains("everything is counted anew"),
        "{log}"
    );
    let kept = fs::read_dir(mount.store()).expect("the store");
    let kept = kept.filter(|e| {
        e.as_ref()
            .is_ok_and(|e| e.file_name().to_string_lossy().contains(".damaged-"))
    });
    assert!(kept.count() > 0, "the damaged one is kept");
    all_is_well(mount);
}

/// Puts the immutable flag back off, or the directory could not be removed.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: &Path) -> Self {
        run("chattr", &["+i", text(path)]);
        Self(path.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        common::succeeds("chattr", &["-i", text(&self.0)]);
    }
}

#[test]
fn a_database_that_is_made_read_only_is_written_when_it_can_be() {
    let mount = Setup::new().small_disk(48).mount();
    record(&mount, "before.wav");
    mount.assert_usage_true();
    let path = database(&mount);
    let held = [
        Immutable::new(&path),
        Immutable::new(Path::new(&format!("{}-wal", text(&path)))),
    ];
    record(&mount, "meanwhile.wav");
    wait_for_log(&mount, "writing is tried again");
    let said = status(&mount);
    assert!(
        said.contains("the database cannot be written; check its owner, its mode"),
        "{said}"
    );
    drop(held);
    all_is_well(mount);
}

#[test]
fn a_database_on_a_full_disk_is_written_when_there_is_room() {
    let mut mount = Setup::new().small_disk(48).mount();
    record(&mount, "a.wav");
    mount.assert_usage_true();
    let (here, there) = (mount.dir("acme/sales"), mount.dir("beta/support"));
    make_file(&there.join("b.wav"), 5_000);
    mount.assert_usage_true();
    // A reader that stays keeps SQLite from beginning its log anew, so that it has to grow.
    let reader = open(&database(&mount));
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM directory;")
        .expect("a reader");
    let filler = mount.store().with_file_name("filler");
    let mut file = fs::File::create(&filler).expect("a filler");
    for chunk in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; chunk]).is_ok() {}
    }
    drop(file);
    // Moves between tenants need no room for recordings, and one of the database.
    let mut place = 0;
    wait::until("the log tells of the full disk", || {
        let (from, to) = if place == 0 { (&here, &there) } else { (&there, &here) };
        fs::rename(from.join("a.wav"), to.join("a.wav")).expect("moving needs no room");
        place = 1 - place;
        mount.log().contains("no space left for the database").then_some(())
    });
    let said = status(&mount);
    assert!(
        said.contains("no space left for the database; free space on its file system"),
        "{said}"
    );
    assert_eq!(common::read(&there.join("b.wav")).len(), 5_000);
    drop(reader);
    fs::remove_file(&filler).expect("room");
    record(&mount, "room.wav");
    let said = status(&mount);
    assert!(
        said.contains("mount again to end this"),
        "the dirty log was lost, too: {said}"
    );
    mount.remount();
    all_is_well(mount);
}
