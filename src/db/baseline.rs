//! What the database knows of sealed files: the rows that a rollback, a swap or an exchanged content is
//! noticed by. Unlike usage they cannot be counted anew: losing them is said, not repaired.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{PlaceRow, SealedRow};
use crate::id::Ino;

pub(super) fn put_sealed(db: &Connection, rows: &[SealedRow]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO sealed
             (ino, file_id, generation, content_sha256, sealed_size, sealed_at, key_id, mac)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for row in rows {
        insert.execute(params![
            row.ino.0.cast_signed(),
            row.file_id,
            row.generation.cast_signed(),
            row.content_sha256,
            row.sealed_size.cast_signed(),
            row.sealed_at_s.cast_signed(),
            row.key_id,
            row.mac,
        ])?;
    }
    Ok(())
}

pub(super) fn put_places(db: &Connection, rows: &[PlaceRow]) -> rusqlite::Result<()> {
    let mut insert =
        db.prepare_cached("INSERT OR REPLACE INTO place (ino, parent, name, key_id, mac) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for row in rows {
        insert.execute(params![
            row.ino.0.cast_signed(),
            row.parent.0.cast_signed(),
            row.name,
            row.key_id,
            row.mac,
        ])?;
    }
    Ok(())
}

pub(super) fn forget(db: &Connection, unsealed: &[Ino], gone: &[Ino]) -> rusqlite::Result<()> {
    let mut sealed = db.prepare_cached("DELETE FROM sealed WHERE ino = ?1")?;
    let mut place = db.prepare_cached("DELETE FROM place WHERE ino = ?1")?;
    for ino in unsealed.iter().chain(gone) {
        sealed.execute([ino.0.cast_signed()])?;
    }
    for ino in gone {
        place.execute([ino.0.cast_signed()])?;
    }
    Ok(())
}

/// Forgets other inodes that are recorded at these places.
pub(super) fn make_room(db: &Connection, places: &[PlaceRow]) -> rusqlite::Result<()> {
    let mut others = db.prepare_cached("SELECT ino FROM place WHERE parent = ?1 AND name = ?2 AND ino <> ?3")?;
    for row in places {
        let at = params![row.parent.0.cast_signed(), row.name, row.ino.0.cast_signed()];
        let inos: Vec<Ino> = others
            .query_map(at, |row| Ok(Ino(number(row, 0)?)))?
            .collect::<Result<_, _>>()?;
        forget(db, &[], &inos)?;
    }
    Ok(())
}

pub(super) fn note_unsaved(db: &Connection, directories: &[Ino]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO unsaved (directory) VALUES (?1)")?;
    for directory in directories {
        insert.execute([directory.0.cast_signed()])?;
    }
    Ok(())
}

pub(super) fn unsaved(db: &Connection) -> rusqlite::Result<Vec<Ino>> {
    db.prepare_cached("SELECT directory FROM unsaved ORDER BY directory")?
        .query_map([], |row| Ok(Ino(number(row, 0)?)))?
        .collect()
}

pub(super) fn taken_up(db: &Connection, directories: &[Ino]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM unsaved WHERE directory = ?1")?;
    for directory in directories {
        delete.execute([directory.0.cast_signed()])?;
    }
    Ok(())
}

pub(super) fn sealed(db: &Connection, ino: Ino) -> rusqlite::Result<Option<SealedRow>> {
    db.prepare_cached(
        "SELECT ino, file_id, generation, content_sha256, sealed_size, sealed_at, key_id, mac
         FROM sealed WHERE ino = ?1",
    )?
    .query_row([ino.0.cast_signed()], sealed_row)
    .optional()
}

/// Inodes with this file id.
pub(super) fn with_file_id(db: &Connection, file_id: &[u8; 16]) -> rusqlite::Result<Vec<Ino>> {
    db.prepare_cached("SELECT ino FROM sealed WHERE file_id = ?1 ORDER BY ino")?
        .query_map([file_id], |row| Ok(Ino(number(row, 0)?)))?
        .collect()
}

pub(super) fn place(db: &Connection, ino: Ino) -> rusqlite::Result<Option<PlaceRow>> {
    db.prepare_cached("SELECT ino, parent, name, key_id, mac FROM place WHERE ino = ?1")?
        .query_row([ino.0.cast_signed()], place_row)
        .optional()
}

/// Who is recorded at a place; several when names moved and not all is saved yet.
pub(super) fn at_place(db: &Connection, parent: Ino, name: &[u8]) -> rusqlite::Result<Vec<PlaceRow>> {
    db.prepare_cached("SELECT ino, parent, name, key_id, mac FROM place WHERE parent = ?1 AND name = ?2")?
        .query_map(params![parent.0.cast_signed(), name], place_row)?
        .collect()
}

/// Places of files whose content has no hash yet, behind `after`, in the order of inode numbers.
pub(super) fn unhashed(db: &Connection, after: Ino, count: u32) -> rusqlite::Result<Vec<PlaceRow>> {
    db.prepare_cached(
        "SELECT place.ino, parent, name, place.key_id, place.mac FROM sealed JOIN place ON place.ino = sealed.ino
         WHERE sealed.ino > ?1 AND content_sha256 = zeroblob(32) ORDER BY sealed.ino LIMIT ?2",
    )?
    .query_map(params![after.0.cast_signed(), count], place_row)?
    .collect()
}

/// At most `count` rows of sealed files with the code of another key, in the order of inode numbers.
pub(super) fn sealed_under_other_keys(
    db: &Connection,
    key_id: u32,
    after: Ino,
    count: u32,
) -> rusqlite::Result<Vec<SealedRow>> {
    db.prepare_cached(
        "SELECT ino, file_id, generation, content_sha256, sealed_size, sealed_at, key_id, mac
         FROM sealed WHERE ino > ?1 AND key_id <> ?2 ORDER BY ino LIMIT ?3",
    )?
    .query_map(params![after.0.cast_signed(), key_id, count], sealed_row)?
    .collect()
}

/// The same of places.
pub(super) fn places_under_other_keys(
    db: &Connection,
    key_id: u32,
    after: Ino,
    count: u32,
) -> rusqlite::Result<Vec<PlaceRow>> {
    db.prepare_cached(
        "SELECT ino, parent, name, key_id, mac FROM place WHERE ino > ?1 AND key_id <> ?2 ORDER BY ino LIMIT ?3",
    )?
    .query_map(params![after.0.cast_signed(), key_id, count], place_row)?
    .collect()
}

/// Rows with the code of a key.
pub(super) fn rows_under(db: &Connection, key_id: u32) -> rusqlite::Result<u64> {
    db.query_row(
        "SELECT (SELECT count(*) FROM sealed WHERE key_id = ?1) + (SELECT count(*) FROM place WHERE key_id = ?1)",
        [key_id],
        |row| number(row, 0),
    )
}

fn sealed_row(row: &Row<'_>) -> rusqlite::Result<SealedRow> {
    Ok(SealedRow {
        ino: Ino(number(row, 0)?),
        file_id: row.get(1)?,
        generation: number(row, 2)?,
        content_sha256: row.get(3)?,
        sealed_size: number(row, 4)?,
        sealed_at_s: number(row, 5)?,
        key_id: row.get(6)?,
        mac: row.get(7)?,
    })
}

fn place_row(row: &Row<'_>) -> rusqlite::Result<PlaceRow> {
    Ok(PlaceRow {
        ino: Ino(number(row, 0)?),
        parent: Ino(number(row, 1)?),
        name: row.get(2)?,
        key_id: row.get(3)?,
        mac: row.get(4)?,
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}
