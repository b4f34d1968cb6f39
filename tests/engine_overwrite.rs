//! Overwriting in the middle of a sealed file: which old pages are read and fetched, where from, and
//! that none becomes part of a new page before its tag was checked.

#[path = "crash_model/disk.rs"]
mod disk;
#[path = "common/rng.rs"]
mod rng;

use std::io;
use std::sync::{Arc, Mutex};

use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::Kek;
use tallyfs::sealed::{BLOCK_PLAIN_BYTES, HEAD_PLAIN_BYTES, body_offset};
use tallyfs::store::backing::Backing;
use tallyfs::store::sealed_file::{SealStep, SealedFile, WriteOptions};

use disk::{Disk, Faults, PAGE, State};
use rng::{Rng, content};

const P0: u64 = HEAD_PLAIN_BYTES as u64;
const P: u64 = BLOCK_PLAIN_BYTES as u64;

/// What is in memory of the pages that are asked for.
#[derive(Clone, Copy)]
enum Cached {
    All,
    FirstHalf,
    Nothing,
}

/// A call that brings old pages: its sealed offset and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Cached(u64, u64),
    Read(u64, u64),
    Fetch(u64, u64),
}

/// A disk that keeps a list of what it is asked for.
struct Watched {
    disk: Arc<Disk>,
    cached: Mutex<Cached>,
    asked: Mutex<Vec<Asked>>,
}

impl Watched {
    fn note(&self, asked: Asked) {
        self.asked.lock().expect("no panic").push(asked);
    }
}

impl Backing for Watched {
    fn read_at(&self, buffer: &mut [u8], sealed_offset: u64) -> io::Result<usize> {
        self.note(Asked::Read(sealed_offset, buffer.len() as u64));
        self.disk.read_at(buffer, sealed_offset)
    }

    fn read_cached(&self, buffer: &mut [u8], sealed_offset: u64) -> io::Result<bool> {
        self.note(Asked::Cached(sealed_offset, buffer.len() as u64));
        match *self.cached.lock().expect("no panic") {
            Cached::All => Ok(self.disk.read_at(buffer, sealed_offset)? == buffer.len()),
            Cached::FirstHalf => {
                let half = buffer.len() / 2;
                self.disk.read_at(&mut buffer[..half], sealed_offset)?;
                Ok(false)
            }
            Cached::Nothing => Ok(false),
        }
    }

    fn fetch(&self, sealed_offset: u64, bytes: u64) {
        self.note(Asked::Fetch(sealed_offset, bytes));
    }

    fn write_at(&self, bytes: &[u8], sealed_offset: u64) -> io::Result<usize> {
        self.disk.write_at(bytes, sealed_offset)
    }

    fn set_size(&self, sealed_size: u64) -> io::Result<()> {
        self.disk.set_size(sealed_size)
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.size()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_data()
    }

    fn punch(&self, sealed_offset: u64, bytes: u64) -> io::Result<()> {
        self.disk.punch(sealed_offset, bytes)
    }

    fn next_data(&self, sealed_offset: u64) -> io::Result<Option<u64>> {
        self.disk.next_data(sealed_offset)
    }

    fn next_hole(&self, sealed_offset: u64) -> io::Result<u64> {
        self.disk.next_hole(sealed_offset)
    }
}

fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::create(Kek::take(&mut [7; 32]), [1; 16], 0))
}

/// Where a block of the body lies in the plaintext.
fn plain_range(block: u64) -> std::ops::Range<usize> {
    let from = (P0 + (block - 1) * P) as usize;
    from..from + P as usize
}

/// A synced file that is overwritten, and what it should hold.
struct Overwritten {
    watched: Arc<Watched>,
    file: SealedFile<Watched>,
    plain: Vec<u8>,
    writes: u64,
}

impl Overwritten {
    /// So many whole blocks in the body, and half a block behind them.
    fn new(blocks: u64, cached: Cached) -> Self {
        Self::with(blocks, cached, WriteOptions::default())
    }

    fn with(blocks: u64, cached: Cached, options: WriteOptions) -> Self {
        let watched = Arc::new(Watched {
            disk: Disk::new(State::default(), 1),
            cached: Mutex::new(cached),
            asked: Mutex::default(),
        });
        let mut file = SealedFile::new_empty(watched.clone(), ring(), options);
        let plain = content(0, (P0 + blocks * P + P / 2) as usize);
        let mut done = 0;
        while done < plain.len() {
            done += file.write(done as u64, &plain[done..]).expect("a write");
        }
        file.sync_now().expect("a sync");
        Self {
            watched,
            file,
            plain,
            writes: 0,
        }
    }

    /// Writes over `bytes` at offset `at` of block `block`; tells which old pages were asked for.
    #[track_caller]
    fn write(&mut self, block: u64, at: u64, bytes: u64) -> Vec<Asked> {
        self.watched.asked.lock().expect("no panic").clear();
        self.writes += 1;
        let data = content(self.writes, bytes as usize);
        let from = P0 + (block - 1) * P + at;
        let written = self.file.write(from, &data).expect("a write");
        assert_eq!(written as u64, bytes);
        self.plain[from as usize..(from + bytes) as usize].copy_from_slice(&data);
        std::mem::take(&mut self.watched.asked.lock().expect("no panic"))
    }

