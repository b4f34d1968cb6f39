//! Where notices are pinned up: which receivers want them, as rows for the transaction that saves what was noticed, and
//! the bell that tells the courier of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};

use super::notice::{Notice, kind_name};
use crate::config::{Alerts, NoticeKind, Receiver};
use crate::db::{OutboxRow, OutboxState};
use crate::id::Ino;
use crate::quota::{Account, EventKind, Noted};
use crate::units::hex;

/// Tests that wait to be made; more are refused.
const TESTS_MAX: usize = 8;
/// Bytes of an id: no two notices of anybody have the same.
const ID_BYTES: usize = 16;

/// What became of attempts since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Taken by the receiver.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Notices that were given up.
    pub dead: u64,
}

/// How often the bell was rung.
#[derive(Clone, Copy, Default)]
pub(super) struct Rings {
    pub(super) new: u64,
    /// Somebody wants to see attempts now, whatever failed before.
    pub(super) at_once: u64,
}

/// Somebody wants to know whether a receiver takes a notice.
pub(super) struct TestAsk {
    pub(super) receiver: Receiver,
    pub(super) answer: oneshot::Sender<Result<String, String>>,
}

/// See the module.
pub struct Board {
    receivers: Vec<Receiver>,
    /// Of this run: an id is made of it and of what is told, so that what is collected twice is one notice.
    salt: [u8; ID_BYTES],
    bell: watch::Sender<Rings>,
    tests: mpsc::Sender<TestAsk>,
    asked: Mutex<Option<mpsc::Receiver<TestAsk>>>,
    counts: Mutex<BTreeMap<String, Counts>>,
    /// In the outbox, by receiver and state.
    waiting: Mutex<BTreeMap<(String, &'static str), u64>>,
    changed: AtomicBool,
}

impl Board {
    /// For the receivers of a configuration.
    pub fn new(alerts: &Alerts) -> Self {
        let (tests, asked) = mpsc::channel(TESTS_MAX);
        let counts = alerts
            .receivers
            .iter()
            .map(|receiver| (receiver.name.clone(), Counts::default()));
        Self {
            receivers: alerts.receivers.clone(),
            salt: random(),
            bell: watch::Sender::new(Rings::default()),
            tests,
            asked: Mutex::new(Some(asked)),
            counts: Mutex::new(counts.collect()),
            waiting: Mutex::default(),
            changed: AtomicBool::new(true),
        }
    }

    /// Rows for what an account noted. The same events make the same rows, however often.
    pub fn rows(&self, account: &Account, noted: &[Noted]) -> Vec<OutboxRow> {
        let mut rows = Vec::new();
        if self.receivers.is_empty() {
            return rows;
        }
        for event in noted {
            // The clock is the machine's: one notice is enough.
            if matches!(event.kind, EventKind::Leapt { .. }) && !account.is_root() {
                continue;
            }
            let notice = Notice::of(account, &event.kind, event.at_s);
            let id = self.id_of(account.ino(), account.generation(), event);
            let wanting = self.receivers.iter().filter(|receiver| wants(receiver, &notice));
            rows.extend(wanting.map(|receiver| row(&id, receiver, &notice)));
        }
        rows
    }

    fn id_of(&self, ino: Ino, generation: u32, event: &Noted) -> String {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(ino.0.to_le_bytes());
        hash.update(generation.to_le_bytes());
        hash.update(event.number.to_le_bytes());
        hash.update(event.at_s.to_le_bytes());
        format!("msg_{}", hex(&hash.finalize()[..ID_BYTES]))
    }

    /// There may be something new in the outbox.
    pub fn ring(&self) {
        self.changed.store(true, Ordering::Release);
        self.bell.send_modify(|rings| rings.new += 1);
    }

    /// The same, and receivers that did not answer are tried at once.
    pub fn ring_at_once(&self) {
        self.changed.store(true, Ordering::Release);
        self.bell.send_modify(|rings| rings.at_once += 1);
    }

    /// Sends a test notice and waits for what the receiver says: its id.
    ///
    /// # Errors
    /// What the receiver answered, or why it was not asked.
    pub async fn test(&self, name: &str) -> Result<String, String> {
        let receiver = self.receivers.iter().find(|receiver| receiver.name == name).cloned();
        let receiver = receiver.ok_or_else(|| self.no_such(name))?;
        let (answer, told) = oneshot::channel();
        self.tests
            .try_send(TestAsk { receiver, answer })
            .map_err(|_| "too many tests at a time, or the daemon is stopping".to_owned())?;
        told.await.map_err(|_| "the daemon is stopping".to_owned())?
    }

    /// Whether there is a receiver of this name.
    pub fn has(&self, name: &str) -> bool {
        self.receivers.iter().any(|receiver| receiver.name == name)
    }

    /// Says which receivers there are.
    pub fn no_such(&self, name: &str) -> String {
        let names: Vec<_> = self.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        let names = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        format!("there is no receiver '{name}'; the configuration has {names}")
    }

    /// What became of attempts since the start, by receiver.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        self.counts.lock().clone()
    }

    /// How many notices are in the outbox, by receiver and state, a second ago.
    pub fn waiting(&self) -> BTreeMap<(String, &'static str), u64> {
        self.waiting.lock().clone()
    }

    pub(super) fn count(&self, receiver: &str, change: impl FnOnce(&mut Counts)) {
        self.changed.store(true, Ordering::Release);
        change(self.counts.lock().entry(receiver.to_owned()).or_default());
    }

    /// The outbox may have changed since the last call.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn put_changed(&self) {
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn put_waiting(&self, found: Vec<(String, OutboxState, u64)>) {
        let found = found
            .into_iter()
            .map(|(receiver, state, count)| ((receiver, state.name()), count));
        *self.waiting.lock() = found.collect();
    }

    pub(super) fn bell(&self) -> watch::Receiver<Rings> {
        self.bell.subscribe()
    }

    /// For the one courier.
    pub(super) fn take_asked(&self) -> Option<mpsc::Receiver<TestAsk>> {
        self.asked.lock().take()
    }
}

fn row(id: &str, receiver: &Receiver, notice: &Notice) -> OutboxRow {
    let created_s = notice.at_s.max(0).unsigned_abs();
    OutboxRow {
        id: id.to_owned(),
        receiver: receiver.name.clone(),
        created_s,
        kind: kind_name(notice.kind).to_owned(),
        path: notice.path.clone(),
        notice: serde_json::to_string(notice).unwrap_or_default(),
        attempts: 0,
        next_ms: created_s.saturating_mul(1000),
        state: OutboxState::Pending,
        changed_s: created_s,
        last_error: None,
    }
}

/// A test goes to whoever it is for.
pub(super) fn wants(receiver: &Receiver, notice: &Notice) -> bool {
    let is_kind = receiver.kinds.is_empty() || receiver.kinds.contains(&notice.kind);
    let is_tenant = receiver.tenant.is_none() || receiver.tenant == notice.tenant;
    notice.kind == NoticeKind::Test || (is_kind && is_tenant)
}

/// An id of its own.
pub(super) fn new_id() -> String {
    format!("msg_{}", hex(&random()))
}

/// Without randomness the bytes are zeros: then two runs may give two notices one id, and a receiver takes one of them.
fn random() -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    if let Err(e) = getrandom::fill(&mut bytes) {
        log::error!("no random bytes: {e}; ids of notices may repeat");
    }
    bytes
}
