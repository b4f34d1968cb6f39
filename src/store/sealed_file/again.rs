//! Writing again after a failed sync (rule 4): the kernel then takes pages for clean that never reached
//! the disk, and its next sync would call them durable.
//!
//! So every body page written since the last good sync is remembered with its generation. After a
//! failure each is read back, and only if it is what was written (its tag holds and its generation is
//! that one; an older page comes back when the kernel dropped its copy) the same sealed bytes are
//! written again. Head and tail come from memory. The same bytes in the same place put nothing at
//! risk: whatever a power cut mixes is what it could have mixed before. One page that is gone leaves
//! the file failed, until it is written anew, cut off, or the daemon restarts.

use std::collections::BTreeMap;

use crate::sealed::head::{Generation, State};
use crate::sealed::page::open_body;
use crate::sealed::{PAGE_BYTES, body_offset};
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::pages::write_page;
use crate::store::sealed_file::read::read_full;
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{Content, HeadOnDisk, SealedFile};

/// Writes remembered between two syncs; a file with more of them cannot be written again.
const RUNS_MAX: usize = 16_384;

/// What a failed sync left to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SyncFailure {
    /// Write again what is remembered.
    WriteAgain,
    /// Pages of another process, or more than are remembered, may be lost.
    Unknown,
}

/// Blocks and the generation that the body page of each was written with.
#[derive(Default)]
struct Runs(BTreeMap<u64, (u64, Generation)>);

impl Runs {
    fn put(&mut self, first: u64, end: u64, generation: Generation) {
        self.take_out(first, end);
        self.0.insert(first, (end, generation));
    }

    /// Forgets the blocks from `first` to before `end`.
    fn take_out(&mut self, first: u64, end: u64) {
        while let Some((&from, &(to, generation))) = self.0.range(..end).next_back().filter(|(_, (to, _))| *to > first)
        {
            self.0.remove(&from);
            if from < first {
                self.0.insert(from, (first, generation));
            }
            if end < to {
                self.0.insert(end, (to, generation));
            }
        }
    }

    fn of(&self, block: u64) -> Option<Generation> {
        let (_, &(end, generation)) = self.0.range(..=block).next_back()?;
        (block < end).then_some(generation)
    }
}

/// Body pages written since the last good sync.
#[derive(Default)]
pub(super) struct SinceSync {
    /// Before the newest sync began.
    syncing: Runs,
    /// After it.
    fresh: Runs,
    /// Syncs that began and did not end. While there are several, the end of one says nothing: the
    /// kernel tells a failure once, and it may be another's.
    running: u32,
    /// There were more than are remembered, before the newest sync began and after it.
    forgot_syncing: bool,
    forgot_fresh: bool,
}

impl SinceSync {
    /// Body pages were written.
    pub fn wrote(&mut self, first: u64, pages: usize, generation: Generation) {
        if pages == 0 || self.forgot_fresh {
            return;
        }
        self.fresh.put(first, first + pages as u64, generation);
        if self.fresh.0.len() > RUNS_MAX {
            self.forgot_fresh = true;
            self.fresh = Runs::default();
        }
    }

    /// Body pages of this block and later are cut off.
    pub fn cut_from(&mut self, block: u64) {
        self.fresh.take_out(block, u64::MAX);
        self.syncing.take_out(block, u64::MAX);
    }

    /// A sync begins.
    pub fn begins(&mut self) {
        self.running += 1;
        self.forgot_syncing |= std::mem::take(&mut self.forgot_fresh);
        for (first, (end, generation)) in std::mem::take(&mut self.fresh.0) {
            self.syncing.put(first, end, generation);
        }
    }

