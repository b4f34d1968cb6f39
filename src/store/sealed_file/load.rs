//! Opening what is on disk: the newest head, and after a crash the end of the recording.
//!
//! A sealed head without a newer tail is the whole truth. Otherwise every block is taken from the
//! candidate (body page or tail slot) with the highest generation that the floor allows, and the end
//! is the first block that is missing or partial, but never before what tails vouch for: a tail says
//! how many blocks before it were durable when it was written.

use std::io;
use std::sync::Arc;

use crate::sealed::aead::Cipher;
use crate::sealed::head::{Floor, Generation, HeadRecord, State, open_head};
use crate::sealed::keyring::KeyRing;
use crate::sealed::keys::{FileKey, Identity};
use crate::sealed::length::{self, SizeOnDisk, plain_offset_of};
use crate::sealed::page::{PAYLOAD_AT, PageHeader, open_body, open_tail};
use crate::sealed::{
    BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, PAGE_BYTES, Page, SLOT_COUNT, SLOTS_BYTES, SealedError, body_offset,
};
use crate::store::backing::Backing;
use crate::store::error::{PageName, StoreError};
use crate::store::sealed_file::pages::write_page;
use crate::store::sealed_file::read::read_full;
use crate::store::sealed_file::rules::{Rule, holds};
use crate::store::sealed_file::{Content, HeadOnDisk, Recovered, Restore, SealedFile, WriteOptions};

/// What a sealed head makes of a size on disk that tells another length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SizeRule {
    MustAgree,
    HeadDecides,
}

type Payload = Box<[u8; BLOCK_PLAIN_BYTES]>;

struct Head {
    slot: u8,
    /// The slot of another copy of it.
    twin: Option<u8>,
    key: Arc<FileKey<Cipher>>,
    record: HeadRecord,
    block0: Box<[u8; HEAD_PLAIN_BYTES]>,
}

struct Tail {
    slot: u8,
    header: PageHeader,
    payload: Payload,
}

/// The newest copy of one block.
struct Copy {
    /// Its tail slot; `None`: its body page.
    slot: Option<u8>,
    header: PageHeader,
    payload: Payload,
}

impl Copy {
    fn used(&self) -> usize {
        usize::from(self.header.length)
    }
}

impl<B: Backing> SealedFile<B> {
    /// Opens the sealed file on `backing`, whatever a crash left.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] when no head opens (wrong key, damage, not a sealed file),
    /// [`StoreError::SizeDisagrees`] when the size of a sealed file was changed.
    pub fn load(backing: Arc<B>, ring: Arc<KeyRing>, options: WriteOptions) -> Result<Self, StoreError> {
        Self::load_by(backing, ring, options, SizeRule::MustAgree)
    }

    /// Opens a file whose size on disk may be wrong: a sealed head then tells the length. For repairing
    /// and for saving what is left; a daemon does not serve such a file.
    ///
    /// # Errors
    /// As [`SealedFile::load`], without the second.
    pub fn load_by_head(backing: Arc<B>, ring: Arc<KeyRing>) -> Result<Self, StoreError> {
        Self::load_by(backing, ring, WriteOptions::default(), SizeRule::HeadDecides)
    }

