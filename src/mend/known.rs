//! What the database knew of sealed files, asked by those who look for damage. Rows count only with the
//! code that the store's key gives them.

use std::cell::RefCell;
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
    trouble: RefCell<Option<String>>,
}

impl Known {
    /// Of the store at `root`. Without a database nothing is known.
    pub fn open(root: &Path, ring: &Arc<KeyRing>) -> Self {
        let opened = db::open_read_only(&root.join("tallyfs.db"))
            // Written before rows of sealed files were kept.
            .and_then(|reader| reader.sealed(Ino(0)).map(|_| reader));
        let (reader, trouble) = match opened {
            Ok(reader) => (Some(reader), None),
            Err(e) => (None, Some(e.to_string())),
        };
        Self {
            reader,
            ring: ring.clone(),
            trouble: RefCell::new(trouble),
        }
    }

    /// Why not everything could be compared with the rows, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// `None` when there is no answer, which is kept as trouble.
    fn ask<T>(&self, question: impl FnOnce(&Reader) -> Result<T, db::Error>) -> Option<T> {
        question(self.reader.as_ref()?)
            .inspect_err(|e| *self.trouble.borrow_mut() = Some(e.to_string()))
            .ok()
    }

    /// What is known of an inode.
    fn row(&self, ino: u64) -> Result<Option<SealedFields>, (Kind, String)> {
        let Some(row) = self.ask(|reader| reader.sealed(Ino(ino))).flatten() else {
            return Ok(None);
        };
        trusted(&self.ring, &row).map(Some).ok_or_else(foreign_row)
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
        let inos = self.ask(|reader| reader.with_file_id(file_id))?;
        inos.into_iter().map(|found| found.0).find(|&found| found != ino)
    }

    /// What is wrong with the place of an inode: it lies where another one was left. A file that merely
    /// lies elsewhere than its row says is none, for a name may reach the disk before or after its row.
    pub fn check_place(&self, ino: u64, found: &Place<'_>) -> Option<(Kind, String)> {
        let left = self.ask(|reader| reader.place(Ino(ino)))??;
        if !self.is_ours(&left) {
            return Some(foreign_row());
        }
        if left.parent.0 == found.parent && left.name == found.name {
            return None;
        }
        let others = self.ask(|reader| reader.at_place(Ino(found.parent), found.name))?;
        let other = others.iter().find(|other| {
            other.ino.0 != ino
                && self.is_ours(other)
                // It is known still: a file that was replaced is not.
                && self.ask(|reader| reader.sealed(other.ino)).flatten().is_some()
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

/// What a row says; `None` when this store's key did not write it.
pub fn trusted(ring: &KeyRing, row: &SealedRow) -> Option<SealedFields> {
    let fields = fields(row);
    let key = RowKey::of(ring, row.key_id).ok()?;
    (key.sealed(&fields) == row.mac).then_some(fields)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Database;
    use crate::sealed::head::Generation;
    use crate::sealed::keys::Kek;

    fn ring() -> Arc<KeyRing> {
        Arc::new(KeyRing::create(Kek::take(&mut [7; 32]), [1; 16], 0))
    }

    fn sealed(ino: u64, file_id: u8) -> SealedRow {
        let key = RowKey::current(&ring()).unwrap();
        let row = SealedRow {
            ino: Ino(ino),
            file_id: [file_id; 16],
            generation: 10,
            content_sha256: [3; 32],
            sealed_size: 50_000,
            sealed_at_s: 100,
            key_id: key.key_id(),
            mac: [0; 32],
        };
        let mac = key.sealed(&fields(&row));
        SealedRow { mac, ..row }
    }

    fn place(ino: u64, parent: u64, name: &[u8]) -> PlaceRow {
        let key = RowKey::current(&ring()).unwrap();
        PlaceRow {
            ino: Ino(ino),
            parent: Ino(parent),
            name: name.to_vec(),
            key_id: key.key_id(),
            mac: key.place(ino, parent, name),
        }
    }

    fn known(sealed: &[SealedRow], places: &[PlaceRow]) -> (tempfile::TempDir, Known) {
        let dir = tempfile::tempdir().unwrap();
        let (mut database, _) = Database::open(&dir.path().join("tallyfs.db"), 0).unwrap();
        database.put_baseline(sealed, places).unwrap();
        let known = Known::open(dir.path(), &ring());
        (dir, known)
    }

    fn kind<T>(answer: Result<T, (Kind, String)>) -> Option<Kind> {
        answer.err().map(|(kind, _)| kind)
    }

    #[test]
    fn a_head_is_held_against_its_row() {
        let forged = SealedRow {
            generation: 9,
            ..sealed(2, 2)
        };
        let (_dir, known) = known(&[sealed(1, 1), forged], &[]);
        let head = |file_id, generation, content, sealed_at_s| HeadFacts {
            file_id: [file_id; 16],
            generation: Generation(generation),
            is_sealed: true,
            content_sha256: [content; 32],
            sealed_at_s,
        };
        let told = |head| kind(known.check_head(1, &head));
        assert_eq!(known.check_head(1, &head(1, 10, 3, 100)), Ok(true));
        assert_eq!(known.check_head(3, &head(1, 10, 3, 100)), Ok(false), "no row");
        assert_eq!(told(head(1, 9, 3, 100)), Some(Kind::OldCopy));
        assert_eq!(told(head(1, 10, 4, 100)), Some(Kind::Content));
        assert_eq!(told(head(1, 10, 0, 100)), None, "not hashed when it was written");
        assert_eq!(told(head(1, 11, 4, 101)), None, "changed since");
        assert_eq!(
            told(head(5, 99, 4, 99)),
            Some(Kind::OldCopy),
            "sealed before, as another file"
        );
        assert_eq!(told(head(5, 1, 4, 100)), None, "new keys after a cut to zero");
        assert_eq!(kind(known.check_head(2, &head(2, 10, 3, 100))), Some(Kind::Row));
        assert_eq!(known.check_empty(1).map(|(kind, _)| kind), Some(Kind::Size));
        assert_eq!(known.check_empty(2).map(|(kind, _)| kind), Some(Kind::Row));
        assert_eq!(known.check_empty(3), None);
        assert!(known.has_id(1, &[1; 16]) && !known.has_id(1, &[2; 16]) && !known.has_id(2, &[2; 16]));
    }

    #[test]
    fn a_place_is_taken_only_by_a_file_that_is_known_still() {
        let forged = PlaceRow {
            name: b"e".to_vec(),
            ..place(5, 9, b"x")
        };
        let rows = [
            place(1, 9, b"a"),
            place(2, 9, b"b"),
            place(3, 9, b"c"),
            place(4, 9, b"d"),
            forged,
        ];
        // 3 was replaced or is being written.
        let (_dir, known) = known(&[sealed(1, 1), sealed(2, 2), sealed(4, 4), sealed(5, 5)], &rows);
        let told = |ino, name: &[u8]| known.check_place(ino, &Place { parent: 9, name }).map(|(kind, _)| kind);
        assert_eq!(told(1, b"a"), None);
        assert_eq!(told(1, b"b"), Some(Kind::Swapped));
        assert_eq!(told(1, b"c"), None, "over a file that is known no more");
        assert_eq!(told(1, b"f"), None, "merely moved");
        assert_eq!(told(1, b"e"), None, "who lies there is told by a forged row");
        assert_eq!(told(5, b"x"), Some(Kind::Row));
        assert_eq!(told(6, b"a"), None, "no row");
    }
}
