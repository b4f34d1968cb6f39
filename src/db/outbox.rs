//! Rows of notices on their way to receivers. They are put in the transaction that saves what was noticed, so that a
//! kill leaves both or none; what became of each attempt is written by itself.

use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Row, params};

use super::rows::{OutboxRow, OutboxState};

/// Notices that wait for one receiver at most; the oldest are given up.
const WAITING_MAX: u32 = 10_000;
/// Those that are over, kept for people to look at.
const OVER_MAX: u32 = 10_000;
/// How long delivered ones are kept, in seconds.
const DELIVERED_KEPT_S: u64 = 7 * 86_400;
/// The same of dead ones.
const DEAD_KEPT_S: u64 = 30 * 86_400;

const COLUMNS: &str = "id, receiver, created_s, kind, path, notice, attempts, next_ms, state, changed_s, last_error";

/// A row that is there stays: a commit may have succeeded though it was told to have failed.
pub(super) fn put(db: &Connection, rows: &[OutboxRow]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(&format!(
        "INSERT OR IGNORE INTO outbox ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    ))?;
    for row in rows {
        insert.execute(params![
            row.id,
            row.receiver,
            row.created_s.cast_signed(),
            row.kind,
            row.path,
            row.notice,
            row.attempts,
            row.next_ms.cast_signed(),
            row.state.name(),
            row.changed_s.cast_signed(),
            row.last_error,
        ])?;
    }
    Ok(())
}

pub(super) fn next(db: &Connection, receiver: &str) -> rusqlite::Result<Option<OutboxRow>> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM outbox WHERE state = 'pending' AND receiver = ?1 ORDER BY next_ms, created_s, id LIMIT 1"
    ))?
    .query_row([receiver], read)
    .optional()
}

/// Of a pending row alone: what somebody else did to it meanwhile holds.
pub(super) fn note_attempt(db: &Connection, row: &OutboxRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE outbox SET attempts = ?3, next_ms = ?4, state = ?5, changed_s = ?6, last_error = ?7
         WHERE id = ?1 AND receiver = ?2 AND state = 'pending'",
    )?
    .execute(params![
        row.id,
        row.receiver,
        row.attempts,
        row.next_ms.cast_signed(),
        row.state.name(),
        row.changed_s.cast_signed(),
        row.last_error,
    ])
    .map(|_| ())
}

pub(super) fn retry(db: &Connection, id: Option<&str>, now_s: u64) -> rusqlite::Result<usize> {
    db.execute(
        "UPDATE outbox SET state = 'pending', attempts = 0, next_ms = ?2, changed_s = ?3
         WHERE state = 'dead' AND (?1 IS NULL OR id = ?1)",
        params![id, (now_s * 1000).cast_signed(), now_s.cast_signed()],
    )
}

pub(super) fn tidy(db: &Connection, receivers: &[String], now_s: u64) -> rusqlite::Result<()> {
    let mut waiting = db.prepare("SELECT DISTINCT receiver FROM outbox WHERE state = 'pending'")?;
    let names = waiting.query_map([], |row| row.get(0))?;
    for name in names.collect::<rusqlite::Result<Vec<String>>>()? {
        let (error, kept) = if receivers.contains(&name) {
            (
                format!("more than {WAITING_MAX} notices waited for this receiver"),
                WAITING_MAX,
            )
        } else {
            ("the configuration has no receiver of this name".to_owned(), 0)
        };
        db.execute(
            "UPDATE outbox SET state = 'dead', changed_s = ?2, last_error = ?3
             WHERE state = 'pending' AND receiver = ?1 AND id NOT IN
                 (SELECT id FROM outbox WHERE state = 'pending' AND receiver = ?1 ORDER BY created_s DESC, id LIMIT ?4)",
            params![name, now_s.cast_signed(), error, kept],
        )?;
    }
    for (state, kept_s) in [
        (OutboxState::Delivered, DELIVERED_KEPT_S),
        (OutboxState::Dead, DEAD_KEPT_S),
    ] {
        db.execute(
            "DELETE FROM outbox WHERE state = ?1 AND (changed_s < ?2 OR (id, receiver) NOT IN
                 (SELECT id, receiver FROM outbox WHERE state = ?1 ORDER BY changed_s DESC LIMIT ?3))",
            params![state.name(), now_s.saturating_sub(kept_s).cast_signed(), OVER_MAX],
        )?;
    }
    Ok(())
}

