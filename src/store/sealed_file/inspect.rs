//! Looking at a file without using it: what its head says, whether each of its pages opens. For those
//! who look for damage and for those who save what is left; nothing here writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sealed::head::Generation;
use crate::sealed::keyring::KeyRing;
use crate::sealed::keys::{IDENTITY_BYTES, Identity};
use crate::sealed::length::sealed_size;
use crate::sealed::page::open_body;
use crate::sealed::{
    BLOCK_PLAIN_BYTES, BODY_BASE, HEAD_PLAIN_BYTES, PAGE_BYTES, Page, SLOT_COUNT, body_offset, head_slot_offset,
};
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::load::open_one;
use crate::store::sealed_file::pages::RUN_PAGES;
use crate::store::sealed_file::read::read_full;
use crate::store::sealed_file::{HeadOnDisk, SealedFile};

/// What the head of a file says of the whole of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadFacts {
    /// The random id of the file.
    pub file_id: [u8; 16],
    /// Of the head page.
    pub generation: Generation,
    /// Whether nobody was writing the file when its head was written.
    pub is_sealed: bool,
    /// SHA-256 of the plaintext; zeros while it is not known.
    pub content_sha256: [u8; 32],
    /// Unix seconds of the last sealing.
    pub sealed_at_s: u64,
}

/// A stretch of a recording, in the order of the file.
pub enum Stretch<'a> {
    /// Plaintext.
    Good(&'a [u8]),
    /// Bytes that do not come back.
    Lost {
        /// Where they begin.
        plain_offset: u64,
        /// How many.
        bytes: usize,
        /// Why.
        cause: StoreError,
    },
}

impl<B: Backing> SealedFile<B> {
    /// What the head says; `None` of an empty file.
    pub fn head_facts(&self) -> Option<HeadFacts> {
        self.content.as_ref().map(|content| HeadFacts {
            file_id: content.key.identity().file_id(),
            generation: content.generation,
            is_sealed: content.head_on_disk == HeadOnDisk::Sealed && content.recovered.is_none(),
            content_sha256: content.carried.content_sha256,
            sealed_at_s: content.carried.sealed_at_s,
        })
    }

    /// The first bytes, which the head page holds; no disk is asked.
    pub fn start(&self) -> &[u8] {
        self.content.as_ref().map_or(&[], |content| {
            &content.block0[..content.plain_length.min(HEAD_PLAIN_BYTES as u64) as usize]
        })
    }

    /// Whether a lost page stays inside the file: false for a file whose missing pages are zeros.
    pub fn has_holes(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.holes_allowed)
    }

    /// Reads everything, page by page where pages fail, until `visit` says stop with an error.
    ///
    /// # Errors
    /// Those of `visit` alone: what cannot be read is a stretch too.
    pub fn read_through<E>(&self, mut visit: impl FnMut(Stretch<'_>) -> Result<(), E>) -> Result<(), E> {
        let length = self.plain_length();
        let mut buffer = vec![0; RUN_PAGES * BLOCK_PLAIN_BYTES];
        let mut plain_offset = 0;
        while plain_offset < length {
            // The first run ends with block 0, so that all others begin with a block.
            let most = if plain_offset == 0 {
                HEAD_PLAIN_BYTES
            } else {
                buffer.len()
            };
            let run = (length - plain_offset).min(most as u64) as usize;
            if self.read(plain_offset, &mut buffer[..run]).is_ok() {
                visit(Stretch::Good(&buffer[..run]))?;
            } else {
                self.read_blocks(plain_offset, &mut buffer[..run], &mut visit)?;
            }
            plain_offset += run as u64;
        }
        Ok(())
    }

    fn read_blocks<E>(
        &self,
        from: u64,
        run: &mut [u8],
        visit: &mut impl FnMut(Stretch<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (i, block) in run.chunks_mut(BLOCK_PLAIN_BYTES).enumerate() {
            let plain_offset = from + (i * BLOCK_PLAIN_BYTES) as u64;
            match self.read(plain_offset, block) {
                Ok(_) => visit(Stretch::Good(block))?,
                Err(cause) => visit(Stretch::Lost {
                    plain_offset,
                    bytes: block.len(),
                    cause,
                })?,
            }
        }
        Ok(())
    }

    /// Whether a page behind the end opens as one of this file: then its head is older than its body, and
    /// the size is not to be trusted to the head.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn has_pages_behind_end(&self) -> Result<bool, StoreError> {
        let Some(content) = self.content.as_ref() else {
            return Ok(false);
        };
        let end = content.end();
        let mut block = end.tail_block + u64::from(end.tail_bytes > 0);
        while let Some(at) = self.backing.next_data(body_offset(block))? {
            block = block.max((at - BODY_BASE) / PAGE_BYTES as u64);
            let mut page = [0; PAGE_BYTES];
            read_full(&*self.backing, &mut page, body_offset(block))?;
            if open_body(&content.key, block, &mut page).is_ok() {
                return Ok(true);
            }
            block += 1;
        }
        Ok(false)
    }

    /// Puts the size right that the head tells, without touching a page, and makes it durable.
    ///
    /// Crash: the size is the wrong one or the right one; both are found again.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn set_size_of_head(&mut self) -> Result<(), StoreError> {
        let size = sealed_size(self.plain_length());
        self.backing.set_size(size)?;
        self.backing.sync_data()?;
        self.size_on_disk = size;
        Ok(())
    }
}

/// Head slots with bytes in them that do not open as a head: a copy that was damaged, or torn by a crash.
///
/// # Errors
/// Errors of the disk.
pub fn damaged_head_slots<B: Backing>(backing: &B, ring: &Arc<KeyRing>) -> Result<Vec<u8>, StoreError> {
    let mut damaged = Vec::new();
    for slot in 0..SLOT_COUNT as u8 {
        let mut page: Page = [0; PAGE_BYTES];
        read_full(backing, &mut page, head_slot_offset(slot))?;
        if page.iter().any(|&byte| byte != 0) && open_one(ring, &mut page).is_err() {
            damaged.push(slot);
        }
    }
    Ok(damaged)
}

/// Whether any head slot begins as the head of a sealed file does, whatever became of the rest of it.
///
/// # Errors
/// Errors of the disk.
pub fn looks_sealed<B: Backing>(backing: &B) -> Result<bool, StoreError> {
    for slot in 0..SLOT_COUNT as u8 {
        let mut page: Page = [0; PAGE_BYTES];
        read_full(backing, &mut page, head_slot_offset(slot))?;
        if Identity::parse(&page).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The KEKs that the heads of a file name, as their clear part tells.
///
/// # Errors
/// Errors of the disk.
pub fn key_ids<B: Backing>(backing: &B) -> Result<BTreeSet<u32>, StoreError> {
    let mut ids = BTreeSet::new();
    for slot in 0..SLOT_COUNT as u8 {
        let mut identity = [0; IDENTITY_BYTES];
        read_full(backing, &mut identity, head_slot_offset(slot))?;
        ids.extend(Identity::parse(&identity).ok().map(|identity| identity.key_id()));
    }
    Ok(ids)
}
