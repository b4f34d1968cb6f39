//! What an import has to say: why something did not come along, and how much did.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::quota::Refusal;

/// Remarks that are kept word by word; all are counted.
const REMARKS_MAX: usize = 1000;

/// Why a name did not come along.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// A limit refused it.
    #[error("{0}")]
    Limit(Refusal),
    /// Somebody writes it.
    #[error("changed while it was read; import it again when nobody writes it any more")]
    Changed,
    /// Something else is there.
    #[error("{0}; both stay as they are: move one away, or import to another directory (--to)")]
    Exists(String),
    /// What was sealed is not what was read.
    #[error("does not read back as it was written; check memory and disk of this machine, then import it again")]
    Unverified,
    /// No recording.
    #[error("{0}: left out")]
    Special(&'static str),
    /// Left by an earlier import into the tree that is imported.
    #[error("a half copy that an import into this tree left behind when it was killed: left out")]
    Leftover,
    /// The inode that it is another name of did not come along.
    #[error("another name of '{0}', which did not come along")]
    FirstName(String),
    /// The tree cannot be read or changed.
    #[error("cannot {action}: {source}")]
    Source {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The store said no.
    #[error("the store cannot {action}: {source}")]
    Store {
        /// What was tried.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// No room on the disk below the store.
    #[error("the disk of the store is full; free some space, then run the import again to go on")]
    DiskFull,
    /// It was copied, and changed before it could be removed.
    #[error("changed after it was copied: not removed; the store has it as it was before")]
    NotRemoved,
    /// It was copied, and cannot be removed.
    #[error("is in the store, and cannot be removed: {0}")]
    Left(io::Error),
    /// Asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Kinds of remarks, for programs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A limit refused it.
    Limit,
    /// It changed while it was read.
    Changed,
    /// Something else has its name in the store.
    Exists,
    /// It did not read back.
    Unverified,
    /// It cannot be read.
    Unreadable,
    /// The store or its disk said no.
    Store,
    /// It is copied, and could not be removed.
    NotRemoved,
    /// No recording: no failure.
    LeftOut,
}

impl Kind {
    /// Whether something is missing.
    pub fn is_failure(self) -> bool {
        self != Self::LeftOut
    }
}

impl Why {
    /// Wraps what the system said about the tree.
    pub fn source(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Source { action, source }
    }

    /// For programs.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Limit(_) => Kind::Limit,
            Self::Changed | Self::Stopped => Kind::Changed,
            Self::Exists(_) | Self::FirstName(_) => Kind::Exists,
            Self::Unverified => Kind::Unverified,
            Self::Special(_) | Self::Leftover => Kind::LeftOut,
            Self::Source { .. } => Kind::Unreadable,
            Self::Store { .. } | Self::DiskFull => Kind::Store,
            Self::NotRemoved | Self::Left(_) => Kind::NotRemoved,
        }
    }

    /// Whether all that follows would fare the same.
    pub fn ends_all(&self) -> bool {
        match self {
            Self::DiskFull => true,
            Self::Store { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
            _ => false,
        }
    }
}

/// One remark.
#[derive(Serialize, Debug)]
pub struct Remark {
    /// Below the tree that is imported; bytes that are no text are shown as such.
    pub path: String,
    /// Its kind.
    pub kind: Kind,
    /// For people.
    pub detail: String,
}

/// All remarks.
#[derive(Default, Debug)]
pub struct Remarks {
    list: Vec<Remark>,
    counts: BTreeMap<Kind, u64>,
}

impl Remarks {
    /// One more.
    pub fn add(&mut self, path: &[u8], why: &Why) {
        self.put(path, why.kind(), why.to_string());
    }

    /// One more, in other words.
    pub fn put(&mut self, path: &[u8], kind: Kind, detail: String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.list.len() < REMARKS_MAX {
            let path = if path.is_empty() { b"." } else { path };
            let path = String::from_utf8_lossy(path).into_owned();
            self.list.push(Remark { path, kind, detail });
        }
    }

    /// The first thousand.
    pub fn list(&self) -> &[Remark] {
        &self.list
    }

    /// How many of each kind.
    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many mean that something is missing.
    pub fn failure_count(&self) -> u64 {
        self.counts
            .iter()
            .filter(|(kind, _)| kind.is_failure())
            .map(|(_, count)| count)
            .sum()
    }
}

/// How much came along.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Tally {
    /// Regular files that were copied and verified.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Symbolic links that were made.
    pub symlinks: u64,
    /// Further names of files that were made.
    pub hard_links: u64,
    /// Directories that were made.
    pub directories: u64,
    /// Names that were there and whole.
    pub already_there: u64,
    /// Names and directories that were removed from the tree.
    pub removed: u64,
    /// Files and directories whose owner could not be kept, for only root gives files away.
    pub owners_not_kept: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_bounded_and_all_are_counted() {
        let mut remarks = Remarks::default();
        for _ in 0..REMARKS_MAX + 5 {
            remarks.add(b"a", &Why::Changed);
        }
        remarks.add(b"fifo", &Why::Special("a fifo"));
        assert_eq!(remarks.list().len(), REMARKS_MAX);
        assert_eq!(remarks.count(), REMARKS_MAX as u64 + 6);
        assert_eq!(remarks.failure_count(), REMARKS_MAX as u64 + 5);
    }
}
