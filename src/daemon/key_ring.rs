//! The key ring file: begun with a new store, read at every start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::replace_durably;
use crate::sealed::SealedError;
use crate::sealed::keyring::KeyRing;
use crate::sealed::keys::Kek;

/// Why a ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The text is none of ours.
    #[error("{path}: {cause}; restore it from a backup of the store")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SealedError,
    },
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

/// Writes the ring of a new store with `kek` as key 1, durably.
///
/// # Errors
/// Those of writing it.
pub fn begin(path: &Path, kek: Kek, now_s: u64) -> Result<KeyRing, KeyRingError> {
    let ring = KeyRing::create(kek, new_salt(path)?, now_s);
    save(path, &ring)?;
    Ok(ring)
}

/// Random bytes for the check value of a key that the ring in `path` is to get.
///
/// # Errors
/// The system has none.
pub(super) fn new_salt(path: &Path) -> Result<[u8; 16], KeyRingError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| KeyRingError::Io {
        path: path.to_owned(),
        action: "get random bytes for",
        source: io::Error::other(e),
    })?;
    Ok(salt)
}

/// Writes a ring, whole or not at all, durably.
///
/// # Errors
/// Those of writing it.
pub fn save(path: &Path, ring: &KeyRing) -> Result<(), KeyRingError> {
    let failed = |source| KeyRingError::Io {
        path: path.to_owned(),
        action: "write",
        source,
    };
    let text = ring.to_text().map_err(|e| failed(io::Error::other(e)))?;
    replace_durably(path, text.as_bytes()).map_err(failed)
}

/// Reads the ring of an existing store; no key is in it yet.
///
/// # Errors
/// [`KeyRingError`].
pub fn load(path: &Path) -> Result<KeyRing, KeyRingError> {
    let text = fs::read_to_string(path).map_err(|source| KeyRingError::Io {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    KeyRing::parse(&text).map_err(|cause| KeyRingError::Damaged {
        path: path.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_on_disk_knows_its_key_again_and_refuses_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        begin(&path, Kek::take(&mut [7; 32]), 1_700_000_000).unwrap();
        let ring = load(&path).unwrap();
        assert!(ring.admit(Kek::take(&mut [8; 32])).is_err());
        assert_eq!(ring.admit(Kek::take(&mut [7; 32])), Ok(1));
    }

    #[test]
    fn a_damaged_ring_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        fs::write(&path, "key 1 active").unwrap();
        let said = load(&path).err().unwrap().to_string();
        assert!(said.contains("keyring") && said.contains("restore"), "{said}");
    }
}
