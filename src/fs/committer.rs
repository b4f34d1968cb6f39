//! The committer: every few seconds it makes what was written durable and seals files after their
//! last close, in batches over all files, so that the number of syncs does not grow with theirs.
//!
//! It never blocks a request: it skips a file that is being synced by its owner, and gives a file up
//! that was opened or changed while it was being sealed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::lock_api::ArcMutexGuard;
use parking_lot::{Condvar, Mutex, RawMutex};

use crate::fs::FileSystem;
use crate::fs::baseline::ContentNote;
use crate::fs::hashing::Hashed;
use crate::fs::node::{FileState, Node, Pin};
use crate::fs::setattr::times_of;
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::{SealStep, SealedFile, SyncTicket};
use crate::store::tree::{set_times, sync_all};

/// Files in one batch; the rest comes in the next.
const BATCH_FILES: usize = 4096;
/// From this many files on, one syncfs is cheaper than a sync of each.
const SYNCFS_FILES: usize = 8;
/// How long a file may be busy with one request before it has to wait for the next tick.
const BUSY_PATIENCE: Duration = Duration::from_millis(100);
/// Files in one batch that only get new heads: each is open, and its syncs wait, for three syncs.
const HEADS_FILES: usize = 256;
/// So many files waiting start the next tick early.
const EARLY_TICK_FILES: usize = 2048;

/// Files that whoever closes one seals with it when too many wait.
const HELP_FILES: usize = 64;

/// Files that have something to make durable or to seal.
pub struct Committer {
    /// By inode number; a file stays here until it is sealed.
    list: Mutex<HashMap<u64, Pin>>,
    wake: Condvar,
    poked: Mutex<bool>,
    files_max: usize,
}

/// What a tick did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CommitStatus {
    /// Files that were synced and stay open.
    pub synced_count: usize,
    /// Files that are sealed now.
    pub sealed_count: usize,
    /// Files that could not be made durable or sealed.
    pub failed_count: usize,
    /// Files that still have to be sealed.
    pub waiting_count: usize,
}

impl Committer {
    /// Nothing to do; from `files_max` files on, others help.
    pub fn new(files_max: usize) -> Self {
        Self {
            list: Mutex::default(),
            wake: Condvar::new(),
            poked: Mutex::new(false),
            files_max,
        }
    }

    fn add(&self, pin: Pin) {
        let mut list = self.list.lock();
        list.insert(pin.node().ino.0, pin);
        let many = list.len() == EARLY_TICK_FILES;
        drop(list);
        if many {
            self.poke();
        }
    }

    fn remove(&self, node: &Arc<Node>) {
        let mut list = self.list.lock();
        // The number may have gone to another file meanwhile.
        let gone = match list.get(&node.ino.0) {
            Some(pin) if Arc::ptr_eq(pin.node(), node) => list.remove(&node.ino.0),
            _ => None,
        };
        drop(list);
        drop(gone);
    }

    /// Files that are not sealed, open or not.
    pub fn waiting_count(&self) -> usize {
        self.list.lock().len()
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.list.lock().values().map(|pin| pin.node().clone()).collect()
    }

    /// Some files that nobody has open, when there are too many.
    fn overdue(&self) -> Vec<Arc<Node>> {
        let list = self.list.lock();
        if list.len() < self.files_max {
            return Vec::new();
        }
        let is_closed = |node: &&Arc<Node>| node.file.state.try_lock().is_some_and(|state| state.opens == 0);
        let nodes = list.values().map(Pin::node).filter(is_closed);
        nodes.take(HELP_FILES).cloned().collect()
    }

    fn poke(&self) {
        *self.poked.lock() = true;
        self.wake.notify_all();
    }
}

/// What came of beginning to write new heads.
pub(super) enum Begun {
    /// On its way.
    Job(Job),
    /// Somebody writes it or is busy with it.
    Busy,
    /// It stays as it is.
    Failed(String),
}

/// One file on its way through a batch.
pub(super) struct Job {
    node: Arc<Node>,
    backing: Arc<File>,
    ticket: SyncTicket,
    /// `None`: only a sync.
    step: Option<SealStep>,
    _turn: Turn,
}

