//! Read-only view for commands beside a running daemon or on a store at rest. Never creates,
//! migrates, repairs or sets aside anything.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::open::{self, BUSY_TIMEOUT};
use super::rows::{DayRow, DirRow, LastRun, OutboxRow, OutboxState, PlaceRow, SealedRow, Snapshot};
use super::{Error, baseline, load, operations, outbox};
use crate::id::Ino;
use crate::quota::OperationCounts;

/// A read-only connection.
pub struct Reader {
    path: PathBuf,
    db: Connection,
}

/// Opens the database at `path` for reading.
///
/// # Errors
/// As [`super::Database::open`]; a damaged or empty file is [`Error::Damaged`], and stays.
pub fn open_read_only(path: &Path) -> Result<Reader, Error> {
    std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
    let db = match attempt(path, &uri(path, "mode=ro")) {
        // Without a right to write beside it there can be no log index; and without a log none
        // is needed, since nobody has the file open.
        Err(Error::Sqlite { .. } | Error::ReadOnly { .. }) if !has_log(path) => {
            attempt(path, &uri(path, "immutable=1"))?
        }
        other => other?,
    };
    Ok(Reader {
        path: path.to_path_buf(),
        db,
    })
}

/// Whether the database at `path` could be written now, without writing to it.
///
/// # Errors
/// What stands against it: a lock, a mode, damage.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    // SQLite falls back to reading where the file does not let it write.
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| Error::io(path, "open", e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |e| Error::sqlite(path, "open", e);
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.busy_timeout(Duration::ZERO).map_err(failed)?;
    db.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(failed)
}

impl Reader {
    pub fn last_run(&self) -> Result<LastRun, Error> {
        self.read(load::last_run)
    }

    /// Directories and links as of one committed write-back.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.read(load::snapshot)
    }

    /// The directories, with the backing bytes of the sealed files in each in place of their plaintext; see [`super::Totals`].
    pub fn physical_dirs(&self) -> Result<Vec<DirRow>, Error> {
        self.read(load::physical_dirs)
    }

    /// The newest `count` days of one tenant, newest first; `""` is the whole mount.
    pub fn days(&self, tenant: &str, count: u32) -> Result<Vec<DayRow>, Error> {
        self.read(|db| load::days(db, tenant, count))
    }

    /// What was done in a month (`2026-11`) below one tenant; `""` is the whole mount.
    pub fn operations(&self, tenant: &str, month: &str) -> Result<OperationCounts, Error> {
        self.read(|db| operations::of(db, tenant, month))
    }

    /// Months of which there are such counts, the oldest first.
    pub fn operation_months(&self, tenant: &str) -> Result<Vec<String>, Error> {
        self.read(|db| operations::months(db, tenant))
    }

    /// At most `count` notices for receivers, the newest first, behind this one; of one state, or all.
    pub fn outbox(
        &self,
        state: Option<OutboxState>,
        after: Option<(&str, &str)>,
        count: u32,
    ) -> Result<Vec<OutboxRow>, Error> {
        self.read(|db| outbox::list(db, state, after, count))
    }

    /// What is known of a sealed file. A file of an older schema knows nothing.
    pub fn sealed(&self, ino: Ino) -> Result<Option<SealedRow>, Error> {
        self.read(|db| baseline::sealed(db, ino))
    }

    /// Inodes with this file id.
    pub fn with_file_id(&self, file_id: &[u8; 16]) -> Result<Vec<Ino>, Error> {
        self.read(|db| baseline::with_file_id(db, file_id))
    }

    /// Where an inode was left.
    pub fn place(&self, ino: Ino) -> Result<Option<PlaceRow>, Error> {
        self.read(|db| baseline::place(db, ino))
    }

    /// Who was left at a place.
    pub fn at_place(&self, parent: Ino, name: &[u8]) -> Result<Vec<PlaceRow>, Error> {
        self.read(|db| baseline::at_place(db, parent, name))
    }

    /// Places of at most `count` files without a hash, behind the inode number `after`.
    pub fn unhashed(&self, after: Ino, count: u32) -> Result<Vec<PlaceRow>, Error> {
        self.read(|db| baseline::unhashed(db, after, count))
    }

    /// How many rows bear the code of this key.
    pub fn rows_under(&self, key_id: u32) -> Result<u64, Error> {
        self.read(|db| baseline::rows_under(db, key_id))
    }

    /// From here on no statement waits for another program's lock: it fails at once.
    pub fn never_wait(&self) -> Result<(), Error> {
        self.read(|db| db.busy_timeout(Duration::ZERO))
    }

    fn read<T>(&self, body: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        body(&self.db).map_err(|e| Error::sqlite(&self.path, "read", e))
    }
}

fn attempt(path: &Path, uri: &str) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri, flags).map_err(|e| Error::sqlite(path, "open", e))?;
    match open::inspect(&db, path, BUSY_TIMEOUT)? {
        Some(_) => Ok(db),
        None => Err(Error::Damaged {
            path: path.to_path_buf(),
            reason: "it holds no tables".to_owned(),
        }),
    }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_os_string();
    log.push("-wal");
    Path::new(&log).exists()
}

/// SQLite's URI form, with every byte escaped that could mean something in it.
fn uri(path: &Path, query: &str) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push('?');
    uri.push_str(query);
    uri
}
