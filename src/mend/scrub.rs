//! Reading everything: every tag, every hash, and every file against what the database knew of it.
//!
//! Only reads, so it needs no lock: beside a mount, a file that is being written is passed over, and what
//! looks wrong is looked at once more before it counts.

use std::collections::HashMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::examine::{Examined, examine};
use super::finding::{Findings, Kind};
use super::fsck::Subject;
use super::known::{Known, Place};
use crate::clock::Clock;
use crate::store::files::{Found, Range, walk};
use crate::store::sealed_file::{HeadFacts, SealedFile, Stretch};

/// How far a scrub has come; written down, so that another can go on.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Directory or file that is scrubbed.
    pub below: Vec<u8>,
    /// The last file that was done.
    pub after: Option<Vec<u8>>,
    /// Files that were read.
    pub recordings: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Files that were being written.
    pub passed_over: u64,
    /// Files whose content has no hash yet.
    pub without_hash: u64,
    /// Files that the database does not know.
    pub without_row: u64,
    /// What is wrong.
    pub findings: Findings,
}

/// How to scrub.
pub struct Pace<'a> {
    /// Plaintext bytes per second; `None` for as fast as it goes.
    pub bytes_per_s: Option<u64>,
    /// Time.
    pub clock: &'a dyn Clock,
    /// A daemon serves the store.
    pub is_mounted: bool,
}

/// Scrubs what is left of `progress`; `step` is called after every file and may stop it.
///
/// # Errors
/// When the beginning cannot be opened.
pub fn scrub(
    subject: &Subject<'_>,
    pace: &Pace<'_>,
    progress: &mut Progress,
    step: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> std::io::Result<()> {
    let (below, after) = (progress.below.clone(), progress.after.clone());
    let mut failures = Vec::new();
    let mut scrub = Scrub {
        subject,
        pace,
        begun: pace.clock.monotonic(),
        read_bytes: 0,
        known: Known::open(subject.root, &subject.ring),
        ids: HashMap::new(),
        progress,
    };
    let range = Range {
        below: &below,
        after: after.as_deref(),
    };
    let visit = &mut |found: &Found<'_>| {
        scrub.visit(found);
        scrub.progress.after = Some(found.path.to_vec());
        step(scrub.progress)
    };
    walk(subject.data, range, visit, &mut |path, e| {
        failures.push((path.to_vec(), e));
    })?;
    let trouble = scrub.known.trouble();
    for (path, e) in failures {
        progress.findings.add(&path, Kind::Unreadable, e.to_string());
    }
    if let Some(why) = trouble {
        let detail = format!("{why}; not every recording was compared with what was known of it");
        progress.findings.add(b"tallyfs.db", Kind::Database, detail);
    }
    Ok(())
}

struct Scrub<'a> {
    subject: &'a Subject<'a>,
    pace: &'a Pace<'a>,
    begun: Duration,
    read_bytes: u64,
    known: Known,
    /// Inode of each file id that was met.
    ids: HashMap<[u8; 16], u64>,
    progress: &'a mut Progress,
}

/// What a look at one file found.
enum Look {
    /// Nobody's business: being written, or gone.
    PassedOver,
    /// Looked at to the end.
    Done(Vec<(Kind, String)>, Option<HeadFacts>),
}

