//! Tail slots and body pages: one block of plaintext each, bound to its file and place.
//!
//! nonce 12, ciphertext 4,068, tag 16. Plaintext: generation u64, block number u64, length u16,
//! unsynced u16, payload 4,048 bytes zero-padded. AAD: file id, the letter T or B, and for B the
//! block number. `unsynced` of a tail says how many blocks before its own were not yet known to be
//! durable when it was written: recovery takes the blocks before those as vouched for.

use super::aead::Aead;
use super::head::Generation;
use super::keys::FileKey;
use super::{BLOCK_PLAIN_BYTES, NONCE_BYTES, PAGE_BYTES, SealedError, TAG_BYTES};

/// Tails with this many or more blocks at risk vouch for nothing.
pub const UNSYNCED_MANY: u16 = u16::MAX;

const HEADER_BYTES: usize = 20;
const TEXT_AT: usize = NONCE_BYTES;
const TAG_AT: usize = PAGE_BYTES - TAG_BYTES;
/// What lies before the payload in the text of [`open_body_to`].
pub const FRONT_BYTES: usize = HEADER_BYTES;
/// Where the payload lies in an opened page.
pub const PAYLOAD_AT: usize = TEXT_AT + HEADER_BYTES;
const _: () = assert!(PAYLOAD_AT + BLOCK_PLAIN_BYTES == TAG_AT);

/// Where a page lies, which its tag covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A tail slot.
    Tail,
    /// The body page of the block in the header.
    Body,
}

/// What a tail slot or body page says beside its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// Order of writing within the file.
    pub generation: Generation,
    /// Which block the payload is.
    pub block: u64,
    /// Bytes of the payload in use, 1 to 4,048.
    pub length: u16,
    /// Tails: blocks before this one that were not known to be durable. Bodies: 0.
    pub unsynced: u16,
}

impl PageHeader {
    /// Blocks 1 up to this one were durable when the page was written.
    pub fn vouched_through(&self) -> u64 {
        if self.unsynced == UNSYNCED_MANY {
            return 0;
        }
        (self.block - 1).saturating_sub(u64::from(self.unsynced))
    }
}

/// Seals `payload` into `page` (both whole).
///
/// # Errors
/// [`SealedError::CipherFails`] when the cipher refuses.
pub fn seal_page<C: Aead>(
    key: &FileKey<C>,
    nonce: &[u8; NONCE_BYTES],
    place: Place,
    header: PageHeader,
    payload: &[u8],
    page: &mut [u8],
) -> Result<(), SealedError> {
    let used = usize::from(header.length);
    if used == BLOCK_PLAIN_BYTES {
        put_header(nonce, header, page);
        let (aad, aad_bytes) = page_aad(key, place, header.block);
        let text = &payload[..used];
        return key
            .pages()
            .seal_behind(nonce, &aad[..aad_bytes], &mut page[TEXT_AT..], HEADER_BYTES, text);
    }
    page[PAYLOAD_AT..PAYLOAD_AT + used].copy_from_slice(&payload[..used]);
    page[PAYLOAD_AT + used..TAG_AT].fill(0);
    seal_page_in_place(key, nonce, place, header, page)
}

/// Seals a page whose payload lies in its place at [`PAYLOAD_AT`] already, with zeros behind it.
///
/// # Errors
/// [`SealedError::CipherFails`] when the cipher refuses.
pub fn seal_page_in_place<C: Aead>(
    key: &FileKey<C>,
    nonce: &[u8; NONCE_BYTES],
    place: Place,
    header: PageHeader,
    page: &mut [u8],
) -> Result<(), SealedError> {
    debug_assert_eq!(page.len(), PAGE_BYTES);
    put_header(nonce, header, page);
    let (aad, aad_bytes) = page_aad(key, place, header.block);
    let tag = key.pages().seal(nonce, &aad[..aad_bytes], &mut page[TEXT_AT..TAG_AT])?;
    page[TAG_AT..].copy_from_slice(&tag);
    Ok(())
}

fn put_header(nonce: &[u8; NONCE_BYTES], header: PageHeader, page: &mut [u8]) {
    page[..TEXT_AT].copy_from_slice(nonce);
    page[12..20].copy_from_slice(&header.generation.0.to_le_bytes());
    page[20..28].copy_from_slice(&header.block.to_le_bytes());
    page[28..30].copy_from_slice(&header.length.to_le_bytes());
    page[30..32].copy_from_slice(&header.unsynced.to_le_bytes());
}

/// Opens a tail slot in place; the payload is then at [`PAYLOAD_AT`].
///
/// # Errors
/// [`SealedError::TagFails`] or [`SealedError::Impossible`].
pub fn open_tail<C: Aead>(key: &FileKey<C>, page: &mut [u8]) -> Result<PageHeader, SealedError> {
    open_page(key, Place::Tail, 0, page)
}

