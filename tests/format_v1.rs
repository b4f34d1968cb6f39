//! Format version 1 is frozen: the pages, lengths and crash images in `tests/data/v1` stay readable,
//! and every cipher of the build makes the same bytes. A change that breaks this needs version 2.

#[path = "crash_model/disk.rs"]
mod disk;
#[path = "common/rng.rs"]
mod rng;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tallyfs::sealed::aead::Aead;
use tallyfs::sealed::head::{Floor, Generation, HeadRecord, State, open_head, seal_head};
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::{FileKey, FileRandom, Identity, Kek};
use tallyfs::sealed::length::{SizeOnDisk, classify, sealed_size};
use tallyfs::sealed::page::{PAYLOAD_AT, PageHeader, Place, open_body, open_tail, seal_page};
use tallyfs::sealed::{BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, PAGE_BYTES, Page};
use tallyfs::store::sealed_file::{SealedFile, WriteOptions};

const KEY_ID: u32 = 0x0102_0304;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/v1")
        .join(name)
}

fn kek() -> Kek {
    Kek::take(&mut std::array::from_fn(|i| 0x40 + i as u8))
}

fn file_key<C: Aead>() -> FileKey<C> {
    let random = FileRandom {
        file_id: std::array::from_fn(|i| 0xa0 + i as u8),
        dek: std::array::from_fn::<u8, 32, _>(|i| 3 * i as u8).into(),
        wrap_nonce: std::array::from_fn(|i| 0x11 * i as u8),
    };
    FileKey::create(&kek(), KEY_ID, &random).expect("the cipher works")
}

fn block0() -> [u8; HEAD_PLAIN_BYTES] {
    std::array::from_fn(|i| (i * 7 + i / 256) as u8)
}

fn payload() -> [u8; BLOCK_PLAIN_BYTES] {
    std::array::from_fn(|i| (i * 5 + i / 256) as u8)
}

fn record(state: State) -> HeadRecord {
    HeadRecord {
        generation: Generation(0x0000_0007_0000_0019),
        state,
        holes_allowed: state == State::Open,
        head_bytes: HEAD_PLAIN_BYTES as u16,
        plain_length: 2_880_044,
        body_pages: 711,
        floor: Floor {
            block: 712,
            generation: Generation(0x0000_0006_0000_0003),
        },
        content_sha256: std::array::from_fn(|i| 0xc0 ^ i as u8),
        sealed_at_s: 1_795_238_400,
        retain_until_s: 2_110_771_200,
        tenant: 4711,
        durable_through: 700,
    }
}

fn short_record() -> HeadRecord {
    HeadRecord {
        head_bytes: 44,
        plain_length: 44,
        ..HeadRecord::empty()
    }
}

fn header(block: u64, length: u16, unsynced: u16) -> PageHeader {
    PageHeader {
        generation: Generation(0x0000_0007_0000_0018),
        block,
        length,
        unsynced,
    }
}

/// Every golden page, by file name.
fn pages<C: Aead>() -> Vec<(&'static str, Page)> {
    let key = file_key::<C>();
    let mut made = Vec::new();
    let heads = [
        ("head-open.bin", record(State::Open), 1u8),
        ("head-sealed.bin", record(State::Sealed), 2),
        ("head-44-bytes.bin", short_record(), 3),
    ];
    for (name, record, nonce) in heads {
        let mut page = [0; PAGE_BYTES];
        seal_head(&key, &[nonce; 12], &record, &block0(), &mut page).expect("seals");
        made.push((name, page));
    }
    let others = [
        ("tail.bin", Place::Tail, header(711, 2156, 9), 4u8),
        ("tail-one-byte.bin", Place::Tail, header(1, 1, 0xffff), 5),
        ("body-full.bin", Place::Body, header(5, 4048, 0), 6),
        ("body-partial.bin", Place::Body, header(711, 2156, 0), 7),
    ];
    for (name, place, header, nonce) in others {
        let mut page = [0; PAGE_BYTES];
        seal_page(&key, &[nonce; 12], place, header, &payload(), &mut page).expect("seals");
        made.push((name, page));
    }
    made
}

