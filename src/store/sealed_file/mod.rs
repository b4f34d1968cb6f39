//! One sealed file: plaintext reads and writes over a backing file, with the write rules that make
//! fsync'd bytes survive any tear and acknowledged bytes survive a killed daemon.
//!
//! The caller holds one lock per inode around every `&mut` call (rule 10 of the format). The rules,
//! by their numbers in the format's section 5, and where they live:
//! 1 acknowledged only after the pages are in the backing page cache (`write`); 2 slots (`slots`);
//! 3 an open head before any fsync returns or any page in place is overwritten (`prepare_change`,
//! `in_place_barrier`); 4 a failed sync is never forgotten (`again`); 5 sealing in steps (`commit`); 6 marks of
//! another process are synced first (`prepare_change`); 7 a durable body page is overwritten only
//! under a durable tail (`cover_tail`, `overwrite`); 8 truncate and 9 holes (`resize`).

mod again;
mod commit;
mod heads;
mod inspect;
mod load;
mod overwrite;
mod pages;
mod read;
mod resize;
#[doc(hidden)]
pub mod rules;
mod slots;
mod write;

use std::sync::Arc;

use crate::sealed::aead::Cipher;
use crate::sealed::head::{Floor, Generation, HeadRecord};
use crate::sealed::keyring::{KeyLine, KeyRing};
use crate::sealed::keys::FileKey;
use crate::sealed::length::{self, End};
use crate::sealed::nonce::NonceSource;
use crate::sealed::{BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES};
use crate::store::backing::Backing;
use crate::store::error::StoreError;

use again::{SinceSync, SyncFailure};
pub use commit::{SealStep, SyncTicket};
pub use inspect::{HeadFacts, Stretch, damaged_head_slots, key_ids, looks_sealed};
use overwrite::FetchAround;
pub use read::ReadPlan;
use slots::Slots;

/// How far the size on disk runs ahead of a file that is being written, at least.
pub const AHEAD_BYTES: u64 = 1 << 20;

/// Choices of the operator that change how pages are written.
#[derive(Clone, Copy, Default, Debug)]
pub struct WriteOptions {
    /// Copy a page aside and sync before it is overwritten in place.
    pub strict_overwrite: bool,
    /// Whose key a file gets with its first byte, and has from its next sealing on.
    pub key_line: KeyLine,
}

/// What the newest head page on disk says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HeadOnDisk {
    None,
    Open,
    Sealed,
}

/// A sealed file that is in use.
pub struct SealedFile<B: Backing> {
    backing: Arc<B>,
    ring: Arc<KeyRing>,
    options: WriteOptions,
    content: Option<Content>,
    size_on_disk: u64,
    /// A sync failed: what was written since the last good one has to be written again.
    sync_failure: Option<SyncFailure>,
    /// Counts failed syncs.
    sync_failures: u64,
    /// Those of them that nobody was told of.
    untold_sync_failures: u64,
    /// Found on disk by this process, which cannot know what of it (an empty size too) is durable.
    marks_unknown: bool,
    /// Something was written since the last sync began.
    unsynced: bool,
    /// How old pages come to memory that a write changes in part.
    fetch_around: FetchAround,
    /// Moves with every change; sealing stops when it moved.
    changes: u64,
    /// Numbers the syncs; only the newest one may flip marks.
    syncs_begun: u64,
    /// Numbers the lives of `content`, so that a sync of an earlier one marks nothing.
    life: u64,
}

