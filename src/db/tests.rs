//! The database as a file: what is found there, what survives, what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::id::Ino;
use crate::quota::{Bound, LimitKey, LimitOverrides};
use crate::units::Meters;

/// 2026-11-21 05:01:00 UTC.
const NOW_S: u64 = 1_795_237_260;
const BOOT: [u8; 16] = [7; 16];
const IDENTITY: Identity = Identity {
    store_id: [3; 16],
    root_ino: Ino(u64::MAX),
    root_generation: Some(u32::MAX),
};

fn file(temp: &TempDir) -> PathBuf {
    temp.path().join("tallyfs.db")
}

fn open(temp: &TempDir) -> (Database, Found) {
    Database::open_with(&file(temp), NOW_S, Duration::ZERO).unwrap()
}

fn open_error(temp: &TempDir) -> Error {
    match Database::open_with(&file(temp), NOW_S, Duration::ZERO) {
        Ok((_, found)) => panic!("opened, {found:?}"),
        Err(e) => e,
    }
}

pub(super) fn dir(ino: u64, parent: u64, bytes: u64) -> DirRow {
    DirRow {
        ino: Ino(ino),
        generation: u32::MAX,
        parent: Ino(parent),
        name: vec![0xff, b'/', 0, b'x'],
        own: Meters {
            bytes,
            files: 2,
            dirs: 3,
        },
        limits: LimitOverrides::NONE.with(LimitKey::MaxBytes, Some(Bound::At(5 << 30))),
    }
}

fn link(ino: u64, parent: u64) -> LinkRow {
    LinkRow {
        ino: Ino(ino),
        parent: Ino(parent),
        names: 1,
        bytes: 9,
    }
}

pub(super) fn batch(dirs: Vec<DirRow>) -> Batch {
    Batch {
        dirs,
        log_epoch: 4,
        at_s: NOW_S,
        ..Batch::default()
    }
}

fn names(temp: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn rows_come_back_as_they_were_written() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, found) = open(&temp);
    assert_eq!(found, Found::Fresh);
    db.set_identity(IDENTITY).unwrap();
    let rows = vec![dir(2, 2, 0), dir(3, 2, 1 << 60), dir(u64::MAX - 1, 3, 5)];
    let mut first = batch(rows.clone());
    first.links = vec![link(70, 2), link(70, 3), link(71, 3)];
    db.commit(&first).unwrap();
    drop(db);

    let (mut db, found) = open(&temp);
    assert_eq!(found, Found::Good);
    let by_ino = |mut rows: Vec<DirRow>| {
        rows.sort_by_key(|row| row.ino);
        rows
    };
    assert_eq!(by_ino(db.load_dirs().unwrap()), rows);
    assert_eq!(db.load_links().unwrap(), first.links);
    let last = db.last_run().unwrap();
    assert_eq!(last.identity, Some(IDENTITY));
    assert_eq!((last.log_epoch, last.created_at_s), (4, NOW_S));

    let second = Batch {
        dirs: vec![dir(3, 2, 8)],
        removed_dirs: vec![Ino(u64::MAX - 1), Ino(3)],
        links: vec![link(70, 3)],
        removed_links: vec![Ino(71)],
        ..Batch::default()
    };
    db.commit(&second).unwrap();
    assert_eq!(db.load_dirs().unwrap(), [dir(2, 2, 0), dir(3, 2, 8)]);
    assert_eq!(db.load_links().unwrap(), [link(70, 3)]);
    db.replace(&batch(vec![dir(5, 5, 1)])).unwrap();
    assert_eq!(db.load_dirs().unwrap(), [dir(5, 5, 1)]);
    assert_eq!(db.load_links().unwrap(), []);
}

