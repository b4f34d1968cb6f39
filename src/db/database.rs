//! The database of a running daemon: the one connection that writes.
//!
//! Every change is one transaction with synchronous=FULL: a crash leaves all of it or none. What
//! a crash between a change on disk and its row leaves is the business of the dirty log.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, ToSql, Transaction, TransactionBehavior, params};

use super::open::{self, BUSY_TIMEOUT, FileId, Found};
use super::rows::{
    AuditRow, Batch, DayDelta, DayRow, DirRow, Identity, LastRun, LinkRow, OutboxRow, OutboxState, PlaceRow, SealedRow,
    Snapshot, TermsRow,
};
use super::{Error, baseline, external, load, operations, outbox, terms};
use crate::id::Ino;
use crate::quota::SavedExternal;

/// Statements kept prepared: more than there are.
const STATEMENTS_MAX: usize = 48;

/// Read-write connection; one per store, held by the daemon.
pub struct Database {
    path: PathBuf,
    db: Connection,
    file: FileId,
    busy: Duration,
    /// What has to be written again should the file vanish while the daemon runs.
    identity: Option<Identity>,
    running: Option<[u8; 16]>,
    /// The file is damaged or could not be opened again yet; nothing can be written through `db`.
    unusable: bool,
}

impl Database {
    /// Opens the database at `path`, or makes it. A damaged file is renamed, never deleted, and
    /// a new one takes its place.
    ///
    /// # Errors
    /// [`Error::Newer`] for the file of a newer version, which stays as it is;
    /// [`Error::Locked`], [`Error::ReadOnly`], [`Error::DiskFull`] and the rest as they say.
    pub fn open(path: &Path, now_s: u64) -> Result<(Self, Found), Error> {
        Self::open_with(path, now_s, BUSY_TIMEOUT)
    }

    pub(super) fn open_with(path: &Path, now_s: u64, busy: Duration) -> Result<(Self, Found), Error> {
        let (db, file, found) = open::open(path, now_s, busy)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let mut database = Self {
            path: path.to_path_buf(),
            db,
            file,
            busy,
            identity: None,
            running: None,
            unusable: false,
        };
        if found != Found::Good {
            database.write("note the time of creation", |db| {
                put_meta(db, "created_at", &now_s.cast_signed())
            })?;
        }
        database.identity = database.last_run()?.identity;
        Ok((database, found))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the last daemon left the file. Read it before [`Database::mark_running`].
    pub fn last_run(&self) -> Result<LastRun, Error> {
        load::last_run(&self.db).map_err(|e| self.failed("read meta", e))
    }

    /// Says which store this is.
    pub fn set_identity(&mut self, identity: Identity) -> Result<(), Error> {
        self.write("write the store's identity", |db| {
            put_meta(db, "store_id", &identity.store_id.as_slice())?;
            put_meta(db, "root_ino", &identity.root_ino.0.cast_signed())?;
            match identity.root_generation {
                Some(generation) => put_meta(db, "root_generation", &generation),
                None => Ok(()),
            }
        })?;
        self.identity = Some(identity);
        Ok(())
    }

    /// From here on the rows may lag behind the disk. Durable when it returns; call it before the
    /// first change and after the first dirty log exists.
    ///
    /// Crash states: before the commit the rows are clean and nothing has changed; after it the
    /// next start replays the dirty log. The log of SQLite is folded into the file at once, so
    /// that even a lost `-wal` cannot bring the clean mark back.
    pub fn mark_running(&mut self, boot_id: [u8; 16]) -> Result<(), Error> {
        self.write("mark as running", |db| {
            put_meta(db, "clean", &false)?;
            put_meta(db, "boot_id", &boot_id.as_slice())
        })?;
        self.running = Some(boot_id);
        self.fold_log();
        Ok(())
    }

    /// The rows are what is on disk, and nothing will change any more. Call it after the last
    /// write-back and before the dirty log is removed.
    pub fn mark_clean(&mut self) -> Result<(), Error> {
        self.write("mark as clean", |db| put_meta(db, "clean", &true))?;
        self.running = None;
        self.fold_log();
        Ok(())
    }

    /// All directories, in the order of their inode numbers.
    pub fn load_dirs(&self) -> Result<Vec<DirRow>, Error> {
        load::dirs(&self.db).map_err(|e| self.failed("read directories", e))
    }

    /// All links, in the order of inode number and parent.
    pub fn load_links(&self) -> Result<Vec<LinkRow>, Error> {
        load::links(&self.db).map_err(|e| self.failed("read links", e))
    }

    /// Both, for a start.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        load::snapshot(&self.db).map_err(|e| self.failed("read rows", e))
    }