impl Scrub<'_> {
    fn visit(&mut self, found: &Found<'_>) {
        if !found.is_file() {
            return;
        }
        let mut look = self.look(found);
        // A page may have been half-way, a row or a name not saved yet.
        if self.pace.is_mounted && matches!(&look, Look::Done(problems, _) if !problems.is_empty()) {
            self.known.wait_until_saved(self.subject.root, self.pace.clock);
            look = self.look(found);
        }
        match look {
            Look::PassedOver => self.progress.passed_over += 1,
            Look::Done(problems, facts) => {
                self.progress.recordings += 1;
                for (kind, detail) in problems {
                    self.progress.findings.add(found.path, kind, detail);
                }
                if let Some(facts) = facts {
                    self.ids.insert(facts.file_id, found.stat.stx_ino);
                    self.progress.without_hash += u64::from(facts.content_sha256 == [0; 32]);
                }
            }
        }
    }

    fn look(&mut self, found: &Found<'_>) -> Look {
        let file = match found.open() {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Look::PassedOver,
            Err(e) => return Look::Done(vec![(Kind::Unreadable, e.to_string())], None),
        };
        let examined = examine(file, &self.subject.ring);
        if self.pace.is_mounted && examined.has(Kind::Unclean) {
            return Look::PassedOver;
        }
        let Examined { file, mut problems } = examined;
        let Some(file) = file else {
            return Look::Done(problems, None);
        };
        let Some(facts) = file.head_facts() else {
            problems.extend(self.known.check_empty(found.stat.stx_ino));
            return Look::Done(problems, None);
        };
        problems.extend(self.content(&file, &facts));
        problems.extend(self.against_the_rows(found, &facts));
        Look::Done(problems, Some(facts))
    }

    /// Every page, and the hash of what they hold.
    fn content(&mut self, file: &SealedFile<File>, facts: &HeadFacts) -> Option<(Kind, String)> {
        let mut hash = Sha256::new();
        let (mut lost_bytes, mut first) = (0, None);
        let read: Result<(), std::convert::Infallible> = file.read_through(|stretch| {
            match stretch {
                Stretch::Good(plaintext) => {
                    hash.update(plaintext);
                    self.wait_for_rate(plaintext.len() as u64);
                }
                Stretch::Lost {
                    plain_offset,
                    bytes,
                    cause,
                } => {
                    lost_bytes += bytes as u64;
                    first.get_or_insert_with(|| format!("first at byte {plain_offset}: {cause}"));
                }
            }
            Ok(())
        });
        match read {
            Ok(()) => {}
        }
        self.progress.bytes += file.plain_length();
        if let Some(first) = first {
            return Some((Kind::Page, format!("{lost_bytes} bytes do not open, {first}")));
        }
        let is_known = facts.content_sha256 != [0; 32];
        (is_known && <[u8; 32]>::from(hash.finalize()) != facts.content_sha256).then(|| {
            let detail = "every page opens, but together they are not the content that was sealed";
            (Kind::Content, detail.to_owned())
        })
    }

    fn wait_for_rate(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        let Some(rate) = self.pace.bytes_per_s else { return };
        let due = self.begun + Duration::from_millis(self.read_bytes.saturating_mul(1000) / rate.max(1));
        std::thread::park_timeout(due.saturating_sub(self.pace.clock.monotonic()));
    }

    /// Against what the database knew: an old copy, another content, a swapped name, a copy.
    fn against_the_rows(&mut self, found: &Found<'_>, facts: &HeadFacts) -> Vec<(Kind, String)> {
        let ino = found.stat.stx_ino;
        let mut problems = Vec::new();
        let met = self.ids.get(&facts.file_id).filter(|&&other| other != ino);
        if let Some(&other) = met {
            // The copy was met first, and told by the row of this one.
            let is_original = self.known.has_id(ino, &facts.file_id) && !self.known.has_id(other, &facts.file_id);
            if !is_original {
                problems.push((Kind::Copy, "has the same file id as another file: a copy".to_owned()));
            }
        } else if let Some(other) = self.known.other_with_id(&facts.file_id, ino) {
            let detail = format!("its file id is known of inode {other}: a copy, or the content of another");
            problems.push((Kind::Copy, detail));
        }
        match self.known.check_head(ino, facts) {
            Ok(true) => {}
            Ok(false) => self.progress.without_row += 1,
            Err(problem) => problems.push(problem),
        }
        let place = Place {
            parent: found.parent_ino,
            name: found.name(),
        };
        if found.stat.stx_nlink == 1
            && let Some(problem) = self.known.check_place(ino, &place)
        {
            problems.push(problem);
        }
        problems
    }
}
