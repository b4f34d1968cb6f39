//! What the database knew of sealed files, asked by those who look for damage. Rows count only with the
//! code that the store's key gives them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::finding::Kind;
use crate::clock::Clock;
use crate::db::{self, PlaceRow, Reader, SealedRow};
use crate::id::Ino;
use crate::sealed::keyring::KeyRing;
use crate::sealed::row_mac::{RowKey, SealedFields};
use crate::store::dirty_log::newest_marked_epoch;
use crate::store::sealed_file::HeadFacts;

/// How long a daemon may take to save.
const SAVING_MAX: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_PACE: Duration = Duration::from_millis(20);

/// Where an inode was found.
pub struct Place<'a> {
    /// Inode of its directory.
    pub parent: u64,
    /// Its name there.
    pub name: &'a [u8],
}

/// The rows, as far as there are any.
pub struct Known {
    reader: Option<Reader>,
    ring: Arc<KeyRing>,
}

impl Known {
    /// Of the store at `root`. Without a database nothing is known.
    pub fn open(root: &Path, ring: &Arc<KeyRing>) -> Self {
        let reader = db::open_read_only(&root.join("tallyfs.db"))
            // Written before rows of sealed files were kept.
            .and_then(|reader| reader.sealed(Ino(0)).map(|_| reader))
            .inspect_err(|e| log::debug!("{e}"))
            .ok();
        Self {
            reader,
            ring: ring.clone(),
        }
    }

    /// What is known of an inode.
    fn row(&self, ino: u64) -> Result<Option<SealedFields>, (Kind, String)> {
        let reader = self.reader.as_ref();
        let Some(row) = reader.and_then(|reader| reader.sealed(Ino(ino)).ok().flatten()) else {
            return Ok(None);
        };
        let known = fields(&row);
        let is_ours = RowKey::of(&self.ring, row.key_id).is_ok_and(|key| key.sealed(&known) == row.mac);
        if is_ours { Ok(Some(known)) } else { Err(foreign_row()) }
    }

    /// What is wrong with a file that holds nothing: it was known with content. (A file that is cut to
    /// zero through the mount is forgotten.)
    pub fn check_empty(&self, ino: u64) -> Option<(Kind, String)> {
        match self.row(ino) {
            Ok(None) => None,
            Ok(Some(known)) => Some((
                Kind::Size,
                format!("is empty, and was known with a size of {} on disk", known.sealed_size),
            )),
            Err(problem) => Some(problem),
        }
    }

    /// Whether this file id is known to be the one of this inode.
    pub fn has_id(&self, ino: u64, file_id: &[u8; 16]) -> bool {
        self.row(ino)
            .is_ok_and(|known| known.is_some_and(|known| known.file_id == *file_id))
    }

    /// Whether the head is one that may be there: true when a row says so, false when there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_head(&self, ino: u64, facts: &HeadFacts) -> Result<bool, (Kind, String)> {
        let Some(known) = self.row(ino)? else {
            return Ok(false);
        };
        let same_id = facts.file_id == known.file_id;
        let old = if same_id {
            facts.generation.0 < known.generation
        } else {
            facts.is_sealed && facts.sealed_at_s < known.sealed_at_s
        };
        if old {
            let detail = format!(
                "its head has generation {:#x}, older than {:#x} which was known: an old copy was put back",
                facts.generation.0, known.generation
            );
            return Err((Kind::OldCopy, detail));
        }
        let told = [facts.content_sha256, known.content_sha256];
        if same_id && facts.generation.0 == known.generation && told[0] != told[1] && !told.contains(&[0; 32]) {
            return Err((
                Kind::Content,
                "its head tells another content than the database".to_owned(),
            ));
        }
        Ok(true)
    }

    /// Another inode that had this file id and is known still.
    pub fn other_with_id(&self, file_id: &[u8; 16], ino: u64) -> Option<u64> {
        let inos = self.reader.as_ref()?.with_file_id(file_id).ok()?;
        inos.into_iter().map(|found| found.0).find(|&found| found != ino)
    }

    /// What is wrong with the place of an inode: it lies where another one was left. A file that merely
    /// lies elsewhere than its row says is none, for a name may reach the disk before or after its row.
    pub fn check_place(&self, ino: u64, found: &Place<'_>) -> Option<(Kind, String)> {
        let reader = self.reader.as_ref()?;
        let left = reader.place(Ino(ino)).ok()??;
        if !self.is_ours(&left) {
            return Some(foreign_row());
        }
        if left.parent.0 == found.parent && left.name == found.name {
            return None;
        }
        let others = reader.at_place(Ino(found.parent), found.name).ok()?;
        let other = others.iter().find(|other| {
            other.ino.0 != ino
                && self.is_ours(other)
                // It is known still: a file that was replaced is not.
                && reader.sealed(other.ino).is_ok_and(|row| row.is_some())
        })?;
        let detail = format!(
            "is the file that was left as {:?}; here inode {} was left: names were swapped",
            String::from_utf8_lossy(&left.name),
            other.ino
        );
        Some((Kind::Swapped, detail))
    }

    fn is_ours(&self, row: &PlaceRow) -> bool {
        RowKey::of(&self.ring, row.key_id).is_ok_and(|key| key.place(row.ino.0, row.parent.0, &row.name) == row.mac)
    }

    /// When the baseline was lost, if it was.
    pub fn lost_since_s(&self) -> Option<u64> {
        self.reader.as_ref()?.last_run().ok()?.baseline_lost_s
    }

    /// Waits until a daemon has saved what it knows now.
    pub fn wait_until_saved(&self, root: &Path, clock: &dyn Clock) {
        let (Some(reader), Ok(Some(epoch))) = (self.reader.as_ref(), newest_marked_epoch(root)) else {
            return;
        };
        let begun = clock.monotonic();
        while reader.last_run().is_ok_and(|last| last.log_epoch < epoch) && clock.monotonic() < begun + SAVING_MAX {
            std::thread::park_timeout(LOOK_PACE);
        }
    }
}

fn foreign_row() -> (Kind, String) {
    let detail = "its row in the database was not written by this program";
    (Kind::Row, detail.to_owned())
}

fn fields(row: &SealedRow) -> SealedFields {
    SealedFields {
        ino: row.ino.0,
        file_id: row.file_id,
        generation: row.generation,
        content_sha256: row.content_sha256,
        sealed_size: row.sealed_size,
        sealed_at_s: row.sealed_at_s,
    }
}
