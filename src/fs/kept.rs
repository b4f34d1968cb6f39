//! What the next process of this mount has to know when this one dies: which handles the kernel holds, and what stood
//! where before a rename that cannot be told from its repetition.
//!
//! It lies in memory that somebody else keeps beside the connection to the kernel ([`SharedWords`]). Everything else is
//! on disk already: a write is acknowledged when it is in the page cache of the store, and counters are found again
//! from the dirty log. A slot is published by its first word, written last, and taken back by the same word.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::id::{Fh, Ino};
use crate::sys::{FileHandle, SharedWords};

/// First word: what it is, and in which form.
const MAGIC: u64 = u64::from_le_bytes(*b"TallyK\x01\0");
/// Handles that are kept at a time; those beyond die with the process.
const HANDLES_MAX: usize = 65_536;
/// Bytes of the kernel's first request that are kept: it has 104 today.
const GREETING_BYTES_MAX: usize = 256;

/// Words: what it is; processes so far; length and bytes of the kernel's first request; a rename in both directions
/// under way, with what stood at the first name; slots that were in use at some time; and two more, told below.
const LIVES: usize = 1;
const GREETING_LENGTH: usize = 2;
const GREETING: usize = 3;
const EXCHANGE_REQUEST: usize = GREETING + GREETING_BYTES_MAX / 8;
const EXCHANGE_INO: usize = EXCHANGE_REQUEST + 1;
const HIGH: usize = EXCHANGE_INO + 1;
/// The newest request that was read, roughly; all up to this one are answered, or nobody waits for them.
const NEWEST: usize = HIGH + 1;
const ANSWERED: usize = NEWEST + 1;
const SLOTS: usize = 64;
const _: () = assert!(ANSWERED < SLOTS);

/// Words of a slot: flags, handle, inode, request that opened it, home, kind and length of the inode's kernel handle,
/// its bytes.
const SLOT_WORDS: usize = 10;
const FLAGS: usize = 0;
const FH: usize = 1;
const INO: usize = 2;
const REQUEST: usize = 3;
const HOME: usize = 4;
const HANDLE_KIND: usize = 5;
const HANDLE_BYTES: usize = 6;
const HANDLE_BYTES_MAX: usize = (SLOT_WORDS - HANDLE_BYTES) * 8;

const USED: u64 = 1;
const DIRECTORY: u64 = 2;
const APPENDS: u64 = 4;
const WRITES: u64 = 8;

/// Handles counted by each process, in the lower bits of their numbers; the process is in the upper ones, so that no
/// number comes twice.
const LIFE_SHIFT: u32 = 40;
/// How much newer than the newest noted one a request may be: noting each would have the threads wait for each other.
pub const NEWEST_STEP: u64 = 4096;
/// Set in the number of a request that the kernel sends again.
const REPEATED: u64 = 1 << 63;

/// A handle as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptHandle {
    /// Its number.
    pub fh: Fh,
    /// What is open.
    pub ino: Ino,
    /// The request that opened it.
    pub request: u64,
    /// Directory whose account the file is charged to, unless it has several names.
    pub home: Ino,
    /// Opens the inode.
    pub handle: FileHandle,
    /// A directory.
    pub is_directory: bool,
    /// Opened with `O_APPEND`.
    pub appends: bool,
    /// May write.
    pub writes: bool,
}

/// The memory, and which of its slots are free.
pub struct Kept {
    memory: SharedWords,
    life: u64,
    free: Mutex<Vec<u32>>,
    /// Handles that found no slot; said once.
    is_full_told: AtomicBool,
}

/// The number of a request however often it was sent.
pub fn request_key(unique: u64) -> u64 {
    unique & !REPEATED
}

/// Whether the kernel sent the request to an earlier process already.
pub fn is_repeated(unique: u64) -> bool {
    unique & REPEATED != 0
}