    #[track_caller]
    fn assert_whole(&self) {
        let mut found = vec![0; self.plain.len() + 1];
        let read = self.file.read(0, &mut found).expect("every page opens");
        let differs = found.iter().zip(&self.plain).position(|(a, b)| a != b);
        assert_eq!((read, differs), (self.plain.len(), None));
    }

    fn page(&self, block: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE as usize];
        let read = self.watched.disk.read_at(&mut page, body_offset(block));
        assert_eq!(read.expect("memory reads"), page.len());
        page
    }

    /// Changes one byte of the page of `block` behind the engine's back.
    fn damage(&self, block: u64) {
        let mut page = self.page(block);
        page[1_000] ^= 1;
        let written = self.watched.disk.write_at(&page, body_offset(block));
        assert_eq!(written.expect("memory writes"), page.len());
    }
}

/// Neighbouring blocks: the first and how many.
type Blocks = (u64, u64);

/// The block, offset in it and length of a write, and the pages of which it keeps a part.
const KEPT: [(u64, u64, u64, &[Blocks]); 11] = [
    (2, 0, P, &[]),
    (2, 0, 3 * P, &[]),
    (2, 0, 1, &[(2, 1)]),
    (2, P - 1, 1, &[(2, 1)]),
    (2, 1, P - 1, &[(2, 1)]),
    (2, 0, P - 1, &[(2, 1)]),
    (2, P - 1, 2, &[(2, 2)]),
    (2, 0, P + 1, &[(3, 1)]),
    (2, 1, 2 * P - 1, &[(2, 1)]),
    (2, 1, 2 * P, &[(2, 1), (4, 1)]),
    (1, 100, 6 * P - 200, &[(1, 1), (6, 1)]),
];

#[test]
fn only_pages_that_are_kept_in_part_are_read_and_from_memory_where_they_are() {
    for (block, at, bytes, kept) in KEPT {
        let mut file = Overwritten::new(8, Cached::All);
        let expected: Vec<_> = kept
            .iter()
            .map(|&(first, pages)| Asked::Cached(body_offset(first), pages * PAGE))
            .collect();
        assert_eq!(
            file.write(block, at, bytes),
            expected,
            "{bytes} bytes at {at} of {block}"
        );
        file.assert_whole();
    }
}

#[test]
fn pages_that_are_not_all_in_memory_are_read_from_the_disk() {
    for cached in [Cached::FirstHalf, Cached::Nothing] {
        for (block, at, bytes, kept) in KEPT {
            let mut file = Overwritten::new(8, cached);
            let mut asked = file.write(block, at, bytes);
            asked.retain(|asked| matches!(asked, Asked::Read(..)));
            let expected: Vec<_> = kept
                .iter()
                .map(|&(first, pages)| Asked::Read(body_offset(first), pages * PAGE))
                .collect();
            assert_eq!(asked, expected, "{bytes} bytes at {at} of {block}");
            file.assert_whole();
        }
    }
}

#[test]
fn fetching_begins_at_the_second_miss_and_stays_inside_the_file() {
    const BLOCKS: u64 = 401;
    let end = body_offset(BLOCKS + 2);
    let mut file = Overwritten::new(BLOCKS, Cached::Nothing);
    let fetches = |asked: &[Asked]| -> Vec<(u64, u64)> {
        let ranges = asked.iter().filter_map(|asked| match *asked {
            Asked::Fetch(from, bytes) => Some((from, from + bytes)),
            _ => None,
        });
        ranges.collect()
    };
    assert_eq!(fetches(&file.write(BLOCKS, 5, 5)), [], "a single change");
    let mut widest = 0;
    for block in [BLOCKS, 1, BLOCKS / 2, BLOCKS, BLOCKS - 1, 7, BLOCKS] {
        let fetched = fetches(&file.write(block, 5, 5));
        let [(from, to)] = fetched[..] else {
            panic!("one fetch for each miss: {fetched:?}")
        };
        assert!(
            from <= body_offset(block) && body_offset(block + 1) <= to,
            "{from}..{to} is not around block {block}"
        );
        assert!(to <= end, "{from}..{to} goes past the end at {end}");
        widest = widest.max(to - from);
    }
    assert!(widest >= 1 << 20, "it grows: {widest}");
    *file.watched.cached.lock().expect("no panic") = Cached::All;
    assert_eq!(fetches(&file.write(9, 5, 5)), [], "what is in memory needs no fetch");
    file.assert_whole();
}

