//! The way to one receiver: what waits for it is tried one after the other, and a receiver that fails is left alone for
//! a while. Each has a lane of its own in the courier's thread, so that one that hangs delays no other.
//!
//! States a kill can leave: before the answer of the receiver, or between it and the row that notes it, the notice is
//! pending and is sent again under the same id; after that it is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::attempt::{Failed, Origin, Parcel, attempt};
use super::backoff::{PAUSE_MAX, chance, is_over, pause};
use super::board::{Board, Rings, new_id};
use super::notice::Notice;
use crate::clock::Clock;
use crate::config::{Alerts, Receiver};
use crate::db::{Database, Errands, Error, OutboxRow, OutboxState};

/// Before the database is asked again that did not answer.
const DATABASE_PAUSE: Duration = Duration::from_secs(2);
/// Longest time that the thread that writes may take for one errand.
const ERRAND_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an attempt that is under way may hold up a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks when nothing is due and nobody rings.
const LOOK_PACE: Duration = Duration::from_hours(1);
/// Notices from memory that wait for one receiver; the oldest goes when there are more.
const DIRECT_MAX: usize = 16;

/// What all lanes use.
pub(super) struct Shared {
    pub(super) alerts: Alerts,
    pub(super) board: Arc<Board>,
    pub(super) origin: Origin,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) errands: Errands,
}

impl Shared {
    pub(super) fn now_s(&self) -> u64 {
        self.clock.now().as_secs()
    }

    /// One transaction of the thread that writes; an error as text.
    pub(super) async fn database<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, String> {
        let (answer, told) = oneshot::channel();
        let is_taken = self.errands.hand_over(move |database| {
            // Who asked may be gone.
            let _ = answer.send(work(database));
        });
        if !is_taken {
            return Err("the database has too much to do".to_owned());
        }
        match timeout(ERRAND_TIME_MAX, told).await {
            Ok(Ok(answer)) => answer.map_err(|e| e.to_string()),
            Ok(Err(_)) => Err("the database is gone".to_owned()),
            Err(_) => Err("the database does not answer".to_owned()),
        }
    }
}

/// A notice that cannot go through the outbox.
struct Direct {
    id: String,
    notice: Notice,
    created_s: u64,
    attempts: u32,
}

/// Notices from memory, for one receiver.
#[derive(Clone, Default)]
pub(super) struct DirectQueue(Arc<Mutex<VecDeque<Direct>>>);

impl DirectQueue {
    pub(super) fn put(&self, notice: &Notice, now_s: u64) {
        let mut queue = self.0.lock();
        if queue.len() >= DIRECT_MAX {
            log::warn!("a notice is dropped, for {DIRECT_MAX} wait already");
            queue.pop_front();
        }
        queue.push_back(Direct {
            id: new_id(),
            notice: notice.clone(),
            created_s: now_s,
            attempts: 0,
        });
    }
}

/// See the module.
pub(super) struct Lane {
    receiver: Receiver,
    shared: Arc<Shared>,
    direct: DirectQueue,
    /// What became of the last attempt is not written yet. Until it is, no row is taken: the next would be this one
    /// again.
    unwritten: Option<OutboxRow>,
    /// Attempts that failed one after the other.
    failures: u32,
    /// By the monotonic clock.
    rests_until: Duration,
}

impl Lane {
    pub(super) fn new(receiver: Receiver, shared: Arc<Shared>, direct: DirectQueue) -> Self {
        Self {
            receiver,
            shared,
            direct,
            unwritten: None,
            failures: 0,
            rests_until: Duration::ZERO,
        }
    }

    /// Until the courier stops.
    pub(super) async fn run(mut self, mut bell: watch::Receiver<Rings>, stopped: watch::Receiver<bool>) {
        let mut at_once = bell.borrow_and_update().at_once;
        while !*stopped.borrow() {
            let late = async {
                end_of(stopped.clone()).await;
                sleep(STOP_PATIENCE).await;
            };
            let wait = tokio::select! {
                wait = self.step() => wait,
                () = late => return,
            };
            tokio::select! {
                biased;
                () = end_of(stopped.clone()) => return,
                rung = bell.changed() => if rung.is_err() { return },
                () = sleep(wait) => {}
            }
            let rings = *bell.borrow_and_update();
            if rings.at_once != at_once {
                at_once = rings.at_once;
                self.rests_until = Duration::ZERO;
            }
        }
    }

