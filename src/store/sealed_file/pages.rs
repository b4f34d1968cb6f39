//! Single pages on their way to the disk: heads, tails, body runs, and the random numbers they need.

use std::cell::RefCell;
use std::io;

use crate::sealed::head::{Generation, HeadRecord, State, seal_head};
use crate::sealed::keys::{FileKey, FileRandom};
use crate::sealed::length::{self, unclean_size};
use crate::sealed::nonce::NonceSource;
use crate::sealed::page::{PageHeader, Place, UNSYNCED_MANY, seal_page, seal_page_in_place};
use crate::sealed::{
    BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, NONCE_BYTES, PAGE_BYTES, body_offset, head_slot_offset, tail_slot_offset,
};
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{AHEAD_BYTES, Content, HeadOnDisk, SealedFile, Slots, sealed_error};

/// Body pages sealed before one write: 1 MiB and a bit, the largest request and its edges.
pub const RUN_PAGES: usize = 260;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the calling thread its page buffer, so that no write allocates.
pub fn with_scratch<T>(bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < bytes {
            scratch.resize(bytes, 0);
        }
        work(&mut scratch[..bytes])
    })
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no random numbers: {e}")))?;
    Ok(bytes)
}

/// A page write is all or nothing for the caller.
pub fn write_page<B: Backing>(backing: &B, page: &[u8], sealed_offset: u64) -> Result<(), StoreError> {
    if backing.write_at(page, sealed_offset)? == page.len() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENOSPC).into())
    }
}

impl Content {
    pub(super) fn nonce(&mut self) -> Result<[u8; NONCE_BYTES], StoreError> {
        if let Some(nonce) = self.nonces.next() {
            return Ok(nonce);
        }
        self.renew_epoch()?;
        self.nonces
            .next()
            .ok_or_else(|| io::Error::other("a fresh epoch has nonces").into())
    }

    pub(super) fn renew_epoch(&mut self) -> Result<(), StoreError> {
        self.nonces = NonceSource::new(random()?);
        Ok(())
    }

    fn record(&self, state: State, generation: Generation) -> HeadRecord {
        let end = self.end();
        HeadRecord {
            generation,
            state,
            holes_allowed: self.holes_allowed,
            head_bytes: self.plain_length.min(HEAD_PLAIN_BYTES as u64) as u16,
            plain_length: self.plain_length,
            body_pages: end.tail_block - 1 + u64::from(end.tail_bytes > 0),
            floor: self.floor,
            durable_through: self.durable_through.min(end.tail_block - 1),
            ..self.carried
        }
    }

    /// Writes a head page to a slot that nothing relies on.
    pub(super) fn write_head<B: Backing>(&mut self, backing: &B, state: State) -> Result<(), StoreError> {
        let generation = self.next_generation();
        let slot = self.heads.writable();
        self.sealed_head_at_risk |= state == State::Sealed;
        self.write_head_to(backing, state, generation, slot)?;
        self.head_vouches = self.durable_through.min(self.end().tail_block - 1);
        self.heads.current = Some(slot);
        self.head_on_disk = if state == State::Open {
            HeadOnDisk::Open
        } else {
            HeadOnDisk::Sealed
        };
        Ok(())
    }

    pub(super) fn write_head_to<B: Backing>(
        &mut self,
        backing: &B,
        state: State,
        generation: Generation,
        slot: u8,
    ) -> Result<(), StoreError> {
        let nonce = self.nonce()?;
        let record = self.record(state, generation);
        let mut page = [0; PAGE_BYTES];
        seal_head(&self.key, &nonce, &record, &self.block0, &mut page).map_err(sealed_error(PageName::Head))?;
        write_page(backing, &page, head_slot_offset(slot))
    }

    /// Writes the first `used` bytes of the tail to a slot that nothing relies on.
    pub(super) fn write_tail<B: Backing>(&mut self, backing: &B, block: u64, used: usize) -> Result<(), StoreError> {
        let slot = self.tails.writable();
        let at_risk = (block - 1).saturating_sub(self.durable_through);
        let header = PageHeader {
            generation: self.next_generation(),
            block,
            length: used as u16,
            unsynced: u16::try_from(at_risk)
                .ok()
                .filter(|_| holds(Rule::TailsVouch))
                .unwrap_or(UNSYNCED_MANY),
        };
        let nonce = self.nonce()?;
        let mut page = [0; PAGE_BYTES];
        seal_page(&self.key, &nonce, Place::Tail, header, &self.tail[..used], &mut page)
            .map_err(sealed_error(PageName::Block(block)))?;
        self.tail_written = false;
        write_page(backing, &page, tail_slot_offset(slot))?;
        self.tails.current = Some(slot);
        self.tail_slot_block = block;
        self.tail_written = true;
        Ok(())
    }

