//! What is known of sealed files, on its way to the database and back: notes of files that were sealed,
//! changed, moved or removed, and the check of a head against what was known.
//!
//! A note of a sealed file is taken only when both its heads and its size are durable, so the database is
//! never ahead of the disk. It may be behind: a head that is newer than its row is no finding.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::FileSystem;
use crate::fs::node::{FileState, Node};
use crate::id::Ino;
use crate::sealed::row_mac::SealedFields;
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::{HeadFacts, SealedFile};

/// Notes that may wait for a database that cannot be written; with more the baseline is given up.
const WAITING_MAX: usize = 500_000;

/// Who remembers what was known of sealed files. Asked when a file is opened that is not in memory.
pub trait KnownHeads: Send + Sync {
    /// What is known of an inode; `None` also when it cannot be told now.
    fn known(&self, ino: Ino) -> Option<SealedFields>;
}

/// Where an inode lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Inode of the directory.
    pub parent: Ino,
    /// Name in it.
    pub name: Vec<u8>,
}

/// What changed about one inode.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Note {
    /// Its new place.
    pub place: Option<Place>,
    /// What its content is.
    pub content: Option<ContentNote>,
}

/// What became of the content of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContentNote {
    /// Sealed and durable.
    Sealed(SealedFields),
    /// Being changed, or empty.
    Unsealed,
    /// The inode is gone.
    Gone,
}

/// Notes that are not in the database yet.
#[derive(Default)]
pub struct Notes {
    not_saved: Mutex<NotSaved>,
}

#[derive(Default)]
struct NotSaved {
    waiting: Waiting,
    /// Taken, and its fate not known yet.
    saving: Arc<Waiting>,
}

/// Notes by inode number.
#[derive(Default)]
pub struct Waiting {
    /// The newest of each.
    pub notes: HashMap<Ino, Note>,
    /// Directories whose files are noted, all that an earlier daemon did not save.
    pub taken_up: Vec<Ino>,
    /// There were too many: all that was known is void.
    pub overflowed: bool,
}

impl Notes {
    /// A name for an inode.
    pub fn placed(&self, ino: Ino, parent: Ino, name: &[u8]) {
        let name = name.to_vec();
        self.add(ino, |note| note.place = Some(Place { parent, name }));
    }

    /// What became of its content.
    pub fn content(&self, ino: Ino, content: ContentNote) {
        self.add(ino, |note| {
            if content == ContentNote::Gone {
                note.place = None;
            }
            note.content = Some(content);
        });
    }

    /// What an earlier daemon had not saved of the files in a directory is noted.
    pub fn taken_up(&self, directory: Ino) {
        self.not_saved.lock().waiting.taken_up.push(directory);
    }

    fn add(&self, ino: Ino, change: impl FnOnce(&mut Note)) {
        let waiting = &mut self.not_saved.lock().waiting;
        if waiting.notes.len() >= WAITING_MAX && !waiting.notes.contains_key(&ino) {
            waiting.notes.clear();
            waiting.overflowed = true;
        }
        change(waiting.notes.entry(ino).or_default());
    }

    fn of(&self, ino: Ino) -> Option<ContentNote> {
        let not_saved = self.not_saved.lock();
        let content = |notes: &Waiting| notes.notes.get(&ino).and_then(|note| note.content.clone());
        content(&not_saved.waiting).or_else(|| content(&not_saved.saving))
    }

    /// Whether there are any.
    pub fn is_waiting(&self) -> bool {
        let waiting = &self.not_saved.lock().waiting;
        waiting.overflowed || !waiting.notes.is_empty() || !waiting.taken_up.is_empty()
    }

    /// All of them, to be saved; they count until [`Notes::saved`] or [`Notes::not_saved`] is called.
    pub fn take(&self) -> Arc<Waiting> {
        let mut not_saved = self.not_saved.lock();
        not_saved.saving = Arc::new(std::mem::take(&mut not_saved.waiting));
        not_saved.saving.clone()
    }

    /// Those that were taken are in the database.
    pub fn saved(&self) {
        self.not_saved.lock().saving = Arc::default();
    }

    /// Those that were taken wait again; newer ones of the same inode count more.
    pub fn not_saved(&self) {
        let not_saved = &mut *self.not_saved.lock();
        let (waiting, old) = (&mut not_saved.waiting, std::mem::take(&mut not_saved.saving));
        waiting.overflowed |= old.overflowed;
        waiting.taken_up.extend(&old.taken_up);
        for (&ino, old) in &old.notes {
            let note = waiting.notes.entry(ino).or_default();
            let is_gone = note.content == Some(ContentNote::Gone);
            note.content = note.content.take().or_else(|| old.content.clone());
            note.place = note.place.take().or_else(|| old.place.clone().filter(|_| !is_gone));
        }
    }
}

