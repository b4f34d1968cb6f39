//! Rows of sealed files: made from the file system's notes, with a code under the store's key, and read
//! back when a file is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::db::{self, Batch, PlaceRow, Reader, SealedRow};
use crate::fs::{ContentNote, FileSystem, KnownHeads, PastOperations, Waiting};
use crate::id::Ino;
use crate::mend;
use crate::quota::OperationCounts;
use crate::sealed::keyring::KeyRing;
use crate::sealed::row_mac::{RowKey, SealedFields};

/// Files without a hash that are taken up at once.
const UNHASHED_FILES: u32 = 256;

/// Puts notes into a batch.
pub fn put_notes(waiting: &Waiting, key: &RowKey, batch: &mut Batch) {
    batch.baseline_lost = waiting.overflowed;
    batch.taken_up.clone_from(&waiting.taken_up);
    for (&ino, note) in &waiting.notes {
        match &note.content {
            Some(ContentNote::Sealed(fields)) => batch.sealed.push(sealed_row(fields, key)),
            Some(ContentNote::Unsealed) => batch.unsealed.push(ino),
            Some(ContentNote::Gone) => batch.gone.push(ino),
            None => {}
        }
        if let Some(place) = &note.place {
            batch.places.push(place_row(ino, place.parent, &place.name, key));
        }
    }
}

/// A row with its code.
pub fn sealed_row(fields: &SealedFields, key: &RowKey) -> SealedRow {
    SealedRow {
        ino: Ino(fields.ino),
        file_id: fields.file_id,
        generation: fields.generation,
        content_sha256: fields.content_sha256,
        sealed_size: fields.sealed_size,
        sealed_at_s: fields.sealed_at_s,
        key_id: key.key_id(),
        mac: key.sealed(fields),
    }
}

/// A row with its code.
pub fn place_row(ino: Ino, parent: Ino, name: &[u8], key: &RowKey) -> PlaceRow {
    PlaceRow {
        ino,
        parent,
        name: name.to_vec(),
        key_id: key.key_id(),
        mac: key.place(ino.0, parent.0, name),
    }
}

/// Reads rows beside the writer, waiting for no lock: a database that does not answer knows nothing.
pub struct Known {
    path: PathBuf,
    /// Connections that nobody uses just now; there are as many as threads that read at once.
    idle: Mutex<Vec<Reader>>,
    ring: Arc<KeyRing>,
    failed: AtomicBool,
}

impl Known {
    /// Over the database at `path`.
    pub fn new(path: &Path, ring: Arc<KeyRing>) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::default(),
            ring,
            failed: AtomicBool::new(false),
        }
    }

    /// A connection that fails is not used again.
    fn ask<T>(&self, question: impl FnOnce(&Reader) -> Result<T, db::Error>) -> Result<T, db::Error> {
        let idle = self.idle.lock().pop();
        let reader = if let Some(reader) = idle {
            reader
        } else {
            let reader = db::open_read_only(&self.path)?;
            reader.never_wait()?;
            reader
        };
        let answer = question(&reader)?;
        self.idle.lock().push(reader);
        Ok(answer)
    }
}

impl KnownHeads for Known {
    fn known(&self, ino: Ino) -> Option<SealedFields> {
        let row = match self.ask(|reader| reader.sealed(ino)) {
            Ok(row) => {
                self.failed.store(false, Ordering::Release);
                row?
            }
            Err(e) => {
                if !self.failed.swap(true, Ordering::AcqRel) {
                    log::warn!("{e}; old copies of recordings go unnoticed until the database can be read again");
                }
                return None;
            }
        };
        let fields = mend::trusted(&self.ring, &row);
        if fields.is_none() {
            log::error!("the database row of inode {ino} was not written by this program; it is not trusted");
        }
        fields
    }
}

impl PastOperations for Known {
    fn months(&self, tenant: &str) -> Option<Vec<String>> {
        told(self.ask(|reader| reader.operation_months(tenant)))
    }

    fn operations(&self, tenant: &str, month: &str) -> Option<OperationCounts> {
        told(self.ask(|reader| reader.operations(tenant, month)))
    }
}

/// Who opens the file is told EIO, and the log why.
fn told<T>(answer: Result<T, db::Error>) -> Option<T> {
    answer
        .inspect_err(|e| log::warn!("{e}; statistics of a tenant cannot be shown"))
        .ok()
}

/// Takes up again what was not hashed: after a stop, and when the queue was too short.
pub struct Unhashed {
    path: PathBuf,
    /// Inode number behind which to go on; [`DONE`] when there is nothing left.
    after: AtomicU64,
}

const DONE: u64 = u64::MAX;

impl Unhashed {
    /// Begins at the first file.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            after: AtomicU64::new(0),
        }
    }

    /// Has some more files hashed when there is room in the queue.
    pub fn feed(&self, fs: &FileSystem) {
        if !fs.hashing().is_idle() {
            return;
        }
        if fs.hashing().take_dropped() {
            self.after.store(0, Ordering::Release);
        }
        let after = self.after.load(Ordering::Acquire);
        if after == DONE {
            return;
        }
        // Opened anew each time: the database may have been replaced, and this is rare.
        let rows = db::open_read_only(&self.path).and_then(|reader| reader.unhashed(Ino(after), UNHASHED_FILES));
        let rows = match rows {
            Ok(rows) => rows,
            Err(e) => return log::debug!("{e}"),
        };
        let last = rows.last().map_or(DONE, |row| row.ino.0);
        for row in rows {
            fs.take_up(row.parent, &row.name);
        }
        self.after.store(last, Ordering::Release);
    }
}