    /// Seals one body page into `page`.
    pub(super) fn seal_body(
        &mut self,
        generation: Generation,
        block: u64,
        payload: &[u8],
        page: &mut [u8],
    ) -> Result<(), StoreError> {
        debug_assert!(payload.len() <= BLOCK_PLAIN_BYTES);
        let header = PageHeader {
            generation,
            block,
            length: payload.len() as u16,
            unsynced: 0,
        };
        let nonce = self.nonce()?;
        seal_page(&self.key, &nonce, Place::Body, header, payload, page).map_err(sealed_error(PageName::Block(block)))
    }

    /// Seals one body page whose whole payload lies in its place already.
    pub(super) fn seal_body_in_place(
        &mut self,
        generation: Generation,
        block: u64,
        page: &mut [u8],
    ) -> Result<(), StoreError> {
        let header = PageHeader {
            generation,
            block,
            length: BLOCK_PLAIN_BYTES as u16,
            unsynced: 0,
        };
        let nonce = self.nonce()?;
        seal_page_in_place(&self.key, &nonce, Place::Body, header, page).map_err(sealed_error(PageName::Block(block)))
    }
}

impl<B: Backing> SealedFile<B> {
    /// Fresh keys for a file that gets its first byte.
    pub(super) fn fresh_content(&self) -> Result<Content, StoreError> {
        let random = FileRandom {
            file_id: random()?,
            dek: random()?.into(),
            wrap_nonce: random()?,
        };
        let key_id = self.ring.current_in(self.options.key_line);
        let kek = self.ring.kek(key_id).map_err(sealed_error(PageName::Head))?;
        let key = FileKey::create(&kek, key_id, &random).map_err(sealed_error(PageName::Head))?;
        let mut content = Content::over(key.into());
        content.generation = Generation::first_of(1);
        content.tail_loaded = true;
        Ok(content)
    }

    /// Moves the unclean size on before pages are written past it, or the file would look sealed.
    pub(super) fn ensure_room(&mut self, sealed_end: u64) -> Result<(), StoreError> {
        if sealed_end <= self.size_on_disk && self.size_on_disk % PAGE_BYTES as u64 == length::UNCLEAN_RESIDUE {
            return Ok(());
        }
        let generous = unclean_size(sealed_end + AHEAD_BYTES + sealed_end / 4);
        let size = match self.backing.set_size(generous) {
            Ok(()) => generous,
            Err(e) if e.raw_os_error() == Some(libc::EFBIG) => {
                let tight = unclean_size(sealed_end);
                self.backing.set_size(tight)?;
                tight
            }
            Err(e) => return Err(e.into()),
        };
        self.size_on_disk = size;
        Ok(())
    }

    /// Offset behind the last page that the content can have.
    pub(super) fn sealed_end(&self) -> u64 {
        body_offset(length::end_of(self.plain_length()).tail_block + 1)
    }
}

impl Content {
    /// State of a file about whose pages nothing is known yet.
    pub(super) fn over(key: std::sync::Arc<FileKey<crate::sealed::aead::Cipher>>) -> Self {
        Self {
            key,
            nonces: NonceSource::exhausted(),
            generation: Generation(0),
            plain_length: 0,
            block0: Box::new([0; HEAD_PLAIN_BYTES]),
            tail: Box::new([0; BLOCK_PLAIN_BYTES]),
            tail_loaded: false,
            tail_slot_block: 0,
            tail_written: true,
            heads: Slots::default(),
            tails: Slots::default(),
            holes_allowed: false,
            floor: super::Floor::default(),
            head_on_disk: HeadOnDisk::None,
            sealed_head_at_risk: false,
            tail_durable_in_body: false,
            durable_through: 0,
            syncing_through: 0,
            head_vouches: 0,
            durable_head_vouches: 0,
            recovered: None,
            shrink_unsynced: false,
            shrink_to: None,
            since_sync: super::SinceSync::default(),
            carried: HeadRecord::empty(),
        }
    }
}
