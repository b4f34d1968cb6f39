//! What the database writer is given: the rows of directories that changed, of inodes with several
//! names, and what the day added to each tenant.
//!
//! The log of dirty directories is rotated first; what is read of an account afterwards holds every
//! change of the old epoch, and a change of the new one is in the new log already.

use std::collections::HashMap;
use std::sync::Arc;

use crate::admin::Books;
use crate::alert::Board;
use crate::clock::Clock;
use crate::daemon::baseline;
use crate::daemon::ledger_load::link_rows;
use crate::db::{Ask, Batch, Collected, DayDelta, DirRow, OperationsDelta, TermsRow};
use crate::fs::{FileSystem, LinkCharge};
use crate::id::Ino;
use crate::period::CivilDate;
use crate::quota::{Account, FlowCounts, Noted, OperationKind, TakenTerms};
use crate::sealed::row_mac::RowKey;
use crate::store::dirty_log::{DirtyLog, Rotated};

/// Accounts whose terms were taken, with what they noted.
type Termed = Vec<(Arc<Account>, Vec<Noted>)>;

/// Collects what is to be written.
pub struct WriteBack {
    fs: Arc<FileSystem>,
    dirty: Arc<DirtyLog>,
    clock: Arc<dyn Clock>,
    /// Day of the last write-back: what is pending at midnight belongs to the day before.
    day: CivilDate,
    /// Makes the codes of rows.
    key: RowKey,
    books: Arc<Books>,
    board: Arc<Board>,
}

impl WriteBack {
    /// For a file system that is about to be served.
    pub fn new(
        fs: &Arc<FileSystem>,
        dirty: &Arc<DirtyLog>,
        clock: &Arc<dyn Clock>,
        key: RowKey,
        books: &Arc<Books>,
        board: &Arc<Board>,
    ) -> Self {
        Self {
            fs: fs.clone(),
            dirty: dirty.clone(),
            clock: clock.clone(),
            day: today(&**clock),
            key,
            books: books.clone(),
            board: board.clone(),
        }
    }

    /// Answers the writer.
    pub fn collect(&mut self, ask: Ask) -> Collected {
        let rotated = self.dirty.rotate().unwrap_or_else(|e| {
            log::warn!("the dirty log cannot be rotated, it grows until it can: {e}");
            None
        });
        // After a kill nothing may be marked yet, and the logs of before go with this save all the same.
        if rotated.is_some() || ask == Ask::Everything {
            self.fs.mark_unsealed();
        }
        let notes = self.fs.notes().take();
        let charges = self.fs.link_charges();
        let (links, removed_links) = self.fs.changed_links();
        self.follow_key();
        let mut batch = Batch {
            removed_links,
            log_epoch: self.dirty.epoch() - 1,
            ..Batch::default()
        };
        batch.at_s = self.clock.now().as_secs();
        baseline::put_notes(&notes, &self.key, &mut batch);
        let inos = rotated.as_ref().map_or(&[][..], |r| &r.inos);
        let accounts = match ask {
            Ask::Dirty => {
                batch.links = links.iter().flat_map(link_rows).collect();
                self.dirty_accounts(inos, &mut batch.removed_dirs)
            }
            Ask::Everything => {
                batch.links = self.fs.all_links().iter().flat_map(link_rows).collect();
                self.fs.ledger().accounts()
            }
        };
        batch.dirs = accounts.iter().map(|account| row(account, &charges)).collect();
        let flows = self.days(&accounts, &mut batch);
        let termed = self.terms(ask, &mut batch);
        batch.external = self.books.external.take(ask == Ask::Everything);
        batch.audit = self.books.take_audit();
        self.collected(batch, rotated, flows, termed)
    }

    /// Rows bear the code of the store's key of now.
    fn follow_key(&mut self) {
        if self.key.key_id() != self.fs.ring().current_id() {
            match RowKey::current(self.fs.ring()) {
                Ok(key) => self.key = key,
                Err(e) => log::warn!("rows stay under key {}: {e}", self.key.key_id()),
            }
        }
    }

    fn dirty_accounts(&self, inos: &[Ino], gone: &mut Vec<Ino>) -> Vec<Arc<Account>> {
        let mut found = Vec::with_capacity(inos.len());
        for &ino in inos {
            match self.fs.ledger().account(ino) {
                Some(account) => found.push(account),
                None => gone.push(ino),
            }
        }
        found
    }