#[test]
fn days_add_differences_and_keep_totals() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    let day = |date: &str, tenant: &str, total| DayDelta {
        denied: 2,
        date: date.into(),
        tenant: tenant.into(),
        total_files: total,
        total_size_bytes: total * 10,
        recordings_added: 2,
        recordings_deleted: 1,
        bytes_added: 20,
        bytes_deleted: 10,
        physical_bytes: (total == 8).then_some(24_576),
    };
    let mut write = |at_s, days| {
        let batch = Batch {
            days,
            at_s,
            ..Batch::default()
        };
        db.commit(&batch).unwrap();
    };
    write(100, vec![day("2026-11-20", "", 8), day("2026-11-20", "acme", 3)]);
    write(200, vec![day("2026-11-20", "", 6), day("2026-11-21", "", 7)]);
    let days = db.days("", 10).unwrap();
    assert_eq!(days.len(), 2);
    let expected = DayRow {
        date: "2026-11-20".into(),
        tenant: String::new(),
        total_files: 6,
        total_size_bytes: 60,
        recordings_added: 4,
        recordings_deleted: 2,
        bytes_added: 40,
        bytes_deleted: 20,
        denied: 4,
        peak_files: 8,
        peak_size_bytes: 80,
        // The second had not looked.
        physical_bytes: Some(24_576),
        created_at_s: 100,
        updated_at_s: 200,
    };
    assert_eq!(days[1], expected);
    assert_eq!(db.days("", 1).unwrap()[0].date, "2026-11-21");
    assert_eq!(db.days("acme", 9).unwrap()[0].total_files, 3);
}

#[test]
fn the_clean_mark_goes_at_the_start_and_comes_at_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    assert!(!db.last_run().unwrap().clean);
    db.mark_running(BOOT).unwrap();
    db.mark_clean().unwrap();
    drop(db);
    let (mut db, _) = open(&temp);
    assert!(db.last_run().unwrap().clean);
    db.mark_running(BOOT).unwrap();
    // As after a kill that also lost the write-ahead log.
    let copy = temp.path().join("copy.db");
    fs::copy(file(&temp), &copy).unwrap();
    let (copy, found) = Database::open(&copy, NOW_S).unwrap();
    assert_eq!(found, Found::Good);
    let last = copy.last_run().unwrap();
    assert_eq!((last.clean, last.boot_id), (false, Some(BOOT)));
}

#[test]
fn a_file_opened_anew_is_not_clean_whatever_it_says() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    db.commit(&batch(vec![dir(2, 2, 1)])).unwrap();
    db.mark_clean().unwrap();
    db.reopen(NOW_S).unwrap();
    let last = db.last_run().unwrap();
    assert_eq!((last.clean, last.log_epoch), (false, 0));
    assert_eq!(db.load_dirs().unwrap(), []);
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let temp = tempfile::tempdir().unwrap();
    let _db = open(&temp);
    for name in names(&temp) {
        let mode = fs::metadata(temp.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    drop(open(&temp));
    let raw = Connection::open(file(&temp)).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let before = fs::read(file(&temp)).unwrap();
    let error = open_error(&temp);
    assert!(matches!(
        error,
        Error::Newer {
            found: 99,
            known: schema::LATEST,
            ..
        }
    ));
    assert!(
        error.to_string().ends_with("use the newer version of tallyfs"),
        "{error}"
    );
    assert_eq!(names(&temp), ["tallyfs.db"]);
    let refused = open_read_only(&file(&temp));
    assert!(matches!(refused, Err(Error::Newer { .. })));
    assert_eq!(fs::read(file(&temp)).unwrap(), before);
}

/// Opens what `damage` left, and checks that the damaged file is kept and a new one works.
#[track_caller]
fn set_aside_after(damage: impl FnOnce(&Path)) -> String {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    let rows = (2..3000).map(|ino| dir(ino, 2, 1)).collect();
    db.commit(&batch(rows)).unwrap();
    db.mark_clean().unwrap();
    drop(db);
    damage(&file(&temp));
    let bad = fs::read(file(&temp)).unwrap();
    let (mut db, found) = open(&temp);
    let Found::SetAside { path, reason } = found else {
        panic!("{found:?}");
    };
    assert_eq!(path, temp.path().join("tallyfs.db.damaged-20261121T050100Z"));
    assert_eq!(fs::read(path).unwrap(), bad);
    assert!(!db.last_run().unwrap().clean);
    assert_eq!(db.load_dirs().unwrap(), []);
    db.commit(&batch(vec![dir(2, 2, 1)])).unwrap();
    reason
}

#[test]
fn damaged_files_are_set_aside_and_kept() {
    set_aside_after(|path| {
        fs::write(path, b"no database at all, but long enough to be read").unwrap();
    });
    set_aside_after(|path| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() / 2 / 4096 * 4096;
        bytes[at..at + 8192].fill(0xa5);
        fs::write(path, bytes).unwrap();
    });
    set_aside_after(|path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
    let sql = |text: &'static str| move |path: &Path| Connection::open(path).unwrap().execute_batch(text).unwrap();
    assert!(set_aside_after(sql("DROP TABLE link")).contains("link"));
    assert!(set_aside_after(sql("ALTER TABLE directory DROP COLUMN own_files")).contains("own_files"));
    assert!(set_aside_after(sql("PRAGMA user_version = 0")).contains("foreign"));
}

#[test]
fn two_damaged_files_of_one_second_are_both_kept() {
    let temp = tempfile::tempdir().unwrap();
    for n in 0..2 {
        fs::write(file(&temp), format!("not a database {n}")).unwrap();
        let (db, found) = open(&temp);
        assert!(matches!(found, Found::SetAside { .. }));
        drop(db);
    }
    let kept: Vec<_> = names(&temp)
        .into_iter()
        .filter(|name| name.contains("damaged"))
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[test]
fn a_log_without_its_database_is_kept_too() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("tallyfs.db-wal"), b"somebody's rows").unwrap();
    let (_db, found) = open(&temp);
    assert_eq!(found, Found::Fresh);
    let kept = temp.path().join("tallyfs.db.damaged-20261121T050100Z-wal");
    assert_eq!(fs::read(kept).unwrap(), b"somebody's rows");
}

