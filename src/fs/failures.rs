//! What should not happen, counted where it is noticed: recordings that are not what was sealed, and syncs that the disk
//! failed. Whoever watches the metrics learns of it before somebody misses a recording.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::FileSystem;
use crate::fs::errno::Errno;
use crate::fs::node::{FileState, Node};
use crate::sealed::SealedError;
use crate::store::error::StoreError;
use crate::store::sealed_file::SealedFile;

/// What is wrong with a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A tag or a wrapped key does not verify.
    Authentication,
    /// It verifies and makes no sense, or is no sealed page at all.
    Structure,
    /// Its size is none that the head tells.
    Size,
    /// An old copy was put back.
    OldCopy,
    /// A failed sync lost a page.
    Lost,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Authentication,
        Self::Structure,
        Self::Size,
        Self::OldCopy,
        Self::Lost,
    ];

    /// Its name for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Structure => "structure",
            Self::Size => "size",
            Self::OldCopy => "old_copy",
            Self::Lost => "lost",
        }
    }

    /// `None`: not the bytes are wrong, they are out of reach.
    fn of(e: &StoreError) -> Option<Self> {
        match e {
            StoreError::Sealed { cause, .. } => Some(match cause {
                SealedError::TagFails | SealedError::WrapFails(_) | SealedError::CommitmentFails => {
                    Self::Authentication
                }
                // Good bytes that are out of reach.
                SealedError::KeyMissing(_) | SealedError::KeyDestroyed(_) => return None,
                _ => Self::Structure,
            }),
            StoreError::SizeDisagrees { .. } => Some(Self::Size),
            StoreError::OldCopy { .. } => Some(Self::OldCopy),
            StoreError::Lost(_) => Some(Self::Lost),
            StoreError::Io(_) | StoreError::SyncFailed | StoreError::TooLong => None,
        }
    }
}

/// Counts since the start.
#[derive(Default)]
pub struct Failures {
    damage: [AtomicU64; Damage::ALL.len()],
    failed_syncs: AtomicU64,
}

impl Failures {
    /// How often each kind of damage was met with; the same page counts each time.
    pub fn damage(&self) -> [(Damage, u64); Damage::ALL.len()] {
        Damage::ALL.map(|kind| (kind, self.damage[kind as usize].load(Ordering::Relaxed)))
    }

    /// Syncs that failed; one of many files counts for each.
    pub fn failed_syncs(&self) -> u64 {
        self.failed_syncs.load(Ordering::Relaxed)
    }

    /// Counts an error, if it is damage.
    pub(super) fn count(&self, e: &StoreError) {
        if let Some(kind) = Damage::of(e) {
            self.count_damage(kind);
        }
    }

    fn count_damage(&self, kind: Damage) {
        self.damage[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts syncs that failed.
    pub(super) fn count_failed_syncs(&self, count: u64) {
        if count > 0 {
            self.failed_syncs.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl FileSystem {
    /// What went wrong since the start.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// The answer to a request that the sealed file refused; damage and failed syncs are noted.
    pub(super) fn failed(&self, node: &Node, state: &mut FileState, e: StoreError) -> Errno {
        self.take_failed_syncs(state);
        if e.is_damage() {
            self.note_damage(node, state, &e);
        }
        e.into()
    }

    /// Counts damage, and logs the first of a file.
    pub(super) fn note_damage(&self, node: &Node, state: &mut FileState, e: &StoreError) {
        self.failures.count(e);
        match state.sealed.as_deref().and_then(SealedFile::file_id) {
            Some(id) => log_damage(node, state, &format!("file id {:032x}: {e}", u128::from_be_bytes(id))),
            None => log_damage(node, state, &e.to_string()),
        }
    }

    /// The same for a size that no sealed file has.
    pub(super) fn note_impossible_size(&self, node: &Node, state: &mut FileState) {
        self.failures.count_damage(Damage::Size);
        log_damage(node, state, "its size on disk is none that a sealed file has");
    }

    /// Counts the syncs of a file that failed since the last look at it.
    pub(super) fn take_failed_syncs(&self, state: &mut FileState) {
        let failed = state.sealed.as_mut().map_or(0, |sealed| sealed.take_failed_syncs());
        self.failures.count_failed_syncs(failed);
    }
}

/// One line for a damaged file, however often it is read.
fn log_damage(node: &Node, state: &mut FileState, what: &str) {
    if !std::mem::replace(&mut state.damage_logged, true) {
        let path = node.file.home.read().path();
        log::error!(
            "damaged recording: inode {} in {:?}: {what}",
            node.ino,
            String::from_utf8_lossy(&path)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::error::PageName;

    #[test]
    fn damage_has_a_kind_and_a_disk_that_says_no_is_none() {
        let sealed = |cause| {
            Damage::of(&StoreError::Sealed {
                place: PageName::Block(3),
                cause,
            })
        };
        assert_eq!(sealed(SealedError::TagFails), Some(Damage::Authentication));
        assert_eq!(sealed(SealedError::WrapFails(1)), Some(Damage::Authentication));
        assert_eq!(sealed(SealedError::Impossible("x")), Some(Damage::Structure));
        let old = StoreError::OldCopy { found: 1, known: 2 };
        for (e, kind) in [
            (StoreError::Lost(PageName::Head), Some(Damage::Lost)),
            (old, Some(Damage::OldCopy)),
            (StoreError::SyncFailed, None),
            (std::io::Error::from_raw_os_error(libc::EIO).into(), None),
        ] {
            assert_eq!(Damage::of(&e), kind);
            assert_eq!(e.is_damage(), kind.is_some());
        }
    }

    #[test]
    fn each_kind_is_counted_by_itself() {
        let failures = Failures::default();
        failures.count_damage(Damage::Size);
        failures.count_damage(Damage::Size);
        failures.count_failed_syncs(3);
        let told = failures.damage().map(|(kind, count)| (kind.name(), count));
        assert_eq!(told.iter().find(|(name, _)| *name == "size"), Some(&("size", 2)));
        assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!(failures.failed_syncs(), 3);
    }
}
