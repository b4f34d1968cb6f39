//! Length changes that are not writes: truncate down, to zero and up, holes, and zeroed ranges.

use crate::sealed::head::{Floor, Generation, State};
use crate::sealed::length::{self, MAX_PLAIN_LENGTH, end_of, plain_offset_of, unclean_size};
use crate::sealed::{BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, PAGE_BYTES, SLOT_COUNT, body_offset, tail_slot_offset};
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::pages::write_page;
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{SealedFile, Slots};

const P0: u64 = HEAD_PLAIN_BYTES as u64;
const ZEROS: [u8; BLOCK_PLAIN_BYTES] = [0; BLOCK_PLAIN_BYTES];

impl<B: Backing> SealedFile<B> {
    /// Sets the length. What is new reads as zeros.
    ///
    /// # Errors
    /// Errors of the disk; the length is then the old one.
    pub fn set_plain_length(&mut self, plain_length: u64) -> Result<(), StoreError> {
        let old = self.plain_length();
        if plain_length > MAX_PLAIN_LENGTH {
            return Err(StoreError::TooLong);
        }
        match plain_length {
            0 => self.clear(),
            _ if plain_length == old => Ok(()),
            _ if plain_length < old => self.cut(plain_length),
            _ => {
                self.prepare_change()?;
                let grown = self.extend_with_zeros(plain_length).and_then(|()| self.write_end());
                if grown.is_err() {
                    self.take_back(old);
                }
                grown
            }
        }
    }

