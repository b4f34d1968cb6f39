//! Findings as people and programs read them, the same for `fsck` and `scrub`.

use std::fmt::Write;

use serde::Serialize;

use super::exit::Code;
use crate::mend::{Finding, Findings, Kind};

/// What it means that rows of sealed files were lost, and what to do.
pub const BASELINE_LOST: &str = "the database is new or came from another place: old copies of recordings sealed before that are not noticed; \
                                 `tallyfs fsck STORE --accept /` takes what is there as right and ends this";

/// A list of findings with its sums.
#[derive(Serialize)]
pub struct Report<'a> {
    findings: &'a [Finding],
    finding_count: u64,
    left_count: u64,
    counts: std::collections::BTreeMap<Kind, u64>,
    notes: &'a [String],
}

impl<'a> Report<'a> {
    /// A report of what was found.
    pub fn new(findings: &'a Findings, notes: &'a [String]) -> Self {
        Self {
            findings: findings.list(),
            finding_count: findings.count(),
            left_count: findings.left_count(),
            counts: findings.counts().clone(),
            notes,
        }
    }

    /// What the command ends with.
    pub fn code(&self) -> Code {
        if self.left_count == 0 { Code::Done } else { Code::Damage }
    }

    /// One line for each finding, then the notes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in self.findings {
            let mended = if finding.mended { "; mended" } else { "" };
            let kind = serde_json::to_value(finding.kind).expect("a name is JSON");
            let kind = kind.as_str().unwrap_or_default().to_owned();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {kind}: {}{mended}", finding.path, finding.detail);
        }
        let more = self.finding_count - self.findings.len() as u64;
        if more > 0 {
            let _ = writeln!(text, "and {more} more");
        }
        for note in self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    /// `no damage`, or how much of it.
    pub fn summary(&self) -> String {
        match (self.finding_count, self.left_count) {
            (0, _) => "nothing wrong".to_owned(),
            (found, left) if left == found => format!("{found} findings"),
            (found, left) => format!("{found} findings, {} mended, {left} left", found - left),
        }
    }
}