/// Nobody else syncs the file.
type Turn = ArcMutexGuard<RawMutex, ()>;

impl Job {
    /// Of a file that is in one from now on.
    fn begin(
        node: &Arc<Node>,
        state: &mut FileState,
        backing: Arc<File>,
        step: Option<SealStep>,
        ticket: SyncTicket,
        turn: Turn,
    ) -> Self {
        state.in_job = true;
        Self {
            node: node.clone(),
            backing,
            ticket,
            step,
            _turn: turn,
        }
    }
}

impl FileSystem {
    /// Puts a file on the committer's list, once.
    pub(super) fn list(&self, node: &Arc<Node>, state: &mut FileState) {
        if !state.listed {
            state.listed = true;
            self.notes.content(node.ino, ContentNote::Unsealed);
            self.committer.add(self.nodes.pin(node));
        }
    }

    /// Waits for the next tick: the interval, or a full list, or [`FileSystem::wake_committer`].
    pub fn wait_for_tick(&self, interval: Duration) {
        let mut poked = self.committer.poked.lock();
        if !*poked {
            self.committer.wake.wait_for(&mut poked, interval);
        }
        *poked = false;
    }

    /// Starts the next tick now.
    pub fn wake_committer(&self) {
        self.committer.poke();
    }

    /// One tick over all files that wait.
    pub fn commit_tick(&self) -> CommitStatus {
        let mut status = CommitStatus::default();
        let nodes = self.committer.nodes();
        // Few files are synced one by one: a sync that hangs then holds up no fsync of another.
        let batch_files = if nodes.len() < SYNCFS_FILES { 1 } else { BATCH_FILES };
        for batch in nodes.chunks(batch_files) {
            self.commit_batch(batch, &mut status);
        }
        for batch in self.hashing.take_done().chunks(HEADS_FILES) {
            let jobs = batch.iter().filter_map(|hashed| self.begin_heads(hashed, &mut status));
            self.carry_out(jobs.collect(), &mut status);
        }
        status.waiting_count = self.committer.waiting_count();
        status
    }

    /// Seals one file before its close returns; one that a batch has just now is sealed with that.
    pub(super) fn seal_now(&self, node: &Arc<Node>) {
        let mut status = CommitStatus::default();
        self.commit_batch(std::slice::from_ref(node), &mut status);
    }

    /// After a close: a committer that falls behind gets help, and who writes faster than the disk takes it
    /// waits here, before the daemon is out of descriptors.
    pub(super) fn help_committer(&self) {
        let overdue = self.committer.overdue();
        if !overdue.is_empty() {
            self.commit_batch(&overdue, &mut CommitStatus::default());
        }
    }

    /// Directories with files that are not sealed yet, to be noted in a new epoch of the dirty log: a
    /// start after a kill has to find those files.
    pub fn mark_unsealed(&self) {
        let operation = self.dirty.enter();
        for node in self.committer.nodes() {
            self.mark_file(&operation, &node);
        }
        // Unlinked files that are still open are charged, and gone after a kill.
        for handle in self.handles.all() {
            // Not under its lock, which a slow disk may hold: an unlink notes its directory itself.
            if handle.node().is_unlinked() {
                self.mark_file(&operation, handle.node());
            }
        }
    }

    fn commit_batch(&self, nodes: &[Arc<Node>], status: &mut CommitStatus) {
        let begin = |node: &Arc<Node>| {
            // Its owner is syncing it; the next tick comes soon enough.
            let turn = node.file.sync_turn.try_lock_arc()?;
            self.begin_job(node, turn, status)
        };
        let jobs = nodes.iter().filter_map(begin).collect();
        self.carry_out(jobs, status);
    }

    pub(super) fn carry_out(&self, mut jobs: Vec<Job>, status: &mut CommitStatus) {
        while !jobs.is_empty() {
            let synced = sync_jobs(&jobs);
            jobs = jobs
                .into_iter()
                .zip(synced)
                .filter_map(|(job, synced)| self.advance(job, synced, status))
                .collect();
        }
    }

