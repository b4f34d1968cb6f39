//! Reading: the memory parts under the inode's lock, the body pages without it.

use std::io;
use std::sync::Arc;

use crate::sealed::aead::Cipher;
use crate::sealed::head::{Floor, Generation};
use crate::sealed::keys::FileKey;
use crate::sealed::length::{End, block_of, plain_offset_of};
use crate::sealed::page::{FRONT_BYTES, PAYLOAD_AT, PageHeader, open_body, open_body_to};
use crate::sealed::{BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, PAGE_BYTES, SealedError, body_offset};
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::pages::{RUN_PAGES, with_scratch};
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{Content, HeadOnDisk, Restore, SealedFile, sealed_error};

const P0: u64 = HEAD_PLAIN_BYTES as u64;
const P: u64 = BLOCK_PLAIN_BYTES as u64;

/// The part of a read that lies in body pages; carried out without the inode's lock.
pub struct ReadPlan<B> {
    /// Bytes that the read gives in all; the memory parts are in the buffer already.
    pub bytes: usize,
    body: Option<BodyPart<B>>,
}

struct BodyPart<B> {
    backing: Arc<B>,
    pages: PageReader,
    plain_offset: u64,
    /// Where the body part lies in the buffer.
    range: std::ops::Range<usize>,
}

/// What is needed to judge body pages.
#[derive(Clone)]
struct PageReader {
    key: Arc<FileKey<Cipher>>,
    end: End,
    holes_allowed: bool,
    floor: Floor,
    /// Of the sealed head: no page is newer.
    newest: Option<Generation>,
    /// Blocks that recovery found in slots and that are not back in the body yet.
    in_slots: Option<Arc<Vec<Restore>>>,
    /// What the page was written with, when no good sync covered it yet.
    written_as: Option<Generation>,
}

impl PageReader {
    fn of(content: &Content) -> Self {
        Self {
            key: content.key.clone(),
            end: content.end(),
            holes_allowed: content.holes_allowed,
            floor: content.floor,
            newest: (content.head_on_disk == HeadOnDisk::Sealed).then_some(content.generation),
            in_slots: content
                .recovered
                .as_ref()
                .map(|r| r.restore.clone())
                .filter(|r| !r.is_empty()),
            written_as: None,
        }
    }

    /// Opens the body page of `block` in place. `None`: a hole, which reads as zeros.
    fn open<'a>(&self, block: u64, page: &'a mut [u8]) -> Result<Option<&'a [u8]>, StoreError> {
        let payload = PAYLOAD_AT..PAYLOAD_AT + BLOCK_PLAIN_BYTES;
        if let Some(known) = self.in_slot(block) {
            page[payload.clone()].copy_from_slice(&known.payload[..]);
            return Ok(Some(&page[payload]));
        }
        if self.is_hole(page) {
            return Ok(None);
        }
        let header = open_body(&self.key, block, page).map_err(sealed_error(PageName::Block(block)))?;
        Ok(self.counts(block, header)?.then(|| &page[payload]))
    }

    /// Opens the body page of `block` into `out`: the payload at its end, all of it, whatever before it.
    fn open_to(&self, block: u64, page: &[u8], out: &mut [u8]) -> Result<(), StoreError> {
        if let Some(known) = self.in_slot(block) {
            out[FRONT_BYTES..].copy_from_slice(&known.payload[..]);
            return Ok(());
        }
        if self.is_hole(page) {
            out[FRONT_BYTES..].fill(0);
            return Ok(());
        }
        let header = open_body_to(&self.key, block, page, out).map_err(sealed_error(PageName::Block(block)))?;
        if !self.counts(block, header)? {
            out[FRONT_BYTES..].fill(0);
        }
        Ok(())
    }

    fn in_slot(&self, block: u64) -> Option<&Restore> {
        let mut known = self.in_slots.iter().flat_map(|restore| restore.iter());
        known.find(|known| known.block == block)
    }

    fn is_hole(&self, page: &[u8]) -> bool {
        self.holes_allowed && self.written_as.is_none() && page.iter().all(|&byte| byte == 0)
    }

    /// Whether an opened page counts; `false`: it is void, and a hole is in its place.
    fn counts(&self, block: u64, header: PageHeader) -> Result<bool, StoreError> {
        let damage = |cause| StoreError::Sealed {
            place: PageName::Block(block),
            cause,
        };
        if self.written_as.is_some_and(|written| written != header.generation) && holds(Rule::CheckAgain) {
            return Err(StoreError::Lost(PageName::Block(block)));
        }
        if self.newest.is_some_and(|newest| header.generation > newest) {
            return Err(damage(SealedError::Impossible("a page newer than the sealed head")));
        }
        if self.floor.voids(block, header.generation) {
            return if self.holes_allowed {
                Ok(false)
            } else {
                Err(damage(SealedError::Impossible("a page below the floor")))
            };
        }
        let used = if block < self.end.tail_block {
            BLOCK_PLAIN_BYTES
        } else {
            self.end.tail_bytes
        };
        if usize::from(header.length) != used {
            return Err(damage(SealedError::Impossible("a block of the wrong length")));
        }
        Ok(true)
    }
}