    /// To zero (rule 8): the old pages are gone for good before anything new is written, and what
    /// follows has new keys. An empty file costs nothing.
    ///
    /// A kill before the sync leaves an empty file; a power cut the old one or an empty one.
    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        if self.content.is_none() && self.size_on_disk == 0 && self.sync_failure.is_none() {
            return Ok(());
        }
        self.changes += 1;
        self.backing.set_size(0)?;
        self.size_on_disk = 0;
        self.life += 1;
        self.content = None;
        self.unsynced = false;
        if holds(Rule::SyncAfterClear) {
            self.sync_backing()?;
        }
        // Nothing is left that an earlier failure could have lost.
        self.sync_failure = None;
        self.marks_unknown = false;
        Ok(())
    }

    /// Down (rule 8): a head with the new length and a floor, the cut block in a tail slot, both
    /// durable; then the size. The next growth waits until that is durable too.
    ///
    /// A kill or power cut before the sync leaves the old length or the new one; after it, the new
    /// one: the floor voids what is still on disk behind it.
    pub(super) fn cut(&mut self, plain_length: u64) -> Result<(), StoreError> {
        let end = end_of(plain_length);
        self.prepare_change()?;
        self.settle_shrink()?;
        let old_end = self.content_mut()?.end();
        let kept = if end.tail_bytes == 0 {
            None
        } else if end.tail_block == old_end.tail_block {
            Some(*self.content_mut()?.tail)
        } else {
            Some(self.read_block(end.tail_block)?)
        };
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let undo = (content.plain_length, content.floor, *content.tail);
        // The cut block itself stays above the floor: should its new tail slot be lost with the power,
        // its old pages are all there is; once the slot is durable, it is newer than they are.
        let floor = Floor {
            block: end.tail_block + u64::from(end.tail_bytes > 0),
            generation: Generation(content.generation.0 + 1),
        };
        content.plain_length = plain_length;
        if holds(Rule::CutFloor) {
            content.floor = floor;
        }
        if let Some(kept) = kept {
            *content.tail = kept;
        }
        let mut wrote = content.write_head(&*backing, State::Open);
        let head_says_cut = wrote.is_ok();
        if wrote.is_ok() && end.tail_bytes > 0 {
            wrote = content.write_tail(&*backing, end.tail_block, end.tail_bytes);
        }
        if wrote.is_err() {
            let cut = (content.plain_length, content.floor, *content.tail);
            (content.plain_length, content.floor, *content.tail) = undo;
            if !head_says_cut || content.write_head(&*backing, State::Open).is_ok() {
                return wrote;
            }
            // The head on disk says "cut" already: memory must not say otherwise. The rest of the cut
            // is made up for before the file grows.
            (content.plain_length, content.floor, *content.tail) = cut;
        }
        if plain_length < P0 {
            content.block0[plain_length as usize..].fill(0);
        }
        content.tail_written = wrote.is_ok();
        content.tail_durable_in_body = false;
        content.durable_through = content.durable_through.min(end.tail_block - 1);
        content.shrink_to = Some(end.tail_block);
        wrote?;
        if holds(Rule::SyncBeforeShrink) {
            self.sync_within()?;
        }
        if end.tail_bytes == 0 {
            let content = self.content_mut()?;
            content.tails = Slots::default();
            content.tail_slot_block = 0;
        }
        self.cut_pages_from(end.tail_block)
    }

    /// Takes the body pages of `block` and later off the disk; the size stays an unclean one at every
    /// instant, so that a kill never leaves a file that looks sealed.
    pub(super) fn cut_pages_from(&mut self, block: u64) -> Result<(), StoreError> {
        let size = unclean_size(body_offset(block));
        let content = self.content_mut()?;
        content.shrink_to = Some(block);
        content.since_sync.cut_from(block);
        self.backing.set_size(size)?;
        self.size_on_disk = size;
        self.wipe(body_offset(block))?;
        // Tails that the floor voids go too: the next floor may lie behind them.
        let tails = self.content_mut()?.tails;
        for slot in (0..SLOT_COUNT as u8).filter(|&slot| !tails.uses(slot)) {
            self.wipe(tail_slot_offset(slot))?;
        }
        let content = self.content_mut()?;
        content.shrink_to = None;
        content.shrink_unsynced = true;
        self.unsynced = true;
        Ok(())
    }

    fn wipe(&self, sealed_offset: u64) -> Result<(), StoreError> {
        if let Err(e) = self.backing.punch(sealed_offset, PAGE_BYTES as u64) {
            log::debug!("punching a void page: {e}; zeros are written instead");
            // Not behind the end: the size must stay an unclean one.
            let bytes = self.size_on_disk.saturating_sub(sealed_offset).min(PAGE_BYTES as u64) as usize;
            write_page(&*self.backing, &[0; PAGE_BYTES][..bytes], sealed_offset)?;
        }
        Ok(())
    }

    /// Grows to `plain_length` with zeros in memory and as far as whole blocks are touched; the
    /// caller writes the end (or its own bytes behind). Skipped blocks become holes, whose length is
    /// written to the head at once (rule 9).
    pub(super) fn extend_with_zeros(&mut self, plain_length: u64) -> Result<(), StoreError> {
        self.settle_shrink()?;
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let old = content.plain_length;
        if old < P0 {
            let to = plain_length.min(P0);
            content.block0[old as usize..to as usize].fill(0);
            content.plain_length = to;
            if let Err(e) = content.write_head(&*backing, State::Open) {
                content.plain_length = old;
                return Err(e);
            }
        }
        if plain_length <= P0 {
            return Ok(());
        }
        let (now, target) = (self.content_mut()?.end(), end_of(plain_length));
        if now.tail_block < target.tail_block {
            if now.tail_bytes > 0 && holds(Rule::PadShortBlock) {
                let from = self.plain_length();
                self.write(from, &ZEROS[now.tail_bytes..])?;
            }
            let boundary = plain_offset_of(target.tail_block);
            if self.plain_length() < boundary {
                self.skip_to(boundary)?;
            }
        }
        let content = self.content_mut()?;
        let now = content.end();
        if now.tail_block == target.tail_block && now.tail_bytes < target.tail_bytes {
            content.tail[now.tail_bytes..target.tail_bytes].fill(0);
            content.plain_length = plain_length;
            content.tail_written = false;
        }
        Ok(())
    }

    /// Leaves whole blocks out up to `boundary`.
    fn skip_to(&mut self, boundary: u64) -> Result<(), StoreError> {
        self.ensure_room(body_offset(end_of(boundary).tail_block))?;
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let undo = (content.plain_length, content.holes_allowed);
        content.holes_allowed = true;
        content.plain_length = boundary;
        if holds(Rule::HolesHead)
            && let Err(e) = content.write_head(&*backing, State::Open)
        {
            (content.plain_length, content.holes_allowed) = undo;
            return Err(e);
        }
        content.tail_written = true;
        content.tail_durable_in_body = false;
        Ok(())
    }

    /// Puts the last partial block on disk after the length changed in memory.
    fn write_end(&mut self) -> Result<(), StoreError> {
        let backing = self.backing.clone();
        let content = self.content_mut()?;
        let end = content.end();
        if content.plain_length > P0 && end.tail_bytes > 0 && !content.tail_written {
            content.write_tail(&*backing, end.tail_block, end.tail_bytes)?;
        }
        if content.holes_allowed {
            content.write_head(&*backing, State::Open)?;
        }
        Ok(())
    }

    /// Makes a range inside the length read as zeros.
    ///
    /// # Errors
    /// As for writing; part of the range may then be zero already.
    pub fn zero_range(&mut self, plain_offset: u64, bytes: u64) -> Result<(), StoreError> {
        let end = plain_offset.saturating_add(bytes).min(self.plain_length());
        let mut at = plain_offset;
        while at < end {
            let in_block = if at < P0 {
                P0 - at
            } else {
                plain_offset_of(length::block_of(at) + 1) - at
            };
            let part = in_block.min(end - at).min(BLOCK_PLAIN_BYTES as u64);
            if !self.is_hole(at)? {
                self.write(at, &ZEROS[..part as usize])?;
            }
            at += part;
        }
        Ok(())
    }

    /// Whether the block of `plain_offset` has no page on disk and needs none.
    fn is_hole(&mut self, plain_offset: u64) -> Result<bool, StoreError> {
        let Some(content) = self.content.as_ref() else {
            return Ok(false);
        };
        if !content.holes_allowed || plain_offset < P0 {
            return Ok(false);
        }
        let block = length::block_of(plain_offset);
        if block >= content.end().tail_block {
            return Ok(false);
        }
        let page = body_offset(block);
        Ok(self
            .backing
            .next_data(page)?
            .is_none_or(|at| at >= page + PAGE_BYTES as u64))
    }
}
