//! Sums the calls up and prints them, for people or as JSON.

use std::collections::BTreeMap;

use serde_json::json;

use super::ledger::Entry;
use super::recording::Outcome;
use super::verify::{Sampled, Verdict};

const EXAMPLES_SHOWN: usize = 10;

/// Figures of a whole run.
#[derive(Default)]
pub struct Report {
    calls: u64,
    started: u64,
    closed: u64,
    interrupted: u64,
    refused_calls: u64,
    refused_bytes: u64,
    acknowledged_bytes: u64,
    late_writes: u64,
    lost_starts: u64,
    failed_writes: u64,
    failed_ends: u64,
    wrong_sizes: u64,
    verified: u64,
    lost_files: u64,
    short_files: u64,
    long_files: u64,
    wrong_files: u64,
    /// What the reader saw while the files grew.
    pub sampled: Sampled,
    start_us: Vec<u64>,
    write_us: Vec<u64>,
    close_us: Vec<u64>,
    errors: BTreeMap<String, u64>,
    examples: Vec<String>,
}

impl Report {
    /// Counts a call that was recorded, or not.
    pub fn add_outcome(&mut self, entry: &Entry, outcome: &Outcome) {
        self.calls += 1;
        self.closed += u64::from(outcome.closed);
        self.interrupted += u64::from(outcome.interrupted);
        self.refused_bytes += outcome.refused_bytes;
        self.acknowledged_bytes += outcome.acknowledged_len;
        self.late_writes += outcome.late_writes;
        if let Some((step, errno)) = outcome.failed_start {
            self.count_error(step, errno);
            if is_refusal(errno) {
                self.refused_calls += 1;
            } else if !outcome.interrupted {
                self.lost_starts += 1;
                self.example(format!("{}: {step} failed, {}", entry.path.display(), message(errno)));
            }
            return;
        }
        self.started += 1;
        self.start_us.push(outcome.start_us);
        self.write_us.extend(outcome.write_us.iter().map(|&us| u64::from(us)));
        if outcome.closed {
            self.close_us.push(outcome.close_us);
        }
        if let Some(errno) = outcome.write_errno {
            self.count_error("write", errno);
            self.failed_writes += u64::from(!is_refusal(errno) && !outcome.interrupted);
        }
        if let Some(errno) = outcome.end_errno {
            self.count_error("end", errno);
            self.failed_ends += u64::from(!outcome.interrupted);
        }
        if let Some(size) = outcome.wrong_size {
            self.wrong_sizes += 1;
            let acknowledged = outcome.acknowledged_len;
            self.example(format!(
                "{}: fstat said {size}, acknowledged were {acknowledged}",
                entry.path.display()
            ));
        }
    }

    /// Counts a file that was read back.
    pub fn add_verified(&mut self, entry: &Entry, verdict: &Verdict) {
        self.verified += u64::from(entry.acknowledged_len > 0);
        match verdict {
            Verdict::Good => return,
            Verdict::Unreadable(_) => self.lost_files += 1,
            Verdict::Short { .. } => self.short_files += 1,
            Verdict::Long { .. } => self.long_files += 1,
            Verdict::Wrong { .. } | Verdict::WrongHeader => self.wrong_files += 1,
        }
        let acknowledged = entry.acknowledged_len;
        self.example(format!(
            "{}: {verdict:?}, acknowledged were {acknowledged}",
            entry.path.display()
        ));
    }

    /// Whether the mount went away while calls were recorded.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted > 0
    }

    /// Whether the file system failed in something that it had promised.
    pub fn lost_anything(&self) -> bool {
        self.failures().iter().any(|(_, count)| *count > 0)
    }

    fn failures(&self) -> [(&'static str, u64); 11] {
        [
            ("lost_starts", self.lost_starts),
            ("failed_writes", self.failed_writes),
            ("failed_ends", self.failed_ends),
            ("wrong_sizes", self.wrong_sizes),
            ("lost_files", self.lost_files),
            ("short_files", self.short_files),
            ("long_files", self.long_files),
            ("wrong_files", self.wrong_files),
            ("sampled_wrong", self.sampled.wrong),
            ("sampled_short", self.sampled.short),
            ("sampled_failed", self.sampled.failed),
        ]
    }

    fn figures(&self) -> [(&'static str, u64); 10] {
        [
            ("calls", self.calls),
            ("started", self.started),
            ("closed", self.closed),
            ("interrupted", self.interrupted),
            ("refused_calls", self.refused_calls),
            ("refused_bytes", self.refused_bytes),
            ("acknowledged_bytes", self.acknowledged_bytes),
            ("late_writes", self.late_writes),
            ("verified", self.verified),
            ("sampled_reads", self.sampled.reads),
        ]
    }

    /// Prints everything on standard output.
    pub fn print(&self, as_json: bool) {
        let latencies = [
            ("start_us", &self.start_us),
            ("write_us", &self.write_us),
            ("close_us", &self.close_us),
        ]
        .map(|(name, samples)| (name, percentiles(samples)));
        if as_json {
            let mut object = serde_json::Map::new();
            for (name, count) in self.figures().into_iter().chain(self.failures()) {
                object.insert(name.into(), count.into());
            }
            for (name, [p50, p99, max]) in latencies {
                object.insert(name.into(), json!({"p50": p50, "p99": p99, "max": max}));
            }
            object.insert("errors".into(), json!(self.errors));
            object.insert("examples".into(), json!(self.examples));
            object.insert("ok".into(), (!self.lost_anything()).into());
            println!("{}", serde_json::Value::Object(object));
            return;
        }
        let line = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(n, c)| format!("{n} {c}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        println!("{}", line(&self.figures()));
        println!("{}", line(&self.failures()));
        for (name, [p50, p99, max]) in latencies {
            println!("{name}: p50 {p50}, p99 {p99}, max {max}");
        }
        self.errors
            .iter()
            .for_each(|(error, count)| println!("{count} x {error}"));
        self.examples.iter().for_each(|example| println!("{example}"));
        println!("{}", if self.lost_anything() { "LOST" } else { "nothing lost" });
    }

    fn count_error(&mut self, step: &str, errno: i32) {
        *self.errors.entry(format!("{step}: {}", message(errno))).or_default() += 1;
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_SHOWN {
            self.examples.push(text);
        }
    }
}

/// The file system may say no to growth; anything else loses a recording.
fn is_refusal(errno: i32) -> bool {
    use rustix::io::Errno;
    [Errno::DQUOT, Errno::NOSPC, Errno::FBIG]
        .iter()
        .any(|refusal| refusal.raw_os_error() == errno)
}

fn message(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// p50, p99 and the largest of the samples; zeros for none.
fn percentiles(samples: &[u64]) -> [u64; 3] {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    [at(50), at(99), sorted.last()].map(|sample| sample.copied().unwrap_or(0))
}
