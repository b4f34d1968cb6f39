//! Making things durable: syncs that run beside writers, and sealing in steps after the last close.
//!
//! A sync is three calls: begin (under the inode's lock), the sync itself (without it), finish (under
//! it again). Marks flip to what was there when it began, not to what is there now.

use std::io;

use crate::sealed::head::State;
use crate::sealed::length;
use crate::sealed::page::{PageHeader, Place, UNSYNCED_MANY, seal_page};
use crate::sealed::{PAGE_BYTES, SLOT_COUNT, body_offset, head_slot_offset, tail_slot_offset};
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::pages::write_page;
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{Content, HeadOnDisk, SealedFile, sealed_error};

/// What was in place when a sync began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncTicket {
    number: u64,
    life: u64,
    failures: u64,
    changes: u64,
    head: Option<u8>,
    head_on_disk: Option<HeadOnDisk>,
    head_vouches: u64,
    tail: Option<u8>,
    tail_block: u64,
    full_blocks: u64,
}

/// Where the sealing of a file stands; the caller syncs between the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealStep {
    /// The file is sealed, all that was there is durable, and its heads are written anew next.
    Settled,
    /// The tail is in its body page.
    TailInBody,
    /// One sealed head is written.
    FirstHead,
    /// Both sealed heads are written.
    BothHeads,
    /// The size tells the length; nothing is left to do.
    Sealed,
    /// The file changed meanwhile; sealing starts again after the next last close.
    Overtaken,
}

impl<B: Backing> SealedFile<B> {
    /// Prepares a sync of everything written until now. Syncs of one file take turns (the caller sees
    /// to it); only [`SealedFile::sync_now`] may come between, and then the earlier ticket marks
    /// nothing any more.
    ///
    /// # Errors
    /// [`StoreError::Lost`] or [`StoreError::SyncFailed`] when what an earlier failure left cannot be
    /// written again; a page that could not be written.
    pub fn begin_sync(&mut self) -> Result<SyncTicket, StoreError> {
        self.write_again()?;
        let backing = self.backing.clone();
        self.syncs_begun += 1;
        let mut ticket = SyncTicket {
            number: self.syncs_begun,
            life: self.life,
            failures: self.sync_failures,
            changes: self.changes,
            head: None,
            head_on_disk: None,
            head_vouches: 0,
            tail: None,
            tail_block: 0,
            full_blocks: 0,
        };
        if let Some(content) = self.content.as_mut() {
            if self.unsynced {
                content.renew_epoch()?;
                content.write_missing(&*backing)?;
            }
            content.heads.sync_begins();
            content.tails.sync_begins();
            let end = content.end();
            ticket.head = content.heads.current;
            ticket.head_on_disk = Some(content.head_on_disk);
            ticket.head_vouches = content.head_vouches;
            ticket.tail = content.tails.current;
            ticket.tail_block = content.tail_slot_block;
            ticket.full_blocks = end.tail_block - 1;
            content.syncing_through = ticket.full_blocks;
            content.since_sync.begins();
        }
        self.unsynced = false;
        Ok(ticket)
    }

    /// Flips the marks to what the ticket says, or remembers the failure.
    ///
    /// # Errors
    /// The failure of the sync itself, or of another one of this file meanwhile.
    pub fn finish_sync(&mut self, ticket: SyncTicket, synced: io::Result<()>) -> Result<(), StoreError> {
        if let Some(content) = self.content.as_mut().filter(|_| self.life == ticket.life) {
            content.since_sync.ends();
        }
        if let Err(e) = synced {
            self.note_sync_failure();
            self.unsynced = true;
            return Err(e.into());
        }
        if self.sync_failures != ticket.failures {
            // The kernel tells a failure once: the sync of a change told it, and it may be this one's.
            return Err(StoreError::SyncFailed);
        }
        // Whatever another process left was in the page cache before this sync began.
        self.marks_unknown = false;
        let current = self.life == ticket.life && self.syncs_begun == ticket.number;
        let Some(content) = self.content.as_mut().filter(|_| current) else {
            return Ok(());
        };
        let ticket = if holds(Rule::MarksOfTheBeginning) {
            ticket
        } else {
            content.marks_now(ticket)
        };
        content.since_sync.is_durable();
        content.heads.sync_done(ticket.head);
        content.syncing_through = 0;
        content.durable_head_vouches = ticket.head_vouches;
        content.tails.sync_done(ticket.tail);
        if ticket.head_on_disk == Some(HeadOnDisk::Open) && content.head_on_disk == HeadOnDisk::Open {
            content.sealed_head_at_risk = false;
        }
        let end = content.end();
        content.durable_through = content.durable_through.max(ticket.full_blocks).min(end.tail_block - 1);
        if ticket.tail.is_some() && ticket.tail_block == end.tail_block {
            content.tail_durable_in_body = false;
        }
        if ticket.changes == self.changes {
            content.shrink_unsynced = false;
        }
        Ok(())
    }

