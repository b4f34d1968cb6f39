//! Rows of what accounts have beside their counters: periods, grace, warnings. Unlike usage they cannot be counted
//! anew: a database that is lost begins the day and the month at zero.

use rusqlite::types::Type;
use rusqlite::{Connection, Error, params};

use super::rows::TermsRow;
use crate::id::Ino;
use crate::period::CivilDate;
use crate::quota::{RefusalsTold, SavedTerms, Warned};
use crate::units::Meters;

pub(super) fn put(db: &Connection, rows: &[TermsRow]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO terms
             (ino, generation, day, day_files, day_bytes, month_files, month_bytes,
              bytes_over_since, files_over_since, warned, bytes_over_told, files_over_told, refused)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for TermsRow { ino, generation, saved } in rows {
        insert.execute(params![
            ino.0.cast_signed(),
            generation,
            saved.day.day_key(),
            saved.day_used.files.cast_signed(),
            saved.day_used.bytes.cast_signed(),
            saved.month_used.files.cast_signed(),
            saved.month_used.bytes.cast_signed(),
            saved.bytes_over_since_s,
            saved.files_over_since_s,
            saved.warned.to_string(),
            saved.bytes_over_told_s,
            saved.files_over_told_s,
            saved.refusals.to_string(),
        ])?;
    }
    Ok(())
}

pub(super) fn remove(db: &Connection, inos: &[Ino]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM terms WHERE ino = ?1")?;
    for ino in inos {
        delete.execute([ino.0.cast_signed()])?;
    }
    Ok(())
}

pub(super) fn all(db: &Connection) -> rusqlite::Result<Vec<TermsRow>> {
    db.prepare(
        "SELECT ino, generation, day, day_files, day_bytes, month_files, month_bytes,
                bytes_over_since, files_over_since, warned, bytes_over_told, files_over_told, refused
         FROM terms ORDER BY ino",
    )?
    .query_map([], |row| {
        let number = |column| row.get(column).map(i64::cast_unsigned);
        let used = |files, bytes| -> rusqlite::Result<Meters> {
            Ok(Meters {
                files: number(files)?,
                bytes: number(bytes)?,
                dirs: 0,
            })
        };
        let day: String = row.get(2)?;
        let no_day = || Error::FromSqlConversionFailure(2, Type::Text, format!("'{day}' is no day").into());
        let (warned, refused): (String, String) = (row.get(9)?, row.get(12)?);
        Ok(TermsRow {
            ino: Ino(number(0)?),
            generation: row.get(1)?,
            saved: SavedTerms {
                day: CivilDate::from_day_key(&day).ok_or_else(no_day)?,
                day_used: used(3, 4)?,
                month_used: used(5, 6)?,
                bytes_over_since_s: row.get(7)?,
                files_over_since_s: row.get(8)?,
                warned: Warned::parse(&warned),
                bytes_over_told_s: row.get(10)?,
                files_over_told_s: row.get(11)?,
                refusals: RefusalsTold::parse(&refused),
            },
        })
    })?
    .collect()
}
