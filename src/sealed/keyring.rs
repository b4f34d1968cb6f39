//! The key ring: which KEKs a store knows, by id, with a check value each; it never holds a key.
//!
//! Text (TOML), so that an operator can read it. A key that matches no check value is refused before
//! a single recording is touched. A tenant may have keys of its own; those without are under the store's.
//!
//! A ring in use gets another content as a whole, after that is durable: nothing is ever sealed under a key that the ring on
//! disk does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::SealedError;
use super::keys::Kek;
use crate::units::hex;

/// What every program reads; written as long as no key was destroyed.
const RING_VERSION: u32 = 1;
/// Entries tell when a key was destroyed: a program that does not know that must not use the ring.
const RING_VERSION_DESTROYED: u32 = 2;
/// Entries name a tenant: a program that does not know that would seal under the store's key.
const RING_VERSION_TENANTS: u32 = 3;

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

impl KeyState {
    /// As it is told, and kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: u32,
    state: KeyState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    created_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destroyed_s: Option<u64>,
    salt: String,
    check: String,
}

impl Entry {
    fn of(id: u32, kek: &Kek, tenant: Option<&str>, salt: &[u8; 16], now_s: u64) -> Self {
        Self {
            id,
            state: KeyState::Active,
            tenant: tenant.map(str::to_owned),
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyInfo {
    /// Its id, which head pages name.
    pub id: u32,
    /// What may be done with it.
    pub state: KeyState,
    /// Whose recordings are under it; `None`: those of everybody who has no key of his own.
    pub tenant: Option<String>,
    /// Unix seconds.
    pub created_s: u64,
    /// Unix seconds.
    pub destroyed_s: Option<u64>,
    /// Whether it was given.
    pub is_given: bool,
}

/// Whose keys: those of the store, or of one tenant. A file stays on its line when keys change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyLine(u32);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RingText {
    version: u32,
    current: u32,
    keys: Vec<Entry>,
}

/// The ring with the keys that were given.
pub struct KeyRing(RwLock<Content>);

#[derive(Clone)]
struct Content {
    current: u32,
    entries: Vec<Entry>,
    keys: BTreeMap<u32, Arc<Kek>>,
}

impl Content {
    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    fn known(&self, kek: &Kek) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_of(kek))
    }

    /// Ids of destroyed keys are not used again.
    fn next_id(&self) -> u32 {
        let highest = self.entries.iter().map(|entry| entry.id).max();
        highest.unwrap_or(0).saturating_add(1)
    }

    fn tenants(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.tenant.as_deref())
    }

    /// The tenant whose directory is the deepest above the path.
    fn line_at(&self, path: &str) -> KeyLine {
        let tenant = self
            .tenants()
            .filter(|tenant| lies_in(path, tenant))
            .max_by_key(|tenant| tenant.len());
        let is_his = |entry: &&Entry| entry.tenant.as_deref() == tenant;
        let first = tenant.and_then(|_| self.entries.iter().find(is_his));
        KeyLine(first.map_or(0, |entry| entry.id))
    }

    /// The key for new recordings of a tenant: his own, or the store's.
    fn current_of(&self, tenant: Option<&str>) -> u32 {
        let is_his = |entry: &&Entry| entry.state == KeyState::Active && entry.tenant.as_deref() == tenant;
        let own = tenant.and_then(|_| self.entries.iter().find(is_his));
        own.map_or(self.current, |entry| entry.id)
    }
}

impl KeyRing {
    fn of(content: Content) -> Self {
        Self(RwLock::new(content))
    }

    /// A ring with one active key, id 1. `salt` is random.
    pub fn create(kek: Kek, salt: [u8; 16], now_s: u64) -> Self {
        Self::of(Content {
            current: 1,
            entries: vec![Entry::of(1, &kek, None, &salt, now_s)],
            keys: BTreeMap::from([(1, Arc::new(kek))]),
        })
    }

