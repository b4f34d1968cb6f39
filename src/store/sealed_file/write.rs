//! Writing: what happens to a file before its first change, and appends; `overwrite` has the rest.

use std::io;

use crate::sealed::head::State;
use crate::sealed::length::{MAX_PLAIN_LENGTH, block_of, plain_offset_of};
use crate::sealed::page::PAYLOAD_AT;
use crate::sealed::{BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, PAGE_BYTES, body_offset};
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::pages::{RUN_PAGES, with_scratch};
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{Content, HeadOnDisk, SealedFile};

const P0: u64 = HEAD_PLAIN_BYTES as u64;
const P: usize = BLOCK_PLAIN_BYTES;

impl<B: Backing> SealedFile<B> {
    /// Writes `data` at `plain_offset`; returns how many of its bytes are now acknowledged (a short
    /// count when the disk took only some). A gap before `plain_offset` reads as zeros.
    ///
    /// # Errors
    /// Nothing was changed for the reader: ENOSPC and other errors of the disk, or damage in a page
    /// that had to be read first.
    pub fn write(&mut self, plain_offset: u64, data: &[u8]) -> Result<usize, StoreError> {
        if data.is_empty() {
            return Ok(0);
        }
        let end = plain_offset
            .checked_add(data.len() as u64)
            .filter(|&end| end <= MAX_PLAIN_LENGTH);
        if end.is_none() {
            return Err(StoreError::TooLong);
        }
        self.prepare_change()?;
        let old = self.plain_length();
        if plain_offset > old
            && let Err(e) = self.extend_with_zeros(plain_offset)
        {
            self.take_back(old);
            return Err(e);
        }
        let mut done = 0;
        while done < data.len() {
            match self.write_part(plain_offset + done as u64, &data[done..]) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(e) if done == 0 => {
                    self.take_back(old);
                    return Err(e);
                }
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// A growth failed half-way: the length becomes the old one again, as far as the disk allows.
    pub(super) fn take_back(&mut self, old: u64) {
        if let Some(content) = self
            .content
            .as_mut()
            .filter(|c| c.plain_length > old.max(P0) && !c.tail_written)
        {
            // Zeros of the last block that are in memory alone go without the disk.
            let block_start = plain_offset_of(content.end().tail_block);
            content.plain_length = block_start.max(old);
            content.tail_written = block_start >= old;
        }
        if self.plain_length() <= old {
            return;
        }
        let taken = if old == 0 { self.clear() } else { self.cut(old) };
        if let Err(e) = taken {
            log::debug!("taking a failed growth back: {e}; its zeros stay");
        }
    }

    fn write_part(&mut self, plain_offset: u64, data: &[u8]) -> Result<usize, StoreError> {
        let tail_block = self.content_mut()?.end().tail_block;
        if plain_offset < P0 {
            self.write_block0(plain_offset as usize, data)
        } else if block_of(plain_offset) < tail_block {
            self.overwrite_run(plain_offset, data)
        } else {
            self.append(plain_offset, data)
        }
    }

    pub(super) fn content_mut(&mut self) -> Result<&mut Content, StoreError> {
        self.content
            .as_mut()
            .ok_or_else(|| io::Error::other("a file without content was written to").into())
    }

    /// Everything that has to be on disk before the first page of a change.
    ///
    /// States a kill can leave: size unclean and heads still sealed, or also an open head; both are
    /// recovered to the same content. A power cut may keep any of them; nothing of the change was
    /// fsync'd yet.
    pub(super) fn prepare_change(&mut self) -> Result<(), StoreError> {
        self.changes += 1;
        self.unsynced = true;
        if self.content.is_none() {
            if self.size_on_disk != 0 {
                self.backing.set_size(0)?;
                self.size_on_disk = 0;
                self.marks_unknown = true;
            }
            self.write_again()?;
            self.unsynced = true;
            self.settle_marks()?;
            let content = self.fresh_content()?;
            self.ensure_room(body_offset(1))?;
            self.life += 1;
            self.content = Some(content);
            return Ok(());
        }
        self.settle_marks()?;
        self.load_tail()?;
        if self.content_mut()?.recovered.is_some() {
            self.fence_recovered()?;
        }
        if self.content_mut()?.tails.aside.is_some() {
            // The page that it is a copy of may be torn on the disk, and this change may need the slot.
            self.sync_within()?;
        }
        let sealed_end = self.sealed_end();
        self.ensure_room(sealed_end)?;
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        if holds(Rule::ForgetHash) {
            // Of the content that is about to change.
            content.carried.content_sha256 = [0; 32];
        }
        if content.head_on_disk == HeadOnDisk::Sealed && holds(Rule::OpenHead) {
            let open_count = content.generation.open_count() + 1;
            content.generation = crate::sealed::head::Generation::first_of(open_count);
            content.renew_epoch()?;
            content.write_head(&*backing, State::Open)?;
        }
        Ok(())
    }

    /// Rule 6: what another process left in the page cache is made durable before anything relies on
    /// it, and a failure of that is a failed sync like any other.
    pub(super) fn settle_marks(&mut self) -> Result<(), StoreError> {
        if !self.marks_unknown || !holds(Rule::SyncUnknownMarks) {
            return Ok(());
        }
        if self.sync_failure.is_some() {
            return Err(StoreError::SyncFailed);
        }
        self.sync_backing()?;
        self.marks_unknown = false;
        Ok(())
    }

    /// A sync of the backing file whose failure is remembered (rule 4).
    pub(super) fn sync_backing(&mut self) -> Result<(), StoreError> {
        self.backing.sync_data().map_err(|e| {
            self.note_sync_failure();
            e.into()
        })
    }

    fn write_block0(&mut self, at: usize, data: &[u8]) -> Result<usize, StoreError> {
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let bytes = data.len().min(HEAD_PLAIN_BYTES - at);
        let (old_block0, old_length) = (*content.block0, content.plain_length);
        content.block0[at..at + bytes].copy_from_slice(&data[..bytes]);
        content.plain_length = old_length.max((at + bytes) as u64);
        if let Err(e) = content.write_head(&*backing, State::Open) {
            *content.block0 = old_block0;
            content.plain_length = old_length;
            return Err(e);
        }
        Ok(bytes)
    }

    /// Writes that end in the tail block or behind it: whole blocks to the body, the rest to a tail
    /// slot. A short write of the disk accepts the whole blocks that arrived.
    fn append(&mut self, plain_offset: u64, data: &[u8]) -> Result<usize, StoreError> {
        let end = self.content_mut()?.end();
        let at = (plain_offset - plain_offset_of(end.tail_block)) as usize;
        if at + data.len() < P {
            return self.change_tail(end.tail_block, at, data);
        }
        self.cover_tail()?;
        self.settle_shrink()?;
        let blocks = ((at + data.len()) / P).min(RUN_PAGES);
        self.ensure_room(body_offset(end.tail_block + blocks as u64))?;
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let generation = content.next_generation();
        let pages = with_scratch(blocks * PAGE_BYTES, |scratch| {
            for (i, page) in scratch.chunks_exact_mut(PAGE_BYTES).enumerate() {
                let block = end.tail_block + i as u64;
                if i == 0 && at > 0 {
                    let payload = &mut page[PAYLOAD_AT..PAYLOAD_AT + P];
                    payload[..at].copy_from_slice(&content.tail[..at]);
                    payload[at..].copy_from_slice(&data[..P - at]);
                    content.seal_body_in_place(generation, block, page)?;
                } else {
                    content.seal_body(generation, block, &data[i * P - at..(i + 1) * P - at], page)?;
                }
            }
            Ok::<_, StoreError>(backing.write_at(scratch, body_offset(end.tail_block))? / PAGE_BYTES)
        })?;
        if pages == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC).into());
        }
        content.since_sync.wrote(end.tail_block, pages, generation);
        content.plain_length = plain_offset_of(end.tail_block + pages as u64);
        content.tail_written = true;
        content.tail_durable_in_body = false;
        Ok(pages * P - at)
    }

    fn change_tail(&mut self, block: u64, at: usize, data: &[u8]) -> Result<usize, StoreError> {
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let old_used = content.end().tail_bytes;
        let used = old_used.max(at + data.len());
        let saved = if at < old_used { Some(*content.tail) } else { None };
        content.tail[at..at + data.len()].copy_from_slice(data);
        if !holds(Rule::TailBeforeAck) {
            content.tail_written = false;
        } else if let Err(e) = content.write_tail(&*backing, block, used) {
            if let Some(saved) = saved {
                *content.tail = saved;
            }
            return Err(e);
        }
        content.plain_length = plain_offset_of(block) + used as u64;
        Ok(data.len())
    }

    /// Rule 7: the body page of the tail block is about to be overwritten; if the durable bytes of
    /// that block lie only there, they get a durable tail slot first.
    pub(super) fn cover_tail(&mut self) -> Result<(), StoreError> {
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let end = content.end();
        if !holds(Rule::CoverTail) {
            return Ok(());
        }
        if !content.tail_durable_in_body {
            // A seal that was overtaken may have put this block into the body under a sealed head.
            return if end.tail_bytes > 0 {
                self.in_place_barrier()
            } else {
                Ok(())
            };
        }
        if content.tails.current.is_none() || content.tail_slot_block != end.tail_block || !content.tail_written {
            content.write_tail(&*backing, end.tail_block, end.tail_bytes)?;
        }
        self.sync_within()
    }

    /// Rule 8: the file does not grow again before a shrink is durable.
    pub(super) fn settle_shrink(&mut self) -> Result<(), StoreError> {
        if let Some(block) = self.content_mut()?.shrink_to {
            self.sync_within()?;
            self.cut_pages_from(block)?;
        }
        if self.content_mut()?.shrink_unsynced && holds(Rule::SyncAfterShrink) {
            self.sync_within()?;
        }
        Ok(())
    }

    /// Rule 3: an open head is durable before any page in place changes under a sealed one.
    pub(super) fn in_place_barrier(&mut self) -> Result<(), StoreError> {
        if self.content_mut()?.sealed_head_at_risk && holds(Rule::InPlaceBarrier) {
            self.sync_within()?;
        }
        Ok(())
    }
}