/// Keys, lengths and marks of a file that has at least one byte.
#[allow(clippy::struct_excessive_bools)] // Independent facts about what is on disk, not one state.
struct Content {
    key: Arc<FileKey<Cipher>>,
    nonces: NonceSource,
    generation: Generation,
    plain_length: u64,
    block0: Box<[u8; HEAD_PLAIN_BYTES]>,
    /// Plaintext of the last block, when it is partial; bytes past its length are not defined.
    tail: Box<[u8; BLOCK_PLAIN_BYTES]>,
    tail_loaded: bool,
    /// The block that the newest tail slot holds.
    tail_slot_block: u64,
    /// The newest tail slot holds what memory holds (or there is nothing to hold).
    tail_written: bool,
    heads: Slots,
    tails: Slots,
    holes_allowed: bool,
    floor: Floor,
    head_on_disk: HeadOnDisk,
    /// A head that says "sealed" may be the newest durable one (it is, or a sync or the page cache may
    /// be writing it): no page in place may change before an open one is durable.
    sealed_head_at_risk: bool,
    /// The durable bytes of the tail block lie in its body page and nowhere else.
    tail_durable_in_body: bool,
    /// Blocks 1 to this one are durable in the body.
    durable_through: u64,
    /// Blocks 1 to this one may become durable by the sync that is running.
    syncing_through: u64,
    /// What the newest head page says of `durable_through`, and what the durable one does.
    head_vouches: u64,
    durable_head_vouches: u64,
    /// Lengths came from pages, not from a sealed head: a floor has to fence stale pages off.
    recovered: Option<Box<Recovered>>,
    /// A shrinking set_size is not durable yet.
    shrink_unsynced: bool,
    /// Pages of this block and later are void but still on disk: taking them off failed.
    shrink_to: Option<u64>,
    /// Body pages that no good sync covers yet.
    since_sync: SinceSync,
    /// Fields of the head record that are only carried along.
    carried: HeadRecord,
}

/// What recovery found and has to finish before the first change.
struct Recovered {
    /// Highest open count seen on any page.
    open_count_seen: u32,
    /// Blocks whose body page is not what it should be.
    restore: Arc<Vec<Restore>>,
    /// So many of them are durable in the body.
    restored: usize,
    /// A copy of the next one is durable in a slot.
    is_aside: bool,
}

/// A block that has to go back to its body page.
struct Restore {
    block: u64,
    /// The tail slot of the only good copy; `None`: a body page that has to be padded.
    slot: Option<u8>,
    /// The whole block, padded.
    payload: Box<[u8; BLOCK_PLAIN_BYTES]>,
}

impl<B: Backing> SealedFile<B> {
    /// A sealed file over an empty backing file that was just created.
    pub fn new_empty(backing: Arc<B>, ring: Arc<KeyRing>, options: WriteOptions) -> Self {
        Self {
            backing,
            ring,
            options,
            content: None,
            size_on_disk: 0,
            sync_failure: None,
            sync_failures: 0,
            untold_sync_failures: 0,
            marks_unknown: false,
            unsynced: false,
            fetch_around: FetchAround::default(),
            changes: 0,
            syncs_begun: 0,
            life: 0,
        }
    }

    /// Length of the plaintext, exact at once.
    pub fn plain_length(&self) -> u64 {
        self.content.as_ref().map_or(0, |c| c.plain_length)
    }

    /// The file below.
    pub fn backing(&self) -> &Arc<B> {
        &self.backing
    }

    /// Random file id, once there is content.
    pub fn file_id(&self) -> Option<[u8; 16]> {
        self.content.as_ref().map(|c| c.key.identity().file_id())
    }

    /// Whether the file is sealed: the size on disk tells the length, so that a scan needs no key.
    pub fn is_clean(&self) -> bool {
        // A power cut can leave the size of the last sealing under an open head of the same length.
        let sealed = |c: &Content| c.head_on_disk == HeadOnDisk::Sealed && c.recovered.is_none();
        self.size_on_disk == length::sealed_size(self.plain_length()) && self.content.as_ref().is_none_or(sealed)
    }

    /// Whether something was written that no sync covers yet.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Counts changes of content or length; two equal values mean that nothing changed between.
    pub fn change_count(&self) -> u64 {
        self.changes
    }
}

impl Content {
    fn end(&self) -> End {
        length::end_of(self.plain_length)
    }

    fn next_generation(&mut self) -> Generation {
        self.generation = Generation(self.generation.0 + 1);
        self.generation
    }
}

fn sealed_error(place: crate::store::error::PageName) -> impl FnOnce(crate::sealed::SealedError) -> StoreError {
    move |cause| StoreError::Sealed { place, cause }
}