    /// The hash of a content goes into its heads, unless the file was changed since it was read.
    fn begin_heads(&self, hashed: &Hashed, status: &mut CommitStatus) -> Option<Job> {
        let node = hashed.pin.node();
        let turn = node.file.sync_turn.try_lock_arc();
        let state = node.file.state.try_lock_for(BUSY_PATIENCE);
        let (Some(turn), Some(mut state)) = (turn, state) else {
            // Somebody is busy with it, and may not be for long.
            self.hashing.want(self.nodes.pin(node));
            return None;
        };
        let is_same = self.sealed_and_idle(node, &mut state) == Some(hashed.facts);
        let begun = state.sealed.as_mut().filter(|_| is_same).map(|sealed| {
            let begun = sealed.begin_heads(Some(hashed.content_sha256));
            begun.map(|begun| begun.map(|begun| (sealed.backing().clone(), begun)))
        });
        match begun {
            Some(Ok(Some((backing, (step, ticket))))) => {
                return Some(Job::begin(node, &mut state, backing, Some(step), ticket, turn));
            }
            Some(Err(e)) => self.note_failure(node, &mut state, &e, status),
            Some(Ok(None)) | None => {}
        }
        state.put_away_if_idle();
        None
    }

    /// The heads of a file that nobody writes are to name the keys of now.
    pub(super) fn begin_rewrap(&self, node: &Arc<Node>) -> Begun {
        let turn = node.file.sync_turn.try_lock_arc();
        let state = node.file.state.try_lock_for(BUSY_PATIENCE);
        let (Some(turn), Some(mut state)) = (turn, state) else {
            return Begun::Busy;
        };
        if node.is_unlinked() || state.writers > 0 || state.listed {
            return Begun::Busy;
        }
        if state.sealed.is_none()
            && let Err(e) = self.load(node, &mut state, false)
        {
            return Begun::Failed(e.to_string());
        }
        let Some(sealed) = state.sealed.as_mut() else {
            return Begun::Busy;
        };
        self.follow_tenant(node, sealed);
        let (backing, begun) = (sealed.backing().clone(), sealed.begin_rewrap());
        match begun {
            Ok(Some((step, ticket))) => Begun::Job(Job::begin(node, &mut state, backing, Some(step), ticket, turn)),
            Ok(None) => Begun::Busy,
            Err(e) => {
                state.put_away_if_idle();
                Begun::Failed(e.to_string())
            }
        }
    }

    /// `None` when there is nothing to do now.
    fn begin_job(&self, node: &Arc<Node>, turn: Turn, status: &mut CommitStatus) -> Option<Job> {
        // A write that hangs on the disk must not hold up the other files.
        let mut state = node.file.state.try_lock_for(BUSY_PATIENCE)?;
        let idle = state.writers == 0;
        let gone = node.is_unlinked();
        let Some(sealed) = state.sealed.as_mut().filter(|_| !gone) else {
            self.unlist(node, &mut state);
            return None;
        };
        let began = if idle && !sealed.is_clean() {
            self.follow_tenant(node, sealed);
            keeping_times(&sealed.backing().clone(), || sealed.seal_tail())
                .map(|(step, ticket)| ticket.map(|t| (Some(step), t)))
        } else if sealed.is_unsynced() {
            sealed.begin_sync().map(|ticket| Some((None, ticket)))
        } else {
            Ok(None)
        };
        let backing = sealed.backing().clone();
        match began {
            Ok(Some((step, ticket))) => Some(Job::begin(node, &mut state, backing, step, ticket, turn)),
            Ok(None) => {
                self.rest_unchanged(node, &mut state);
                self.rest(node, &mut state);
                None
            }
            Err(e) => {
                self.note_failure(node, &mut state, &e, status);
                None
            }
        }
    }