    /// A whole sync while the caller keeps the lock.
    ///
    /// # Errors
    /// As [`SealedFile::begin_sync`] and [`SealedFile::finish_sync`].
    pub fn sync_now(&mut self) -> Result<(), StoreError> {
        let ticket = self.begin_sync()?;
        let synced = self.backing.sync_data();
        self.finish_sync(ticket, synced)?;
        if let Some(content) = self.content.as_mut() {
            content.shrink_unsynced = false;
        }
        Ok(())
    }

    /// A sync in the middle of a change, whose rest it does not cover.
    pub(super) fn sync_within(&mut self) -> Result<(), StoreError> {
        self.sync_now()?;
        self.unsynced = true;
        Ok(())
    }

    pub(super) fn rewrite_tail_if_needed(&mut self) -> Result<(), StoreError> {
        let backing = self.backing.clone();
        self.content_mut()?.write_missing(&*backing)
    }

    /// First step of sealing. `Sealed` when there is nothing to seal.
    ///
    /// States a kill can leave during sealing: unclean size with (a) tail slot and body page of the
    /// last block, both good; (b) one sealed head; (c) two sealed heads. Start-up recovers each to
    /// the same content and seals again. After a power cut the same holds of what was synced.
    ///
    /// # Errors
    /// The file stays open on disk, nothing is lost, and sealing can be tried again.
    pub fn seal_tail(&mut self) -> Result<(SealStep, Option<SyncTicket>), StoreError> {
        self.write_again()?;
        if self.content.is_none() && !self.is_clean() {
            // Its first head never became durable; without a byte it is an empty file.
            self.backing.set_size(0)?;
            self.size_on_disk = 0;
        }
        if self.is_clean() {
            return Ok((SealStep::Sealed, None));
        }
        self.prepare_sealing()?;
        let backing = self.backing.clone();
        let end = self.content_mut()?.end();
        // Under a sealed head the body page is there already and must not change any more.
        let under_sealed_head = self.content_mut()?.head_on_disk == HeadOnDisk::Sealed;
        if end.tail_bytes > 0 && !under_sealed_head && !self.content_mut()?.tail_durable_in_body {
            self.ensure_room(body_offset(end.tail_block + 1))?;
            let content = self.content_mut()?;
            let generation = content.next_generation();
            let payload = *content.tail;
            let mut page = [0; PAGE_BYTES];
            content.seal_body(generation, end.tail_block, &payload[..end.tail_bytes], &mut page)?;
            write_page(&*backing, &page, body_offset(end.tail_block))?;
            content.since_sync.wrote(end.tail_block, 1, generation);
        }
        if !holds(Rule::SyncBeforeSealedHead) {
            self.content_mut()?.write_head(&*backing, State::Sealed)?;
        }
        Ok((SealStep::TailInBody, Some(self.begin_sync()?)))
    }

    /// Brings a file to the point where its body page of the tail block may be written.
    fn prepare_sealing(&mut self) -> Result<(), StoreError> {
        if let Err(e) = self.rewrap_key() {
            // It is sealed all the same, under the key that it has.
            log::debug!("a recording stays under its key: {e}");
        }
        self.load_tail()?;
        let backing = self.backing.clone();
        self.settle_marks()?;
        if self.content_mut()?.recovered.is_some() {
            self.fence_recovered()?;
        }
        self.content_mut()?.write_missing(&*backing)?;
        if self.content_mut()?.shrink_to.is_some() {
            // Or it would take the page that sealing is about to write.
            self.settle_shrink()?;
        }
        let content = self.content_mut()?;
        let newer_in_slot = content.tails.current.is_some() && content.tail_slot_block == content.end().tail_block;
        if content.tail_durable_in_body && newer_in_slot {
            self.sync_within()?;
        }
        if self.content_mut()?.head_on_disk == HeadOnDisk::Open {
            self.in_place_barrier()?;
        }
        Ok(())
    }

