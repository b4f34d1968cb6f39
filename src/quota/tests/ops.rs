//! Random operations for the model, and how they are drawn.

use super::*;
use proptest::prelude::*;

/// Indices are taken modulo what exists.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Mkdir {
        at: usize,
    },
    Rmdir {
        dir: usize,
    },
    Create {
        at: usize,
        len: u64,
    },
    Unlink {
        at: usize,
    },
    Hold {
        at: usize,
        amount: Meters,
    },
    Settle {
        which: usize,
        part: u64,
    },
    Limit {
        at: usize,
        limits: Limits,
    },
    RenameFile {
        from: usize,
        to: usize,
        over: bool,
        ending: Ending,
    },
    MoveDir {
        dir: usize,
        to: usize,
        over: bool,
        ending: Ending,
    },
    ExchangeFiles {
        a: usize,
        b: usize,
        ending: Ending,
    },
    ExchangeFileDir {
        a: usize,
        dir: usize,
        ending: Ending,
    },
    ExchangeDirs {
        a: usize,
        b: usize,
        ending: Ending,
    },
}

/// What happens during the I/O of a rename, and whether the I/O succeeds.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) meanwhile: Vec<Op>,
    pub(super) happened: bool,
}

pub(super) fn meters(bytes: u64, files: u64, dirs: u64) -> Meters {
    Meters { bytes, files, dirs }
}

fn limits() -> impl Strategy<Value = Limits> {
    let some = |most: u64| proptest::option::weighted(0.6, 0..most);
    (some(120), some(12), some(8)).prop_map(|(bytes, files, dirs)| Limits {
        bytes,
        files,
        dirs,
        ..Limits::NONE
    })
}

fn simple() -> impl Strategy<Value = Op> {
    let at = 0..64_usize;
    prop_oneof![
        4 => at.clone().prop_map(|at| Op::Mkdir { at }),
        1 => at.clone().prop_map(|dir| Op::Rmdir { dir }),
        5 => (at.clone(), 0..40_u64).prop_map(|(at, len)| Op::Create { at, len }),
        4 => at.clone().prop_map(|at| Op::Unlink { at }),
        3 => (at.clone(), 0..40_u64, 0..2_u64).prop_map(|(at, bytes, files)| Op::Hold { at, amount: meters(bytes, files, 0) }),
        3 => (at.clone(), 0..5_u64).prop_map(|(which, part)| Op::Settle { which, part }),
        2 => (at, limits()).prop_map(|(at, limits)| Op::Limit { at, limits }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    (proptest::collection::vec(simple(), 0..6), any::<bool>())
        .prop_map(|(meanwhile, happened)| Ending { meanwhile, happened })
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let at = 0..64_usize;
    let pair = || (at.clone(), at.clone(), ending());
    prop_oneof![
        20 => simple(),
        2 => (pair(), any::<bool>()).prop_map(|((from, to, ending), over)| Op::RenameFile { from, to, over, ending }),
        3 => (pair(), any::<bool>()).prop_map(|((dir, to, ending), over)| Op::MoveDir { dir, to, over, ending }),
        1 => pair().prop_map(|(a, b, ending)| Op::ExchangeFiles { a, b, ending }),
        2 => pair().prop_map(|(a, dir, ending)| Op::ExchangeFileDir { a, dir, ending }),
        3 => pair().prop_map(|(a, b, ending)| Op::ExchangeDirs { a, b, ending }),
    ]
}