    fn load_by(backing: Arc<B>, ring: Arc<KeyRing>, options: WriteOptions, rule: SizeRule) -> Result<Self, StoreError> {
        let size_on_disk = backing.size()?;
        let mut file = Self::new_empty(backing, ring, options);
        file.size_on_disk = size_on_disk;
        file.marks_unknown = true;
        if size_on_disk == 0 {
            return Ok(file);
        }
        let mut slots = vec![0; SLOTS_BYTES];
        read_full(&*file.backing, &mut slots, 0)?;
        let (heads, tails) = slots.split_at_mut(SLOT_COUNT * PAGE_BYTES);
        let clean = length::classify(size_on_disk) != SizeOnDisk::Unclean;
        let head = match newest_head(&file.ring, heads) {
            Ok(Some(head)) => head,
            // Its first head page never became durable, so nothing of it was ever fsync'd.
            Ok(None) if !clean => return Ok(file),
            Ok(None) => {
                return Err(StoreError::Sealed {
                    place: PageName::Head,
                    cause: SealedError::NotSealed,
                });
            }
            Err(cause) => {
                return Err(StoreError::Sealed {
                    place: PageName::Head,
                    cause,
                });
            }
        };
        let tails = valid_tails(&head.key, &head.record.floor, tails);
        let sealed = head.record.state == State::Sealed
            && tails
                .iter()
                .all(|tail| tail.header.generation <= head.record.generation);
        let content = if sealed {
            let agrees = size_on_disk == length::sealed_size(head.record.plain_length);
            if clean && !agrees && rule == SizeRule::MustAgree {
                return Err(StoreError::SizeDisagrees {
                    size_on_disk,
                    plain_length: head.record.plain_length,
                });
            }
            let open_count_seen = head.record.generation.open_count();
            let mut content = sealed_content(head);
            if !clean {
                // Its last opening may have left pages behind the end: they must not come back.
                content.recovered = Some(Box::new(Recovered {
                    open_count_seen,
                    restore: Arc::default(),
                    restored: 0,
                    is_aside: false,
                }));
            }
            content
        } else {
            recover(&*file.backing, head, tails)?
        };
        file.content = Some(content);
        file.life = 1;
        Ok(file)
    }

    /// Before the first change of a recovered file: blocks that survive only in a slot go back to
    /// the body, a head with a floor behind the end becomes durable, and stale pages behind it go,
    /// or they would come back behind a gap.
    pub(super) fn fence_recovered(&mut self) -> Result<(), StoreError> {
        let backing = self.backing.clone();
        let sealed_end = self.sealed_end();
        self.ensure_room(sealed_end)?;
        let content = self.content_mut()?;
        if !holds(Rule::Fence) {
            content.recovered = None;
        }
        let Some(recovered) = content.recovered.as_ref() else {
            return Ok(());
        };
        let (seen, restore) = (recovered.open_count_seen, recovered.restore.clone());
        let end = content.end();
        // The opening that crashed may have used one count more than any page shows.
        content.generation = content.generation.max(Generation::first_of(seen + 2));
        content.renew_epoch()?;
        self.restore_blocks(&restore)?;
        let content = self.content_mut()?;
        let fence = end.tail_block + u64::from(end.tail_bytes > 0);
        content.floor = Floor {
            block: fence,
            generation: Generation(content.generation.0 + 1),
        };
        content.write_head(&*backing, State::Open)?;
        self.rewrite_tail_if_needed()?;
        if holds(Rule::SyncFence) {
            self.sync_within()?;
        }
        self.cut_pages_from(fence)?;
        self.content_mut()?.recovered = None;
        Ok(())
    }

