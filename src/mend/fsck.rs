//! Checking a store at rest: structure, lengths, keys, copies, strays, and the books against the disk.
//!
//! The caller holds the store's lock. What is mended here is mended in place, on one file, without a
//! guess: a size that its sealed head tells, and a head that its other copy tells. What has to go
//! through the ledger (sealing, headers, usage) is left to the caller, who has one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use super::books;
use super::examine::{Examined, examine};
use super::finding::{Findings, Kind};
use super::known::Known;
use crate::sealed::keyring::KeyRing;
use crate::store::error::StoreError;
use crate::store::files::{Found, Range, walk};
use crate::store::sealed_file::{SealedFile, Stretch};

/// What belongs into a store besides names that begin as below.
const OWN_NAMES: [&str; 10] = [
    // Left by a daemon that was killed.
    "admin.sock",
    "version",
    "lock",
    "keyring",
    "data",
    "orphans",
    "tallyfs.db",
    "scrub.state",
    "lost+found",
    "scrub.state.new",
];
const OWN_BEGINNINGS: [&str; 4] = ["tallyfs.db-", "tallyfs.db.damaged-", "dirty-", "version.new"];

/// A store to be looked at.
pub struct Subject<'a> {
    /// The store's directory.
    pub root: &'a Path,
    /// Its data directory.
    pub data: BorrowedFd<'a>,
    /// Its keys.
    pub ring: Arc<KeyRing>,
    /// Directory or file below the data directory; empty for all.
    pub below: &'a [u8],
}

/// Whether to mend what is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    /// Only look.
    No,
    /// Mend what can be mended in place.
    Yes,
}

/// What was found.
#[derive(Default)]
pub struct Checked {
    /// Regular files that were looked at.
    pub recordings: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Findings,
    /// Remarks that are no damage.
    pub notes: Vec<String>,
    /// Files that have to be opened and closed by a file system: to be sealed, or given a header.
    pub to_reopen: Vec<Vec<u8>>,
}

/// Checks a store or a part of it.
///
/// # Errors
/// When it cannot be looked at.
pub fn fsck(subject: &Subject<'_>, repair: Repair) -> std::io::Result<Checked> {
    let mut check = Check {
        subject,
        repair,
        done: Checked::default(),
        known: Known::open(subject.root, &subject.ring),
        ids: HashMap::new(),
        several_names: HashSet::new(),
    };
    let mut failures = Vec::new();
    let range = Range {
        below: subject.below,
        after: None,
    };
    walk(subject.data, range, &mut |found| check.visit(found), &mut |path, e| {
        failures.push((path.to_vec(), e));
    })?;
    let trouble = check.known.trouble();
    let mut done = check.done;
    for (path, e) in failures {
        done.findings.add(&path, Kind::Unreadable, e.to_string());
    }
    if subject.below.is_empty() {
        strays(subject.root, &mut done.findings)?;
        books::compare(subject, &mut done);
    }
    if let Some(why) = trouble.filter(|_| !done.findings.counts().contains_key(&Kind::Database)) {
        let detail = format!("{why}; not every recording was compared with what was known of it");
        done.findings.add(b"tallyfs.db", Kind::Database, detail);
    }
    Ok(done)
}

struct Check<'a> {
    subject: &'a Subject<'a>,
    repair: Repair,
    done: Checked,
    known: Known,
    /// Inode and path of each file id.
    ids: HashMap<[u8; 16], (u64, Vec<u8>)>,
    /// Inodes with several names that were looked at.
    several_names: HashSet<u64>,
}

