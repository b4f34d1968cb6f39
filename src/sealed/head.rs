//! Head pages: the identity of a file, its state and length, and block 0.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 128 | identity (keys.rs), clear |
//! | 128 | 12 | page nonce |
//! | 140 | 3,940 | ciphertext of the head record (132 bytes) and block 0 (3,808 bytes, zero-padded) |
//! | 4,080 | 16 | tag; AAD = bytes 0 to 127 and the letter H |

use super::aead::Aead;
use super::keys::{FileKey, IDENTITY_BYTES};
use super::length::MAX_PLAIN_LENGTH;
use super::{HEAD_PLAIN_BYTES, NONCE_BYTES, PAGE_BYTES, Page, SealedError, TAG_BYTES};

/// Bytes of the head record.
pub const RECORD_BYTES: usize = 132;

const NONCE_AT: usize = IDENTITY_BYTES;
const TEXT_AT: usize = NONCE_AT + NONCE_BYTES;
const TAG_AT: usize = TEXT_AT + RECORD_BYTES + HEAD_PLAIN_BYTES;
const _: () = assert!(TAG_AT + TAG_BYTES == PAGE_BYTES);

/// Open count in the upper half, counter in the lower: a later opening always wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Generation(pub u64);

impl Generation {
    /// The first generation of an opening.
    pub const fn first_of(open_count: u32) -> Self {
        Self((open_count as u64) << 32)
    }

    /// Which opening for writing this belongs to.
    pub const fn open_count(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Pages of `block` and later with a smaller generation are void.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    /// First block that the floor covers.
    pub block: u64,
    /// Pages older than this do not count there.
    pub generation: Generation,
}

impl Floor {
    /// Whether a page of `block` with `generation` is void.
    pub const fn voids(&self, block: u64, generation: Generation) -> bool {
        block >= self.block && generation.0 < self.generation.0
    }
}

/// Whether a file is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Lengths come from the newest pages.
    Open,
    /// The head's length is the length.
    Sealed,
}

/// What a head page says beside block 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeadRecord {
    /// Of this head page.
    pub generation: Generation,
    /// Sealed or being written.
    pub state: State,
    /// Missing body pages below the length read as zeros.
    pub holes_allowed: bool,
    /// Bytes of block 0 in use.
    pub head_bytes: u16,
    /// Plaintext length when the head was written.
    pub plain_length: u64,
    /// Body pages when the head was written.
    pub body_pages: u64,
    /// Which pages are void.
    pub floor: Floor,
    /// SHA-256 of the plaintext, zero until known.
    pub content_sha256: [u8; 32],
    /// Unix seconds of the last sealing.
    pub sealed_at_s: u64,
    /// Unix seconds until which the recording must be kept; 0 for none.
    pub retain_until_s: u64,
    /// Tenant number; 0 for none.
    pub tenant: u32,
    /// Blocks 1 to this one were known to be durable in the body when the head was written:
    /// recovery never ends the file before them.
    pub durable_through: u64,
}

impl HeadRecord {
    /// The record of a file that has no head page yet.
    pub const fn empty() -> Self {
        Self {
            generation: Generation(0),
            state: State::Open,
            holes_allowed: false,
            head_bytes: 0,
            plain_length: 0,
            body_pages: 0,
            floor: Floor {
                block: 0,
                generation: Generation(0),
            },
            content_sha256: [0; 32],
            sealed_at_s: 0,
            retain_until_s: 0,
            tenant: 0,
            durable_through: 0,
        }
    }