    /// The step after `step`, whose sync ended with `synced`. `sealed_at_s` goes into the head.
    ///
    /// # Errors
    /// As [`SealedFile::seal_tail`].
    pub fn seal_next(
        &mut self,
        step: SealStep,
        ticket: SyncTicket,
        synced: io::Result<()>,
        sealed_at_s: u64,
    ) -> Result<(SealStep, Option<SyncTicket>), StoreError> {
        self.finish_sync(ticket, synced)?;
        let overtaken = self.life != ticket.life || self.changes != ticket.changes;
        if overtaken && (holds(Rule::StopWhenOvertaken) || self.content.is_none()) {
            return Ok((SealStep::Overtaken, None));
        }
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        match step {
            SealStep::Settled => {
                content.write_head(&*backing, State::Sealed)?;
                Ok((SealStep::FirstHead, Some(self.begin_sync()?)))
            }
            SealStep::TailInBody => {
                content.carried.sealed_at_s = sealed_at_s;
                content.write_head(&*backing, State::Sealed)?;
                if !holds(Rule::SyncBeforeSize) {
                    self.finish_sealing()?;
                    return Ok((SealStep::Sealed, None));
                }
                Ok((SealStep::FirstHead, Some(self.begin_sync()?)))
            }
            SealStep::FirstHead => {
                let slot = content.second_head_slot();
                let generation = content.generation;
                if holds(Rule::SecondHead) {
                    content.write_head_to(&*backing, State::Sealed, generation, slot)?;
                }
                Ok((SealStep::BothHeads, Some(self.begin_sync()?)))
            }
            SealStep::BothHeads => {
                self.finish_sealing()?;
                Ok((SealStep::Sealed, None))
            }
            SealStep::Sealed | SealStep::Overtaken => Ok((step, None)),
        }
    }

    /// Both heads are durable: the size tells the length, and what is no longer needed goes.
    fn finish_sealing(&mut self) -> Result<(), StoreError> {
        let size = length::sealed_size(self.plain_length());
        self.backing.set_size(size)?;
        self.size_on_disk = size;
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let end = content.end();
        let second = content.second_head_slot();
        let third = (0..SLOT_COUNT as u8).find(|&slot| Some(slot) != content.heads.current && slot != second);
        content.heads.twin = Some(second);
        content.tails = super::Slots::default();
        content.tail_slot_block = 0;
        content.tail_durable_in_body = end.tail_bytes > 0;
        content.durable_through = end.tail_block - 1;
        // Best effort: what stays there is older than the sealed heads and never counts.
        if let Some(third) = third {
            let _ = backing.punch(head_slot_offset(third), PAGE_BYTES as u64);
        }
        let _ = backing.punch(tail_slot_offset(0), (SLOT_COUNT * PAGE_BYTES) as u64);
        Ok(())
    }
}

impl Content {
    /// What a sync may not take for durable: the marks of now instead of those of its beginning.
    fn marks_now(&self, ticket: SyncTicket) -> SyncTicket {
        SyncTicket {
            head: self.heads.current,
            head_on_disk: Some(self.head_on_disk),
            head_vouches: self.head_vouches,
            tail: self.tails.current,
            tail_block: self.tail_slot_block,
            full_blocks: self.end().tail_block - 1,
            ..ticket
        }
    }

    /// Pages that rules ask for before a sync and that are not on disk yet: a tail whose write
    /// failed, and with holes a head with the length of now.
    fn write_missing<B: Backing>(&mut self, backing: &B) -> Result<(), StoreError> {
        let end = self.end();
        if !self.tail_written && end.tail_bytes > 0 {
            self.write_tail(backing, end.tail_block, end.tail_bytes)?;
        }
        if self.holes_allowed && self.head_on_disk == HeadOnDisk::Open && holds(Rule::HolesHead) {
            self.write_head(backing, State::Open)?;
        }
        Ok(())
    }

    /// The head slot for the second copy of a sealed head: the one after the first.
    fn second_head_slot(&self) -> u8 {
        (self.heads.current.unwrap_or(0) + 1) % SLOT_COUNT as u8
    }

    pub(super) fn write_aside<B: Backing>(
        &mut self,
        backing: &B,
        slot: u8,
        block: u64,
        payload: &[u8],
    ) -> Result<(), StoreError> {
        let header = PageHeader {
            generation: self.next_generation(),
            block,
            length: payload.len() as u16,
            unsynced: UNSYNCED_MANY,
        };
        let nonce = self.nonce()?;
        let mut page = [0; PAGE_BYTES];
        seal_page(&self.key, &nonce, Place::Tail, header, payload, &mut page)
            .map_err(sealed_error(PageName::Block(block)))?;
        write_page(backing, &page, tail_slot_offset(slot))
    }
}
