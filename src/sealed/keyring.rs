//! The key ring: which KEKs a store knows, by id, with a check value each; it never holds a key.
//!
//! Text (TOML), so that an operator can read it. A key that matches no check value is refused before
//! a single recording is touched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SealedError;
use super::keys::Kek;
use crate::units::hex;

/// What every program reads; written as long as no key was destroyed.
const RING_VERSION: u32 = 1;
/// Entries tell when a key was destroyed: a program that does not know that must not use the ring.
const RING_VERSION_DESTROYED: u32 = 2;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destroyed_s: Option<u64>,
    salt: String,
    check: String,
}

impl Entry {
    fn of(id: u32, kek: &Kek, salt: &[u8; 16], now_s: u64) -> Self {
        Self {
            id,
            state: KeyState::Active,
            created_s: now_s,
            destroyed_s: None,
            salt: hex(salt),
            check: hex(&kek.check_value(salt)),
        }
    }

    fn is_of(&self, kek: &Kek) -> bool {
        unhex(&self.salt).is_some_and(|salt| hex(&kek.check_value(&salt)) == self.check)
    }
}

/// What the ring tells of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyInfo {
    /// Its id, which head pages name.
    pub id: u32,
    /// What may be done with it.
    pub state: KeyState,
    /// Unix seconds.
    pub created_s: u64,
    /// Unix seconds.
    pub destroyed_s: Option<u64>,
    /// Whether it was given.
    pub is_given: bool,
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
        Self {
            current: 1,
            entries: vec![Entry::of(1, &kek, &salt, now_s)],
            keys: BTreeMap::from([(1, kek)]),
        }
    }

    /// Reads a ring; no key is in it yet.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, SealedError> {
        let ring: RingText = toml::from_str(text).map_err(|e| SealedError::KeyRing(e.message().to_owned()))?;
        if ![RING_VERSION, RING_VERSION_DESTROYED].contains(&ring.version) {
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
        let has_destroyed = self.entries.iter().any(|entry| entry.destroyed_s.is_some());
        let ring = RingText {
            version: if has_destroyed {
                RING_VERSION_DESTROYED
            } else {
                RING_VERSION
            },
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
    /// [`SealedError::KeyMissing`] with the current id when the key is none of the ring's;
    /// [`SealedError::KeyDestroyed`] when it is one that must not be used any more.
    pub fn admit(&mut self, kek: Kek) -> Result<u32, SealedError> {
        let known = self.entries.iter().find(|entry| entry.is_of(&kek));
        let entry = known.ok_or(SealedError::KeyMissing(self.current))?;
        if entry.state == KeyState::Destroyed {
            return Err(SealedError::KeyDestroyed(entry.id));
        }
        let id = entry.id;
        self.keys.insert(id, kek);
        Ok(id)
    }

    /// Which key of the ring this is, whatever became of it.
    pub fn id_of(&self, kek: &Kek) -> Option<u32> {
        self.entries.iter().find(|entry| entry.is_of(kek)).map(|entry| entry.id)
    }

    /// The id that the next key of this ring gets. Ids of destroyed keys are not used again.
    pub fn next_id(&self) -> u32 {
        let highest = self.entries.iter().map(|entry| entry.id).max();
        highest.unwrap_or(0).saturating_add(1)
    }

    /// Makes `kek` the current key; the one before is retired. `salt` is random. Returns the id.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] when the ring has this key already, whatever became of it, or has no id left.
    pub fn add(&mut self, kek: Kek, salt: [u8; 16], now_s: u64) -> Result<u32, SealedError> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.is_of(&kek)) {
            return Err(SealedError::KeyRing(format!("it is key {} already", entry.id)));
        }
        let id = self.next_id();
        if self.entries.iter().any(|entry| entry.id == id) {
            return Err(SealedError::KeyRing("there is no key id left".to_owned()));
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.state == KeyState::Active) {
            entry.state = KeyState::Retired;
        }
        self.entries.push(Entry::of(id, &kek, &salt, now_s));
        self.current = id;
        self.keys.insert(id, kek);
        Ok(id)
    }

    /// Notes that a key is gone for good, and forgets it.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] for the current key; [`SealedError::KeyMissing`] for an id that is not known.
    pub fn destroy(&mut self, id: u32, now_s: u64) -> Result<(), SealedError> {
        if id == self.current {
            let text = format!("key {id} seals new recordings; make another one first (`tallyfs keys add`)");
            return Err(SealedError::KeyRing(text));
        }
        let entry = self.entries.iter_mut().find(|entry| entry.id == id);
        let entry = entry.ok_or(SealedError::KeyMissing(id))?;
        entry.state = KeyState::Destroyed;
        entry.destroyed_s.get_or_insert(now_s);
        self.keys.remove(&id);
        Ok(())
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
        self.keys.get(&id).ok_or_else(|| {
            let is_destroyed = |entry: &Entry| entry.id == id && entry.state == KeyState::Destroyed;
            if self.entries.iter().any(is_destroyed) {
                SealedError::KeyDestroyed(id)
            } else {
                SealedError::KeyMissing(id)
            }
        })
    }

    /// What is known of each key, in the order in which they were made.
    pub fn list(&self) -> Vec<KeyInfo> {
        let info = |entry: &Entry| KeyInfo {
            id: entry.id,
            state: entry.state,
            created_s: entry.created_s,
            destroyed_s: entry.destroyed_s,
            is_given: self.keys.contains_key(&entry.id),
        };
        self.entries.iter().map(info).collect()
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
    fn a_new_key_becomes_current_and_the_old_one_still_opens() {
        let mut ring = ring();
        assert_eq!(ring.add(Kek::take(&mut [8; 32]), [5; 16], 1_700_000_001), Ok(2));
        let text = ring.to_text().expect("writes");
        assert!(text.contains("version = 1"), "older programs still read it: {text}");
        let mut read = KeyRing::parse(&text).expect("reads");
        assert_eq!(read.current_id(), 2);
        assert_eq!(read.kek(1).err(), Some(SealedError::KeyMissing(1)));
        assert_eq!(read.admit(Kek::take(&mut [9; 32])), Ok(1));
        assert_eq!(read.admit(Kek::take(&mut [8; 32])), Ok(2));
        let states: Vec<_> = read
            .list()
            .iter()
            .map(|key| (key.id, key.state, key.is_given))
            .collect();
        assert_eq!(states, [(1, KeyState::Retired, true), (2, KeyState::Active, true)]);
        assert!(
            read.add(Kek::take(&mut [9; 32]), [6; 16], 0).is_err(),
            "a key is not added twice"
        );
    }

    #[test]
    fn a_destroyed_key_is_never_taken_again_and_its_id_stays_used() {
        let mut ring = ring();
        assert!(ring.destroy(1, 5).is_err(), "not the current one");
        ring.add(Kek::take(&mut [8; 32]), [5; 16], 1).expect("adds");
        ring.destroy(1, 5).expect("destroys");
        ring.destroy(1, 9).expect("again, as after a crash");
        let mut read = KeyRing::parse(&ring.to_text().expect("writes")).expect("reads");
        assert_eq!(read.admit(Kek::take(&mut [9; 32])), Err(SealedError::KeyDestroyed(1)));
        assert_eq!(read.kek(1).err(), Some(SealedError::KeyDestroyed(1)));
        assert_eq!(read.list()[0].destroyed_s, Some(5));
        assert_eq!(read.next_id(), 3);
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
