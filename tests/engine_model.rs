//! A sealed file against a plain vector: same contents and lengths whatever is written, cut, sealed,
//! re-opened, killed or refused by the disk; sizes as the format says; no nonce twice; no plaintext
//! on the disk.

#[path = "crash_model/disk.rs"]
mod disk;
#[path = "common/rng.rs"]
mod rng;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use proptest::prelude::*;
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::Kek;
use tallyfs::sealed::length::{UNCLEAN_RESIDUE, sealed_size};
use tallyfs::store::backing::Backing;
use tallyfs::store::sealed_file::{SealStep, SealedFile, WriteOptions};

use disk::{Disk, Faults, PAGE, State};
use rng::{Rng, content};

const MOST_BYTES: u64 = 300_000;

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Header,
    Write { at: u64, bytes: usize },
    Gap { behind: u64, bytes: usize },
    SetLength(u64),
    Zero { at: u64, bytes: u64 },
    Sync,
    Seal,
    SealInterrupted(u8),
    Kill,
    FailWrite { calls: u64, persistent: bool },
    ShortWrite(u64),
    FailSync,
}

#[allow(clippy::struct_excessive_bools)] // Facts that hold independently of each other.
struct Model {
    ring: Arc<KeyRing>,
    options: WriteOptions,
    disk: Arc<Disk>,
    file: SealedFile<Disk>,
    plain: Vec<u8>,
    writes: u64,
    /// Every nonce, with a hash of the page that it sealed and of its place.
    nonces: HashMap<Vec<u8>, u64>,
    faulty: bool,
    persistent: bool,
    /// A sync failed and was not made up for.
    sync_failed: bool,
    /// The daemon died with that, and the next one cannot know.
    failure_forgotten: bool,
}

impl Model {
    fn new(strict_overwrite: bool, seed: u64) -> Self {
        let ring = Arc::new(KeyRing::create(Kek::take(&mut [7; 32]), [1; 16], 0));
        let disk = Disk::new(State::default(), seed);
        disk.take_written();
        let options = WriteOptions {
            strict_overwrite,
            ..WriteOptions::default()
        };
        Self {
            file: SealedFile::new_empty(disk.clone(), ring.clone(), options),
            ring,
            options,
            disk,
            plain: Vec::new(),
            writes: seed << 24,
            nonces: HashMap::new(),
            faulty: false,
            persistent: false,
            sync_failed: false,
            failure_forgotten: false,
        }
    }

    fn run(&mut self, op: &Op) {
        let length = self.plain.len() as u64;
        match *op {
            Op::Append(bytes) if length < MOST_BYTES => self.write(length, bytes),
            Op::Append(_) => self.set_length(length / 3),
            Op::Header => self.write(0, 44),
            Op::Write { at, bytes } => self.write(at % (length + 1), bytes),
            Op::Gap { behind, bytes } if length < MOST_BYTES => self.write(length + behind, bytes),
            Op::Gap { .. } => self.set_length(0),
            Op::SetLength(to) => self.set_length(to),
            Op::Zero { at, bytes } => self.zero(at % (length + 1), bytes),
            Op::Sync => self.sync(),
            Op::Seal => self.seal(9),
            Op::SealInterrupted(steps) => self.seal(steps),
            Op::Kill => self.kill(),
            Op::FailWrite { calls, persistent } => {
                self.faulty = true;
                self.persistent = persistent;
                self.disk.set_faults(Faults {
                    fail_in: Some((calls, libc::ENOSPC)),
                    persistent,
                    ..Faults::default()
                });
                return;
            }
            Op::ShortWrite(calls) => {
                self.faulty = true;
                self.disk.set_faults(Faults {
                    short_in: Some(calls),
                    ..Faults::default()
                });
                return;
            }
            Op::FailSync => {
                self.disk.set_faults(Faults {
                    fail_sync_in: Some(0),
                    ..Faults::default()
                });
                if self.file.sync_now().is_err() {
                    self.sync_failed = true;
                    self.sync();
                }
            }
        }
        self.disk.set_faults(Faults::default());
        self.check();
        self.faulty = false;
        self.persistent = false;
    }