impl Kept {
    /// For a mount that is new.
    ///
    /// # Errors
    /// There is no memory.
    pub fn create() -> io::Result<Self> {
        let memory = SharedWords::create(c"tallyfs-handles", SLOTS + HANDLES_MAX * SLOT_WORDS)?;
        memory.words()[0].store(MAGIC, Ordering::Release);
        Ok(Self::of(memory))
    }

    /// What the process before this one left.
    ///
    /// # Errors
    /// It is of another form.
    pub fn take_over(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedWords::open(file)?;
        let words = memory.words();
        if words.len() != SLOTS + HANDLES_MAX * SLOT_WORDS || words[0].load(Ordering::Acquire) != MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory of the process before is of another form",
            ));
        }
        Ok(Self::of(memory))
    }

    fn of(memory: SharedWords) -> Self {
        let life = memory.words()[LIVES].fetch_add(1, Ordering::AcqRel);
        let kept = Self {
            memory,
            life,
            free: Mutex::default(),
            is_full_told: false.into(),
        };
        let is_used = |slot: &u32| kept.word(*slot, FLAGS).load(Ordering::Acquire) & USED != 0;
        *kept.free.lock() = kept.slots().rev().filter(|slot| !is_used(slot)).collect();
        kept
    }

    /// There was a process before this one.
    pub fn is_taken_over(&self) -> bool {
        self.life > 0
    }

    /// No handle of an earlier process has a number above this one, and below the next process's first.
    pub fn first_number(&self) -> u64 {
        self.life << LIFE_SHIFT
    }

    /// The kernel's first request, which told what it can do.
    pub fn greeting(&self) -> Option<Vec<u8>> {
        let words = self.memory.words();
        let length = words[GREETING_LENGTH].load(Ordering::Acquire) as usize;
        (1..=GREETING_BYTES_MAX).contains(&length).then(|| {
            let bytes = words[GREETING..EXCHANGE_REQUEST]
                .iter()
                .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
            bytes.take(length).collect()
        })
    }

    /// Keeps the kernel's first request. One that is too long is not kept, and then nobody can take the mount over.
    pub fn set_greeting(&self, greeting: &[u8]) {
        if greeting.len() > GREETING_BYTES_MAX {
            log::warn!("the kernel's greeting is longer than what is kept; a restart has to mount anew");
            return;
        }
        let words = self.memory.words();
        for (word, bytes) in words[GREETING..].iter().zip(greeting.chunks(8)) {
            word.store(word_of(bytes), Ordering::Relaxed);
        }
        words[GREETING_LENGTH].store(greeting.len() as u64, Ordering::Release);
    }

    /// Two names are about to be exchanged, and this inode stands at the first one.
    pub fn begin_exchange(&self, request: u64, ino: Ino) {
        let words = self.memory.words();
        words[EXCHANGE_REQUEST].store(0, Ordering::Release);
        words[EXCHANGE_INO].store(ino.0, Ordering::Release);
        words[EXCHANGE_REQUEST].store(request_key(request), Ordering::Release);
    }

    /// What stood at the first name when an earlier process began this exchange; `None`: it did not.
    pub fn exchange_begun(&self, request: u64) -> Option<Ino> {
        let words = self.memory.words();
        let is_it = words[EXCHANGE_REQUEST].load(Ordering::Acquire) == request_key(request);
        is_it.then(|| Ino(words[EXCHANGE_INO].load(Ordering::Acquire)))
    }

    /// Keeps a handle; returns its slot. `None` when there is no room, or its inode has a kernel handle too long.
    pub fn put(&self, kept: &KeptHandle) -> Option<u32> {
        let bytes = kept.handle.bytes();
        if bytes.len() > HANDLE_BYTES_MAX {
            return None;
        }
        let Some(slot) = self.take_slot() else {
            if !self.is_full_told.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "more than {HANDLES_MAX} files are open; those beyond get EBADF should the daemon be restarted"
                );
            }
            return None;
        };
        let kind = u64::from(kept.handle.kind().cast_unsigned());
        for (at, value) in [
            (FH, kept.fh.0),
            (INO, kept.ino.0),
            (REQUEST, request_key(kept.request)),
            (HOME, kept.home.0),
            (HANDLE_KIND, kind | (bytes.len() as u64) << 32),
        ] {
            self.word(slot, at).store(value, Ordering::Relaxed);
        }
        for (at, bytes) in bytes.chunks(8).enumerate() {
            self.word(slot, HANDLE_BYTES + at)
                .store(word_of(bytes), Ordering::Relaxed);
        }
        let flags = [
            (kept.is_directory, DIRECTORY),
            (kept.appends, APPENDS),
            (kept.writes, WRITES),
        ];
        let flags = flags
            .iter()
            .filter(|(is_set, _)| *is_set)
            .fold(USED, |all, (_, flag)| all | flag);
        self.word(slot, FLAGS).store(flags, Ordering::Release);
        Some(slot)
    }

    /// A request was read.
    pub fn note_request(&self, request: u64) {
        let newest = &self.memory.words()[NEWEST];
        let request = request_key(request);
        if request >= newest.load(Ordering::Relaxed) + NEWEST_STEP {
            newest.fetch_max(request, Ordering::Relaxed);
        }
    }

    /// The newest request that was noted; there may be newer ones by less than [`NEWEST_STEP`].
    pub fn newest_request(&self) -> u64 {
        self.memory.words()[NEWEST].load(Ordering::Relaxed)
    }

    /// For nobody up to this request an answer is missing.
    pub fn answered(&self) -> u64 {
        self.memory.words()[ANSWERED].load(Ordering::Relaxed)
    }

    /// All up to this request have got their answers.
    pub fn set_answered(&self, request: u64) {
        self.memory.words()[ANSWERED].store(request, Ordering::Relaxed);
    }

    /// The handle is closed.
    pub fn free(&self, slot: u32) {
        self.word(slot, FLAGS).store(0, Ordering::Release);
        self.free.lock().push(slot);
    }

    /// A file moved to another directory: every handle on it says so from now on.
    pub fn moved(&self, ino: Ino, home: Ino) {
        for slot in self.slots() {
            let is_it = self.word(slot, FLAGS).load(Ordering::Acquire) & USED != 0
                && self.word(slot, INO).load(Ordering::Relaxed) == ino.0;
            if is_it {
                self.word(slot, HOME).store(home.0, Ordering::Release);
            }
        }
    }

    /// All handles, with their slots.
    pub fn handles(&self) -> Vec<(u32, KeptHandle)> {
        self.slots()
            .filter_map(|slot| Some((slot, self.handle_in(slot)?)))
            .collect()
    }

    fn handle_in(&self, slot: u32) -> Option<KeptHandle> {
        let flags = self.word(slot, FLAGS).load(Ordering::Acquire);
        if flags & USED == 0 {
            return None;
        }
        let word = |at| self.word(slot, at).load(Ordering::Relaxed);
        let length = ((word(HANDLE_KIND) >> 32) as usize).min(HANDLE_BYTES_MAX);
        let bytes: Vec<u8> = (HANDLE_BYTES..SLOT_WORDS)
            .flat_map(|at| word(at).to_le_bytes())
            .collect();
        Some(KeptHandle {
            fh: Fh(word(FH)),
            ino: Ino(word(INO)),
            request: word(REQUEST),
            home: Ino(word(HOME)),
            handle: FileHandle::new((word(HANDLE_KIND) as u32).cast_signed(), &bytes[..length]),
            is_directory: flags & DIRECTORY != 0,
            appends: flags & APPENDS != 0,
            writes: flags & WRITES != 0,
        })
    }

    fn take_slot(&self) -> Option<u32> {
        if let Some(slot) = self.free.lock().pop() {
            return Some(slot);
        }
        let next = |high| (high < HANDLES_MAX as u64).then_some(high + 1);
        let high = &self.memory.words()[HIGH];
        let taken = high.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        taken.ok().map(|slot| slot as u32)
    }

    /// Those that were in use at some time.
    fn slots(&self) -> Range<u32> {
        let high = self.memory.words()[HIGH].load(Ordering::Acquire);
        0..high.min(HANDLES_MAX as u64) as u32
    }

    fn word(&self, slot: u32, at: usize) -> &AtomicU64 {
        &self.memory.words()[SLOTS + slot as usize * SLOT_WORDS + at]
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// Up to eight bytes, the missing ones 0.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(fh: u64, bytes: &[u8]) -> KeptHandle {
        KeptHandle {
            fh: Fh(fh),
            ino: Ino(fh + 100),
            request: fh * 2,
            home: Ino(5),
            handle: FileHandle::new(-7, bytes),
            is_directory: fh.is_multiple_of(2),
            appends: fh == 1,
            writes: fh < 3,
        }
    }

    fn next_life(kept: Kept) -> Kept {
        let file = kept.as_fd().try_clone_to_owned().unwrap();
        drop(kept);
        Kept::take_over(file).unwrap()
    }

    #[test]
    fn the_next_process_finds_the_handles_that_are_open() {
        let kept = Kept::create().unwrap();
        assert!(!kept.is_taken_over());
        let slots: Vec<u32> = (1..=4)
            .map(|fh| kept.put(&handle(fh, &[fh as u8; 20])).unwrap())
            .collect();
        kept.free(slots[1]);
        kept.moved(Ino(101), Ino(6));
        let kept = next_life(kept);
        assert!(kept.is_taken_over());
        let found: Vec<KeptHandle> = kept.handles().into_iter().map(|(_, handle)| handle).collect();
        let mut moved = handle(1, &[1; 20]);
        moved.home = Ino(6);
        assert_eq!(found, [moved, handle(3, &[3; 20]), handle(4, &[4; 20])]);
        assert_eq!(kept.put(&handle(9, &[])), Some(slots[1]), "what is free is used again");
        assert_eq!(kept.handles().len(), 4);
    }

    #[test]
    fn the_newest_request_is_known_but_for_a_step() {
        let kept = Kept::create().unwrap();
        for request in (0..100_000).step_by(2) {
            kept.note_request(request);
            assert!((request - request.min(NEWEST_STEP - 1)..=request).contains(&kept.newest_request()));
        }
        kept.note_request(8 | REPEATED);
        kept.set_answered(500);
        let newest = kept.newest_request();
        let kept = next_life(kept);
        assert_eq!((kept.newest_request(), kept.answered()), (newest, 500));
    }

    #[test]
    fn numbers_of_two_processes_do_not_meet() {
        let kept = Kept::create().unwrap();
        assert_eq!(kept.first_number(), 0);
        let kept = next_life(kept);
        assert_eq!(kept.first_number(), 1 << 40);
        assert_eq!(next_life(kept).first_number(), 2 << 40);
    }

    #[test]
    fn a_greeting_comes_back_byte_by_byte() {
        let kept = Kept::create().unwrap();
        assert_eq!(kept.greeting(), None);
        let greeting: Vec<u8> = (0..103).collect();
        kept.set_greeting(&greeting);
        assert_eq!(next_life(kept).greeting(), Some(greeting));
    }

    #[test]
    fn an_exchange_is_known_by_its_request_however_often_it_is_sent() {
        let kept = Kept::create().unwrap();
        kept.begin_exchange(8, Ino(3));
        let kept = next_life(kept);
        assert_eq!(kept.exchange_begun(8 | REPEATED), Some(Ino(3)));
        assert_eq!(kept.exchange_begun(10), None);
    }

    #[test]
    fn what_has_no_room_is_not_kept() {
        let kept = Kept::create().unwrap();
        assert_eq!(kept.put(&handle(1, &[0; HANDLE_BYTES_MAX + 1])), None);
        for fh in 0..HANDLES_MAX as u64 {
            kept.put(&handle(fh, &[])).unwrap();
        }
        assert_eq!(kept.put(&handle(1, &[])), None);
        kept.free(77);
        assert_eq!(kept.put(&handle(1, &[])), Some(77));
    }
}
