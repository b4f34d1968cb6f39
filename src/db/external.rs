//! Rows of counters that others feed, in the quota tracker's own tables: a row for each tenant and period, so that past
//! periods stay. Times are RFC 3339 texts in UTC, as that service has them.

use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, params};

use super::rows::AuditRow;
use crate::period::{CivilDate, timestamp};
use crate::quota::{ExternalLimits, RefusalsTold, SavedExternal, SavedTerms, Warned};
use crate::units::Meters;

const MESSAGES: &str = "message_count";
const BANDWIDTH: &str = "bandwidth";

pub(super) fn put(db: &Connection, rows: &[SavedExternal], at_s: u64) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let now = timestamp(at_s);
    let mut limits = db.prepare_cached(
        "INSERT INTO quota_limits (tenant_id, message_limit, bandwidth_limit_bytes, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (tenant_id) DO UPDATE SET
             message_limit         = excluded.message_limit,
             bandwidth_limit_bytes = excluded.bandwidth_limit_bytes,
             updated_at            = CASE WHEN message_limit IS excluded.message_limit
                                           AND bandwidth_limit_bytes IS excluded.bandwidth_limit_bytes
                                     THEN updated_at ELSE excluded.updated_at END",
    )?;
    let mut usage = db.prepare_cached(
        "INSERT INTO quota_usage (tenant_id, period, quota_type, used, last_updated) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (tenant_id, period, quota_type) DO UPDATE SET
             used = excluded.used, last_updated = excluded.last_updated",
    )?;
    for SavedExternal {
        tenant,
        limits: ExternalLimits {
            messages,
            bandwidth_bytes,
        },
        counters,
    } in rows
    {
        let signed = |limit: Option<u64>| limit.map(u64::cast_signed);
        limits.execute(params![tenant, signed(*messages), signed(*bandwidth_bytes), now])?;
        let (day, month) = (counters.day.day_key(), counters.day.month_key());
        usage.execute(params![
            tenant,
            day,
            MESSAGES,
            counters.day_used.files.cast_signed(),
            now
        ])?;
        usage.execute(params![
            tenant,
            month,
            BANDWIDTH,
            counters.month_used.bytes.cast_signed(),
            now
        ])?;
    }
    Ok(())
}

/// What people did.
pub(super) fn put_audit(db: &Connection, rows: &[AuditRow]) -> rusqlite::Result<()> {
    let mut insert =
        db.prepare_cached("INSERT INTO quota_audit (at, who, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for row in rows {
        insert.execute(params![
            timestamp(row.at_s),
            row.who,
            row.action,
            row.subject,
            row.detail
        ])?;
    }
    Ok(())
}

/// Each tenant with its newest period.
pub(super) fn all(db: &Connection) -> rusqlite::Result<Vec<SavedExternal>> {
    let mut day = db.prepare(
        "SELECT period, used FROM quota_usage WHERE tenant_id = ?1 AND quota_type = ?2 ORDER BY period DESC LIMIT 1",
    )?;
    let mut month =
        db.prepare("SELECT used FROM quota_usage WHERE tenant_id = ?1 AND quota_type = ?2 AND period = ?3")?;
    let mut tenants =
        db.prepare("SELECT tenant_id, message_limit, bandwidth_limit_bytes FROM quota_limits ORDER BY tenant_id")?;
    let mut rows = tenants.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let tenant: String = row.get(0)?;
        let unsigned = |column| row.get(column).map(|limit: Option<i64>| limit.map(i64::cast_unsigned));
        let limits = ExternalLimits {
            messages: unsigned(1)?,
            bandwidth_bytes: unsigned(2)?,
        };
        let newest: Option<(String, i64)> = day
            .query_row((&tenant, MESSAGES), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((key, messages)) = newest else { continue };
        let no_day = || Error::FromSqlConversionFailure(0, Type::Text, format!("'{key}' is no day").into());
        let date = CivilDate::from_day_key(&key).ok_or_else(no_day)?;
        let bytes: Option<i64> = month
            .query_row((&tenant, BANDWIDTH, date.month_key()), |row| row.get(0))
            .optional()?;
        let used = |files: i64, bytes: i64| Meters {
            files: files.cast_unsigned(),
            bytes: bytes.cast_unsigned(),
            dirs: 0,
        };
        found.push(SavedExternal {
            tenant,
            limits,
            counters: SavedTerms {
                day: date,
                day_used: used(messages, 0),
                month_used: used(0, bytes.unwrap_or(0)),
                bytes_over_since_s: None,
                files_over_since_s: None,
                warned: Warned::default(),
                bytes_over_told_s: None,
                files_over_told_s: None,
                refusals: RefusalsTold::default(),
            },
        });
    }
    Ok(found)
}
