//! Opening the file: fresh, good, or damaged and set aside. Nothing is ever deleted, and a file
//! that is merely locked, unreadable or too new is never taken for damaged.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Error;
use super::schema::{self, Schema};

/// How long a statement waits for another program's lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One sync of the disk frees what was cut off; another program may take it first.
const ATTEMPTS_ON_FULL_DISK: u32 = 5;

/// Damaged files of one second, at most.
const ASIDE_NAMES_MAX: u32 = 1000;

/// What was at the path.
#[derive(PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing: the tables are new and empty. Whatever is in the store has to be scanned.
    Fresh,
    /// A sound database.
    Good,
    /// A damaged one. It now lies at `path`; the tables are new and empty.
    SetAside { path: PathBuf, reason: String },
}

/// Which file a path meant when it was opened, to notice that it is gone or another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
        })
    }
}

/// Opens the file, sets a damaged one aside, and makes the tables where there are none.
///
/// Crash states of setting aside (database first, then its `-wal` and `-shm`): the database is
/// renamed, its log is not: the next start finds no database beside a log and sets the log aside
/// too. The other order could leave an old database without its log, which would pass for good.
pub(super) fn open(path: &Path, now_s: u64, busy: Duration) -> Result<(Connection, FileId, Found), Error> {
    let mut aside = None;
    if is_absent(path)? {
        set_aside_logs(path, now_s)?;
    }
    let (mut db, version) = match attempt_on_full_disk(path, busy) {
        Ok(opened) => opened,
        Err(Error::Damaged { reason, .. }) => {
            aside = Some((set_aside(path, now_s)?, reason));
            attempt(path, busy)?
        }
        Err(e) => return Err(e),
    };
    let failed = |operation| move |e| Error::sqlite(path, operation, e);
    db.pragma_update(None, "journal_mode", "WAL")
        .map_err(failed("switch to the write-ahead log"))?;
    db.pragma_update(None, "synchronous", "FULL")
        .map_err(failed("set synchronous"))?;
    schema::migrate(&mut db, version.unwrap_or(0)).map_err(failed("make the tables"))?;
    let id = FileId::of(path).map_err(|e| Error::io(path, "stat", e))?;
    let found = match aside {
        Some((path, reason)) => Found::SetAside { path, reason },
        None if version.is_none() => Found::Fresh,
        None => Found::Good,
    };
    Ok((db, id, found))
}

/// Opens, also on a disk without a free block. After a kill SQLite cuts the index of its log to nothing and lets it grow
/// again, and the blocks that this gives back are not free before the journal of the disk is written.
fn attempt_on_full_disk(path: &Path, busy: Duration) -> Result<(Connection, Option<i64>), Error> {
    for _ in 1..ATTEMPTS_ON_FULL_DISK {
        match attempt(path, busy) {
            Err(Error::DiskFull { .. }) => {
                let synced = fs::File::open(path).and_then(|file| Ok(rustix::fs::syncfs(file)?));
                synced.map_err(|e| Error::io(path, "sync the disk", e))?;
            }
            other => return other,
        }
    }
    attempt(path, busy)
}

/// Opens and looks, writing nothing but a missing file. `None` for the version: no tables yet.
fn attempt(path: &Path, busy: Duration) -> Result<(Connection, Option<i64>), Error> {
    // Names can carry phone numbers, so the file is for its owner alone, whatever the umask.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::io(path, "open", e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|e| Error::sqlite(path, "open", e))?;
    let version = inspect(&db, path, busy)?;
    check(&db, path)?;
    Ok((db, version))
}

/// The tables that a start trusts. Those with a row for each recording are as large as the store has
/// recordings; damage there shows where it is read, by the database or by the code of the row.
fn check(db: &Connection, path: &Path) -> Result<(), Error> {
    let failed = |e| Error::sqlite(path, "check", e);
    let mut tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('sealed', 'place')")
        .map_err(failed)?;
    let names = tables.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    for name in names {
        let name = name.map_err(failed)?;
        let good: String = db
            .query_row("SELECT * FROM pragma_quick_check(?1)", [&name], |row| row.get(0))
            .map_err(failed)?;
        if good != "ok" {
            return Err(damaged(path, good));
        }
    }
    Ok(())
}

/// Version of the schema, `None` for an empty file.
pub(super) fn inspect(db: &Connection, path: &Path, busy: Duration) -> Result<Option<i64>, Error> {
    db.busy_timeout(busy)
        .map_err(|e| Error::sqlite(path, "set the time to wait for locks", e))?;
    match schema::inspect(db).map_err(|e| Error::sqlite(path, "read the schema", e))? {
        Schema::Empty => Ok(None),
        Schema::Known(version) => Ok(Some(version)),
        Schema::Wrong(reason) => Err(damaged(path, reason)),
        Schema::Newer(found) => Err(Error::Newer {
            path: path.to_path_buf(),
            found,
            known: schema::LATEST,
        }),
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged {
        path: path.to_path_buf(),
        reason,
    }
}

/// An empty file counts as absent: SQLite would throw away a log beside it.
fn is_absent(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len() == 0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(Error::io(path, "stat", e)),
    }
}

/// Renames the database and its logs; returns the new name of the database.
fn set_aside(path: &Path, now_s: u64) -> Result<PathBuf, Error> {
    let target = free_name(path, now_s)?;
    rename(path, &target)?;
    rename_logs(path, &target)?;
    Ok(target)
}

/// Renames logs whose database is gone.
pub(super) fn set_aside_logs(path: &Path, now_s: u64) -> Result<(), Error> {
    if with_suffix(path, "-wal").exists() || with_suffix(path, "-shm").exists() {
        rename_logs(path, &free_name(path, now_s)?)?;
    }
    Ok(())
}

fn rename_logs(path: &Path, target: &Path) -> Result<(), Error> {
    for suffix in ["-wal", "-shm"] {
        let log = with_suffix(path, suffix);
        if log.exists() {
            rename(&log, &with_suffix(target, suffix))?;
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|e| Error::io(from, "set aside", e))
}

/// `tallyfs.db.damaged-20261121T050100Z`, with a number behind it when that is taken.
fn free_name(path: &Path, now_s: u64) -> Result<PathBuf, Error> {
    let base = with_suffix(path, &format!(".damaged-{}", utc(now_s)));
    let numbered = (1..ASIDE_NAMES_MAX).map(|n| with_suffix(&base, &format!("-{n}")));
    std::iter::once(base.clone())
        .chain(numbered)
        .find(|name| !name.exists() && !with_suffix(name, "-wal").exists())
        .ok_or_else(|| Error::io(path, "set aside", io::ErrorKind::AlreadyExists.into()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Basic ISO 8601 form, by SQLite's calendar; the bare number should even that fail.
fn utc(now_s: u64) -> String {
    let format = |db: Connection| {
        db.query_row(
            "SELECT strftime('%Y%m%dT%H%M%SZ', ?1, 'unixepoch')",
            [now_s.cast_signed()],
            |row| row.get(0),
        )
    };
    Connection::open_in_memory()
        .and_then(format)
        .unwrap_or_else(|_| now_s.to_string())
}