    /// Puts blocks back to the body, whole. A crash on the way finds each in its slot still, and so
    /// does another attempt after a failed sync: it goes on with the block that the last one was at.
    fn restore_blocks(&mut self, restore: &[Restore]) -> Result<(), StoreError> {
        let backing = self.backing.clone();
        let (in_slots, in_body): (Vec<_>, Vec<_>) = restore.iter().partition(|r| r.slot.is_some());
        let done = self.progress()?.restored;
        for block in in_slots.into_iter().chain(in_body).skip(done) {
            if block.slot.is_none() && !self.progress()?.is_aside {
                // Its body page is the only copy: another one is durable before that page changes.
                let content = self.content_mut()?;
                let slot = (0..SLOT_COUNT as u8).find(|&slot| !content.tails.uses(slot));
                let slot = slot.expect("recovery uses one tail slot");
                content.write_aside(&*backing, slot, block.block, &block.payload[..])?;
                self.sync_backing()?;
                self.progress()?.is_aside = true;
            }
            let content = self.content_mut()?;
            let mut page = [0; PAGE_BYTES];
            let generation = content.next_generation();
            content.seal_body(generation, block.block, &block.payload[..], &mut page)?;
            write_page(&*backing, &page, body_offset(block.block))?;
            content.since_sync.wrote(block.block, 1, generation);
            self.sync_backing()?;
            let progress = self.progress()?;
            progress.restored += 1;
            progress.is_aside = false;
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<&mut Recovered, StoreError> {
        let recovered = self.content_mut()?.recovered.as_deref_mut();
        recovered.ok_or_else(|| io::Error::other("nothing was recovered").into())
    }
}

/// The newest head that verifies. `None`: there is no head page, or only torn ones of a file whose
/// keys cannot be told from noise.
fn newest_head(ring: &KeyRing, slots: &mut [u8]) -> Result<Option<Head>, SealedError> {
    let mut best: Option<Head> = None;
    let mut refused = None;
    let mut refused_count = 0;
    for (slot, bytes) in slots.chunks_exact_mut(PAGE_BYTES).enumerate() {
        let Ok(page) = <&mut Page>::try_from(bytes) else {
            continue;
        };
        if page.iter().all(|&byte| byte == 0) {
            continue;
        }
        match open_one(ring, page) {
            Ok((key, record, block0)) => {
                let twin = best.as_ref().filter(|b| b.record == record).map(|b| b.slot);
                if best.as_ref().is_none_or(|b| b.record.generation <= record.generation) {
                    best = Some(Head {
                        slot: slot as u8,
                        twin,
                        key,
                        record,
                        block0,
                    });
                }
            }
            Err(e) => {
                refused = Some(e);
                refused_count += 1;
            }
        }
    }
    match (best, refused) {
        (Some(head), _) => Ok(Some(head)),
        (
            None,
            Some(
                e @ (SealedError::KeyMissing(_)
                | SealedError::KeyDestroyed(_)
                | SealedError::NewerVersion(_)
                | SealedError::UnknownSuite(_)),
            ),
        ) => Err(e),
        // Before its first sync a file writes two of its head slots at most: this one was synced.
        (None, Some(e)) if refused_count == SLOT_COUNT => Err(e),
        (None, _) => Ok(None),
    }
}

pub(super) type Opened = (Arc<FileKey<Cipher>>, HeadRecord, Box<[u8; HEAD_PLAIN_BYTES]>);

pub(super) fn open_one(ring: &KeyRing, page: &mut Page) -> Result<Opened, SealedError> {
    let identity = Identity::parse(&page[..])?;
    let key = FileKey::unwrap_identity(identity, &*ring.kek(identity.key_id())?)?;
    let mut block0 = Box::new([0; HEAD_PLAIN_BYTES]);
    let record = open_head(&key, page, &mut block0)?;
    Ok((Arc::new(key), record, block0))
}

fn valid_tails(key: &FileKey<Cipher>, floor: &Floor, slots: &mut [u8]) -> Vec<Tail> {
    let mut tails = Vec::new();
    for (slot, page) in slots.chunks_exact_mut(PAGE_BYTES).enumerate() {
        if let Ok(header) = open_tail(key, page)
            && !floor.voids(header.block, header.generation)
        {
            let mut payload = Box::new([0; BLOCK_PLAIN_BYTES]);
            payload.copy_from_slice(&page[PAYLOAD_AT..PAYLOAD_AT + BLOCK_PLAIN_BYTES]);
            tails.push(Tail {
                slot: slot as u8,
                header,
                payload,
            });
        }
    }
    tails
}

fn sealed_content(head: Head) -> Content {
    let mut content = from_head(head);
    let end = content.end();
    content.tail_durable_in_body = end.tail_bytes > 0;
    content.durable_through = end.tail_block - 1;
    content.sealed_head_at_risk = true;
    content.head_on_disk = HeadOnDisk::Sealed;
    content
}

fn from_head(head: Head) -> Content {
    let mut content = Content::over(head.key);
    content.generation = head.record.generation;
    content.plain_length = head.record.plain_length;
    content.block0 = head.block0;
    content.heads.durable = Some(head.slot);
    content.heads.current = Some(head.slot);
    content.heads.twin = head.twin;
    content.holes_allowed = head.record.holes_allowed;
    content.floor = head.record.floor;
    content.head_vouches = head.record.durable_through;
    content.durable_head_vouches = head.record.durable_through;
    content.head_on_disk = HeadOnDisk::Open;
    content.carried = head.record;
    content
}

fn recover<B: Backing>(backing: &B, head: Head, tails: Vec<Tail>) -> Result<Content, StoreError> {
    let pages = Pages {
        backing,
        key: head.key.clone(),
        floor: head.record.floor,
        tails,
    };
    let open_count_seen = pages
        .tails
        .iter()
        .map(|t| t.header.generation)
        .chain([head.record.generation])
        .max()
        .map_or(0, Generation::open_count);
    let was_sealed = head.record.state == State::Sealed;
    let (plain_length, tail) = pages.end(&head.record)?;
    let restore = pages
        .to_restore(&head.record, length::end_of(plain_length).tail_block)?
        .into();
    let mut content = from_head(head);
    if holds(Rule::ForgetHash) {
        // A sealed head below newer pages tells the hash of what was there before them.
        content.carried.content_sha256 = [0; 32];
    }
    content.plain_length = plain_length;
    let end = content.end();
    content.sealed_head_at_risk = was_sealed;
    content.durable_through = end.tail_block - 1;
    content.tail_loaded = true;
    match tail {
        Some(copy) => {
            content.tail_written = copy.used() == end.tail_bytes;
            content.tail = copy.payload;
            content.tails.durable = copy.slot;
            content.tails.current = copy.slot;
            content.tail_slot_block = copy.slot.map_or(0, |_| end.tail_block);
            content.tail_durable_in_body = copy.slot.is_none();
        }
        // No copy of a last block that must be there: reading it says so.
        None if end.tail_bytes > 0 && (!content.holes_allowed || pages.is_torn(end.tail_block)?) => {
            content.tail_loaded = false;
            content.tail_durable_in_body = true;
        }
        // A hole so far; the fence puts its zeros on disk before anything relies on them.
        None => content.tail_written = end.tail_bytes == 0,
    }
    content.recovered = Some(Box::new(Recovered {
        open_count_seen,
        restore,
        restored: 0,
        is_aside: false,
    }));
    Ok(content)
}

/// The candidates of one file for every block.
struct Pages<'a, B> {
    backing: &'a B,
    key: Arc<FileKey<Cipher>>,
    floor: Floor,
    tails: Vec<Tail>,
}

impl<B: Backing> Pages<'_, B> {
    fn body(&self, block: u64) -> Result<Option<Copy>, StoreError> {
        let mut page = [0; PAGE_BYTES];
        read_full(self.backing, &mut page, body_offset(block))?;
        let Ok(header) = open_body(&self.key, block, &mut page) else {
            return Ok(None);
        };
        if self.floor.voids(block, header.generation) {
            return Ok(None);
        }
        let mut payload = Box::new([0; BLOCK_PLAIN_BYTES]);
        payload.copy_from_slice(&page[PAYLOAD_AT..PAYLOAD_AT + BLOCK_PLAIN_BYTES]);
        Ok(Some(Copy {
            slot: None,
            header,
            payload,
        }))
    }

