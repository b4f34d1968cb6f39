//! Pages and whole sealed files: damaged ones, and ones with good tags around fields that no writer makes.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use tallyfs::sealed::aead::{Aead, Cipher};
use tallyfs::sealed::head::{Floor, Generation, HeadRecord, RECORD_BYTES, State, open_head, seal_head};
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::{FileKey, FileRandom, Identity, Kek};
use tallyfs::sealed::page::{PAYLOAD_AT, PageHeader, Place, open_body, open_tail, seal_page};
use tallyfs::sealed::{HEAD_PLAIN_BYTES, PAGE_BYTES, Page};
use tallyfs::store::backing::Backing;
use tallyfs::store::sealed_file::{SealedFile, WriteOptions};
use zeroize::Zeroizing;

const KEK: [u8; 32] = [7; 32];
/// Pages of an image at most.
const IMAGE_PAGES_MAX: usize = 12;
/// Longest plaintext that is read back.
const READ_BYTES_MAX: u64 = 1 << 20;

fn kek() -> Kek {
    Kek::take(&mut { KEK })
}

fn key() -> FileKey<Cipher> {
    let random = FileRandom {
        file_id: [1; 16],
        dek: Zeroizing::new([2; 32]),
        wrap_nonce: [3; 12],
    };
    FileKey::create(&kek(), 1, &random).expect("a key")
}

/// A page as it is, then with the right tag around the same fields.
pub fn page(bytes: &[u8]) {
    let mut raw: Page = [0; PAGE_BYTES];
    for (to, from) in raw.iter_mut().zip(bytes) {
        *to = *from;
    }
    if let Ok(identity) = Identity::parse(&raw) {
        let _ = (identity.key_id(), identity.file_id());
        let _ = FileKey::<Cipher>::unwrap_identity(identity, &kek()).map(|_| ());
    }
    let key = key();
    open_all(&key, &raw);
    let (mut head, mut tail, mut body) = (raw, raw, raw);
    head[..128].copy_from_slice(&key.identity().0);
    let head_aad: Vec<u8> = [&head[..128], b"H"].concat();
    seal(&key, &mut head, 140, &head_aad);
    seal(&key, &mut tail, 12, &[&[1; 16][..], b"T"].concat());
    seal(
        &key,
        &mut body,
        12,
        &[&[1; 16][..], b"B", &5_u64.to_le_bytes()].concat(),
    );
    for sealed in [head, tail, body] {
        open_all(&key, &sealed);
    }
}

fn seal(key: &FileKey<Cipher>, page: &mut Page, text_at: usize, aad: &[u8]) {
    let nonce = page[text_at - 12..text_at].try_into().expect("twelve bytes");
    let tag_at = PAGE_BYTES - 16;
    let tag = key
        .pages()
        .seal(&nonce, aad, &mut page[text_at..tag_at])
        .expect("it seals");
    page[tag_at..].copy_from_slice(&tag);
}

fn open_all(key: &FileKey<Cipher>, page: &Page) {
    let mut block0 = [0; HEAD_PLAIN_BYTES];
    if let Ok(record) = open_head(key, &mut { *page }, &mut block0) {
        assert!(usize::from(record.head_bytes) <= HEAD_PLAIN_BYTES);
    }
    let opened = [open_tail(key, &mut { *page }), open_body(key, 5, &mut { *page })];
    for header in opened.into_iter().flatten() {
        assert!(header.block > 0 && usize::from(header.length) <= PAGE_BYTES - PAYLOAD_AT);
        assert!(header.vouched_through() < header.block);
    }
}

/// Takes fields from bytes; zeros when they are used up.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Mostly small, now and then from the ends of the numbers.
    fn number(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::MAX - u64::from(self.byte()),
            0xfe => u64::from(self.byte()) << (self.byte() % 56),
            0xfc | 0xfd => u64::from(self.byte()) * 4_048 + u64::from(self.byte()),
            small => u64::from(small % 16),
        }
    }

    fn generation(&mut self) -> Generation {
        Generation(u64::from(self.byte() % 4) << 32 | self.number() & 0xffff_ffff)
    }
}

/// A file made of sealed pages with any fields at any place: it loads or is refused, and what loads can be read.
pub fn image(bytes: &[u8]) {
    let mut fields = Fields(bytes);
    let key = key();
    let pages = usize::from(fields.byte()) % (IMAGE_PAGES_MAX + 1);
    let mut image = Vec::new();
    for place in 0..pages {
        image.extend_from_slice(&image_page(&key, place, &mut fields));
    }
    let past = usize::from(fields.byte()) << (fields.byte() % 5);
    image.resize(image.len() + past.min(PAGE_BYTES), 0);
    let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).expect("a file in memory"));
    let wrote = file.write_at(&image, 0).expect("memory takes it");
    assert_eq!(wrote, image.len());
    let ring = Arc::new(KeyRing::create(kek(), [1; 16], 0));
    let Ok(loaded) = SealedFile::load(Arc::new(file), ring, WriteOptions::default()) else {
        return;
    };
    let mut buffer = vec![0; loaded.plain_length().min(READ_BYTES_MAX) as usize + 1];
    if let Ok(got) = loaded.read(0, &mut buffer) {
        assert!(got as u64 <= loaded.plain_length());
    }
    let _ = (loaded.next_data(0), loaded.next_hole(0));
}

fn image_page(key: &FileKey<Cipher>, place: usize, fields: &mut Fields<'_>) -> Page {
    let mut page: Page = [0; PAGE_BYTES];
    let nonce = [fields.byte(); 12];
    let kind = fields.byte() % 8;
    match kind {
        0 => {}
        1 => page.fill(fields.byte()),
        2 | 3 => {
            let record = record(fields);
            seal_head(key, &nonce, &record, &[0x55; HEAD_PLAIN_BYTES], &mut page).expect("it seals");
        }
        _ => {
            let header = PageHeader {
                generation: fields.generation(),
                block: fields.number(),
                length: (fields.number() % 4_049) as u16,
                unsynced: fields.number() as u16,
            };
            let at = if kind < 6 { Place::Tail } else { Place::Body };
            // A body page mostly where it belongs.
            let block = if kind == 7 {
                place.saturating_sub(4) as u64
            } else {
                header.block
            };
            seal_page(
                key,
                &nonce,
                at,
                PageHeader { block, ..header },
                &[0x66; 4_048],
                &mut page,
            )
            .expect("it seals");
        }
    }
    page
}

fn record(fields: &mut Fields<'_>) -> HeadRecord {
    const { assert!(RECORD_BYTES == 132, "a new field of the record belongs here") };
    HeadRecord {
        generation: fields.generation(),
        state: if fields.byte() & 1 == 0 {
            State::Open
        } else {
            State::Sealed
        },
        holes_allowed: fields.byte() & 1 == 1,
        head_bytes: (fields.number() % (HEAD_PLAIN_BYTES as u64 + 1)) as u16,
        plain_length: fields.number(),
        body_pages: fields.number(),
        floor: Floor {
            block: fields.number(),
            generation: fields.generation(),
        },
        durable_through: fields.number(),
        ..HeadRecord::empty()
    }
}