fn frozen(name: &str) -> Page {
    let bytes = fs::read(data(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    bytes.try_into().expect("a golden page has 4,096 bytes")
}

fn makes_the_golden_pages<C: Aead>() {
    for (name, page) in pages::<C>() {
        assert!(page == frozen(name), "{name} is made differently now");
    }
}

fn opens_the_golden_pages<C: Aead>() {
    let identity = Identity::parse(&frozen("head-open.bin")).expect("an identity");
    assert_eq!(identity.key_id(), KEY_ID);
    let key = FileKey::<C>::unwrap_identity(identity, &kek()).expect("unwraps");
    let mut read0 = [0; HEAD_PLAIN_BYTES];
    for (name, wanted) in [
        ("head-open.bin", record(State::Open)),
        ("head-sealed.bin", record(State::Sealed)),
        ("head-44-bytes.bin", short_record()),
    ] {
        assert_eq!(
            open_head(&key, &mut frozen(name), &mut read0),
            Ok(wanted.clone()),
            "{name}"
        );
        let used = usize::from(wanted.head_bytes);
        assert_eq!(read0[..used], block0()[..used], "{name}");
        assert!(read0[used..].iter().all(|&byte| byte == 0), "{name}");
    }
    for (name, block, wanted) in [
        ("tail.bin", None, header(711, 2156, 9)),
        ("tail-one-byte.bin", None, header(1, 1, 0xffff)),
        ("body-full.bin", Some(5), header(5, 4048, 0)),
        ("body-partial.bin", Some(711), header(711, 2156, 0)),
    ] {
        let mut page = frozen(name);
        let opened = match block {
            None => open_tail(&key, &mut page),
            Some(block) => open_body(&key, block, &mut page),
        };
        assert_eq!(opened, Ok(wanted), "{name}");
        let used = usize::from(wanted.length);
        assert_eq!(page[PAYLOAD_AT..PAYLOAD_AT + used], payload()[..used], "{name}");
    }
}

#[cfg(feature = "aws-lc")]
#[test]
fn aws_lc_makes_and_opens_the_golden_pages() {
    makes_the_golden_pages::<tallyfs::sealed::aead::aws_lc::AwsLc>();
    opens_the_golden_pages::<tallyfs::sealed::aead::aws_lc::AwsLc>();
}

#[cfg(feature = "pure")]
#[test]
fn the_pure_cipher_makes_and_opens_the_golden_pages() {
    makes_the_golden_pages::<tallyfs::sealed::aead::pure::Pure>();
    opens_the_golden_pages::<tallyfs::sealed::aead::pure::Pure>();
}

#[test]
fn lengths_and_sizes_are_those_of_the_table() {
    let text = fs::read_to_string(data("lengths.tsv")).expect("the table");
    let mut rows = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (plain, sealed) = line.split_once('\t').expect("two columns");
        let sealed: u64 = sealed.parse().expect("a size");
        match plain {
            "unclean" => assert_eq!(classify(sealed), SizeOnDisk::Unclean, "size {sealed}"),
            "damaged" => assert_eq!(classify(sealed), SizeOnDisk::Damaged, "size {sealed}"),
            plain => {
                let plain: u64 = plain.parse().expect("a length");
                assert_eq!(sealed_size(plain), sealed, "length {plain}");
                assert_eq!(classify(sealed), SizeOnDisk::Clean(plain), "size {sealed}");
            }
        }
        rows += 1;
    }
    assert!(rows >= 60, "{rows} rows");
}

const IMAGES: [&str; 5] = ["synced-appends", "header-rewrite", "sealing", "cut", "holes"];

#[test]
fn crash_images_give_the_plaintext_that_was_synced() {
    let ring = Arc::new(KeyRing::create(kek(), [0; 16], 0));
    for name in IMAGES {
        let pages = fs::read(data(&format!("crash-{name}.bin"))).expect("the image");
        let plain = fs::read(data(&format!("crash-{name}.plain"))).expect("its plaintext");
        let (size, pages) = pages
            .split_last_chunk::<8>()
            .map(|(pages, size)| (u64::from_le_bytes(*size), pages))
            .expect("a size");
        let file = tempfile::tempfile().expect("a file");
        std::os::unix::fs::FileExt::write_all_at(&file, pages, 0).expect("writes");
        file.set_len(size).expect("sizes");
        let mut file = SealedFile::load(Arc::new(file), ring.clone(), WriteOptions::default()).expect("loads");
        let mut read = vec![0; plain.len() + 1];
        let bytes = file.read(0, &mut read).expect("reads");
        assert!(
            read[..bytes] == plain,
            "{name}: {bytes} bytes, should be {}",
            plain.len()
        );
        assert_eq!(file.write(bytes as u64, b"and life goes on").expect("writes"), 16);
        file.sync_now().expect("syncs");
    }
}

/// The history behind each crash image, and how much of it was synced.
fn live(name: &str, file: &mut SealedFile<disk::Disk>) -> u64 {
    let append = |file: &mut SealedFile<disk::Disk>, write: u64, bytes: usize| {
        let at = file.plain_length();
        file.write(at, &rng::content(write, bytes)).expect("writes");
    };
    append(file, 1, 9000);
    file.sync_now().expect("syncs");
    let mut synced = 9000;
    match name {
        "header-rewrite" => {
            file.write(0, &rng::content(2, 44)).expect("writes");
        }
        "sealing" => {
            let (step, ticket) = file.seal_tail().expect("seals");
            let flushed = file.backing().begin_flush();
            file.backing().finish_flush(flushed);
            file.seal_next(step, ticket.expect("a ticket"), Ok(()), 1)
                .expect("seals");
            append(file, 2, 5000);
        }
        "cut" => {
            file.set_plain_length(6000).expect("cuts");
            synced = 6000;
            append(file, 2, 5000);
        }
        "holes" => {
            file.write(20_000, &rng::content(2, 300)).expect("writes");
            file.sync_now().expect("syncs");
            synced = 20_300;
            append(file, 3, 4000);
        }
        _ => append(file, 2, 5000),
    }
    synced
}

#[test]
#[ignore = "makes the frozen files anew; only for a new format version, and then under tests/data/v2"]
fn generate() {
    fs::create_dir_all(data("")).expect("a directory");
    for (name, page) in pages::<tallyfs::sealed::aead::Cipher>() {
        fs::write(data(name), page).expect("writes");
    }
    let ring = Arc::new(KeyRing::create(kek(), [0; 16], 0));
    for name in IMAGES {
        let disk = disk::Disk::new(disk::State::default(), 1);
        let mut file = SealedFile::new_empty(disk.clone(), ring.clone(), WriteOptions::default());
        let synced = live(name, &mut file);
        let whole = file.plain_length();
        for seed in 0.. {
            let image = disk.state().crash(&mut rng::Rng::new(seed));
            let crashed = disk::Disk::new(image.clone(), 1);
            let file = SealedFile::load(crashed.clone(), ring.clone(), WriteOptions::default()).expect("loads");
            let length = file.plain_length();
            assert!(length >= synced);
            let torn = image.has_torn_page(&disk.state());
            if !torn || (length == whole && name != "header-rewrite") {
                continue;
            }
            let mut plain = vec![0; length as usize];
            file.read(0, &mut plain).expect("reads");
            let mut bytes = image.bytes();
            bytes.extend_from_slice(
                &tallyfs::store::backing::Backing::size(&*crashed)
                    .expect("size")
                    .to_le_bytes(),
            );
            fs::write(data(&format!("crash-{name}.bin")), bytes).expect("writes");
            fs::write(data(&format!("crash-{name}.plain")), plain).expect("writes");
            break;
        }
    }
}