    /// Periods, grace and warnings of accounts.
    pub fn terms(&self) -> Result<Vec<TermsRow>, Error> {
        terms::all(&self.db).map_err(|e| self.failed("read terms", e))
    }

    /// Counters that others feed.
    pub fn external(&self) -> Result<Vec<SavedExternal>, Error> {
        external::all(&self.db).map_err(|e| self.failed("read counters that others feed", e))
    }

    /// The newest `count` days of one tenant, newest first; `""` is the whole mount.
    pub fn days(&self, tenant: &str, count: u32) -> Result<Vec<DayRow>, Error> {
        load::days(&self.db, tenant, count).map_err(|e| self.failed("read days", e))
    }

    /// Writes what changed, all or nothing.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.write("write back", |db| put_batch(db, batch))
    }

    /// Writes rows that are the whole truth: those that the batch does not name go. Days stay.
    pub fn replace(&mut self, batch: &Batch) -> Result<(), Error> {
        self.write("write back everything", |db| {
            db.execute_batch("DELETE FROM directory; DELETE FROM link; DELETE FROM terms;")?;
            put_batch(db, batch)
        })
    }

    /// The rows of sealed files are new or not to be trusted: says so from now on.
    pub fn note_baseline_lost(&mut self, at_s: u64) -> Result<(), Error> {
        self.write("note that the baseline is lost", |db| lose_baseline(db, at_s))
    }

    /// Files directly in these directories may lack their rows, or have old ones, until a batch says that
    /// they are taken up: also over kills and stops.
    pub fn note_unsaved(&mut self, directories: &[Ino]) -> Result<(), Error> {
        self.write("note what was not saved", |db| baseline::note_unsaved(db, directories))
    }

    /// All directories that were noted and not taken up yet.
    pub fn unsaved(&self) -> Result<Vec<Ino>, Error> {
        baseline::unsaved(&self.db).map_err(|e| self.failed("read what was not saved", e))
    }

    /// A person takes the store as it is now: rows of all its files are there.
    pub fn accept_baseline(&mut self) -> Result<(), Error> {
        self.write("accept the baseline", |db| {
            db.execute("DELETE FROM meta WHERE key = 'baseline_lost'", [])
                .map(|_| ())
        })
    }

    /// Writes rows of sealed files alone. Whoever was left at one of the places before is forgotten.
    pub fn put_baseline(&mut self, sealed: &[SealedRow], places: &[PlaceRow]) -> Result<(), Error> {
        self.write("write the baseline", |db| {
            baseline::make_room(db, places)?;
            baseline::put_sealed(db, sealed)?;
            baseline::put_places(db, places)
        })
    }

    /// At most `count` rows of sealed files, and as many of places, that bear the code of another key, behind an inode number.
    pub fn under_other_keys(
        &self,
        key_id: u32,
        after: Ino,
        count: u32,
    ) -> Result<(Vec<SealedRow>, Vec<PlaceRow>), Error> {
        let rows = || {
            let sealed = baseline::sealed_under_other_keys(&self.db, key_id, after, count)?;
            Ok((
                sealed,
                baseline::places_under_other_keys(&self.db, key_id, after, count)?,
            ))
        };
        rows().map_err(|e| self.failed("read the baseline", e))
    }

    /// Writes rows that are there again, as they are but for their codes. Durable on return.
    pub fn recode(&mut self, sealed: &[SealedRow], places: &[PlaceRow]) -> Result<(), Error> {
        self.write("write the baseline", |db| {
            baseline::put_sealed(db, sealed)?;
            baseline::put_places(db, places)
        })
    }

    /// Writes down who did what. Durable on return.
    pub fn note_audit(&mut self, rows: &[AuditRow]) -> Result<(), Error> {
        self.write("write the audit", |db| external::put_audit(db, rows))
    }

    /// Removes rows of sealed files that a person takes as empty.
    pub fn forget_sealed(&mut self, inos: &[Ino]) -> Result<(), Error> {
        self.write("forget sealed files", |db| baseline::forget(db, inos, &[]))
    }

    /// The notice for a receiver whose next attempt comes first, due or not.
    pub fn next_notice(&self, receiver: &str) -> Result<Option<OutboxRow>, Error> {
        outbox::next(&self.db, receiver).map_err(|e| self.failed("read the outbox", e))
    }

    /// Writes what became of an attempt. Durable on return.
    pub fn note_attempt(&mut self, row: &OutboxRow) -> Result<(), Error> {
        self.write("write what became of a notice", |db| outbox::note_attempt(db, row))
    }

    /// Tries dead notices again: one for all its receivers, or all. Returns how many.
    pub fn retry_notices(&mut self, id: Option<&str>, now_s: u64) -> Result<usize, Error> {
        self.write("retry notices", |db| outbox::retry(db, id, now_s))
    }

    /// Gives up what has no receiver any more, and forgets what is old or too much.
    pub fn tidy_outbox(&mut self, receivers: &[String], now_s: u64) -> Result<(), Error> {
        self.write("tidy the outbox", |db| outbox::tidy(db, receivers, now_s))
    }

    /// How many notices there are, by receiver and state.
    pub fn outbox_counts(&self) -> Result<Vec<(String, OutboxState, u64)>, Error> {
        outbox::counts(&self.db).map_err(|e| self.failed("count the outbox", e))
    }

    /// Somebody deleted or replaced the file: what is written here reaches nobody.
    pub(super) fn is_gone(&self) -> bool {
        match FileId::of(&self.path) {
            Ok(id) => self.unusable || id != self.file,
            Err(e) => self.unusable || e.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Treats the file as gone from now on, because it turned out to be damaged.
    pub(super) fn abandon(&mut self) {
        self.unusable = true;
    }

    /// Leaves the file that was open, opens what is at the path now (a fresh one where there is
    /// nothing) and says again whose it is and that a daemon runs. The caller then writes
    /// everything with [`Database::replace`].
    ///
    /// Crash states: the rows, which may be foreign, go together with the clean mark in one
    /// transaction; a start that finds no row of the root scans.
    pub(super) fn reopen(&mut self, now_s: u64) -> Result<Found, Error> {
        // The last connection to a file removes the log by name, so the old one has to be closed
        // before there is a new file.
        let stand_in = Connection::open_in_memory().map_err(|e| self.failed("close", e))?;
        drop(std::mem::replace(&mut self.db, stand_in));
        self.unusable = true;
        let (fresh, found) = Self::open_with(&self.path, now_s, self.busy)?;
        let (identity, running) = (self.identity, self.running);
        *self = fresh;
        self.identity = identity.or(self.identity);
        self.running = running;
        self.write("begin again", |db| {
            db.execute_batch("DELETE FROM directory; DELETE FROM link; DELETE FROM terms; DELETE FROM outbox;")?;
            lose_baseline(db, now_s)?;
            put_meta(db, "clean", &false)?;
            put_meta(db, "log_epoch", &0_i64)
        })?;
        if let Some(identity) = identity {
            self.set_identity(identity)?;
        }
        if let Some(boot_id) = running {
            self.mark_running(boot_id)?;
        }
        Ok(found)
    }

    /// The next read goes to the file.
    #[cfg(test)]
    pub(super) fn forget_pages(&self) {
        self.db.release_memory().expect("pages can always be read again");
    }

    /// Stands in for a full disk.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, count: u32) {
        let limit = self
            .db
            .pragma_update_and_check(None, "max_page_count", count, |_| Ok(()));
        limit.expect("a pragma of this connection alone");
    }

    fn write<T>(
        &mut self,
        operation: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let run = || {
            let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = body(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        };
        run().map_err(|e| Error::sqlite(&self.path, operation, e))
    }

    /// Best effort: a reader beside us may hold it up, and the commit is durable without it.
    fn fold_log(&self) {
        let folded = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(e) = folded {
            log::debug!("{}: checkpoint: {e}", self.path.display());
        }
    }

    fn failed(&self, operation: &'static str, e: rusqlite::Error) -> Error {
        Error::sqlite(&self.path, operation, e)
    }
}

fn put_meta(db: &Connection, key: &str, value: &dyn ToSql) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, value])
        .map(|_| ())
}