    fn encode(&self, out: &mut [u8]) {
        out.fill(0);
        out[0..8].copy_from_slice(&self.generation.0.to_le_bytes());
        out[8] = u8::from(self.state == State::Sealed);
        out[9] = u8::from(self.holes_allowed);
        out[10..12].copy_from_slice(&self.head_bytes.to_le_bytes());
        out[12..20].copy_from_slice(&self.plain_length.to_le_bytes());
        out[20..28].copy_from_slice(&self.body_pages.to_le_bytes());
        out[28..36].copy_from_slice(&self.floor.block.to_le_bytes());
        out[36..44].copy_from_slice(&self.floor.generation.0.to_le_bytes());
        out[44..76].copy_from_slice(&self.content_sha256);
        out[76..84].copy_from_slice(&self.sealed_at_s.to_le_bytes());
        out[84..92].copy_from_slice(&self.retain_until_s.to_le_bytes());
        out[92..96].copy_from_slice(&self.tenant.to_le_bytes());
        out[96..104].copy_from_slice(&self.durable_through.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, SealedError> {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let head_bytes = u16::from_le_bytes([bytes[10], bytes[11]]);
        if usize::from(head_bytes) > HEAD_PLAIN_BYTES {
            return Err(SealedError::Impossible("block 0 length"));
        }
        let state = match bytes[8] {
            0 => State::Open,
            1 => State::Sealed,
            _ => return Err(SealedError::Impossible("state")),
        };
        let plain_length = u64_at(12);
        if plain_length > MAX_PLAIN_LENGTH {
            return Err(SealedError::Impossible("plaintext length"));
        }
        let mut content_sha256 = [0; 32];
        content_sha256.copy_from_slice(&bytes[44..76]);
        Ok(Self {
            generation: Generation(u64_at(0)),
            state,
            holes_allowed: bytes[9] & 1 == 1,
            head_bytes,
            plain_length,
            body_pages: u64_at(20),
            floor: Floor {
                block: u64_at(28),
                generation: Generation(u64_at(36)),
            },
            content_sha256,
            sealed_at_s: u64_at(76),
            retain_until_s: u64_at(84),
            tenant: u32::from_le_bytes(bytes[92..96].try_into().expect("four bytes")),
            durable_through: u64_at(96),
        })
    }
}

/// Seals a head page: `record` and the whole of block 0, of which `record.head_bytes` are in use.
///
/// # Errors
/// [`SealedError::CipherFails`] when the cipher refuses.
pub fn seal_head<C: Aead>(
    key: &FileKey<C>,
    nonce: &[u8; NONCE_BYTES],
    record: &HeadRecord,
    block0: &[u8; HEAD_PLAIN_BYTES],
    page: &mut Page,
) -> Result<(), SealedError> {
    page[..IDENTITY_BYTES].copy_from_slice(&key.identity().0);
    page[NONCE_AT..TEXT_AT].copy_from_slice(nonce);
    record.encode(&mut page[TEXT_AT..TEXT_AT + RECORD_BYTES]);
    page[TEXT_AT + RECORD_BYTES..TAG_AT].copy_from_slice(block0);
    page[TEXT_AT + RECORD_BYTES + usize::from(record.head_bytes)..TAG_AT].fill(0);
    let aad = head_aad(page);
    let tag = key.pages().seal(nonce, &aad, &mut page[TEXT_AT..TAG_AT])?;
    page[TAG_AT..].copy_from_slice(&tag);
    Ok(())
}

/// Opens a head page; `key` is the one that its identity leads to. Block 0 goes to `block0`.
///
/// # Errors
/// [`SealedError::TagFails`], or [`SealedError::Impossible`] for fields that no writer makes.
pub fn open_head<C: Aead>(
    key: &FileKey<C>,
    page: &mut Page,
    block0: &mut [u8; HEAD_PLAIN_BYTES],
) -> Result<HeadRecord, SealedError> {
    let aad = head_aad(page);
    let nonce: [u8; NONCE_BYTES] = page[NONCE_AT..TEXT_AT].try_into().expect("twelve bytes");
    let tag: [u8; TAG_BYTES] = page[TAG_AT..].try_into().expect("sixteen bytes");
    key.pages().open(&nonce, &aad, &mut page[TEXT_AT..TAG_AT], &tag)?;
    let record = HeadRecord::decode(&page[TEXT_AT..TEXT_AT + RECORD_BYTES])?;
    block0.copy_from_slice(&page[TEXT_AT + RECORD_BYTES..TAG_AT]);
    Ok(record)
}

fn head_aad(page: &Page) -> [u8; IDENTITY_BYTES + 1] {
    let mut aad = [b'H'; IDENTITY_BYTES + 1];
    aad[..IDENTITY_BYTES].copy_from_slice(&page[..IDENTITY_BYTES]);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_no_file_can_have_is_refused() {
        let mut text = [0; RECORD_BYTES];
        for (plain_length, fits) in [
            (MAX_PLAIN_LENGTH, true),
            (MAX_PLAIN_LENGTH + 1, false),
            (u64::MAX, false),
        ] {
            let record = HeadRecord {
                plain_length,
                ..HeadRecord::empty()
            };
            record.encode(&mut text);
            assert_eq!(HeadRecord::decode(&text) == Ok(record), fits, "{plain_length}");
        }
    }
}