#[test]
fn a_locked_file_is_an_error_and_not_damage() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    let other = Connection::open(file(&temp)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = db.commit(&batch(vec![dir(2, 2, 1)])).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(db);
    other
        .execute_batch("ROLLBACK; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE")
        .unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    let error = open_error(&temp);
    assert!(matches!(error, Error::Locked { .. }), "{error}");
}

#[test]
fn a_full_database_is_an_error_and_the_rows_stay() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    db.commit(&batch(vec![dir(2, 2, 1)])).unwrap();
    db.limit_pages(20);
    let rows = (3..10_000).map(|ino| dir(ino, 2, 1)).collect();
    let error = db.commit(&batch(rows)).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(db.load_dirs().unwrap(), [dir(2, 2, 1)]);
}

#[test]
fn a_reader_sees_committed_rows_beside_the_daemon_and_at_rest() {
    let temp = tempfile::tempdir().unwrap();
    let odd = temp.path().join("a?b#c %41");
    fs::create_dir(&odd).unwrap();
    let path = odd.join("tallyfs.db");
    assert!(matches!(open_read_only(&path), Err(Error::Io { .. })));
    let (mut db, _) = Database::open(&path, NOW_S).unwrap();
    db.mark_running(BOOT).unwrap();
    db.commit(&batch(vec![dir(2, 2, 1), dir(3, 2, 4)])).unwrap();
    let reader = open_read_only(&path).unwrap();
    let snapshot = reader.snapshot().unwrap();
    let totals = Totals::new(&snapshot.dirs, &snapshot.links);
    assert_eq!(totals.mount().bytes, 5);
    assert_eq!(totals.tenants().len(), 1);
    db.commit(&batch(vec![dir(3, 2, 5)])).unwrap();
    assert_eq!(reader.snapshot().unwrap().dirs[1].own.bytes, 5);
    drop(reader);
    db.mark_clean().unwrap();
    drop(db);
    let reader = open_read_only(&path).unwrap();
    assert!(reader.last_run().unwrap().clean);
    assert_eq!(reader.days("", 3).unwrap(), []);
}