    /// Reads a ring; no key is in it yet.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, SealedError> {
        let ring: RingText = toml::from_str(text).map_err(|e| SealedError::KeyRing(e.message().to_owned()))?;
        if !(RING_VERSION..=RING_VERSION_TENANTS).contains(&ring.version) {
            return Err(SealedError::KeyRing(format!(
                "version {} is not known; use a newer tallyfs",
                ring.version
            )));
        }
        let is_stores = |entry: &Entry| entry.id == ring.current && entry.tenant.is_none();
        if !ring.keys.iter().any(is_stores) {
            return Err(SealedError::KeyRing(format!(
                "the current key {} is not in it",
                ring.current
            )));
        }
        Ok(Self::of(Content {
            current: ring.current,
            entries: ring.keys,
            keys: BTreeMap::new(),
        }))
    }

    /// The ring as text.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] when it cannot be written as TOML.
    pub fn to_text(&self) -> Result<String, SealedError> {
        let content = self.0.read();
        let has = |what: fn(&Entry) -> bool| content.entries.iter().any(what);
        let version = if has(|entry| entry.tenant.is_some()) {
            RING_VERSION_TENANTS
        } else if has(|entry| entry.destroyed_s.is_some()) {
            RING_VERSION_DESTROYED
        } else {
            RING_VERSION
        };
        let ring = RingText {
            version,
            current: content.current,
            keys: content.entries.clone(),
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
    pub fn admit(&self, kek: Kek) -> Result<u32, SealedError> {
        let mut content = self.0.write();
        let entry = content.known(&kek).ok_or(SealedError::KeyMissing(content.current))?;
        if entry.state == KeyState::Destroyed {
            return Err(SealedError::KeyDestroyed(entry.id));
        }
        let id = entry.id;
        content.keys.insert(id, Arc::new(kek));
        Ok(id)
    }

    /// Which key of the ring this is, whatever became of it.
    pub fn id_of(&self, kek: &Kek) -> Option<u32> {
        self.0.read().known(kek).map(|entry| entry.id)
    }

    /// The id that the next key of this ring gets.
    pub fn next_id(&self) -> u32 {
        self.0.read().next_id()
    }

    /// A ring with `kek` as the current key of the store or of a tenant, the one before retired; its id with it. `salt` is
    /// random. This ring stays as it is until [`KeyRing::replace`].
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] when the ring has this key already, whatever became of it, or has no id left.
    pub fn with_key(
        &self,
        kek: Kek,
        tenant: Option<&str>,
        salt: [u8; 16],
        now_s: u64,
    ) -> Result<(Self, u32), SealedError> {
        let mut content = self.0.read().clone();
        if let Some(entry) = content.known(&kek) {
            return Err(SealedError::KeyRing(format!("it is key {} already", entry.id)));
        }
        let id = content.next_id();
        if content.entry(id).is_some() {
            return Err(SealedError::KeyRing("there is no key id left".to_owned()));
        }
        let is_before = |entry: &&mut Entry| entry.state == KeyState::Active && entry.tenant.as_deref() == tenant;
        for entry in content.entries.iter_mut().filter(is_before) {
            entry.state = KeyState::Retired;
        }
        content.entries.push(Entry::of(id, &kek, tenant, &salt, now_s));
        if tenant.is_none() {
            content.current = id;
        }
        content.keys.insert(id, Arc::new(kek));
        Ok((Self::of(content), id))
    }

    /// A ring that knows that a key is gone for good, and has forgotten it.
    ///
    /// # Errors
    /// [`SealedError::KeyRing`] for the current key of the store; [`SealedError::KeyMissing`] for an id that is not known.
    pub fn without_key(&self, id: u32, now_s: u64) -> Result<Self, SealedError> {
        let mut content = self.0.read().clone();
        if id == content.current {
            let text = format!("key {id} seals new recordings; make another one first (`tallyfs keys add`)");
            return Err(SealedError::KeyRing(text));
        }
        let entry = content.entries.iter_mut().find(|entry| entry.id == id);
        let entry = entry.ok_or(SealedError::KeyMissing(id))?;
        entry.state = KeyState::Destroyed;
        entry.destroyed_s.get_or_insert(now_s);
        content.keys.remove(&id);
        Ok(Self::of(content))
    }

    /// Takes the place of what was in force. It has to be durable before.
    pub fn replace(&self, next: Self) {
        *self.0.write() = next.0.into_inner();
    }

    /// Id of the key that new recordings of tenants without a key of their own are sealed under.
    pub fn current_id(&self) -> u32 {
        self.0.read().current
    }

    /// Some tenant has keys of his own.
    pub fn has_tenants(&self) -> bool {
        self.0.read().entries.iter().any(|entry| entry.tenant.is_some())
    }

    /// Whose keys new recordings at a path are under.
    pub fn line_at(&self, path: &str) -> KeyLine {
        self.0.read().line_at(path)
    }

    /// Moving what lies at one path to the other would take recordings away from the tenant whose key they are under, or bring
    /// him others.
    pub fn separates(&self, from: &str, to: &str) -> bool {
        let content = self.0.read();
        let holds_tenant = |path: &str| content.tenants().any(|tenant| lies_in(tenant, path) && from != to);
        content.line_at(from) != content.line_at(to) || holds_tenant(from) || holds_tenant(to)
    }

    /// Id of the key that new recordings of a line are sealed under.
    pub fn current_in(&self, line: KeyLine) -> u32 {
        let content = self.0.read();
        let tenant = content.entry(line.0).and_then(|entry| entry.tenant.as_deref());
        content.current_of(tenant)
    }

    /// A file at a path whose heads name these keys is to be brought under another; what a destroyed key holds is given up.
    pub fn is_outdated(&self, path: &str, ids: &BTreeSet<u32>) -> bool {
        let wanted = self.current_in(self.line_at(path));
        let content = self.0.read();
        let is_given_up = |id| {
            content
                .entry(id)
                .is_some_and(|entry| entry.state == KeyState::Destroyed)
        };
        ids.iter().any(|&id| id != wanted && !is_given_up(id))
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`SealedError::KeyMissing`] when it was not given or is not known.
    pub fn kek(&self, id: u32) -> Result<Arc<Kek>, SealedError> {
        let content = self.0.read();
        content.keys.get(&id).cloned().ok_or_else(|| match content.entry(id) {
            Some(entry) if entry.state == KeyState::Destroyed => SealedError::KeyDestroyed(id),
            _ => SealedError::KeyMissing(id),
        })
    }

    /// What is known of each key, in the order in which they were made.
    pub fn list(&self) -> Vec<KeyInfo> {
        let content = self.0.read();
        let info = |entry: &Entry| KeyInfo {
            id: entry.id,
            state: entry.state,
            tenant: entry.tenant.clone(),
            created_s: entry.created_s,
            destroyed_s: entry.destroyed_s,
            is_given: content.keys.contains_key(&entry.id),
        };
        content.entries.iter().map(info).collect()
    }
}