/// All rows of sealed files go, and the file says since when.
fn lose_baseline(db: &Connection, at_s: u64) -> rusqlite::Result<()> {
    db.execute_batch("DELETE FROM sealed; DELETE FROM place;")?;
    put_meta(db, "baseline_lost", &at_s.cast_signed())
}

fn put_batch(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    put_dirs(db, &batch.dirs, &batch.removed_dirs)?;
    terms::remove(db, &batch.removed_dirs)?;
    terms::put(db, &batch.terms)?;
    external::put(db, &batch.external, batch.at_s)?;
    external::put_audit(db, &batch.audit)?;
    outbox::put(db, &batch.outbox)?;
    put_links(db, &batch.links, &batch.removed_links)?;
    for day in &batch.days {
        put_day(db, day, batch.at_s)?;
    }
    operations::put(db, &batch.operations)?;
    baseline::forget(db, &batch.unsealed, &batch.gone)?;
    if batch.baseline_lost {
        lose_baseline(db, batch.at_s)?;
    }
    baseline::put_sealed(db, &batch.sealed)?;
    baseline::put_places(db, &batch.places)?;
    baseline::taken_up(db, &batch.taken_up)?;
    let known: Option<i64> = db
        .prepare_cached("SELECT value FROM meta WHERE key = 'log_epoch'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if known.map(i64::cast_unsigned) != Some(batch.log_epoch) {
        put_meta(db, "log_epoch", &batch.log_epoch.cast_signed())?;
    }
    Ok(())
}