    fn may_fail(&self) -> bool {
        self.faulty || self.sync_failed
    }

    fn write(&mut self, at: u64, bytes: usize) {
        self.writes += 1;
        let data = content(self.writes, bytes);
        let outcome = self.file.write(at, &data);
        let written = match outcome {
            Ok(written) => written,
            Err(e) => {
                assert!(self.may_fail(), "write of {bytes} at {at}: {e}");
                self.keep_failed_growth();
                return;
            }
        };
        assert!(
            written == bytes || (self.may_fail() && written > 0),
            "{written} of {bytes} at {at}"
        );
        let (at, to) = (at as usize, at as usize + written);
        if to > self.plain.len() {
            self.plain.resize(to, 0);
        }
        self.plain[at..to].copy_from_slice(&data[..written]);
        self.no_plaintext(&data);
    }

    /// A growth that failed on a disk that refuses everything may leave zeros, nothing else.
    fn keep_failed_growth(&mut self) {
        let length = self.file.plain_length() as usize;
        assert!(length >= self.plain.len(), "a failed write never cuts");
        assert!(
            length == self.plain.len() || self.persistent || self.sync_failed,
            "a failed write left the length at {length}, not {}",
            self.plain.len()
        );
        self.plain.resize(length, 0);
        if length == 0 && self.sync_failed {
            // Taking back the first byte of all cuts to zero, which ends an earlier failure.
            self.disk.set_faults(Faults::default());
            self.sync_failed = self.file.sync_now().is_err();
        }
    }

    fn set_length(&mut self, to: u64) {
        match self.file.set_plain_length(to) {
            Ok(()) => {
                assert!(to == 0 || to == self.plain.len() as u64 || self.file.is_unsynced());
                self.plain.resize(to as usize, 0);
                self.failure_forgotten &= to > 0;
                self.sync_failed &= to > 0;
            }
            Err(e) => {
                assert!(self.may_fail(), "length {to}: {e}");
                // A cut that fails is taken back or, when that fails too, done.
                let length = self.file.plain_length() as usize;
                assert!(length == self.plain.len() || self.persistent || self.sync_failed || length == to as usize);
                // The next sync puts on disk what memory says.
                self.disk.set_faults(Faults::default());
                let synced = self.file.sync_now();
                if synced.is_err() && length != self.plain.len() {
                    // Neither memory nor disk could finish: the next opening decides.
                    self.kill();
                    self.plain.resize(self.file.plain_length() as usize, 0);
                    return;
                }
                // Taking the first growth of an empty file back ends an earlier failure.
                self.sync_failed &= length > 0 || synced.is_err();
                self.plain.resize(length, 0);
            }
        }
    }

    fn zero(&mut self, at: u64, bytes: u64) {
        let to = (at + bytes).min(self.plain.len() as u64);
        match self.file.zero_range(at, bytes) {
            Ok(()) => self.plain[at.min(to) as usize..to as usize].fill(0),
            Err(e) => {
                assert!(self.may_fail(), "zero {bytes} at {at}: {e}");
                let now = self.read_all();
                for (i, (new, old)) in now.iter().zip(&self.plain).enumerate() {
                    assert!(
                        new == old || (*new == 0 && i as u64 >= at && (i as u64) < to),
                        "byte {i}"
                    );
                }
                self.plain = now;
            }
        }
    }

    fn sync(&mut self) {
        match self.file.sync_now() {
            Ok(()) if self.sync_failed => self.made_up(),
            Ok(()) => {}
            Err(e) => assert!(self.may_fail(), "sync: {e}"),
        }
    }

    /// A good sync after a failed one: what was clean in the cache and not on the disk is there now.
    fn made_up(&mut self) {
        if self.failure_forgotten {
            self.sync_failed = false;
            return;
        }
        let disk = Disk::new(self.disk.state().durable_alone(), 1);
        let file = SealedFile::load(disk, self.ring.clone(), self.options).expect("what was synced loads");
        let mut bytes = vec![0; self.plain.len() + 1];
        let read = file.read(0, &mut bytes).expect("what was synced can be read");
        self.sync_failed = false;
        assert!(
            bytes[..read] == self.plain[..],
            "a good sync after a failed one lost something"
        );
    }

