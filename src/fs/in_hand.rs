//! How much there is of what the file system has in hand just now.

use crate::fs::FileSystem;

/// Counts of one moment, each for itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InHand {
    /// Handles on files that may write.
    pub open_for_writing: u64,
    /// Handles on files that only read.
    pub open_for_reading: u64,
    /// Handles on directories.
    pub open_directories: u64,
    /// Recordings that are not sealed yet, open or not.
    pub unsealed: u64,
    /// Contents that wait to be hashed.
    pub to_hash: u64,
    /// Hashes that wait to be put into heads.
    pub hashed: u64,
}

impl FileSystem {
    /// See [`InHand`].
    pub fn in_hand(&self) -> InHand {
        let open = self.handles.open_counts();
        let (to_hash, hashed) = self.hashing.counts();
        InHand {
            open_for_writing: open.writing,
            open_for_reading: open.reading,
            open_directories: open.directories,
            unsealed: self.committer.waiting_count() as u64,
            to_hash: to_hash as u64,
            hashed: hashed as u64,
        }
    }
}
