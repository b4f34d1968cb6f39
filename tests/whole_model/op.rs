//! What clients, crashes and administrators do to a store, and how it is drawn: from a seed, or from
//! the bytes of a fuzzer.
//!
//! Operations name paths and slots of open files, never inodes, so that any of them can be left out
//! of a sequence and the rest still means something.

use super::limits::LimitSet;
use crate::common::rng::Rng;

/// Slots of open files; they stand for the clients.
pub const SLOTS: u64 = 4;

/// Few, so that paths meet; each as likely.
const NAMES: [&str; 6] = ["a", "a", "a", "b", "b", "c"];
/// How deep paths are, each as likely.
const DEPTHS: [usize; 8] = [1, 1, 2, 2, 2, 2, 3, 4];

/// Directories that every sequence begins with, so that most paths lead somewhere.
const FIRST_DIRS: [&str; 7] = ["a", "b", "a/a", "a/b", "b/a", "a/a/a", "b/a/b"];

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    Mkdir {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Symlink {
        path: String,
    },
    Open {
        slot: u64,
        path: String,
        how: How,
    },
    Close {
        slot: u64,
    },
    Read {
        slot: u64,
        at: u64,
        bytes: u64,
    },
    Write {
        slot: u64,
        at: u64,
        bytes: u64,
    },
    SetLength {
        slot: u64,
        length: u64,
    },
    Truncate {
        path: String,
        length: u64,
    },
    Allocate {
        slot: u64,
        at: u64,
        bytes: u64,
        mode: i32,
    },
    Copy {
        from: u64,
        at: u64,
        to: u64,
        to_at: u64,
        bytes: u64,
    },
    Sync {
        slot: u64,
    },
    Link {
        path: String,
        new: String,
    },
    Unlink {
        path: String,
    },
    Rename {
        path: String,
        new: String,
        kind: Kind,
    },
    CommitTick,
    Save,
    Forget,
    Remount,
    Limits {
        set: Box<LimitSet>,
    },
    Kill,
    PowerCut,
}

/// How a file is opened; always for reading.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of open(2)")]
pub struct How {
    pub writes: bool,
    pub creates: bool,
    pub exclusive: bool,
    pub truncates: bool,
    pub appends: bool,
}

/// The forms of rename.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Replace,
    NoReplace,
    Exchange,
}

/// Where decisions come from.
pub trait Choices {
    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64;
}

impl Choices for Rng {
    fn below(&mut self, limit: u64) -> u64 {
        Self::below(self, limit)
    }
}

/// Decisions of a fuzzer; all zero when its bytes are used up.
pub struct Bytes<'a>(pub &'a [u8]);

impl Choices for Bytes<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        let width = if limit <= 256 { 1 } else { 3 };
        let mut value = 0;
        for _ in 0..width {
            let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
            value = value << 8 | u64::from(*first);
            self.0 = rest;
        }
        value % limit.max(1)
    }
}

/// `count` steps from a seed.
pub fn sequence(seed: u64, count: usize) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    let mut ops = beginning(&mut rng);
    ops.extend((ops.len()..count).map(|_| draw(&mut rng)));
    ops
}

/// As many steps as the bytes of a fuzzer give.
pub fn decode(bytes: &[u8], count_max: usize) -> Vec<Op> {
    let mut choices = Bytes(bytes);
    let mut ops = beginning(&mut choices);
    while !choices.0.is_empty() && ops.len() < count_max {
        ops.push(draw(&mut choices));
    }
    ops
}

fn beginning(from: &mut impl Choices) -> Vec<Op> {
    let dirs = FIRST_DIRS.iter().map(|path| Op::Mkdir {
        path: (*path).to_owned(),
    });
    let limits = Op::Limits {
        set: Box::new(LimitSet::draw(from)),
    };
    dirs.chain([limits]).collect()
}

/// Draws one step.
pub fn draw(from: &mut impl Choices) -> Op {
    match from.below(128) {
        0..6 => Op::Mkdir { path: path(from) },
        6..8 => Op::Rmdir { path: path(from) },
        8..10 => Op::Symlink { path: path(from) },
        10..40 => open(from),
        43..47 => Op::Close {
            slot: from.below(SLOTS),
        },
        47..51 => Op::Read {
            slot: from.below(SLOTS),
            at: offset(from),
            bytes: length(from),
        },
        51..73 => Op::Write {
            slot: from.below(SLOTS),
            at: offset(from),
            bytes: 1 + length(from),
        },
        73..77 => Op::SetLength {
            slot: from.below(SLOTS),
            length: offset(from),
        },
        77..80 => Op::Truncate {
            path: path(from),
            length: offset(from),
        },
        80..85 => allocate(from),
        85..89 => Op::Copy {
            from: from.below(SLOTS),
            at: offset(from),
            to: from.below(SLOTS),
            to_at: offset(from),
            bytes: 1 + length(from),
        },
        40..43 | 89..91 => Op::Sync {
            slot: from.below(SLOTS),
        },
        91..97 => Op::Link {
            path: path(from),
            new: path(from),
        },
        97..102 => Op::Unlink { path: path(from) },
        102..116 => rename(from),
        116..120 => Op::CommitTick,
        120..122 => Op::Save,
        122 => Op::Forget,
        123 => Op::Remount,
        124 | 125 => Op::Limits {
            set: Box::new(LimitSet::draw(from)),
        },
        126 => Op::Kill,
        _ => Op::PowerCut,
    }
}

fn path(from: &mut impl Choices) -> String {
    let depth = DEPTHS[from.below(DEPTHS.len() as u64) as usize];
    let names: Vec<&str> = (0..depth)
        .map(|_| NAMES[from.below(NAMES.len() as u64) as usize])
        .collect();
    names.join("/")
}

fn open(from: &mut impl Choices) -> Op {
    let flags = from.below(256);
    let writes = flags & 7 != 0;
    Op::Open {
        slot: from.below(SLOTS),
        path: path(from),
        how: How {
            writes,
            creates: flags & 0x38 != 0,
            exclusive: flags & 0xc8 == 0xc8,
            truncates: writes && flags & 7 == 1,
            appends: writes && flags & 7 == 2,
        },
    }
}

fn allocate(from: &mut impl Choices) -> Op {
    const MODES: [i32; 8] = [
        0,
        0,
        libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_ZERO_RANGE,
        libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
        libc::FALLOC_FL_COLLAPSE_RANGE,
    ];
    Op::Allocate {
        slot: from.below(SLOTS),
        at: offset(from),
        bytes: 1 + length(from),
        mode: MODES[from.below(MODES.len() as u64) as usize],
    }
}

fn rename(from: &mut impl Choices) -> Op {
    let kind = match from.below(5) {
        0 => Kind::NoReplace,
        1 => Kind::Exchange,
        _ => Kind::Replace,
    };
    Op::Rename {
        path: path(from),
        new: path(from),
        kind,
    }
}

/// Around the edges of the sealed format and of frames.
fn length(from: &mut impl Choices) -> u64 {
    match from.below(6) {
        0 => from.below(8),
        1 => 320,
        2 => 3_800 + from.below(20),
        3 => 4_040 + from.below(20),
        _ => from.below(12_000),
    }
}

fn offset(from: &mut impl Choices) -> u64 {
    match from.below(6) {
        0 | 1 => 0,
        2 => 3_800 + from.below(20),
        3 => 3_808 + 4_048 * (1 + from.below(4)),
        _ => from.below(30_000),
    }
}