/// Removals first: a number can be free and taken again in one batch.
fn put_dirs(db: &Connection, dirs: &[DirRow], removed: &[Ino]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM directory WHERE ino = ?1")?;
    for ino in removed {
        delete.execute([ino.0.cast_signed()])?;
    }
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO directory
             (ino, generation, parent, name, own_bytes, own_files, own_dirs, limits)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for row in dirs {
        insert.execute(params![
            row.ino.0.cast_signed(),
            row.generation,
            row.parent.0.cast_signed(),
            row.name,
            row.own.bytes.cast_signed(),
            row.own.files.cast_signed(),
            row.own.dirs.cast_signed(),
            (!row.limits.is_none()).then(|| row.limits.to_string()),
        ])?;
    }
    Ok(())
}

fn put_links(db: &Connection, links: &[LinkRow], removed: &[Ino]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM link WHERE ino = ?1")?;
    for ino in removed.iter().chain(links.iter().map(|row| &row.ino)) {
        delete.execute([ino.0.cast_signed()])?;
    }
    let mut insert =
        db.prepare_cached("INSERT OR REPLACE INTO link (ino, parent, names, bytes) VALUES (?1, ?2, ?3, ?4)")?;
    for row in links {
        insert.execute(params![
            row.ino.0.cast_signed(),
            row.parent.0.cast_signed(),
            row.names.cast_signed(),
            row.bytes.cast_signed(),
        ])?;
    }
    Ok(())
}

fn put_day(db: &Connection, day: &DayDelta, at_s: u64) -> rusqlite::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO storage_usage_log
             (date, tenant, total_files, total_size_bytes, recordings_added, recordings_deleted,
              bytes_added, bytes_deleted, created_at, updated_at, denied, peak_files, peak_size_bytes, physical_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?3, ?4, ?11)
         ON CONFLICT (date, tenant) DO UPDATE SET
             total_files        = excluded.total_files,
             total_size_bytes   = excluded.total_size_bytes,
             recordings_added   = recordings_added + excluded.recordings_added,
             recordings_deleted = recordings_deleted + excluded.recordings_deleted,
             bytes_added        = bytes_added + excluded.bytes_added,
             bytes_deleted      = bytes_deleted + excluded.bytes_deleted,
             updated_at         = excluded.updated_at,
             denied             = denied + excluded.denied,
             peak_files         = max(peak_files, excluded.peak_files),
             peak_size_bytes    = max(peak_size_bytes, excluded.peak_size_bytes),
             physical_bytes     = coalesce(excluded.physical_bytes, physical_bytes)",
    )?;
    upsert
        .execute(params![
            day.date,
            day.tenant,
            day.total_files.cast_signed(),
            day.total_size_bytes.cast_signed(),
            day.recordings_added.cast_signed(),
            day.recordings_deleted.cast_signed(),
            day.bytes_added.cast_signed(),
            day.bytes_deleted.cast_signed(),
            at_s.cast_signed(),
            day.denied.cast_signed(),
            day.physical_bytes.map(u64::cast_signed),
        ])
        .map(|_| ())
}