    fn seal(&mut self, steps: u8) {
        let mut next = self.file.seal_tail();
        for step in 0..=steps {
            let ticket = match next {
                Ok((SealStep::Sealed, _)) => {
                    assert!(self.file.is_clean());
                    if self.sync_failed {
                        self.sync();
                    }
                    return;
                }
                Ok((at, Some(ticket))) => (at, ticket),
                Ok((at, None)) => panic!("{at:?} has no ticket"),
                Err(e) => {
                    assert!(self.may_fail(), "seal: {e}");
                    return;
                }
            };
            let flushed = self.disk.begin_flush();
            if step == steps {
                // Overtaken by a header rewrite, or left to a kill.
                self.write(0, 44);
                self.disk.finish_flush(flushed);
                let outcome = self.file.seal_next(ticket.0, ticket.1, Ok(()), 5);
                assert!(matches!(outcome, Ok((SealStep::Overtaken, None))) || self.may_fail());
                return;
            }
            self.disk.finish_flush(flushed);
            next = self.file.seal_next(ticket.0, ticket.1, Ok(()), 5);
        }
    }

    fn kill(&mut self) {
        self.disk.set_faults(Faults::default());
        let loaded = SealedFile::load(self.disk.clone(), self.ring.clone(), self.options);
        self.file = loaded.expect("what was written loads");
        self.failure_forgotten |= std::mem::take(&mut self.sync_failed);
    }

    fn read_all(&self) -> Vec<u8> {
        let mut bytes = vec![0xaa; self.file.plain_length() as usize + 10];
        let read = self.file.read(0, &mut bytes).expect("what was written can be read");
        bytes.truncate(read);
        bytes
    }

    fn check(&mut self) {
        assert_eq!(self.file.plain_length(), self.plain.len() as u64);
        let all = self.read_all();
        let differs = all.iter().zip(&self.plain).position(|(a, b)| a != b);
        assert_eq!((differs, all.len()), (None, self.plain.len()), "contents");
        let size = self.disk.size().expect("size");
        if self.file.is_clean() {
            assert_eq!(size, sealed_size(self.plain.len() as u64));
        } else {
            assert!(
                size == 0 || size % PAGE == UNCLEAN_RESIDUE || self.faulty,
                "an open file of size {size}"
            );
        }
        for (offset, page) in self.disk.take_written() {
            let nonce = if offset < 3 * PAGE {
                &page[128..140]
            } else {
                &page[..12]
            };
            if page.len() as u64 == PAGE && page.iter().any(|&byte| byte != 0) {
                // After a failed sync the same page may be written again to the same place.
                let mut hasher = DefaultHasher::new();
                (offset, &page).hash(&mut hasher);
                let sealed = hasher.finish();
                let known = self.nonces.insert(nonce.to_vec(), sealed);
                assert!(
                    known.is_none_or(|known| known == sealed),
                    "a nonce was used for two pages, at {offset}"
                );
            }
        }
        self.check_part();
        self.check_seeks();
    }

    fn check_part(&mut self) {
        let mut rng = Rng::new(self.writes ^ self.plain.len() as u64);
        let length = self.plain.len() as u64;
        let (at, bytes) = (rng.below(length + 5), rng.below(9000) as usize);
        let mut part = vec![0; bytes];
        let read = self.file.read(at, &mut part).expect("a part can be read");
        let from = (at as usize).min(self.plain.len());
        let to = (from + bytes).min(self.plain.len());
        assert_eq!(part[..read], self.plain[from..to], "{bytes} at {at}");
    }

