//! What the sealed recordings of the mount and of each tenant take in the store, beside what they say.
//!
//! The ledger does not count it: nothing is limited by it. The daemon looks it up in the database now and then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::id::Ino;

/// The figures of the last look.
pub struct Physical {
    /// Files were sealed or deleted since.
    is_outdated: AtomicBool,
    found: Mutex<HashMap<Ino, Found>>,
}

struct Found {
    bytes: u64,
    /// The day has it.
    is_saved: bool,
}

impl Default for Physical {
    fn default() -> Self {
        Self {
            is_outdated: AtomicBool::new(true),
            found: Mutex::default(),
        }
    }
}

impl Physical {
    /// Backing bytes of the sealed files below an account; `None` before the first look.
    pub fn of(&self, account: Ino) -> Option<u64> {
        self.found.lock().get(&account).map(|found| found.bytes)
    }

    /// Rows of files were saved that the last look does not know.
    pub fn outdate(&self) {
        self.is_outdated.store(true, Ordering::Relaxed);
    }

    /// Whether somebody should look; they are taken to do so.
    pub fn take_outdated(&self) -> bool {
        self.is_outdated.swap(false, Ordering::Relaxed)
    }

    /// What was found, in place of what was known.
    pub fn put(&self, sizes: impl IntoIterator<Item = (Ino, u64)>) {
        let mut found = self.found.lock();
        let before = std::mem::take(&mut *found);
        found.extend(sizes.into_iter().map(|(ino, bytes)| {
            let is_saved = before.get(&ino).is_some_and(|old| old.bytes == bytes && old.is_saved);
            (ino, Found { bytes, is_saved })
        }));
    }

    /// Something is not in the rows of the day.
    pub fn is_changed(&self) -> bool {
        self.found.lock().values().any(|found| !found.is_saved)
    }

    /// The figure of this account is not in the row of the day.
    pub fn is_unsaved(&self, account: Ino) -> bool {
        self.found.lock().get(&account).is_some_and(|found| !found.is_saved)
    }

    /// For the row of the day.
    pub fn take(&self, account: Ino) -> Option<u64> {
        let mut found = self.found.lock();
        let found = found.get_mut(&account)?;
        found.is_saved = true;
        Some(found.bytes)
    }

    /// All who are there have taken theirs: what is left is of accounts that are gone.
    pub fn settle(&self) {
        for found in self.found.lock().values_mut() {
            found.is_saved = true;
        }
    }

    /// What was taken could not be saved.
    pub fn not_saved(&self) {
        for found in self.found.lock().values_mut() {
            found.is_saved = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_saved_once_and_again_when_it_changes_or_was_not_saved() {
        let physical = Physical::default();
        assert!(physical.take_outdated() && !physical.take_outdated());
        assert_eq!(physical.of(Ino(2)), None);
        physical.put([(Ino(1), 50), (Ino(2), 20)]);
        assert!(physical.is_changed() && physical.is_unsaved(Ino(2)));
        assert_eq!((physical.take(Ino(1)), physical.take(Ino(2))), (Some(50), Some(20)));
        assert!(!physical.is_changed());
        physical.put([(Ino(1), 60), (Ino(2), 20)]);
        assert!(physical.is_unsaved(Ino(1)) && !physical.is_unsaved(Ino(2)));
        physical.take(Ino(1));
        physical.not_saved();
        assert!(physical.is_unsaved(Ino(1)));
        // A tenant that is gone.
        physical.put([(Ino(1), 60)]);
        assert_eq!(physical.of(Ino(2)), None);
    }
}
