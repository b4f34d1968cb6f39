//! The sealed format, version 1: how a recording's plaintext becomes pages on disk and back.
//!
//! Pure: no file, clock, thread or random source; callers pass bytes, nonces and random numbers in.
//! Every file is made of 4,096-byte pages at 4,096-byte offsets:
//!
//! | offset | content |
//! |---|---|
//! | 0, 4096, 8192 | head slots A, B, C |
//! | 12288, 16384, 20480 | tail slots A, B, C |
//! | 20480 + 4096 k, k >= 1 | body page of block k |
//!
//! Block 0 (3,808 bytes of plaintext) lives in the head pages only; block k >= 1 holds 4,048 bytes.

pub mod aead;
pub mod error;
pub mod head;
pub mod keyring;
pub mod keys;
pub mod length;
pub mod nonce;
pub mod page;
pub mod row_mac;

pub use error::SealedError;

/// Size of every page and of every write to a backing file.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of an AES-GCM nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of an AES-GCM tag.
pub const TAG_BYTES: usize = 16;
/// Plaintext bytes of block 0, which the head pages carry.
pub const HEAD_PLAIN_BYTES: usize = 3808;
/// Plaintext bytes of every other block.
pub const BLOCK_PLAIN_BYTES: usize = 4048;
/// Slots of each kind: one durable, one that a running sync may be writing, one to write now.
pub const SLOT_COUNT: usize = 3;
/// Offset of the first tail slot.
pub const TAIL_SLOTS_OFFSET: u64 = (SLOT_COUNT * PAGE_BYTES) as u64;
/// Where block 0 would lie if it had a body page; body page k lies k pages after.
pub const BODY_BASE: u64 = 20480;
/// What one read at open fetches: all head and tail slots.
pub const SLOTS_BYTES: usize = 2 * SLOT_COUNT * PAGE_BYTES;

/// One page, on its way to or from the disk.
pub type Page = [u8; PAGE_BYTES];

const _: () = assert!(BODY_BASE == TAIL_SLOTS_OFFSET + 2 * PAGE_BYTES as u64);
const _: () = assert!(SLOTS_BYTES as u64 == BODY_BASE + PAGE_BYTES as u64);

/// Offset of head slot `slot` (0 to 2).
pub const fn head_slot_offset(slot: u8) -> u64 {
    slot as u64 * PAGE_BYTES as u64
}

/// Offset of tail slot `slot` (0 to 2).
pub const fn tail_slot_offset(slot: u8) -> u64 {
    TAIL_SLOTS_OFFSET + slot as u64 * PAGE_BYTES as u64
}

/// Offset of the body page of block `block` (1 or more).
pub const fn body_offset(block: u64) -> u64 {
    BODY_BASE + block * PAGE_BYTES as u64
}