    /// The newest copy of a block; `None` when there is none.
    fn best(&self, block: u64) -> Result<Option<Copy>, StoreError> {
        let in_slots = self.tails.iter().filter(|tail| tail.header.block == block);
        let in_slot = in_slots.max_by_key(|tail| tail.header.generation);
        let in_body = self.body(block)?;
        let Some(tail) = in_slot else { return Ok(in_body) };
        if in_body
            .as_ref()
            .is_some_and(|body| body.header.generation >= tail.header.generation)
        {
            return Ok(in_body);
        }
        Ok(Some(Copy {
            slot: Some(tail.slot),
            header: tail.header,
            payload: tail.payload.clone(),
        }))
    }

    /// The plaintext length that the pages tell, and the copy of the last partial block.
    fn end(&self, head: &HeadRecord) -> Result<(u64, Option<Copy>), StoreError> {
        if usize::from(head.head_bytes) < HEAD_PLAIN_BYTES {
            return Ok((u64::from(head.head_bytes), None));
        }
        let told = head.holes_allowed || head.state == State::Sealed;
        let recorded = if told {
            length::end_of(head.plain_length)
        } else {
            length::end_of(0)
        };
        let vouched = self.vouched(head);
        let mut block = recorded.tail_block.max(vouched + 1);
        if head.state == State::Open
            && let Some(torn) = self.first_torn(vouched + 1, block)?
        {
            return Ok((plain_offset_of(torn), None));
        }
        loop {
            let least = if block == recorded.tail_block {
                recorded.tail_bytes
            } else {
                0
            };
            match self.best(block)? {
                Some(copy) if copy.used() == BLOCK_PLAIN_BYTES => block += 1,
                Some(copy) => {
                    // A copy newer than the head knows better: the block was cut since.
                    let newer = copy.header.generation > head.generation;
                    let used = if newer { copy.used() } else { copy.used().max(least) };
                    return Ok((plain_offset_of(block) + used as u64, Some(copy)));
                }
                // Damage in what is vouched for is told by reads; an unvouched page was never synced.
                None if block > vouched && self.is_torn(block)? => return Ok((plain_offset_of(block), None)),
                None => return Ok((plain_offset_of(block) + least as u64, None)),
            }
        }
    }