#[test]
fn a_reader_makes_and_mends_nothing() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(file(&temp), b"").unwrap();
    assert!(matches!(open_read_only(&file(&temp)), Err(Error::Damaged { .. })));
    fs::write(file(&temp), b"this is no database and stays what it is").unwrap();
    assert!(matches!(open_read_only(&file(&temp)), Err(Error::Damaged { .. })));
    assert_eq!(names(&temp), ["tallyfs.db"]);
}

#[test]
fn a_hundred_thousand_rows_go_in_and_out() {
    let temp = tempfile::tempdir().unwrap();
    let (mut db, _) = open(&temp);
    let rows: Vec<_> = (2..100_002).map(|ino| dir(ino, 2, ino)).collect();
    db.commit(&batch(rows.clone())).unwrap();
    drop(db);
    let (db, _) = open(&temp);
    assert!(db.load_dirs().unwrap() == rows);
}

#[test]
fn a_database_of_schema_1_keeps_its_rows_and_learns_about_sealed_files() {
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../tests/data/schema1.sql")).unwrap();
    drop(old);
    let (mut db, found) = open(&temp);
    assert_eq!(found, Found::Good);
    assert_eq!(db.load_dirs().unwrap().len(), 2);
    assert_eq!(db.days("acme", 9).unwrap()[0].recordings_added, 3);
    let last = db.last_run().unwrap();
    assert!(last.clean && last.identity.unwrap().root_generation.is_none());
    assert_eq!(last.baseline_lost_s, Some(1_763_700_000), "its recordings have no rows");
    let row = SealedRow {
        ino: Ino(9),
        file_id: [1; 16],
        generation: u64::MAX,
        content_sha256: [0; 32],
        sealed_size: 20_481,
        sealed_at_s: NOW_S,
        key_id: 1,
        mac: [3; 32],
    };
    let place = PlaceRow {
        ino: Ino(9),
        parent: Ino(2),
        name: b"\xff.wav".to_vec(),
        key_id: 1,
        mac: [4; 32],
    };
    db.put_baseline(std::slice::from_ref(&row), std::slice::from_ref(&place))
        .unwrap();
    let reader = open_read_only(&path).unwrap();
    assert_eq!(reader.sealed(Ino(9)).unwrap(), Some(row));
    assert_eq!(reader.place(Ino(9)).unwrap(), Some(place.clone()));
    assert_eq!(
        reader.at_place(Ino(2), b"\xff.wav").unwrap(),
        std::slice::from_ref(&place)
    );
    assert_eq!(reader.with_file_id(&[1; 16]).unwrap(), [Ino(9)]);
    assert_eq!(reader.unhashed(Ino(0), 5).unwrap(), [place]);
    assert_eq!(reader.unhashed(Ino(9), 5).unwrap(), []);
    let changed = Batch {
        unsealed: vec![Ino(9)],
        ..batch(Vec::new())
    };
    db.commit(&changed).unwrap();
    assert_eq!(reader.sealed(Ino(9)).unwrap(), None);
    // Another file came to this place, and a person takes it.
    let restored = PlaceRow {
        ino: Ino(10),
        ..reader.place(Ino(9)).unwrap().unwrap()
    };
    db.put_baseline(&[], std::slice::from_ref(&restored)).unwrap();
    assert_eq!(reader.place(Ino(9)).unwrap(), None);
    db.note_unsaved(&[Ino(2), Ino(u64::MAX), Ino(2)]).unwrap();
    assert_eq!(db.unsaved().unwrap(), [Ino(u64::MAX), Ino(2)]);
    let taken_up = Batch {
        taken_up: vec![Ino(u64::MAX)],
        ..batch(Vec::new())
    };
    db.commit(&taken_up).unwrap();
    assert_eq!(db.unsaved().unwrap(), [Ino(2)]);
    db.note_baseline_lost(77).unwrap();
    assert_eq!(reader.place(Ino(10)).unwrap(), None);
    assert_eq!(reader.last_run().unwrap().baseline_lost_s, Some(77));
    db.accept_baseline().unwrap();
    assert_eq!(reader.last_run().unwrap().baseline_lost_s, None);
}