impl Check<'_> {
    fn visit(&mut self, found: &Found<'_>) -> ControlFlow<()> {
        let is_other_name = found.stat.stx_nlink > 1 && !self.several_names.insert(found.stat.stx_ino);
        if found.is_file() && !is_other_name {
            self.done.recordings += 1;
            match self.open(found) {
                Ok(file) => self.file(found, examine(file, &self.subject.ring)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => self.done.findings.add(found.path, Kind::Unreadable, e.to_string()),
            }
        }
        ControlFlow::Continue(())
    }

    fn open(&self, found: &Found<'_>) -> std::io::Result<File> {
        match self.repair {
            Repair::No => found.open(),
            Repair::Yes => found.open_for_repair(),
        }
    }

    fn file(&mut self, found: &Found<'_>, mut examined: Examined) {
        for (kind, detail) in &examined.problems {
            self.done.findings.add(found.path, *kind, detail.as_str());
        }
        if examined.has(Kind::Unclean) || examined.has(Kind::WavHeader) {
            self.done.to_reopen.push(found.path.to_vec());
        }
        let mendable = examined.has(Kind::Size) || examined.has(Kind::HeadCopy);
        let Some(file) = examined.file.as_mut() else { return };
        self.done.bytes += file.plain_length();
        let problem = match file.head_facts() {
            Some(facts) => {
                self.copies(found, facts.file_id);
                self.known.check_head(found.stat.stx_ino, &facts).err()
            }
            None => self.known.check_empty(found.stat.stx_ino),
        };
        if let Some((kind, detail)) = problem {
            self.done.findings.add(found.path, kind, detail);
        }
        if mendable && self.repair == Repair::Yes {
            self.mend_in_place(found, file);
        }
    }

    /// Two files with one id: the copy is the one that is not known to have had it, or the later one.
    fn copies(&mut self, found: &Found<'_>, id: [u8; 16]) {
        let here = (found.stat.stx_ino, found.path.to_vec());
        let Some(first) = self.ids.get(&id).cloned() else {
            self.ids.insert(id, here);
            return;
        };
        if first.0 == here.0 {
            return;
        }
        let is_original = self.known.has_id(here.0, &id) && !self.known.has_id(first.0, &id);
        let (original, copy) = if is_original { (here, first) } else { (first, here) };
        let detail = format!(
            "has the same file id as {}: one is a copy of the other's sealed file",
            String::from_utf8_lossy(&original.1)
        );
        self.done.findings.add(&copy.1, Kind::Copy, detail);
        self.ids.insert(id, original);
    }

    fn mend_in_place(&mut self, found: &Found<'_>, file: &mut SealedFile<File>) {
        let was_sized = !file.is_clean();
        let mended = mend_size(file).and_then(|sized| {
            if sized {
                file.renew_heads()?;
            }
            Ok(sized)
        });
        match mended {
            Ok(true) => {
                self.done.findings.mend(found.path, Kind::Size);
                self.done.findings.mend(found.path, Kind::HeadCopy);
                let lost = if was_sized { lost_bytes(file) } else { 0 };
                if lost > 0 {
                    let detail =
                        format!("{lost} bytes went with the end that was cut off; `tallyfs salvage` saves the rest");
                    self.done.findings.add(found.path, Kind::Page, detail);
                }
            }
            Ok(false) => self.done.notes.push(format!(
                "{}: pages behind the end that its head tells belong to this recording; its size is left as it is, \
                 for cutting it would lose them",
                String::from_utf8_lossy(found.path)
            )),
            Err(e) => self
                .done
                .findings
                .add(found.path, Kind::Unreadable, format!("cannot be mended: {e}")),
        }
    }
}

/// Puts the size right, unless that would cut pages of this file off.
fn mend_size(file: &mut SealedFile<File>) -> Result<bool, StoreError> {
    if file.is_clean() {
        return Ok(true);
    }
    if file.has_pages_behind_end()? {
        return Ok(false);
    }
    file.set_size_of_head()?;
    Ok(true)
}

/// Plaintext bytes whose pages do not open, in a file whose size was put right.
fn lost_bytes(file: &SealedFile<File>) -> u64 {
    let mut lost = 0;
    let read: Result<(), std::convert::Infallible> = file.read_through(|stretch| {
        if let Stretch::Lost { bytes, .. } = stretch {
            lost += bytes as u64;
        }
        Ok(())
    });
    match read {
        Ok(()) => lost,
    }
}

/// Names beside the data directory that nobody of ours made.
fn strays(root: &Path, findings: &mut Findings) -> std::io::Result<()> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root)? {
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    for name in names {
        let text = name.to_string_lossy();
        let own = OWN_NAMES.contains(&&*text) || OWN_BEGINNINGS.iter().any(|start| text.starts_with(start));
        if !own {
            findings.add(text.as_bytes(), Kind::Stray, "not part of a store; move it elsewhere");
        }
    }
    Ok(())
}