    /// Blocks 1 to this one were durable in the body when a head or a tail was written.
    fn vouched(&self, head: &HeadRecord) -> u64 {
        let by_tails = self.tails.iter().map(|tail| tail.header.vouched_through());
        by_tails.chain([head.durable_through]).max().unwrap_or(0)
    }

    /// The first block from `from` to before `to` that has a page, but none that opens: with holes
    /// allowed a missing page says nothing, a torn one is the end of what reached the disk whole.
    fn first_torn(&self, from: u64, to: u64) -> Result<Option<u64>, StoreError> {
        let mut torn = None;
        self.each_page(from, to, |block| {
            if self.tails.iter().all(|tail| tail.header.block != block) && self.is_torn(block)? {
                torn = Some(block);
            }
            Ok(torn.is_none())
        })?;
        Ok(torn)
    }

    /// Every block from `from` to before `to` that has a body page, until `visit` says stop.
    fn each_page(
        &self,
        from: u64,
        to: u64,
        mut visit: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut block = from;
        while block < to {
            let Some(at) = self.backing.next_data(body_offset(block))? else {
                break;
            };
            block = block.max((at - body_offset(0)) / PAGE_BYTES as u64);
            if block >= to || !visit(block)? {
                break;
            }
            block += 1;
        }
        Ok(())
    }

    fn is_torn(&self, block: u64) -> Result<bool, StoreError> {
        let mut page = [0; PAGE_BYTES];
        read_full(self.backing, &mut page, body_offset(block))?;
        Ok(page.iter().any(|&byte| byte != 0) && open_body(&self.key, block, &mut page).is_err())
    }

    /// Blocks before `tail_block` whose body page is torn, missing or older than the copy in a slot.
    /// A partial copy, in a slot or in the body, counts in a file with holes alone, and there behind
    /// what is vouched for: a head may tell a length for which the padded page never reached the disk.
    fn to_restore(&self, head: &HeadRecord, tail_block: u64) -> Result<Vec<Restore>, StoreError> {
        let mut found: Vec<Restore> = Vec::new();
        let vouched = self.vouched(head);
        let mut blocks: Vec<u64> = self.tails.iter().map(|tail| tail.header.block).collect();
        if head.holes_allowed && head.state == State::Open {
            self.each_page(vouched + 1, tail_block, |block| {
                blocks.push(block);
                Ok(true)
            })?;
        }
        blocks.sort_unstable();
        blocks.dedup();
        for block in blocks.into_iter().filter(|&block| block < tail_block) {
            let Some(copy) = self.best(block)? else { continue };
            let partial = copy.used() < BLOCK_PLAIN_BYTES;
            if partial && head.holes_allowed && block > vouched || !partial && copy.slot.is_some() {
                found.push(Restore {
                    block,
                    slot: copy.slot,
                    payload: copy.payload,
                });
            }
        }
        Ok(found)
    }
}