    /// Does one thing, and says how long to wait for the next.
    async fn step(&mut self) -> Duration {
        self.write_outcome().await;
        let rest = self.rests_until.saturating_sub(self.shared.clock.monotonic());
        if !rest.is_zero() {
            return if self.unwritten.is_some() {
                rest.min(DATABASE_PAUSE)
            } else {
                rest
            };
        }
        let direct = self.direct.0.lock().pop_front();
        if let Some(direct) = direct {
            self.try_direct(direct).await;
            return Duration::ZERO;
        }
        if self.unwritten.is_some() {
            return DATABASE_PAUSE;
        }
        let name = self.receiver.name.clone();
        let row = match self.shared.database(move |database| database.next_notice(&name)).await {
            Ok(Some(row)) => row,
            Ok(None) => return LOOK_PACE,
            Err(_) => return DATABASE_PAUSE,
        };
        let now = self.shared.clock.now();
        let wait = Duration::from_millis(row.next_ms).saturating_sub(now);
        // Planned before the clock was set back, if it is further away than any pause.
        if !wait.is_zero() && wait <= PAUSE_MAX {
            return wait;
        }
        self.try_row(row).await;
        Duration::ZERO
    }

    /// Tries to write what became of the last attempt.
    async fn write_outcome(&mut self) {
        let Some(row) = self.unwritten.clone() else { return };
        match self.shared.database(move |database| database.note_attempt(&row)).await {
            Ok(()) => self.unwritten = None,
            Err(e) => log::debug!("what became of a notice is not written yet: {e}"),
        }
    }

    async fn try_row(&mut self, mut row: OutboxRow) {
        let answer = match serde_json::from_str::<Notice>(&row.notice) {
            Ok(notice) => self.attempt(&row.id, &notice).await,
            Err(e) => Err(Failed {
                is_final: true,
                ..Failed::because(&format_args!("the row cannot be read: {e}"))
            }),
        };
        let now = self.shared.clock.now();
        row.attempts = row.attempts.saturating_add(1);
        row.changed_s = now.as_secs();
        match answer {
            Ok(()) => {
                row.state = OutboxState::Delivered;
                row.last_error = None;
            }
            Err(failed) => {
                let next = now + pause(row.attempts, failed.retry_after, chance());
                row.next_ms = u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
                if failed.is_final || is_over(&self.shared.alerts, row.attempts, row.created_s, now.as_secs()) {
                    row.state = OutboxState::Dead;
                    self.note_dead(&row.id, row.attempts, &failed.reason);
                }
                row.last_error = Some(failed.reason);
            }
        }
        self.unwritten = Some(row);
    }

    async fn try_direct(&mut self, mut direct: Direct) {
        let Err(failed) = self.attempt(&direct.id, &direct.notice).await else {
            return;
        };
        direct.attempts = direct.attempts.saturating_add(1);
        let now_s = self.shared.now_s();
        if failed.is_final || is_over(&self.shared.alerts, direct.attempts, direct.created_s, now_s) {
            self.note_dead(&direct.id, direct.attempts, &failed.reason);
        } else {
            self.direct.0.lock().push_front(direct);
        }
    }

    /// One attempt, counted; after a failure the receiver is left alone.
    async fn attempt(&mut self, id: &str, notice: &Notice) -> Result<(), Failed> {
        let shared = self.shared.clone();
        let parcel = Parcel {
            id,
            notice,
            origin: &shared.origin,
            now_s: shared.now_s(),
        };
        let answer = attempt(&self.receiver, parcel).await;
        let name = &self.receiver.name;
        match &answer {
            Ok(()) => {
                shared.board.count(name, |counts| counts.delivered += 1);
                if std::mem::take(&mut self.failures) > 0 {
                    log::info!("receiver '{name}' takes notices again");
                }
            }
            Err(failed) => {
                shared.board.count(name, |counts| counts.failed += 1);
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    log::warn!("receiver '{name}' took no notice: {}; it is tried again", failed.reason);
                }
                let rest = pause(self.failures, failed.retry_after, chance());
                self.rests_until = shared.clock.monotonic() + rest;
            }
        }
        answer
    }

    fn note_dead(&self, id: &str, attempts: u32, reason: &str) {
        let name = &self.receiver.name;
        self.shared.board.count(name, |counts| counts.dead += 1);
        log::error!("receiver '{name}': notice {id} is given up after {attempts} attempts: {reason}");
    }
}

/// When the courier is to stop, or is gone.
pub(super) async fn end_of(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone: the end too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
