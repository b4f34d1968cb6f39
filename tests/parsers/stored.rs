//! Files that the daemon keeps beside the recordings: dirty logs, the database, and rows that make no sense.

use std::fs;

use tallyfs::db::{Batch, Database, DirRow, LinkRow, Totals};
use tallyfs::id::Ino;
use tallyfs::quota::{Bound, LimitKey, LimitOverrides};
use tallyfs::store::dirty_log::DirtyLog;
use tallyfs::units::Meters;

const BOOT: [u8; 16] = [9; 16];

/// By the first byte: a dirty log, a database file, or rows.
pub fn store(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    match which % 3 {
        0 => dirty_log(rest),
        1 => database(rest),
        _ => rows(rest),
    }
}

/// Marks of a log that was begun, then these bytes instead of some of it, beside an epoch from anywhere.
fn dirty_log(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let (epoch, bytes) = bytes.split_at(bytes.len().min(2));
    let epoch = epoch.iter().fold(0, |epoch, byte| match byte {
        0xff => u64::MAX,
        byte => epoch << 8 | u64::from(*byte),
    });
    let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).expect("a log");
    for ino in 1..4 {
        log.enter().mark(Ino(ino), &std::sync::atomic::AtomicU64::new(0));
    }
    drop(log);
    let path = dir.path().join("dirty-1.log");
    let mut image = fs::read(&path).expect("the log");
    let (at, patch) = bytes.split_first().unwrap_or((&0, &[]));
    let at = usize::from(*at) % (image.len() + 1);
    image.truncate(image.len().max(at));
    image.splice(at..image.len().min(at + patch.len()), patch.iter().copied());
    fs::write(&path, image).expect("a changed log");
    let stray = dir.path().join(format!("dirty-{epoch}.log"));
    if !stray.exists() {
        fs::write(stray, bytes).expect("one more log");
    }
    let (again, leftover) = DirtyLog::open(dir.path(), BOOT, epoch).expect("a log beside whatever is there");
    assert!(leftover.found && again.epoch() > 1);
    again.enter().mark(Ino(1), &std::sync::atomic::AtomicU64::new(0));
    assert!(again.has_marks(), "what changes is noted");
}

/// A small database with these bytes over some of it.
fn database(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tallyfs.db");
    let (mut database, _) = Database::open(&path, 0).expect("a new database");
    database.commit(&batch(&[1, 2, 3, 4, 5, 6, 7, 8])).expect("rows");
    drop(database);
    let mut image = fs::read(&path).expect("the database");
    let (place, patch) = bytes.split_at(bytes.len().min(3));
    let at = place.iter().fold(0_usize, |at, byte| at << 8 | usize::from(*byte)) % (image.len() + 1);
    let end = image.len().min(at + patch.len());
    image[at..end].copy_from_slice(&patch[..end - at]);
    fs::write(&path, image).expect("a changed database");
    let Ok((database, _)) = Database::open(&path, 1) else {
        return;
    };
    let _ = database.last_run();
    if let (Ok(dirs), Ok(links)) = (database.load_dirs(), database.load_links()) {
        let _ = Totals::new(&dirs, &links).mount();
    }
    let _ = database.days("", 10);
}

/// Rows that hang on nothing, on each other in circles, or have figures at the ends of the numbers.
fn rows(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut database, _) = Database::open(&dir.path().join("tallyfs.db"), 0).expect("a new database");
    if database.commit(&batch(bytes)).is_err() {
        return;
    }
    let (dirs, links) = (
        database.load_dirs().expect("rows"),
        database.load_links().expect("rows"),
    );
    let totals = Totals::new(&dirs, &links);
    let _ = (totals.mount(), totals.tenants());
    for row in &dirs {
        let _ = totals.of(row.ino);
    }
}

fn batch(bytes: &[u8]) -> Batch {
    let number = |byte: u8| match byte {
        255 => i64::MAX as u64,
        254 => u64::MAX,
        small => u64::from(small % 8),
    };
    let dirs = bytes.chunks_exact(4).map(|chunk| DirRow {
        ino: Ino(number(chunk[0])),
        generation: u32::from(chunk[3]),
        parent: Ino(number(chunk[1])),
        name: vec![chunk[2]],
        own: Meters {
            bytes: number(chunk[2]),
            files: number(chunk[3]),
            dirs: number(chunk[1]),
        },
        limits: LimitOverrides::NONE.with(
            LimitKey::MaxBytes,
            (chunk[0] > 9).then(|| Bound::from_number(number(chunk[2]))),
        ),
    });
    let links = bytes.chunks_exact(5).map(|chunk| LinkRow {
        ino: Ino(number(chunk[4])),
        parent: Ino(number(chunk[0])),
        names: number(chunk[1]),
        bytes: number(chunk[2]),
    });
    Batch {
        dirs: dirs.collect(),
        links: links.collect(),
        ..Batch::default()
    }
}