impl<B: Backing> SealedFile<B> {
    /// Begins a read into `buffer`: under the inode's lock. [`ReadPlan::finish`] does the rest.
    pub fn plan_read(&self, plain_offset: u64, buffer: &mut [u8]) -> ReadPlan<B> {
        let length = self.plain_length();
        let bytes = length.saturating_sub(plain_offset).min(buffer.len() as u64) as usize;
        let Some(content) = self.content.as_ref().filter(|_| bytes > 0) else {
            return ReadPlan { bytes: 0, body: None };
        };
        let read_end = plain_offset + bytes as u64;
        let mut body_from = plain_offset;
        if plain_offset < P0 {
            let to = read_end.min(P0);
            let part = (to - plain_offset) as usize;
            buffer[..part].copy_from_slice(&content.block0[plain_offset as usize..to as usize]);
            body_from = to;
        }
        let end = content.end();
        let mut body_to = read_end.max(body_from);
        let tail_from = plain_offset_of(end.tail_block);
        if content.tail_loaded && body_to > tail_from {
            let from = body_from.max(tail_from);
            let in_tail = (from - tail_from) as usize;
            let part = (read_end - from) as usize;
            let at = (from - plain_offset) as usize;
            buffer[at..at + part].copy_from_slice(&content.tail[in_tail..in_tail + part]);
            body_to = from;
        }
        let range = (body_from - plain_offset) as usize..(body_to - plain_offset) as usize;
        let body = (!range.is_empty()).then(|| BodyPart {
            backing: self.backing.clone(),
            pages: PageReader::of(content),
            plain_offset: body_from,
            range,
        });
        ReadPlan { bytes, body }
    }

    /// A whole read under the inode's lock.
    ///
    /// # Errors
    /// As [`ReadPlan::finish`].
    pub fn read(&self, plain_offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        self.plan_read(plain_offset, buffer).finish(buffer)
    }

    /// One whole block of the body, under the inode's lock; a hole reads as zeros.
    pub(super) fn read_block(&self, block: u64) -> Result<[u8; BLOCK_PLAIN_BYTES], StoreError> {
        let mut page = [0; PAGE_BYTES];
        read_full(&*self.backing, &mut page, body_offset(block))?;
        self.open_block(block, &mut page)?;
        let mut out = [0; BLOCK_PLAIN_BYTES];
        out.copy_from_slice(&page[PAYLOAD_AT..PAYLOAD_AT + BLOCK_PLAIN_BYTES]);
        Ok(out)
    }

    /// Opens a body page in place, under the inode's lock, whose payload is about to become part of a
    /// newer one; a hole becomes zeros.
    pub(super) fn open_block(&self, block: u64, page: &mut [u8]) -> Result<(), StoreError> {
        let content = self
            .content
            .as_ref()
            .ok_or_else(|| io::Error::other("no content to read"))?;
        // An older page must not become part of a newer one.
        let reader = PageReader {
            written_as: content.since_sync.generation_of(block),
            ..PageReader::of(content)
        };
        if reader.open(block, page)?.is_none() {
            page[PAYLOAD_AT..PAYLOAD_AT + BLOCK_PLAIN_BYTES].fill(0);
        }
        Ok(())
    }

    /// Brings the last partial block to memory, where appends and recovery need it.
    pub(super) fn load_tail(&mut self) -> Result<(), StoreError> {
        let Some(content) = self.content.as_ref().filter(|c| !c.tail_loaded) else {
            return Ok(());
        };
        let end = content.end();
        let tail = if end.tail_bytes > 0 {
            Some(self.read_block(end.tail_block)?)
        } else {
            None
        };
        let content = self.content_mut()?;
        if let Some(tail) = tail {
            *content.tail = tail;
        }
        content.tail_loaded = true;
        Ok(())
    }

