//! What was found wrong, in a form that people and programs can read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Findings that are kept word by word; all are counted.
const FINDINGS_MAX: usize = 10_000;

/// What kind of thing is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The disk would not say.
    Unreadable,
    /// Something in the store that is not part of it.
    Stray,
    /// The size on disk is not the one of the recording.
    Size,
    /// No head page opens.
    Head,
    /// One copy of the head is damaged, another is good.
    HeadCopy,
    /// Sealed under a key that was not given.
    Key,
    /// Was being written when its daemon or the machine died.
    Unclean,
    /// The same file id as another file: a copy of a backing file.
    Copy,
    /// A WAV header that does not tell the audio that is there.
    WavHeader,
    /// A page that does not open, or is not the one that belongs there.
    Page,
    /// Every page opens, but the content is not the one that was sealed.
    Content,
    /// An old copy was put back.
    OldCopy,
    /// It lies where another file was left.
    Swapped,
    /// Its row in the database was not written by this program.
    Row,
    /// Usage in the database is not what is on disk.
    Usage,
    /// The database cannot be read, or is missing.
    Database,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Relative to the mount; of things beside the recordings, relative to the store.
    pub path: String,
    /// What kind.
    pub kind: Kind,
    /// In words.
    pub detail: String,
    /// It was put right.
    pub mended: bool,
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<Kind, u64>,
    mended_count: u64,
}

impl Findings {
    /// Notes something.
    pub fn add(&mut self, path: &[u8], kind: Kind, detail: impl Into<String>) {
        *self.counts.entry(kind).or_default() += 1;
        if self.list.len() < FINDINGS_MAX {
            self.list.push(Finding {
                path: String::from_utf8_lossy(path).into_owned(),
                kind,
                detail: detail.into(),
                mended: false,
            });
        }
    }

    /// The findings of one kind at `path` were put right.
    pub fn mend(&mut self, path: &[u8], kind: Kind) {
        let path = String::from_utf8_lossy(path);
        for finding in self
            .list
            .iter_mut()
            .filter(|f| f.path == path && f.kind == kind && !f.mended)
        {
            finding.mended = true;
            self.mended_count += 1;
        }
    }

    /// In the order of finding; the first ten thousand.
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many of each kind.
    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Those that were not put right.
    pub fn left_count(&self) -> u64 {
        self.count() - self.mended_count
    }
}
