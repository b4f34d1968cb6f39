//! What one phase of work gave: times of the client, and what the daemon did meanwhile.

use std::collections::BTreeMap;

use super::daemon::Allocations;

/// How fast is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Operations per second.
    Operations,
    /// MiB per second.
    MiB,
}

/// One phase on one mount.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The row that it fills.
    pub row: &'static str,
    /// Whose mount it was.
    pub mount: &'static str,
    /// How fast is said.
    pub unit: Unit,
    /// Operations of the client.
    pub operations: u64,
    /// Bytes that it read or wrote.
    pub bytes: u64,
    /// Operations that did not come about; in none of the other figures.
    pub failed: u64,
    /// All of it.
    pub elapsed_ns: u64,
    /// Each operation, where that makes sense.
    pub latency_ns: Vec<u64>,
    /// Processor time of the daemon.
    pub cpu_ns: u64,
    /// What the daemon allocated.
    pub allocations: Option<Allocations>,
    /// What the kernel saw, in the pass that counts.
    pub counts: Option<Counts>,
}

/// What the kernel saw in one phase.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// FUSE requests by their names.
    pub requests: BTreeMap<String, u64>,
    /// System calls of the threads that answer.
    pub calls: BTreeMap<String, u64>,
    /// System calls of the other threads of the daemon.
    pub background_calls: BTreeMap<String, u64>,
    /// Events that did not fit: then the figures are too small.
    pub lost: u64,
}

impl Measured {
    /// In its unit.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed_ns as f64 / 1e9;
        match self.unit {
            Unit::Operations => self.operations as f64 / seconds,
            Unit::MiB => self.bytes as f64 / f64::from(1 << 20) / seconds,
        }
    }

    /// `count` of something, for each operation.
    pub fn each(&self, count: u64) -> f64 {
        count as f64 / self.operations.max(1) as f64
    }
}

/// The value that so many hundredths of all are at most; `None` of nothing.
pub fn percentile(values: &[u64], hundredths: usize) -> Option<u64> {
    let mut ordered = values.to_vec();
    ordered.sort_unstable();
    let at = (ordered.len() * hundredths).div_ceil(100).max(1) - 1;
    ordered.get(at.min(ordered.len().saturating_sub(1))).copied()
}

/// The middle one, or the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}