    fn advance(&self, mut job: Job, synced: io::Result<()>, status: &mut CommitStatus) -> Option<Job> {
        let node = job.node.clone();
        let mut state = node.file.state.lock();
        state.in_job = false;
        let Some(sealed) = state.sealed.as_mut() else {
            self.unlist(&node, &mut state);
            return None;
        };
        let next = match job.step {
            None => sealed.finish_sync(job.ticket, synced).map(|()| (None, None)),
            Some(step) => {
                let now_s = self.now_unix_s();
                let backing = sealed.backing().clone();
                keeping_times(&backing, || sealed.seal_next(step, job.ticket, synced, now_s))
                    .map(|(step, ticket)| (Some(step), ticket))
            }
        };
        match next {
            Ok((step, Some(ticket))) => {
                job.step = step;
                job.ticket = ticket;
                state.in_job = true;
                drop(state);
                Some(job)
            }
            Ok((step, None)) => {
                match step {
                    Some(SealStep::Sealed) => {
                        status.sealed_count += 1;
                        self.note_sealed(&node, &state);
                    }
                    _ => status.synced_count += 1,
                }
                self.rest(&node, &mut state);
                None
            }
            Err(e) => {
                self.note_failure(&node, &mut state, &e, status);
                None
            }
        }
    }

    /// Counts a file that has to be tried again, and logs the first of its failures in a row.
    fn note_failure(&self, node: &Arc<Node>, state: &mut FileState, e: &StoreError, status: &mut CommitStatus) {
        self.take_failed_syncs(state);
        self.failures.count(e);
        status.failed_count += 1;
        let path = String::from_utf8_lossy(&node.home().path()).into_owned();
        // Kept in memory also after a failed sync: a new opening would trust the kernel's next good
        // one, which no longer knows of the pages that were lost.
        if std::mem::replace(&mut state.failure_logged, true) {
            return;
        }
        log::error!(
            "cannot make recording inode {} in {path:?} durable, will try again: {e}",
            node.ino
        );
    }

    /// A sealed file was listed for a change that was refused, or was none: what was known of it holds
    /// again, and nothing waits for it.
    pub(super) fn rest_unchanged(&self, node: &Arc<Node>, state: &mut FileState) {
        let is_settled = |sealed: &SealedFile<File>| sealed.is_clean() && !sealed.is_unsynced();
        if state.listed && state.sealed.as_deref().is_some_and(is_settled) {
            self.note_sealed(node, state);
            self.unlist(node, state);
        }
    }

    fn unlist(&self, node: &Arc<Node>, state: &mut FileState) {
        state.failure_logged = false;
        state.listed = false;
        self.committer.remove(node);
    }

    /// Off the list and out of memory when nothing more is to come.
    fn rest(&self, node: &Arc<Node>, state: &mut FileState) {
        let done = state
            .sealed
            .as_ref()
            .is_none_or(|sealed| sealed.is_clean() && !sealed.is_unsynced());
        if done {
            self.unlist(node, state);
            if state.opens == 0 {
                state.put_away();
            }
        }
    }

    /// Seals everything at the end, when no request comes any more. Returns how many files are left.
    pub fn seal_all(&self) -> usize {
        loop {
            let before = self.committer.list.lock().len();
            let status = self.commit_tick();
            let after = self.committer.list.lock().len();
            if after == 0 || (after >= before && status.sealed_count == 0) {
                return after;
            }
        }
    }

    /// Whether a file has something that is not durable or not sealed.
    pub fn is_unsealed(&self, number: u64) -> bool {
        self.committer.list.lock().contains_key(&number)
    }

    /// Syncs the names of the data directory and everything else below it.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn sync_store(&self) -> io::Result<()> {
        let root = self
            .nodes
            .root()
            .open(&self.tree, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY)?;
        sync_all(root.as_fd())
    }
}

/// Sealing is no change of content: the times of the backing file stay what they were.
fn keeping_times<T>(backing: &File, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let times = times_of(backing)?;
    let done = work();
    set_times(backing.as_fd(), &times)?;
    done
}

/// One result for each job.
fn sync_jobs(jobs: &[Job]) -> Vec<io::Result<()>> {
    if jobs.len() < SYNCFS_FILES {
        return jobs.iter().map(|job| Backing::sync_data(&*job.backing)).collect();
    }
    let synced = sync_all(&*jobs[0].backing).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO));
    let each = |_| synced.map_err(io::Error::from_raw_os_error);
    jobs.iter().map(each).collect()
}
