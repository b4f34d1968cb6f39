//! Rows of what was done in a month, by tenant.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::OperationsDelta;
use crate::quota::OperationCounts;

pub(super) fn put(db: &Connection, rows: &[OperationsDelta]) -> rusqlite::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO operation_log (month, tenant, reads, writes, creates, deletes, lists, stats, denied)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (month, tenant) DO UPDATE SET
             reads   = reads + excluded.reads,
             writes  = writes + excluded.writes,
             creates = creates + excluded.creates,
             deletes = deletes + excluded.deletes,
             lists   = lists + excluded.lists,
             stats   = stats + excluded.stats,
             denied  = denied + excluded.denied",
    )?;
    for row in rows {
        let [read, write, create, delete, list, stat, denied] = row.counts.0.map(u64::cast_signed);
        upsert.execute(params![
            row.month, row.tenant, read, write, create, delete, list, stat, denied
        ])?;
    }
    Ok(())
}

/// What was done in one month; nothing where there is no row.
pub(super) fn of(db: &Connection, tenant: &str, month: &str) -> rusqlite::Result<OperationCounts> {
    let counts = db
        .query_row(
            "SELECT reads, writes, creates, deletes, lists, stats, denied FROM operation_log
             WHERE month = ?1 AND tenant = ?2",
            (month, tenant),
            |row| {
                let mut counts = OperationCounts::default();
                for (column, count) in counts.0.iter_mut().enumerate() {
                    *count = row.get(column).map(i64::cast_unsigned)?;
                }
                Ok(counts)
            },
        )
        .optional()?;
    Ok(counts.unwrap_or_default())
}

/// Months of which there is a row, the oldest first.
pub(super) fn months(db: &Connection, tenant: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT month FROM operation_log WHERE tenant = ?1 ORDER BY month")?
        .query_map((tenant,), |row| row.get(0))?
        .collect()
}
