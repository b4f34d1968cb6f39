//! Reading rows, the same for the daemon and for a reader beside it. Numbers that SQLite can only
//! hold as signed are stored with the same bits.

use std::collections::HashMap;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use super::rows::{DayRow, DirRow, Identity, LastRun, LinkRow, Snapshot};
use crate::id::Ino;
use crate::quota::LimitOverrides;
use crate::units::Meters;

/// Both tables as of one commit.
pub(super) fn snapshot(db: &Connection) -> rusqlite::Result<Snapshot> {
    let transaction = db.unchecked_transaction()?;
    Ok(Snapshot {
        dirs: dirs(&transaction)?,
        links: links(&transaction)?,
    })
}

pub(super) fn dirs(db: &Connection) -> rusqlite::Result<Vec<DirRow>> {
    db.prepare(
        "SELECT ino, generation, parent, name, own_bytes, own_files, own_dirs, limits
         FROM directory ORDER BY ino",
    )?
    .query_map([], |row| {
        Ok(DirRow {
            ino: Ino(number(row, 0)?),
            generation: row.get(1)?,
            parent: Ino(number(row, 2)?),
            name: row.get(3)?,
            own: Meters {
                bytes: number(row, 4)?,
                files: number(row, 5)?,
                dirs: number(row, 6)?,
            },
            limits: limits(row, 7)?,
        })
    })?
    .collect()
}

pub(super) fn links(db: &Connection) -> rusqlite::Result<Vec<LinkRow>> {
    db.prepare("SELECT ino, parent, names, bytes FROM link ORDER BY ino, parent")?
        .query_map([], |row| {
            Ok(LinkRow {
                ino: Ino(number(row, 0)?),
                parent: Ino(number(row, 1)?),
                names: number(row, 2)?,
                bytes: number(row, 3)?,
            })
        })?
        .collect()
}

pub(super) fn days(db: &Connection, tenant: &str, count: u32) -> rusqlite::Result<Vec<DayRow>> {
    db.prepare(
        "SELECT date, tenant, total_files, total_size_bytes, recordings_added, recordings_deleted,
                bytes_added, bytes_deleted, created_at, updated_at, denied, peak_files, peak_size_bytes,
                physical_bytes
         FROM storage_usage_log WHERE tenant = ?1 ORDER BY date DESC LIMIT ?2",
    )?
    .query_map((tenant, count), |row| {
        Ok(DayRow {
            date: row.get(0)?,
            tenant: row.get(1)?,
            total_files: number(row, 2)?,
            total_size_bytes: number(row, 3)?,
            recordings_added: number(row, 4)?,
            recordings_deleted: number(row, 5)?,
            bytes_added: number(row, 6)?,
            bytes_deleted: number(row, 7)?,
            created_at_s: number(row, 8)?,
            updated_at_s: number(row, 9)?,
            denied: number(row, 10)?,
            peak_files: number(row, 11)?,
            peak_size_bytes: number(row, 12)?,
            physical_bytes: row.get::<_, Option<i64>>(13)?.map(i64::cast_unsigned),
        })
    })?
    .collect()
}

/// The directories, with the backing bytes of the sealed files in each in place of what they say, as of one commit.
/// A file with several names is in the directory where it was left last.
pub(super) fn physical_dirs(db: &Connection) -> rusqlite::Result<Vec<DirRow>> {
    let transaction = db.unchecked_transaction()?;
    let sizes: HashMap<Ino, Meters> = transaction
        .prepare(
            "SELECT place.parent, sum(sealed.sealed_size), count(*)
             FROM sealed JOIN place ON place.ino = sealed.ino GROUP BY place.parent",
        )?
        .query_map([], |row| {
            let own = Meters {
                bytes: number(row, 1)?,
                files: number(row, 2)?,
                dirs: 0,
            };
            Ok((Ino(number(row, 0)?), own))
        })?
        .collect::<Result<_, _>>()?;
    let mut found = dirs(&transaction)?;
    for row in &mut found {
        row.own = sizes.get(&row.ino).copied().unwrap_or_default();
    }
    Ok(found)
}

/// Missing keys read as what is safe: not clean, no boot, epoch zero.
pub(super) fn last_run(db: &Connection) -> rusqlite::Result<LastRun> {
    let store_id: Option<[u8; 16]> = meta(db, "store_id")?;
    let root_ino: Option<i64> = meta(db, "root_ino")?;
    let root_generation: Option<u32> = meta(db, "root_generation")?;
    let log_epoch: Option<i64> = meta(db, "log_epoch")?;
    let created_at_s: Option<i64> = meta(db, "created_at")?;
    let baseline_lost_s: Option<i64> = meta(db, "baseline_lost")?;
    Ok(LastRun {
        identity: store_id.zip(root_ino).map(|(store_id, root_ino)| Identity {
            store_id,
            root_ino: Ino(root_ino.cast_unsigned()),
            root_generation,
        }),
        clean: meta(db, "clean")?.unwrap_or(false),
        boot_id: meta(db, "boot_id")?,
        log_epoch: log_epoch.unwrap_or(0).cast_unsigned(),
        created_at_s: created_at_s.unwrap_or(0).cast_unsigned(),
        baseline_lost_s: baseline_lost_s.map(i64::cast_unsigned),
    })
}

fn meta<T: rusqlite::types::FromSql>(db: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
        .optional()
}

fn limits(row: &Row<'_>, column: usize) -> rusqlite::Result<LimitOverrides> {
    let text: Option<String> = row.get(column)?;
    LimitOverrides::parse(&text.unwrap_or_default())
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, e.into()))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}
