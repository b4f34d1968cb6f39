//! Tables and their versions. `user_version` counts the migrations that were applied; a migration
//! is never changed once released, and each runs in one transaction together with its number.

use rusqlite::{Connection, TransactionBehavior};

/// Each entry takes the schema from its index to the next number.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE directory (
    ino        INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    parent     INTEGER NOT NULL,
    name       BLOB NOT NULL,
    own_bytes  INTEGER NOT NULL,
    own_files  INTEGER NOT NULL,
    own_dirs   INTEGER NOT NULL
) STRICT;
CREATE TABLE link (
    ino    INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    names  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (ino, parent)
) STRICT, WITHOUT ROWID;
CREATE TABLE storage_usage_log (
    date               TEXT NOT NULL,
    tenant             TEXT NOT NULL DEFAULT '',
    total_files        INTEGER NOT NULL DEFAULT 0,
    total_size_bytes   INTEGER NOT NULL DEFAULT 0,
    recordings_added   INTEGER NOT NULL DEFAULT 0,
    recordings_deleted INTEGER NOT NULL DEFAULT 0,
    bytes_added        INTEGER NOT NULL DEFAULT 0,
    bytes_deleted      INTEGER NOT NULL DEFAULT 0,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    PRIMARY KEY (date, tenant)
) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE sealed (
    ino            INTEGER PRIMARY KEY,
    file_id        BLOB NOT NULL,
    generation     INTEGER NOT NULL,
    content_sha256 BLOB NOT NULL,
    sealed_size    INTEGER NOT NULL,
    sealed_at      INTEGER NOT NULL,
    key_id         INTEGER NOT NULL,
    mac            BLOB NOT NULL
) STRICT;
CREATE INDEX sealed_by_file_id ON sealed (file_id);
CREATE TABLE place (
    ino    INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    mac    BLOB NOT NULL
) STRICT;
CREATE INDEX place_by_name ON place (parent, name);
",
    // Files that an earlier program sealed have no rows: the baseline is lost since the file was made.
    "
CREATE TABLE unsaved (
    directory INTEGER PRIMARY KEY
) STRICT;
INSERT OR IGNORE INTO meta
    SELECT 'baseline_lost', value FROM meta
    WHERE key = 'created_at' AND NOT EXISTS (SELECT 1 FROM sealed) AND EXISTS (SELECT 1 FROM directory WHERE own_files > 0);
",
    // Limits that were set on a directory, as it carries them itself.
    "
ALTER TABLE directory ADD COLUMN limits TEXT;
",
    // Periods, grace and warnings of accounts that are tenants or have limits; counters that programs feed; who changed what.
    "
CREATE TABLE terms (
    ino              INTEGER PRIMARY KEY,
    generation       INTEGER NOT NULL,
    day              TEXT NOT NULL,
    day_files        INTEGER NOT NULL,
    day_bytes        INTEGER NOT NULL,
    month_files      INTEGER NOT NULL,
    month_bytes      INTEGER NOT NULL,
    bytes_over_since INTEGER,
    files_over_since INTEGER,
    warned           TEXT NOT NULL
) STRICT;
CREATE TABLE quota_limits (
    tenant_id             TEXT PRIMARY KEY,
    message_limit         INTEGER,
    bandwidth_limit_bytes INTEGER,
    created_at            TEXT NOT NULL,
    updated_at            TEXT NOT NULL
) STRICT;
CREATE TABLE quota_usage (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id    TEXT NOT NULL,
    period       TEXT NOT NULL,
    quota_type   TEXT NOT NULL,
    used         INTEGER NOT NULL,
    last_updated TEXT NOT NULL,
    UNIQUE (tenant_id, period, quota_type)
) STRICT;
CREATE TABLE operation_log (
    month   TEXT NOT NULL,
    tenant  TEXT NOT NULL,
    reads   INTEGER NOT NULL,
    writes  INTEGER NOT NULL,
    creates INTEGER NOT NULL,
    deletes INTEGER NOT NULL,
    lists   INTEGER NOT NULL,
    stats   INTEGER NOT NULL,
    denied  INTEGER NOT NULL,
    PRIMARY KEY (month, tenant)
) STRICT, WITHOUT ROWID;
CREATE TABLE quota_audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      TEXT NOT NULL,
    who     TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
",
    // What a day refused, and the most that it held.
    "
ALTER TABLE storage_usage_log ADD COLUMN denied INTEGER NOT NULL DEFAULT 0;
ALTER TABLE storage_usage_log ADD COLUMN peak_files INTEGER NOT NULL DEFAULT 0;
ALTER TABLE storage_usage_log ADD COLUMN peak_size_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE storage_usage_log SET peak_files = total_files, peak_size_bytes = total_size_bytes;
",
    // Notices on their way to receivers. Which soft limits and refusals were told of is no longer guessed from what is
    // passed: a kill may come between.
    "