    /// It is over, without a word about its success.
    pub fn ends(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// The newest one was good.
    pub fn is_durable(&mut self) {
        if self.running == 0 {
            self.syncing = Runs::default();
            self.forgot_syncing = false;
        }
    }

    /// What the body page of a block has to read back as, when it was written since the last good sync.
    pub fn generation_of(&self, block: u64) -> Option<Generation> {
        self.fresh.of(block).or_else(|| self.syncing.of(block))
    }

    fn forgot(&self) -> bool {
        self.forgot_syncing || self.forgot_fresh
    }

    fn all(&self) -> Vec<(u64, Generation)> {
        let runs = self.syncing.0.iter().chain(&self.fresh.0);
        let blocks: BTreeMap<u64, Generation> = runs
            .flat_map(|(&first, &(end, generation))| (first..end).map(move |block| (block, generation)))
            .collect();
        blocks.into_iter().collect()
    }
}

impl<B: Backing> SealedFile<B> {
    /// How many syncs failed since the last call.
    pub fn take_failed_syncs(&mut self) -> u64 {
        std::mem::take(&mut self.untold_sync_failures)
    }

    /// A sync failed: nothing written since the last good one counts as durable.
    pub(super) fn note_sync_failure(&mut self) {
        if !holds(Rule::RememberFailedSync) {
            return;
        }
        self.sync_failures += 1;
        self.untold_sync_failures += 1;
        let forgot = self.content.as_ref().is_some_and(|content| content.since_sync.forgot());
        self.sync_failure = if self.marks_unknown || forgot || self.sync_failure == Some(SyncFailure::Unknown) {
            Some(SyncFailure::Unknown)
        } else {
            Some(SyncFailure::WriteAgain)
        };
    }

    /// After a failed sync: everything since the last good one is dirty again when this returns, so
    /// that the next sync tells the truth.
    ///
    /// States a crash can leave: those of the writes themselves, which are not durable yet.
    ///
    /// # Errors
    /// [`StoreError::Lost`] or [`StoreError::SyncFailed`] when something cannot be written again; the
    /// file stays failed, and what could be is.
    pub(super) fn write_again(&mut self) -> Result<(), StoreError> {
        match self.sync_failure {
            None => return Ok(()),
            Some(SyncFailure::Unknown) => return Err(StoreError::SyncFailed),
            Some(SyncFailure::WriteAgain) => {}
        }
        if !holds(Rule::WriteAgain) {
            self.sync_failure = None;
            return Ok(());
        }
        let backing = self.backing.clone();
        let Some(content) = self.content.as_mut() else {
            // Its old pages may not be gone for good yet.
            return self.clear();
        };
        if content.since_sync.forgot() {
            return Err(StoreError::SyncFailed);
        }
        if content.recovered.is_some() {
            // Nothing was written yet but the fence, and the rest of that is made anew.
            content.tail_written &= content.tails.current == content.tails.durable;
            self.sync_failure = None;
            return self.fence_recovered();
        }
        let mut lost = None;
        for (block, generation) in content.since_sync.all() {
            if let Err(e) = content.write_block_again(&*backing, block, generation) {
                lost = lost.or(Some(e));
            }
        }
        if let Some(lost) = lost {
            return Err(lost);
        }
        content.write_slots_again(&*backing)?;
        self.sync_failure = None;
        Ok(())
    }
}

impl Content {
    fn write_block_again<B: Backing>(&self, backing: &B, block: u64, generation: Generation) -> Result<(), StoreError> {
        let mut sealed = [0; PAGE_BYTES];
        read_full(backing, &mut sealed, body_offset(block))?;
        let mut opened = sealed;
        let found = open_body(&self.key, block, &mut opened);
        if !found.is_ok_and(|header| header.generation == generation) && holds(Rule::CheckAgain) {
            return Err(StoreError::Lost(PageName::Block(block)));
        }
        write_page(backing, &sealed, body_offset(block))
    }

    fn write_slots_again<B: Backing>(&mut self, backing: &B) -> Result<(), StoreError> {
        self.renew_epoch()?;
        let end = self.end();
        let holds_tail = self.tail_slot_block == end.tail_block && end.tail_bytes > 0;
        if self.tails.current != self.tails.durable && holds_tail {
            self.write_tail(backing, end.tail_block, end.tail_bytes)?;
        }
        match self.head_on_disk {
            _ if self.heads.current == self.heads.durable => Ok(()),
            HeadOnDisk::None => Ok(()),
            HeadOnDisk::Open => self.write_head(backing, State::Open),
            HeadOnDisk::Sealed => self.write_head(backing, State::Sealed),
        }
    }
}