    fn check_seeks(&self) {
        let length = self.plain.len() as u64;
        let mut at = 0;
        for _ in 0..200 {
            if at >= length {
                break;
            }
            let data = self.file.next_data(at).expect("seek").unwrap_or(length);
            assert!(data >= at && data <= length);
            let hole = &self.plain[at as usize..data as usize];
            assert!(
                hole.iter().all(|&byte| byte == 0),
                "seeking skipped data between {at} and {data}"
            );
            if data >= length {
                break;
            }
            let hole = self
                .file
                .next_hole(data)
                .expect("seek")
                .expect("the end counts as a hole");
            assert!(
                hole > data && hole <= length,
                "hole {hole} after data {data} of {length}"
            );
            at = hole;
        }
        assert_eq!(self.file.next_data(length).expect("seek"), None);
    }

    fn no_plaintext(&self, data: &[u8]) {
        let Some(start) = data.get(..12) else { return };
        for (index, page) in self.disk.state().pages() {
            assert!(
                !page.windows(12).any(|window| window == start),
                "plaintext in page {index}"
            );
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || prop_oneof![Just(1usize), Just(320), Just(4048), Just(7856), 1usize..70_000];
    prop_oneof![
        6 => prop_oneof![Just(320usize), Just(65_536), 1usize..9000, 3700usize..4200].prop_map(Op::Append),
        2 => Just(Op::Header),
        3 => (any::<u64>(), bytes()).prop_map(|(at, bytes)| Op::Write { at, bytes }),
        1 => (0u64..30_000, bytes()).prop_map(|(behind, bytes)| Op::Gap { behind, bytes }),
        2 => prop_oneof![Just(0u64), Just(1), Just(3808), Just(3809), Just(7856), 0u64..100_000].prop_map(Op::SetLength),
        1 => (any::<u64>(), 0u64..20_000).prop_map(|(at, bytes)| Op::Zero { at, bytes }),
        2 => Just(Op::Sync),
        2 => Just(Op::Seal),
        1 => (0u8..3).prop_map(Op::SealInterrupted),
        2 => Just(Op::Kill),
        1 => (0u64..6, any::<bool>()).prop_map(|(calls, persistent)| Op::FailWrite { calls, persistent }),
        1 => (0u64..4).prop_map(Op::ShortWrite),
        1 => Just(Op::FailSync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sealed_file_is_a_vector_of_bytes(strict in any::<bool>(), ops in prop::collection::vec(op(), 1..40)) {
        let mut model = Model::new(strict, 1);
        for op in &ops {
            model.run(op);
        }
    }
}

#[test]
fn long_lives_stay_true() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let mut model = Model::new(seed % 2 == 0, seed);
        for _ in 0..800 {
            let bytes = rng.pick(&[1, 44, 320, 320, 320, 4048, 5000, 9000]);
            let op = match rng.below(32) {
                0..14 => Op::Append(bytes),
                14 => Op::Header,
                15..19 => Op::Write { at: rng.next(), bytes },
                19 => Op::Gap {
                    behind: rng.below(20_000),
                    bytes,
                },
                20 => Op::SetLength(rng.below(80_000)),
                21 => Op::Zero {
                    at: rng.next(),
                    bytes: rng.below(10_000),
                },
                22 | 23 => Op::Sync,
                24 | 25 => Op::Seal,
                26 => Op::SealInterrupted(rng.below(3) as u8),
                27 | 28 => Op::Kill,
                29 => Op::FailWrite {
                    calls: rng.below(6),
                    persistent: rng.one_in(3),
                },
                30 => Op::ShortWrite(rng.below(4)),
                _ => Op::SetLength(0),
            };
            model.run(&op);
        }
    }
}

#[test]
fn a_file_whose_heads_are_all_bad_is_not_taken_for_empty() {
    let mut model = Model::new(false, 1);
    for op in [Op::Append(9000), Op::Seal, Op::Append(320), Op::Sync] {
        model.run(&op);
    }
    for slot in 0..3 {
        model
            .disk
            .write_at(&[0xee; 4096], slot * PAGE)
            .expect("the memory takes it");
    }
    let loaded = SealedFile::load(model.disk.clone(), model.ring.clone(), model.options);
    assert!(loaded.is_err_and(|e| e.is_damage()));
}