CREATE TABLE outbox (
    id         TEXT NOT NULL,
    receiver   TEXT NOT NULL,
    created_s  INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    path       TEXT NOT NULL,
    notice     TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    next_ms    INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    changed_s  INTEGER NOT NULL,
    last_error TEXT,
    PRIMARY KEY (id, receiver)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_by_next ON outbox (state, receiver, next_ms);
ALTER TABLE terms ADD COLUMN bytes_over_told INTEGER;
ALTER TABLE terms ADD COLUMN files_over_told INTEGER;
ALTER TABLE terms ADD COLUMN refused TEXT NOT NULL DEFAULT '';
UPDATE terms SET bytes_over_told = bytes_over_since, files_over_told = files_over_since;
",
    // What the recordings take in the store, beside what they say.
    "
ALTER TABLE storage_usage_log ADD COLUMN physical_bytes INTEGER;
",
];

/// Selects that fail when a table or a column is missing.
const PROBES: &[&str] = &[
    "SELECT key, value FROM meta LIMIT 0",
    "SELECT ino, generation, parent, name, own_bytes, own_files, own_dirs, limits FROM directory LIMIT 0",
    "SELECT ino, parent, names, bytes FROM link LIMIT 0",
    "SELECT date, tenant, total_files, total_size_bytes, recordings_added, recordings_deleted,
            bytes_added, bytes_deleted, created_at, updated_at, denied, peak_files, peak_size_bytes, physical_bytes
     FROM storage_usage_log LIMIT 0",
    "SELECT ino, file_id, generation, content_sha256, sealed_size, sealed_at, key_id, mac FROM sealed LIMIT 0",
    "SELECT ino, parent, name, key_id, mac FROM place LIMIT 0",
    "SELECT directory FROM unsaved LIMIT 0",
    "SELECT ino, generation, day, day_files, day_bytes, month_files, month_bytes,
            bytes_over_since, files_over_since, warned, bytes_over_told, files_over_told, refused FROM terms LIMIT 0",
    "SELECT tenant_id, message_limit, bandwidth_limit_bytes, created_at, updated_at FROM quota_limits LIMIT 0",
    "SELECT id, tenant_id, period, quota_type, used, last_updated FROM quota_usage LIMIT 0",
    "SELECT month, tenant, reads, writes, creates, deletes, lists, stats, denied FROM operation_log LIMIT 0",
    "SELECT id, at, who, action, subject, detail FROM quota_audit LIMIT 0",
    "SELECT id, receiver, created_s, kind, path, notice, attempts, next_ms, state, changed_s, last_error
     FROM outbox LIMIT 0",
];

/// The newest schema that this program knows.
pub(super) const LATEST: i64 = 8;

const _: () = assert!(MIGRATIONS.len() == 8 && LATEST == 8);

/// State of a file as its schema shows it.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Schema {
    Empty,
    Known(i64),
    Newer(i64),
    /// Tables that are not ours.
    Wrong(String),
}

/// Looks without writing. A table or column that is missing is an error about the SQL text, which
/// counts as damage.
pub(super) fn inspect(db: &Connection) -> rusqlite::Result<Schema> {
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > LATEST {
        return Ok(Schema::Newer(version));
    }
    if version <= 0 {
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        return Ok(if tables == 0 && version == 0 {
            Schema::Empty
        } else {
            Schema::Wrong(format!("schema {version} with {tables} foreign objects"))
        });
    }
    if version == LATEST {
        for probe in PROBES {
            db.prepare(probe)?;
        }
    }
    Ok(Schema::Known(version))
}

/// Brings the file from `version` to [`LATEST`]. A kill leaves it at one of the versions between.
pub(super) fn migrate(db: &mut Connection, version: i64) -> rusqlite::Result<()> {
    for (number, sql) in (1_i64..).zip(MIGRATIONS) {
        if number > version {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", number)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_schema_5_had_passed_counts_as_told() {
        let mut db = Connection::open_in_memory().unwrap();
        for sql in &MIGRATIONS[..5] {
            db.execute_batch(sql).unwrap();
        }
        db.execute_batch("INSERT INTO terms VALUES (2, 1, '2026-11-21', 0, 0, 0, 0, 77, NULL, 'bytes=80')")
            .unwrap();
        migrate(&mut db, 5).unwrap();
        assert_eq!(inspect(&db).unwrap(), Schema::Known(LATEST));
        let told = db.query_row(
            "SELECT bytes_over_told, files_over_told, refused FROM terms",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        );
        assert_eq!(told.unwrap(), (Some(77), None::<i64>, String::new()));
    }
}