/// It is the directory, or lies below it.
fn lies_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        let read = KeyRing::parse(&ring().to_text().expect("writes")).expect("reads");
        assert!(read.kek(1).is_err(), "no key is stored in the ring");
        assert_eq!(read.admit(Kek::take(&mut [8; 32])), Err(SealedError::KeyMissing(1)));
        assert_eq!(read.admit(Kek::take(&mut [9; 32])), Ok(1));
        assert!(read.kek(read.current_id()).is_ok());
    }

    #[test]
    fn a_new_key_becomes_current_and_the_old_one_still_opens() {
        let ring = ring();
        let (next, id) = ring
            .with_key(Kek::take(&mut [8; 32]), None, [5; 16], 1_700_000_001)
            .expect("adds");
        assert_eq!((id, ring.current_id()), (2, 1), "not in force yet");
        ring.replace(next);
        let text = ring.to_text().expect("writes");
        assert!(text.contains("version = 1"), "older programs still read it: {text}");
        let read = KeyRing::parse(&text).expect("reads");
        assert_eq!(read.current_id(), 2);
        let outdated = |ids: &[u32]| read.is_outdated("a", &ids.iter().copied().collect());
        assert!(outdated(&[1]) && outdated(&[1, 2]) && !outdated(&[2]) && !outdated(&[]));
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
            read.with_key(Kek::take(&mut [9; 32]), None, [6; 16], 0).is_err(),
            "a key is not added twice"
        );
    }

    #[test]
    fn a_destroyed_key_is_never_taken_again_and_its_id_stays_used() {
        let ring = ring();
        assert!(ring.without_key(1, 5).is_err(), "not the current one");
        let (ring, _) = ring.with_key(Kek::take(&mut [8; 32]), None, [5; 16], 1).expect("adds");
        let ring = ring.without_key(1, 5).expect("destroys");
        let ring = ring.without_key(1, 9).expect("again, as after a crash");
        let read = KeyRing::parse(&ring.to_text().expect("writes")).expect("reads");
        assert_eq!(read.admit(Kek::take(&mut [9; 32])), Err(SealedError::KeyDestroyed(1)));
        assert_eq!(read.kek(1).err(), Some(SealedError::KeyDestroyed(1)));
        assert_eq!(read.list()[0].destroyed_s, Some(5));
        assert_eq!(read.next_id(), 3);
    }

    #[test]
    fn a_tenant_with_keys_of_its_own_stays_under_them() {
        let stores = KeyLine::default();
        let ring = ring();
        assert_eq!(ring.line_at("acme/2026"), stores);
        let (ring, _) = ring
            .with_key(Kek::take(&mut [8; 32]), Some("acme"), [5; 16], 1)
            .expect("adds");
        assert!(ring.to_text().expect("writes").contains("version = 3"));
        let acme = ring.line_at("acme/2026/11");
        assert_eq!(
            (ring.current_in(acme), ring.current_in(stores), ring.current_id()),
            (2, 1, 1)
        );
        assert_eq!((ring.line_at("acme"), ring.line_at("acme2/x")), (acme, stores));
        assert!(ring.separates("acme/a", "other/a") && ring.separates("acme", "beta") && ring.separates("x", "acme"));
        assert!(!ring.separates("acme/a", "acme/b/a") && !ring.separates("x/a", "y/a"));
        let (ring, _) = ring.with_key(Kek::take(&mut [7; 32]), None, [6; 16], 2).expect("adds");
        let (ring, _) = ring
            .with_key(Kek::take(&mut [6; 32]), Some("acme"), [7; 16], 3)
            .expect("adds");
        assert_eq!(ring.line_at("acme/b"), acme);
        assert_eq!((ring.current_in(acme), ring.current_in(stores)), (4, 3));
        let outdated = |ring: &KeyRing, path, id| ring.is_outdated(path, &BTreeSet::from([id]));
        assert_eq!(
            [1, 2, 3, 4].map(|id| outdated(&ring, "acme/a", id)),
            [true, true, true, false]
        );
        assert_eq!(
            [1, 2, 3, 4].map(|id| outdated(&ring, "other", id)),
            [true, true, false, true]
        );
        // The last key of a tenant may go: that is what it is for.
        let ring = ring.without_key(4, 9).expect("destroys");
        assert_eq!(ring.current_in(acme), 3);
        assert!(!outdated(&ring, "acme/a", 4), "given up");
        let read = KeyRing::parse(&ring.to_text().expect("writes")).expect("reads");
        assert_eq!(read.kek(4).err(), Some(SealedError::KeyDestroyed(4)));
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
