//! The key ring: which KEKs a store knows, by id, with a check value each; it never holds a key.
//!
//! Text (TOML), so that an operator can read it. A key that matches no check value is refused before
//! a single recording is touched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SealedError;
use super::keys::Kek;
use crate::units::hex;

const RING_VERSION: u32 = 1;

/// What may be done with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// New recordings are sealed under it.
    Active,
    /// Old recordings open with it; new ones do not use it.
    Retired,
    /// Gone for good, and with it every recording under it.
    Destroyed,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: u32,
    state: KeyState,
    created_s: u64,
    salt: String,
    check: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RingText {
    version: u32,
    current: u32,
    keys: Vec<Entry>,
}

/// The ring with the keys that were given.
pub struct KeyRing {
    current: u32,
    entries: Vec<Entry>,
    keys: BTreeMap<u32, Kek>,
}

impl KeyRing {
    /// A ring with one active key, id 1. `salt` is random.
    pub fn create(kek: Kek, salt: [u8; 16], now_s: u64) -> Self {
        let entry = Entry {
            id: 1,
            state: KeyState::Active,
            created_s: now_s,
            salt: hex(&salt),
            check: hex(&kek.check_value(&salt)),
        };
        Self {
            current: 1,
            entries: vec![entry],
            keys: BTreeMap::from([(1, kek)]),
        }
    }

    /// Reads a ring; no key is in it yet.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, SealedError> {
        let ring: RingText = toml::from_str(text).map_err(|e| SealedError::KeyRing(e.message().to_owned()))?;
        if ring.version != RING_VERSION {
            return Err(SealedError::KeyRing(format!(
                "version {} is not known; use a newer tallyfs",
                ring.version
            )));
        }
        if !ring.keys.iter().any(|entry| entry.id == ring.current) {
            return Err(SealedError::KeyRing(format!(
                "the current key {} is not in it",
                ring.current
            )));
        }
        Ok(Self {
            current: ring.current,
            entries: ring.keys,
            keys: BTreeMap::new(),
        })
    }

    /// The ring as text.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] when it cannot be written as TOML.
    pub fn to_text(&self) -> Result<String, SealedError> {
        let ring = RingText {
            version: RING_VERSION,
            current: self.current,
            keys: self.entries.clone(),
        };
        let body = toml::to_string(&ring).map_err(|e| SealedError::KeyRing(e.to_string()))?;
        Ok(format!(
            "# Which keys this store knows. No key is in here; losing this file or a key loses recordings.\n{body}"
        ))
    }

    /// Gives the ring a key; returns its id.
    ///
    /// # Errors
    /// [`SealedError::KeyMissing`] with the current id when the key is none of the ring's.
    pub fn admit(&mut self, kek: Kek) -> Result<u32, SealedError> {
        let known = self
            .entries
            .iter()
            .find(|entry| unhex(&entry.salt).is_some_and(|salt| hex(&kek.check_value(&salt)) == entry.check));
        let id = known
            .map(|entry| entry.id)
            .ok_or(SealedError::KeyMissing(self.current))?;
        self.keys.insert(id, kek);
        Ok(id)
    }

    /// Id of the key that new recordings are sealed under.
    pub fn current_id(&self) -> u32 {
        self.current
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`SealedError::KeyMissing`] when it was not given or is not known.
    pub fn kek(&self, id: u32) -> Result<&Kek, SealedError> {
        self.keys.get(&id).ok_or(SealedError::KeyMissing(id))
    }

    /// Ids and states, for `status`.
    pub fn list(&self) -> Vec<(u32, KeyState)> {
        self.entries.iter().map(|entry| (entry.id, entry.state)).collect()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> KeyRing {
        KeyRing::create(Kek::take(&mut [9; 32]), [4; 16], 1_700_000_000)
    }

    #[test]
    fn a_ring_knows_its_key_again_and_refuses_another() {
        let mut read = KeyRing::parse(&ring().to_text().expect("writes")).expect("reads");
        assert!(read.kek(1).is_err(), "no key is stored in the ring");
        assert_eq!(read.admit(Kek::take(&mut [8; 32])), Err(SealedError::KeyMissing(1)));
        assert_eq!(read.admit(Kek::take(&mut [9; 32])), Ok(1));
        assert!(read.kek(read.current_id()).is_ok());
    }

    #[test]
    fn the_text_holds_no_key() {
        let text = ring().to_text().expect("writes");
        assert!(!text.contains(&hex(&[9; 32])) && !text.contains(&hex(&[9; 16])));
    }

    #[test]
    fn damaged_rings_say_what_is_wrong() {
        for text in [
            "",
            "version = 2\ncurrent = 1\nkeys = []",
            "version = 1\ncurrent = 3\nkeys = []",
            "version = 1\nwhat = 2",
        ] {
            assert!(matches!(KeyRing::parse(text), Err(SealedError::KeyRing(_))), "{text}");
        }
    }
}
