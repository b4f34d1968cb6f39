//! Reading back: samples while a file grows, the whole file afterwards.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Live;
use super::audio;
use super::ledger::Entry;
use super::recording::{Call, is_gone};

const SAMPLE_BYTES: u64 = 4_096;

/// What is wrong with a file, if anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Good,
    /// The file or some of its bytes cannot be opened or read.
    Unreadable(String),
    /// Fewer bytes than were acknowledged.
    Short {
        len: u64,
    },
    /// More bytes than were ever written.
    Long {
        len: u64,
    },
    /// The first byte that is not the one written.
    Wrong {
        offset: u64,
    },
    /// The header is neither the first nor the last one written.
    WrongHeader,
}

/// What the reader saw while files grew.
#[derive(Default, Debug)]
pub struct Sampled {
    pub reads: u64,
    pub wrong: u64,
    pub short: u64,
    pub failed: u64,
}

impl Sampled {
    /// Adds the figures of another round.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.wrong += other.wrong;
        self.short += other.short;
        self.failed += other.failed;
    }
}

/// Checks length, header and every byte of a finished recording.
pub fn whole(entry: &Entry) -> Verdict {
    if entry.acknowledged_len == 0 {
        return Verdict::Good;
    }
    let content = match std::fs::read(&entry.path) {
        Ok(content) => content,
        Err(error) => return Verdict::Unreadable(error.to_string()),
    };
    let len = content.len() as u64;
    if len < entry.acknowledged_len {
        return Verdict::Short { len };
    }
    if len > entry.acknowledged_len + entry.in_flight_bytes {
        return Verdict::Long { len };
    }
    let header = &content[..content.len().min(audio::HEADER_BYTES as usize)];
    let last = audio::header(Some(entry.acknowledged_len));
    // An interrupted call may have written its last header without hearing so.
    let right = header == last || (!entry.closed && header == audio::header(None));
    if !right {
        return Verdict::WrongHeader;
    }
    audio::first_difference(entry.seed, 0, &content).map_or(Verdict::Good, |offset| Verdict::Wrong { offset })
}

/// Reads at random places of random calls, at most to the length acknowledged before the read, until told to stop.
pub fn sample_while_written(calls: &[Live], stop: &AtomicBool) -> Sampled {
    let mut sampled = Sampled::default();
    let mut step = 0;
    while !stop.load(Ordering::Acquire) {
        step += 1;
        // A listener, not a load test: the recorders keep the processor.
        std::thread::sleep(Duration::from_millis(1));
        let number = audio::mix(step, 1) % calls.len().max(1) as u64;
        let Some(Live { call, progress }) = calls.get(number as usize) else {
            continue;
        };
        let known = progress.acknowledged_len.load(Ordering::Acquire);
        let Some(call) = call.get().filter(|_| known > audio::HEADER_BYTES) else {
            continue;
        };
        let offset = audio::mix(step, 2) % known;
        let count = SAMPLE_BYTES.min(known - offset);
        sampled.reads += 1;
        match sample(call, known, offset, count) {
            Ok(Verdict::Good) => {}
            Ok(Verdict::Short { .. }) => sampled.short += 1,
            Ok(_) => sampled.wrong += 1,
            Err(error) if is_gone(&error) => break,
            Err(_) => sampled.failed += 1,
        }
    }
    sampled
}

fn sample(call: &Call, known: u64, offset: u64, count: u64) -> io::Result<Verdict> {
    let file = File::open(&call.path)?;
    let len = file.metadata()?.len();
    if len < known {
        return Ok(Verdict::Short { len });
    }
    let mut read = vec![0; count as usize];
    file.read_exact_at(&mut read, offset)?;
    let wrong = audio::first_difference(call.seed, offset, &read);
    Ok(wrong.map_or(Verdict::Good, |offset| Verdict::Wrong { offset }))
}