    /// First plaintext offset with data at or after `plain_offset`; `None` behind the last data.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn next_data(&self, plain_offset: u64) -> Result<Option<u64>, StoreError> {
        let length = self.plain_length();
        if plain_offset >= length {
            return Ok(None);
        }
        let Some(content) = self.content.as_ref().filter(|c| c.holes_allowed && plain_offset >= P0) else {
            return Ok(Some(plain_offset));
        };
        let end = content.end();
        let block = block_of(plain_offset);
        let tail_from = (end.tail_bytes > 0).then(|| plain_offset_of(end.tail_block));
        let in_body = self.backing.next_data(body_offset(block))?;
        let found =
            in_body.map(|at| plain_offset_of(((at - body_offset(0)) / PAGE_BYTES as u64).max(1)).max(plain_offset));
        let in_slots = content.recovered.iter().flat_map(|r| r.restore.iter());
        let in_slots = in_slots
            .map(|known| known.block)
            .filter(|&known| known >= block)
            .min()
            .map(plain_offset_of);
        let found = [found, tail_from, in_slots]
            .into_iter()
            .flatten()
            .map(|at| at.max(plain_offset))
            .min();
        Ok(found.filter(|&at| at < length))
    }

    /// First hole at or after `plain_offset`; the end of the recording counts as one.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn next_hole(&self, plain_offset: u64) -> Result<Option<u64>, StoreError> {
        let length = self.plain_length();
        if plain_offset >= length {
            return Ok(None);
        }
        let Some(content) = self.content.as_ref().filter(|c| c.holes_allowed) else {
            return Ok(Some(length));
        };
        let tail_block = content.end().tail_block;
        let mut block = if plain_offset < P0 { 1 } else { block_of(plain_offset) };
        while block < tail_block {
            let at = self.backing.next_hole(body_offset(block))?;
            block = (at - body_offset(0)).div_ceil(PAGE_BYTES as u64).max(block);
            let in_slot = content
                .recovered
                .iter()
                .flat_map(|r| r.restore.iter())
                .any(|known| known.block == block);
            if !in_slot {
                break;
            }
            block += 1;
        }
        if block >= tail_block {
            return Ok(Some(length));
        }
        Ok(Some(plain_offset_of(block).max(plain_offset).min(length)))
    }
}

impl<B: Backing> ReadPlan<B> {
    /// The same read through another descriptor of the file.
    #[must_use]
    pub fn through(mut self, backing: &Arc<B>) -> Self {
        if let Some(body) = &mut self.body {
            body.backing = backing.clone();
        }
        self
    }

    /// Reads and opens the body pages; returns the bytes that are now in the buffer.
    ///
    /// # Errors
    /// A page that does not open: its writer may have been half-way (a read without the inode's
    /// lock is tried again under it), else it is damaged.
    pub fn finish(self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        if let Some(body) = self.body {
            let range = body.range.clone();
            body.read(&mut buffer[range])?;
        }
        Ok(self.bytes)
    }
}

impl<B: Backing> BodyPart<B> {
    fn read(&self, mut out: &mut [u8]) -> Result<(), StoreError> {
        let mut plain_offset = self.plain_offset;
        while !out.is_empty() {
            let first = block_of(plain_offset);
            let at = (plain_offset - plain_offset_of(first)) as usize;
            let blocks = (at + out.len()).div_ceil(P as usize).min(RUN_PAGES);
            let part = out.len().min(blocks * P as usize - at);
            let (now, later) = out.split_at_mut(part);
            self.read_run(first, at, blocks, now)?;
            out = later;
            plain_offset += part as u64;
        }
        Ok(())
    }

    fn read_run(&self, first: u64, at: usize, blocks: usize, out: &mut [u8]) -> Result<(), StoreError> {
        with_scratch(blocks * PAGE_BYTES, |scratch| {
            read_full(&*self.backing, scratch, body_offset(first))?;
            // The last one first: what comes before a payload falls on the end of the block before it.
            for (i, page) in scratch.chunks_exact_mut(PAGE_BYTES).enumerate().rev() {
                let block = first + i as u64;
                let from = if i == 0 { at } else { 0 };
                let start = i * P as usize + from - at;
                let end = out.len().min((i + 1) * P as usize - at);
                if end - start == BLOCK_PLAIN_BYTES && start >= FRONT_BYTES {
                    self.pages.open_to(block, page, &mut out[start - FRONT_BYTES..end])?;
                    continue;
                }
                let now = &mut out[start..end];
                match self.pages.open(block, page)? {
                    Some(payload) => now.copy_from_slice(&payload[from..from + now.len()]),
                    None => now.fill(0),
                }
            }
            Ok(())
        })
    }
}

/// Reads a whole buffer; what lies behind the end of the file is zeros.
pub(super) fn read_full<B: Backing>(backing: &B, buffer: &mut [u8], sealed_offset: u64) -> Result<(), StoreError> {
    let got = backing.read_at(buffer, sealed_offset)?;
    buffer[got..].fill(0);
    Ok(())
}
