//! Runs a sequence of steps on the model and on a file system, compares, and makes what failed short.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::limits::LimitSet;
use super::model::{Expected, Meters, Model, Seen};
use super::op::Op;

/// Between two comparisons of everything, in steps.
const COMPARE_EVERY: usize = 16;

/// What a step answered.
pub type Outcome = Result<Answer, i32>;

/// A good answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Count(u64),
    Bytes(Vec<u8>),
}

/// A file system under test, with its open files.
pub trait Side {
    /// Takes a step; `payload` is what a write writes.
    fn apply(&mut self, op: &Op, payload: &[u8]) -> Outcome;
    /// Whether the kernel stands before it, which refuses much by itself.
    fn is_behind_kernel(&self) -> bool;
    /// Everything that is there.
    fn tree(&mut self) -> BTreeMap<String, Seen>;
    /// Says where the figures of its accounts are others than these.
    fn check_figures(&mut self, expected: &BTreeMap<String, Meters>) -> Result<(), String>;
}

/// How steps ended.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub done: u64,
    /// By a limit.
    pub over_limit: u64,
    /// For any other reason.
    pub refused: u64,
    /// Of writes, that were cut.
    pub cut: u64,
    /// They meant nothing.
    pub skipped: u64,
}

impl Counts {
    fn add(&mut self, op: &Op, expected: &Expected) {
        let by_limit = |errno: &i32| matches!(*errno, libc::EDQUOT | libc::ENOSPC | libc::EFBIG);
        match (expected, op) {
            (Expected::Skip, _) => self.skipped += 1,
            (Expected::Refused(errnos), _) if errnos.iter().any(by_limit) => self.over_limit += 1,
            (Expected::Refused(_) | Expected::ByKernel(_), _) => self.refused += 1,
            (Expected::Count(count), Op::Write { bytes, .. }) if count < bytes => self.cut += 1,
            _ => self.done += 1,
        }
    }

    /// Of several runs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            over_limit: self.over_limit + other.over_limit,
            refused: self.refused + other.refused,
            cut: self.cut + other.cut,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Takes all steps; an error names the one that went wrong.
pub fn run(side: &mut impl Side, ops: &[Op]) -> Result<Counts, String> {
    let mut model = Model::new(LimitSet::default());
    let mut counts = Counts::default();
    for (number, op) in ops.iter().enumerate() {
        if let Op::Open { slot, .. } = op
            && model.is_open(*slot)
        {
            step(side, &mut model, &Op::Close { slot: *slot }).map_err(|e| format!("before step {number}: {e}"))?;
        }
        step(side, &mut model, op)
            .and_then(|expected| {
                counts.add(op, &expected);
                side.check_figures(&model.figures())?;
                let starts = matches!(op, Op::Remount | Op::Limits { .. } | Op::Kill | Op::PowerCut);
                if starts || number % COMPARE_EVERY == 0 || number + 1 == ops.len() {
                    compare(&model.tree(), &side.tree())?;
                }
                Ok(())
            })
            .map_err(|e| format!("step {number}, {op:?}: {e}"))?;
    }
    Ok(counts)
}

fn step(side: &mut impl Side, model: &mut Model, op: &Op) -> Result<Expected, String> {
    let payload = match op {
        Op::Write { bytes, .. } => model.payload(*bytes),
        _ => Vec::new(),
    };
    let expected = model.apply(op);
    if expected == Expected::Skip {
        return Ok(expected);
    }
    let found = side.apply(op, &payload);
    let fits = match (&expected, &found) {
        (Expected::Count(count), Ok(Answer::Count(found))) => count == found,
        (Expected::Bytes(bytes), Ok(Answer::Bytes(found))) => bytes == found,
        (Expected::ByKernel(errno), Err(found)) => errno == found || !side.is_behind_kernel(),
        (Expected::Refused(errnos), Err(found)) => errnos.contains(found),
        _ => false,
    };
    if fits {
        Ok(expected)
    } else {
        Err(format!("answered {}, expected {}", brief(&found), brief(&expected)))
    }
}

fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take(200).collect()
}

fn compare(expected: &BTreeMap<String, Seen>, found: &BTreeMap<String, Seen>) -> Result<(), String> {
    for (path, seen) in expected {
        let other = found.get(path).ok_or_else(|| format!("{path} is missing"))?;
        if other != seen {
            return Err(differing(path, seen, other));
        }
    }
    match found.keys().find(|path| !expected.contains_key(*path)) {
        Some(path) => Err(format!("{path} should not be there")),
        None => Ok(()),
    }
}

fn differing(path: &str, expected: &Seen, found: &Seen) -> String {
    if let (
        Seen::File { content, links },
        Seen::File {
            content: other,
            links: other_links,
        },
    ) = (expected, found)
    {
        let at = content.iter().zip(other).position(|(a, b)| a != b);
        return format!(
            "{path}: {} bytes and {links} names expected, {} and {other_links} found; first difference at {at:?}",
            content.len(),
            other.len()
        );
    }
    format!("{path}: {} expected, {} found", brief(expected), brief(found))
}

/// Runs, and on failure leaves out steps as long as it still fails. Panics with the shortest sequence.
#[track_caller]
pub fn run_or_shrink<S: Side>(name: &str, ops: &[Op], make: impl Fn() -> S) -> Counts {
    let attempt = |ops: &[Op]| -> Result<Counts, String> {
        match catch_unwind(AssertUnwindSafe(|| run(&mut make(), ops))) {
            Ok(outcome) => outcome,
            Err(panic) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "it panicked".to_owned())),
        }
    };
    let first = match attempt(ops) {
        Ok(counts) => return counts,
        Err(what) => what,
    };
    let (mut shortest, mut what) = (ops.to_vec(), first.clone());
    let mut part = shortest.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < shortest.len() {
            let mut fewer = shortest.clone();
            fewer.drain(at..fewer.len().min(at + part));
            match attempt(&fewer) {
                Err(found) => (shortest, what) = (fewer, found),
                Ok(_) => at += part,
            }
        }
        part /= 2;
    }
    panic!("{name}: {first}\nshortest: {what}\n{shortest:#?}");
}