    /// Rows of the day for the mount, every tenant above the accounts, those below whom something was done,
    /// and those whose physical bytes are known anew.
    fn days(&mut self, accounts: &[Arc<Account>], batch: &mut Batch) -> Vec<(Arc<Account>, FlowCounts)> {
        let (date, month) = (self.day.day_key(), self.day.month_key());
        self.day = today(&*self.clock);
        let mut payers: HashMap<Ino, Arc<Account>> = HashMap::new();
        payers.insert(self.fs.ledger().root().ino(), self.fs.ledger().root().clone());
        for account in accounts {
            let mut at = Some(account.clone());
            while let Some(account) = at {
                at = account.parent();
                if account.is_tenant() {
                    payers.insert(account.ino(), account);
                }
            }
        }
        let used = self.fs.ledger().watched().into_iter();
        payers.extend(
            used.filter(|account| {
                let is_looked_at =
                    !account.pending_operations().is_zero() || self.books.physical.is_unsaved(account.ino());
                account.is_tenant() && is_looked_at
            })
            .map(|account| (account.ino(), account)),
        );
        let mut flows = Vec::new();
        for (_, payer) in payers {
            let flow = payer.take_flow();
            let total = payer.total();
            let tenant = payer.display_path();
            if !flow.operations.is_zero() {
                batch.operations.push(OperationsDelta {
                    month: month.clone(),
                    tenant: tenant.clone(),
                    counts: flow.operations,
                });
            }
            batch.days.push(DayDelta {
                date: date.clone(),
                tenant,
                total_files: total.files,
                total_size_bytes: total.bytes,
                physical_bytes: self.books.physical.take(payer.ino()),
                recordings_added: flow.files_added,
                recordings_deleted: flow.files_deleted,
                bytes_added: flow.bytes_added,
                bytes_deleted: flow.bytes_deleted,
                denied: flow.operations.of(OperationKind::Denied),
            });
            flows.push((payer, flow));
        }
        self.books.physical.settle();
        flows
    }

    /// Periods, grace and warnings that changed, and notices of what changed them. Both are of one instant of the
    /// account and go into one transaction, so that a kill leaves a crossing noticed and on its way, or not noticed yet.
    fn terms(&self, ask: Ask, batch: &mut Batch) -> Termed {
        let mut taken = Vec::new();
        for account in self.fs.ledger().watched() {
            let wanted = match ask {
                Ask::Dirty => account.take_changed_terms(),
                Ask::Everything => account.take_terms(),
            };
            let Some(TakenTerms {
                saved,
                noted,
                dropped_count,
            }) = wanted
            else {
                continue;
            };
            if dropped_count > 0 {
                log::warn!(
                    "{dropped_count} notices of an account are dropped: the database has taken none for too long"
                );
            }
            batch.terms.push(TermsRow {
                ino: account.ino(),
                generation: account.generation(),
                saved,
            });
            batch.outbox.extend(self.board.rows(&account, &noted));
            taken.push((account, noted));
        }
        taken
    }

    fn collected(
        &self,
        batch: Batch,
        rotated: Option<Rotated>,
        flows: Vec<(Arc<Account>, FlowCounts)>,
        termed: Termed,
    ) -> Collected {
        // Without a mark nothing is left of any epoch: what earlier daemons logged is in the first save.
        let over = rotated.as_ref().map_or(self.dirty.epoch() - 1, |rotated| rotated.epoch);
        let dirty = self.dirty.clone();
        let (fs, saved, failed_dirty) = (self.fs.clone(), self.fs.clone(), self.dirty.clone());
        let (books, books_of_failed) = (self.books.clone(), self.books.clone());
        let moves_physical = !(batch.dirs.is_empty()
            && batch.removed_dirs.is_empty()
            && batch.sealed.is_empty()
            && batch.unsealed.is_empty()
            && batch.gone.is_empty()
            && batch.places.is_empty());
        let bell = (!batch.outbox.is_empty()).then(|| self.board.clone());
        Collected {
            batch,
            on_committed: Box::new(move || {
                saved.notes().saved();
                dirty.retire(over);
                if moves_physical {
                    books.physical.outdate();
                }
                if let Some(board) = bell {
                    board.ring();
                }
            }),
            on_failed: Box::new(move |batch: Batch| {
                if let Some(rotated) = rotated {
                    failed_dirty.not_saved(rotated.inos);
                }
                fs.give_back_links(batch.links.iter().map(|row| row.ino).chain(batch.removed_links));
                fs.notes().not_saved();
                for (payer, flow) in flows {
                    payer.give_back_flow(flow);
                }
                books_of_failed.external.not_saved(&batch.external);
                books_of_failed.physical.not_saved();
                books_of_failed.put_back(batch.audit);
                for (account, noted) in termed {
                    account.terms_not_saved(noted);
                }
            }),
        }
    }
}

fn today(clock: &dyn Clock) -> CivilDate {
    CivilDate::from_unix_s(clock.now_s())
}

/// The row of a directory: its own figures less the inodes with several names, which have rows of
/// their own.
fn row(account: &Account, charges: &LinkCharge) -> DirRow {
    let own = account.own();
    let own = charges
        .get(&account.ino())
        .map_or(own, |&charge| own.saturating_sub(charge));
    DirRow {
        ino: account.ino(),
        generation: account.generation(),
        parent: account.parent().map_or(account.ino(), |parent| parent.ino()),
        name: account.name(),
        own,
        limits: account.overrides(),
    }
}
