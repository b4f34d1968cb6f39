//! Taking recordings as they are: a person says that an old copy, a restored backup or a store with a new
//! database is right, and the rows follow the disk.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::daemon::DaemonError;
use crate::daemon::baseline::{place_row, sealed_row};
use crate::daemon::layout::Store;
use crate::db::{Database, PlaceRow, SealedRow};
use crate::id::Ino;
use crate::sealed::keyring::KeyRing;
use crate::sealed::row_mac::{RowKey, SealedFields};
use crate::store::backing::Backing;
use crate::store::files::{Found, Range, walk};
use crate::store::sealed_file::{SealedFile, WriteOptions};

/// Rows that are written at once.
const ROWS_AT_ONCE: usize = 10_000;

/// Writes rows for every sealed file at or below `below`, as its head is now, and removes those of empty files; with all of the store the
/// baseline counts as whole again. Returns how many.
///
/// Crash: some rows are old and some new, each right for itself; it can be run again.
///
/// # Errors
/// The data directory or the database.
pub fn accept(store: &Store, ring: &Arc<KeyRing>, below: &[u8], now_s: u64) -> Result<u64, DaemonError> {
    let key = RowKey::current(ring).map_err(|e| DaemonError::Data(io::Error::other(e)))?;
    let data = File::open(store.paths().data()).map_err(DaemonError::Data)?;
    // No row may be ahead of the disk.
    rustix::fs::syncfs(&data).map_err(|e| DaemonError::Data(e.into()))?;
    let (mut database, _) = Database::open(&store.paths().database(), now_s).map_err(DaemonError::Database)?;
    if below.is_empty() {
        // Rows of numbers that are no more would be taken for copies of what is there.
        database.note_baseline_lost(now_s).map_err(DaemonError::Database)?;
    }
    let (mut sealed, mut places, mut emptied): (Vec<SealedRow>, Vec<PlaceRow>, Vec<Ino>) = Default::default();
    let mut accepted_count = 0;
    let mut failed = None;
    let mut visit = |found: &Found<'_>| {
        if let Some(fields) = head_of(found, ring) {
            sealed.push(sealed_row(&fields, &key));
            places.push(place_row(Ino(fields.ino), Ino(found.parent_ino), found.name(), &key));
            accepted_count += 1;
        } else if found.is_file() && found.stat.stx_size == 0 {
            emptied.push(Ino(found.stat.stx_ino));
        }
        if sealed.len() >= ROWS_AT_ONCE {
            failed = database.put_baseline(&sealed, &places).err();
            sealed.clear();
            places.clear();
        }
        if failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let range = Range { below, after: None };
    walk(data.as_fd(), range, &mut visit, &mut |path, e| {
        log::error!("{}: {e}", String::from_utf8_lossy(path));
    })
    .map_err(DaemonError::Data)?;
    if let Some(e) = failed {
        return Err(DaemonError::Database(e));
    }
    database.put_baseline(&sealed, &places).map_err(DaemonError::Database)?;
    database.forget_sealed(&emptied).map_err(DaemonError::Database)?;
    if below.is_empty() {
        database.accept_baseline().map_err(DaemonError::Database)?;
    }
    Ok(accepted_count)
}

/// What a row is to say; `None` of a file that is not sealed or does not open.
fn head_of(found: &Found<'_>, ring: &Arc<KeyRing>) -> Option<SealedFields> {
    let file = Arc::new(found.is_file().then(|| found.open())?.ok()?);
    let sealed_size = file.size().ok()?;
    let sealed = SealedFile::load(file, ring.clone(), WriteOptions::default()).ok()?;
    let facts = sealed.head_facts().filter(|facts| facts.is_sealed)?;
    Some(SealedFields {
        ino: found.stat.stx_ino,
        file_id: facts.file_id,
        generation: facts.generation.0,
        content_sha256: facts.content_sha256,
        sealed_size,
        sealed_at_s: facts.sealed_at_s,
    })
}