impl FileSystem {
    /// Notes for the database.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Notes what a durable sealed file is now, and has its content hashed if that was not done.
    pub(super) fn note_sealed(&self, node: &Arc<Node>, state: &FileState) {
        let Some(sealed) = state.sealed.as_ref().filter(|_| !node.is_unlinked()) else {
            return;
        };
        match fields_of(node.ino, sealed) {
            Some(fields) => {
                self.notes.content(node.ino, ContentNote::Sealed(fields));
                if fields.content_sha256 == [0; 32] {
                    self.hashing.want(self.nodes.pin(node));
                }
            }
            None => self.notes.content(node.ino, ContentNote::Unsealed),
        }
    }

    /// A head that is older than what was known is an old copy put back.
    ///
    /// # Errors
    /// [`StoreError::OldCopy`].
    pub(super) fn refuse_old_copy(&self, node: &Node, sealed: &SealedFile<std::fs::File>) -> Result<(), StoreError> {
        let Some(facts) = sealed.head_facts() else {
            return Ok(());
        };
        let known = match self.notes.of(node.ino) {
            Some(ContentNote::Sealed(fields)) => Some(fields),
            Some(ContentNote::Unsealed | ContentNote::Gone) => None,
            None => self.known_heads.known(node.ino),
        };
        match known {
            Some(known) if is_older(&facts, &known) => Err(StoreError::OldCopy {
                found: facts.generation.0,
                known: known.generation,
            }),
            _ => Ok(()),
        }
    }
}

/// Whether a head is older than what was known of its inode: by its generation, or, where the file got
/// new keys when it was cut to zero, by the time of its sealing.
fn is_older(facts: &HeadFacts, known: &SealedFields) -> bool {
    if facts.file_id == known.file_id {
        facts.generation.0 < known.generation
    } else {
        facts.is_sealed && facts.sealed_at_s < known.sealed_at_s
    }
}

/// What is to be known of a sealed file; `None` of an empty or unsealed one.
fn fields_of(ino: Ino, sealed: &SealedFile<std::fs::File>) -> Option<SealedFields> {
    let facts = sealed.head_facts().filter(|facts| facts.is_sealed)?;
    Some(SealedFields {
        ino: ino.0,
        file_id: facts.file_id,
        generation: facts.generation.0,
        content_sha256: facts.content_sha256,
        sealed_size: sealed.backing().size().ok()?,
        sealed_at_s: facts.sealed_at_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_come_back_do_not_go_over_newer_ones() {
        let notes = Notes::default();
        notes.placed(Ino(1), Ino(9), b"old");
        notes.content(Ino(1), ContentNote::Unsealed);
        notes.placed(Ino(2), Ino(9), b"b");
        notes.take();
        assert_eq!(notes.of(Ino(1)), Some(ContentNote::Unsealed), "on its way is not saved");
        notes.placed(Ino(1), Ino(9), b"new");
        notes.content(Ino(2), ContentNote::Gone);
        assert_eq!(notes.of(Ino(2)), Some(ContentNote::Gone));
        notes.taken_up(Ino(9));
        notes.not_saved();
        let now = notes.take();
        assert_eq!(now.taken_up, [Ino(9)]);
        let now = &now.notes;
        assert_eq!(now[&Ino(1)].place.as_ref().unwrap().name, b"new");
        assert_eq!(now[&Ino(1)].content, Some(ContentNote::Unsealed));
        assert_eq!(
            (&now[&Ino(2)].place, &now[&Ino(2)].content),
            (&None, &Some(ContentNote::Gone))
        );
        notes.saved();
        assert_eq!(notes.of(Ino(2)), None);
        assert!(!notes.is_waiting());
    }

    #[test]
    fn a_head_is_old_by_generation_or_by_time() {
        let facts = |id, generation, sealed_at_s| HeadFacts {
            file_id: [id; 16],
            generation: crate::sealed::head::Generation(generation),
            is_sealed: true,
            content_sha256: [0; 32],
            sealed_at_s,
        };
        let known = SealedFields {
            ino: 1,
            file_id: [1; 16],
            generation: 10,
            content_sha256: [0; 32],
            sealed_size: 1,
            sealed_at_s: 100,
        };
        assert!(!is_older(&facts(1, 10, 50), &known) && !is_older(&facts(1, 11, 50), &known));
        assert!(is_older(&facts(1, 9, 200), &known));
        assert!(is_older(&facts(2, 90, 99), &known), "an older file in its place");
        assert!(!is_older(&facts(2, 1, 100), &known), "new keys after a cut to zero");
    }
}