#[test]
fn a_damaged_page_is_never_sealed_anew_with_what_it_holds() {
    // Alone, the first of two, the last of two, the last of many.
    for (damaged, block, at, bytes) in [
        (3, 3, 10, 10),
        (3, 3, P - 1, 2),
        (4, 3, P - 1, 2),
        (6, 3, 10, 3 * P),
        (3, 3, 10, 3 * P),
    ] {
        for cached in [Cached::All, Cached::Nothing] {
            let mut file = Overwritten::new(8, cached);
            file.damage(damaged);
            let before: Vec<_> = (1..=8).map(|block| file.page(block)).collect();
            let from = P0 + (block - 1) * P + at;
            let written = file.file.write(from, &content(9, bytes as usize));
            let refused = written.expect_err("the old page does not open");
            assert!(refused.is_damage(), "{refused}");
            let after: Vec<_> = (1..=8).map(|block| file.page(block)).collect();
            assert!(before == after, "a refused write changed the disk");
            // Written whole it is well again.
            file.write(damaged, 0, P);
            file.assert_whole();
        }
    }
}

#[test]
fn a_short_write_is_acknowledged_only_as_far_as_it_went() {
    for (at, bytes) in [(0, 6 * P), (100, 5 * P), (P - 1, 3 * P)] {
        // Once before, so that no head has to be written first.
        let mut file = Overwritten::new(8, Cached::All);
        file.write(2, at, bytes);
        let data = content(77, bytes as usize);
        let from = P0 + P + at;
        file.watched.disk.set_faults(Faults {
            short_in: Some(0),
            fail_in: Some((1, libc::ENOSPC)),
            persistent: true,
            ..Faults::default()
        });
        let written = file.file.write(from, &data).unwrap_or(0);
        file.watched.disk.set_faults(Faults::default());
        assert!((written as u64) < bytes, "the disk took only a part");
        file.plain[from as usize..][..written].copy_from_slice(&data[..written]);
        file.assert_whole();
    }
}

/// What is readable after a power cut, block by block; `None`: a page that does not open.
fn after_power_cut(left: State, options: WriteOptions, length: usize) -> Vec<Option<Vec<u8>>> {
    let file = SealedFile::load(Disk::new(left, 1), ring(), options).expect("a head opens");
    let blocks = (length as u64 - P0) / P;
    let read = |block| {
        let mut found = vec![0; P as usize];
        let read = file.read(plain_range(block).start as u64, &mut found);
        read.is_ok_and(|read| read == found.len()).then_some(found)
    };
    (1..=blocks).map(read).collect()
}

#[test]
fn no_power_cut_leaves_a_new_page_under_an_old_sealed_head() {
    const CHANGED: u64 = 3;
    for seed in 0..300 {
        let mut file = Overwritten::new(8, Cached::All);
        // Sealed, and written to by the daemon that sealed it.
        let mut next = file.file.seal_tail().expect("it seals");
        while let (step, Some(ticket)) = next {
            let synced = file.watched.disk.sync_data();
            next = file.file.seal_next(step, ticket, synced, 5).expect("it seals");
        }
        assert_eq!(next.0, SealStep::Sealed);
        let old = file.plain.clone();
        file.write(CHANGED, 10, 10);
        let before = file.watched.disk.state();
        let left = before.crash(&mut Rng::new(seed));
        let torn = left.has_torn_page(&before);
        let found = after_power_cut(left, WriteOptions::default(), old.len());
        for (block, found) in (1..).zip(found) {
            let range = plain_range(block);
            if block != CHANGED {
                assert_eq!(found.as_deref(), Some(&old[range]), "block {block}, seed {seed}");
            } else if !torn {
                let known = [Some(&old[range.clone()]), Some(&file.plain[range])];
                assert!(known.contains(&found.as_deref()), "block {block}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_strict_overwrite_keeps_its_old_copy_while_syncs_fail() {
    const CHANGED: u64 = 3;
    let options = WriteOptions {
        strict_overwrite: true,
        ..WriteOptions::default()
    };
    for seed in 0..300 {
        let mut file = Overwritten::with(8, Cached::All, options);
        file.write(CHANGED, 10, 10);
        // The copy of the old page gets two syncs, and the new page the third.
        file.watched.disk.set_faults(Faults {
            fail_sync_in: Some(2),
            ..Faults::default()
        });
        let old = file.plain.clone();
        file.write(CHANGED, 20, 20);
        assert_eq!(file.watched.disk.failed_syncs(), 1);
        let new = file.plain.clone();
        for frame in 0..seed % 4 {
            let at = file.file.plain_length();
            file.file.write(at, &content(frame, 320)).expect("an append");
        }
        // The next sync writes the page again, and the power goes before it is done.
        file.file.begin_sync().expect("the disk is well again");
        let left = file.watched.disk.state().crash(&mut Rng::new(seed));
        let found = after_power_cut(left, options, old.len());
        let range = plain_range(CHANGED);
        let known = [Some(&old[range.clone()]), Some(&new[range])];
        assert!(
            known.contains(&found[CHANGED as usize - 1].as_deref()),
            "seed {seed}: neither the old page nor the new one"
        );
    }
}
