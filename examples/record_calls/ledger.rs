//! What write(2) acknowledged, kept outside the mount so that it can be checked after the daemon died or was restarted.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::recording::{Call, Outcome};

/// One recording as its caller knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: PathBuf,
    pub seed: u64,
    /// Bytes that must be readable.
    pub acknowledged_len: u64,
    /// Bytes that may follow them: a write was under way when the mount went away.
    pub in_flight_bytes: u64,
    /// The header of the end was acknowledged and must be there.
    pub closed: bool,
    /// The mount went away during the call.
    pub interrupted: bool,
}

impl Entry {
    pub fn new(call: &Call, outcome: &Outcome) -> Self {
        Self {
            path: call.path.clone(),
            seed: call.seed,
            acknowledged_len: outcome.acknowledged_len,
            in_flight_bytes: outcome.in_flight_bytes,
            closed: outcome.closed,
            interrupted: outcome.interrupted,
        }
    }

    fn to_line(&self) -> String {
        let Self {
            path,
            seed,
            acknowledged_len,
            in_flight_bytes,
            closed,
            interrupted,
        } = self;
        let (closed, interrupted) = (u8::from(*closed), u8::from(*interrupted));
        format!(
            "{seed} {acknowledged_len} {in_flight_bytes} {closed} {interrupted} {}\n",
            path.display()
        )
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(6, ' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (seed, acknowledged_len, in_flight_bytes) = (number()?, number()?, number()?);
        let (closed, interrupted) = (number()? == 1, number()? == 1);
        let path = PathBuf::from(parts.next()?);
        Some(Self {
            path,
            seed,
            acknowledged_len,
            in_flight_bytes,
            closed,
            interrupted,
        })
    }
}

/// Adds `entries` to the ledger at `path`.
pub fn append(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(entries.iter().map(Entry::to_line).collect::<String>().as_bytes())
}

/// All entries of the ledger at `path`.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let broken = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("broken ledger line '{line}'"));
    fs::read_to_string(path)?
        .lines()
        .map(|line| Entry::from_line(line).ok_or_else(|| broken(line)))
        .collect()
}