pub(super) fn counts(db: &Connection) -> rusqlite::Result<Vec<(String, OutboxState, u64)>> {
    db.prepare_cached("SELECT receiver, state, count(*) FROM outbox GROUP BY receiver, state ORDER BY receiver, state")?
        .query_map([], |row| {
            Ok((row.get(0)?, state(row, 1)?, row.get::<_, i64>(2)?.cast_unsigned()))
        })?
        .collect()
}

/// The newest first. A row that is gone ends the list.
pub(super) fn list(
    db: &Connection,
    state: Option<OutboxState>,
    after: Option<(&str, &str)>,
    count: u32,
) -> rusqlite::Result<Vec<OutboxRow>> {
    let (id, receiver) = after.unzip();
    db.prepare(&format!(
        "SELECT {COLUMNS} FROM outbox
         WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR (-created_s, id, receiver) >
             (SELECT -created_s, id, receiver FROM outbox WHERE id = ?2 AND receiver = ?3))
         ORDER BY created_s DESC, id, receiver LIMIT ?4"
    ))?
    .query_map(params![state.map(OutboxState::name), id, receiver, count], read)?
    .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let number = |column| row.get(column).map(i64::cast_unsigned);
    Ok(OutboxRow {
        id: row.get(0)?,
        receiver: row.get(1)?,
        created_s: number(2)?,
        kind: row.get(3)?,
        path: row.get(4)?,
        notice: row.get(5)?,
        attempts: row.get(6)?,
        next_ms: number(7)?,
        state: state(row, 8)?,
        changed_s: number(9)?,
        last_error: row.get(10)?,
    })
}

fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<OutboxState> {
    let name: String = row.get(column)?;
    OutboxState::named(&name)
        .ok_or_else(|| Error::FromSqlConversionFailure(column, Type::Text, format!("'{name}' is no state").into()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::db::{Batch, Database, open_read_only};

    /// 2026-11-21.
    const NOW_S: u64 = 1_795_219_200;

    fn row(id: &str, receiver: &str, created_s: u64) -> OutboxRow {
        OutboxRow {
            id: id.to_owned(),
            receiver: receiver.to_owned(),
            created_s,
            kind: "near_limit".to_owned(),
            path: "/acme".to_owned(),
            notice: "{}".to_owned(),
            attempts: 0,
            next_ms: created_s * 1000,
            state: OutboxState::Pending,
            changed_s: created_s,
            last_error: None,
        }
    }

    fn database(path: &Path, rows: Vec<OutboxRow>) -> Database {
        let (mut db, _) = Database::open(path, NOW_S).unwrap();
        let batch = Batch {
            outbox: rows,
            ..Batch::default()
        };
        db.commit(&batch).unwrap();
        db
    }

    fn ids(path: &Path, state: Option<OutboxState>, after: Option<(&str, &str)>) -> Vec<String> {
        let rows = open_read_only(path).unwrap().outbox(state, after, 100).unwrap();
        rows.into_iter().map(|row| row.id + " " + &row.receiver).collect()
    }

    #[test]
    fn a_notice_goes_from_pending_over_attempts_to_its_end_and_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("tallyfs.db");
        let mut db = database(
            &path,
            vec![
                row("a", "ops", NOW_S),
                row("b", "ops", NOW_S + 1),
                row("a", "mail", NOW_S),
            ],
        );
        assert_eq!(ids(&path, None, None), ["b ops", "a mail", "a ops"]);
        assert_eq!(ids(&path, None, Some(("b", "ops"))), ["a mail", "a ops"]);
        let mut first = db.next_notice("ops").unwrap().unwrap();
        assert_eq!(first, row("a", "ops", NOW_S));
        first.attempts = 1;
        first.next_ms = (NOW_S + 9) * 1000;
        first.last_error = Some("refused".to_owned());
        db.note_attempt(&first).unwrap();
        assert_eq!(db.next_notice("ops").unwrap().unwrap().id, "b");
        first.state = OutboxState::Dead;
        db.note_attempt(&first).unwrap();
        // What is over is not changed by an answer that comes late.
        first.state = OutboxState::Delivered;
        db.note_attempt(&first).unwrap();
        assert_eq!(ids(&path, Some(OutboxState::Dead), None), ["a ops"]);
        assert_eq!(
            db.outbox_counts().unwrap(),
            [
                ("mail".to_owned(), OutboxState::Pending, 1),
                ("ops".to_owned(), OutboxState::Dead, 1),
                ("ops".to_owned(), OutboxState::Pending, 1),
            ]
        );
        assert_eq!(db.retry_notices(Some("nobody"), NOW_S + 5).unwrap(), 0);
        assert_eq!(db.retry_notices(Some("a"), NOW_S + 5).unwrap(), 1);
        assert_eq!(db.retry_notices(None, NOW_S + 5).unwrap(), 0, "none is dead");
        assert_eq!(ids(&path, Some(OutboxState::Pending), None).len(), 3);
    }

    #[test]
    fn a_notice_that_is_there_is_not_put_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("tallyfs.db");
        let mut db = database(&path, vec![row("a", "ops", NOW_S)]);
        let mut done = row("a", "ops", NOW_S);
        done.state = OutboxState::Delivered;
        db.note_attempt(&done).unwrap();
        let again = Batch {
            outbox: vec![row("a", "ops", NOW_S)],
            ..Batch::default()
        };
        db.replace(&again).unwrap();
        assert_eq!(ids(&path, Some(OutboxState::Delivered), None), ["a ops"]);
        assert_eq!(db.next_notice("ops").unwrap(), None);
    }

    #[test]
    fn what_is_old_or_for_nobody_goes() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("tallyfs.db");
        let over = |id: &str, state, changed_s| OutboxRow {
            state,
            changed_s,
            ..row(id, "ops", 0)
        };
        let mut db = database(
            &path,
            vec![
                row("a", "gone", NOW_S),
                row("b", "ops", 0),
                over("c", OutboxState::Delivered, NOW_S - DELIVERED_KEPT_S - 1),
                over("d", OutboxState::Delivered, NOW_S - DELIVERED_KEPT_S),
                over("e", OutboxState::Dead, NOW_S - DEAD_KEPT_S - 1),
                over("f", OutboxState::Dead, NOW_S - DEAD_KEPT_S),
            ],
        );
        db.tidy_outbox(&["ops".to_owned()], NOW_S).unwrap();
        assert_eq!(ids(&path, Some(OutboxState::Pending), None), ["b ops"]);
        assert_eq!(ids(&path, Some(OutboxState::Delivered), None), ["d ops"]);
        assert_eq!(ids(&path, Some(OutboxState::Dead), None), ["a gone", "f ops"]);
        let many = (0..=WAITING_MAX).map(|at| row(&format!("m{at:05}"), "ops", u64::from(at) + 1));
        let batch = Batch {
            outbox: many.collect(),
            ..Batch::default()
        };
        db.commit(&batch).unwrap();
        db.tidy_outbox(&["ops".to_owned()], NOW_S).unwrap();
        let dead = open_read_only(&path)
            .unwrap()
            .outbox(Some(OutboxState::Dead), None, 9)
            .unwrap();
        let dead: Vec<_> = dead.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(dead, ["a", "m00000", "b", "f"], "the oldest are given up");
    }
}
