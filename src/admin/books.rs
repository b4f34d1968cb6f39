//! What is saved beside accounts: counters that programs feed, and who changed what.

use std::sync::Arc;

use parking_lot::Mutex;

use super::physical::Physical;
use super::replies::Replies;
use crate::db::AuditRow;
use crate::quota::External;

/// More than this is dropped, the oldest first, while the database takes nothing.
const AUDIT_WAITING_MAX: usize = 10_000;

/// Handed to whoever changes them, and to the write-back.
pub struct Books {
    /// Counters that programs feed.
    pub external: Arc<External>,
    /// What sealed recordings take in the store.
    pub physical: Physical,
    audit: Mutex<Vec<AuditRow>>,
    /// Answers that may be asked for again.
    pub(super) replies: Replies,
}

impl Books {
    /// Nothing noted yet.
    pub fn new(external: Arc<External>) -> Self {
        Self {
            external,
            physical: Physical::default(),
            audit: Mutex::default(),
            replies: Replies::default(),
        }
    }

    /// Keeps what somebody did.
    pub fn note(&self, row: AuditRow) {
        log::info!("{}: {} {} {}", row.who, row.action, row.subject, row.detail);
        self.put_back(vec![row]);
    }

    /// Something is not saved.
    pub fn is_changed(&self) -> bool {
        !self.audit.lock().is_empty() || self.external.is_changed() || self.physical.is_changed()
    }

    /// What is to be kept, once.
    pub fn take_audit(&self) -> Vec<AuditRow> {
        std::mem::take(&mut self.audit.lock())
    }

    /// What was taken could not be saved.
    pub fn put_back(&self, rows: Vec<AuditRow>) {
        let mut waiting = self.audit.lock();
        waiting.extend(rows);
        let surplus = waiting.len().saturating_sub(AUDIT_WAITING_MAX);
        waiting.drain(..surplus);
    }
}