/// Opens the body page of `block` in place; the payload is then at [`PAYLOAD_AT`].
///
/// # Errors
/// [`SealedError::TagFails`] or [`SealedError::Impossible`].
pub fn open_body<C: Aead>(key: &FileKey<C>, block: u64, page: &mut [u8]) -> Result<PageHeader, SealedError> {
    let header = open_page(key, Place::Body, block, page)?;
    if header.block != block {
        return Err(SealedError::Impossible("block number"));
    }
    Ok(header)
}

/// Opens the body page of `block` into `text`: [`FRONT_BYTES`] that are of no use, then the payload.
///
/// # Errors
/// As [`open_body`]; `text` then holds nothing of use.
pub fn open_body_to<C: Aead>(
    key: &FileKey<C>,
    block: u64,
    page: &[u8],
    text: &mut [u8],
) -> Result<PageHeader, SealedError> {
    let (nonce, tag) = nonce_and_tag(page);
    let (aad, aad_bytes) = page_aad(key, Place::Body, block);
    key.pages()
        .open_to(&nonce, &aad[..aad_bytes], &page[TEXT_AT..TAG_AT], &tag, text)?;
    let header = take_header(text)?;
    if header.block != block {
        return Err(SealedError::Impossible("block number"));
    }
    Ok(header)
}

fn open_page<C: Aead>(key: &FileKey<C>, place: Place, block: u64, page: &mut [u8]) -> Result<PageHeader, SealedError> {
    let (nonce, tag) = nonce_and_tag(page);
    let (aad, aad_bytes) = page_aad(key, place, block);
    key.pages()
        .open(&nonce, &aad[..aad_bytes], &mut page[TEXT_AT..TAG_AT], &tag)?;
    take_header(&page[TEXT_AT..])
}

fn nonce_and_tag(page: &[u8]) -> ([u8; NONCE_BYTES], [u8; TAG_BYTES]) {
    debug_assert_eq!(page.len(), PAGE_BYTES);
    let nonce = page[..TEXT_AT].try_into().expect("twelve bytes");
    let tag = page[TAG_AT..].try_into().expect("sixteen bytes");
    (nonce, tag)
}

/// The header at the beginning of an opened text.
fn take_header(text: &[u8]) -> Result<PageHeader, SealedError> {
    let u64_at = |at: usize| u64::from_le_bytes(text[at..at + 8].try_into().expect("eight bytes"));
    let header = PageHeader {
        generation: Generation(u64_at(0)),
        block: u64_at(8),
        length: u16::from_le_bytes([text[16], text[17]]),
        unsynced: u16::from_le_bytes([text[18], text[19]]),
    };
    if header.block == 0 || header.length == 0 || usize::from(header.length) > BLOCK_PLAIN_BYTES {
        return Err(SealedError::Impossible("block number or length"));
    }
    Ok(header)
}

fn page_aad<C: Aead>(key: &FileKey<C>, place: Place, block: u64) -> ([u8; 25], usize) {
    let mut aad = [0; 25];
    aad[..16].copy_from_slice(&key.identity().file_id());
    match place {
        Place::Tail => {
            aad[16] = b'T';
            (aad, 17)
        }
        Place::Body => {
            aad[16] = b'B';
            aad[17..].copy_from_slice(&block.to_le_bytes());
            (aad, 25)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::aead::Cipher;
    use crate::sealed::keys::{FileRandom, Kek};
    use zeroize::Zeroizing;

    fn key(file_id: u8) -> FileKey<Cipher> {
        let random = FileRandom {
            file_id: [file_id; 16],
            dek: Zeroizing::new([2; 32]),
            wrap_nonce: [3; 12],
        };
        FileKey::create(&Kek::take(&mut [5; 32]), 1, &random).expect("creates")
    }

    #[test]
    fn a_page_opens_only_in_its_file_place_and_block() {
        let header = PageHeader {
            generation: Generation(9),
            block: 4,
            length: 5,
            unsynced: 0,
        };
        let mut page = [0; PAGE_BYTES];
        seal_page(&key(1), &[8; 12], Place::Body, header, b"hello", &mut page).expect("seals");
        assert_eq!(open_body(&key(1), 4, &mut page.clone()), Ok(header));
        assert_eq!(
            open_body(&key(1), 5, &mut page.clone()),
            Err(SealedError::TagFails),
            "moved within the file"
        );
        assert_eq!(
            open_body(&key(2), 4, &mut page.clone()),
            Err(SealedError::TagFails),
            "moved to another file"
        );
        assert_eq!(
            open_tail(&key(1), &mut page.clone()),
            Err(SealedError::TagFails),
            "moved to a tail slot"
        );
        for at in (0..PAGE_BYTES).step_by(97) {
            let mut flipped = page;
            flipped[at] ^= 0x10;
            assert_eq!(
                open_body(&key(1), 4, &mut flipped),
                Err(SealedError::TagFails),
                "a flip at {at}"
            );
        }
    }

    #[test]
    fn a_tail_vouches_for_what_was_durable_before_it() {
        let mut header = PageHeader {
            generation: Generation(1),
            block: 40,
            length: 1,
            unsynced: 9,
        };
        assert_eq!(header.vouched_through(), 30);
        header.unsynced = UNSYNCED_MANY;
        assert_eq!(header.vouched_through(), 0);
    }
}
