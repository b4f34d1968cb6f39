//! The key ring file: which keys a store uses, with a check value of each and no key.
//!
//! ```text
//! # Keys of this TallyFS store. The keys themselves lie elsewhere.
//! key 1 active 9f1c... (64 hex digits)
//! ```
//! The check value is HKDF-SHA256(KEK, salt "tallyfs keyring v1", info "check" and the id,
//! little-endian), 32 bytes: it tells a wrong key at the mount, before any recording is opened.

use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;

use super::layout::replace_durably;

/// First line of the file, for who opens it.
const HEADER: &str = "# Keys of this TallyFS store. The keys themselves lie elsewhere.\n";

/// Number of a KEK; the head of each recording holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// A line that is none of ours, or not exactly one active key.
    #[error("{0}: cannot be understood; restore it from a backup of the store")]
    Damaged(PathBuf),
    /// The system refused.
    #[error("{path}: cannot {action} the key ring: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// What a store knows about its keys. For now each store has one, the active one.
#[derive(PartialEq, Eq, Debug)]
pub struct KeyRing {
    active: KeyId,
    check: String,
}

impl KeyRing {
    /// Writes the ring of a new store with `kek` as key 1, durably.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn begin(path: &Path, kek: &[u8; 32]) -> Result<Self, KeyRingError> {
        let active = KeyId(1);
        let ring = Self {
            active,
            check: check_value(active, kek),
        };
        replace_durably(path, ring.text().as_bytes()).map_err(|source| KeyRingError::Io {
            path: path.to_owned(),
            action: "write",
            source,
        })?;
        Ok(ring)
    }

    /// Reads the ring of an existing store.
    ///
    /// # Errors
    /// [`KeyRingError`].
    pub fn load(path: &Path) -> Result<Self, KeyRingError> {
        let text = fs::read_to_string(path).map_err(|source| KeyRingError::Io {
            path: path.to_owned(),
            action: "read",
            source,
        })?;
        Self::parse(&text).ok_or_else(|| KeyRingError::Damaged(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let line = lines.next().filter(|_| lines.next().is_none())?;
        let [word, id, state, check] = *line.split(' ').collect::<Vec<_>>() else {
            return None;
        };
        let is_check = check.len() == 64 && check.bytes().all(|b| b.is_ascii_hexdigit());
        (word == "key" && state == "active" && is_check).then_some(Self {
            active: KeyId(id.parse().ok()?),
            check: check.to_owned(),
        })
    }

    fn text(&self) -> String {
        format!("{HEADER}key {} active {}\n", self.active, self.check)
    }

    /// The key that new recordings are sealed with.
    pub fn active_id(&self) -> KeyId {
        self.active
    }

    /// Whether `kek` is the active key.
    pub fn is_active(&self, kek: &[u8; 32]) -> bool {
        check_value(self.active, kek) == self.check
    }
}

fn check_value(id: KeyId, kek: &[u8; 32]) -> String {
    let mut check = [0; 32];
    Hkdf::<Sha256>::new(Some(b"tallyfs keyring v1"), kek)
        .expand_multi_info(&[b"check", &id.0.to_le_bytes()], &mut check)
        .expect("32 bytes are a length that HKDF-SHA256 gives");
    check.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_knows_its_key_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        KeyRing::begin(&path, &[7; 32]).unwrap();
        let ring = KeyRing::load(&path).unwrap();
        assert_eq!(ring.active_id(), KeyId(1));
        assert!(ring.is_active(&[7; 32]));
        assert!(!ring.is_active(&[8; 32]));
    }

    #[test]
    fn the_check_value_is_frozen() {
        // HKDF-SHA256 as in the head of this file, worked out with an independent implementation.
        let expected = "230b2e032c323b5fb6ca8c86527901b6accb928bbb1de2a22e5f79c17c6235b5";
        assert_eq!(check_value(KeyId(1), &[7; 32]), expected);
    }

    #[test]
    fn a_damaged_ring_is_refused() {
        let good = KeyRing {
            active: KeyId(3),
            check: "ab".repeat(32),
        };
        let text = good.text();
        assert_eq!(KeyRing::parse(&text), Some(good));
        for bad in [
            String::new(),
            text.replace("active", "gone"),
            text.replace("ab", "xy"),
            format!("{text}key 4 active {}\n", "cd".repeat(32)),
            text.replace(" 3 ", " -3 "),
        ] {
            assert_eq!(KeyRing::parse(&bad), None, "{bad}");
        }
    }
}
