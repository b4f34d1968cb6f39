//! The keys of a store, matched to its ring, and key files.
//!
//! A key file holds lines of 64 hex digits, a key each, or 32 raw bytes. It is made for a new store
//! only: a store that exists has recordings under a key that must be found, not made up.
//! No byte of a key goes into an error or a log line.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use zeroize::Zeroizing;

use super::key_ring::{self, KeyRingError};
use super::key_source::{self, Given, KeyChoice};
use super::layout::{Store, StorePaths, sync_parent};
use crate::private_file::{PrivateFileError, read_up_to};
use crate::sealed::SealedError;
use crate::sealed::keyring::{KeyRing, KeyState};
use crate::sealed::keys::{Kek, KeyMemory};
use crate::sys::LockedBytes;

/// Bytes of a KEK: AES-256.
pub const KEK_BYTES: usize = 32;

/// Keys in one file, at most.
const KEYS_PER_FILE_MAX: usize = 64;
/// The longest content a key file may have: lines of hex digits, carriage return, line feed.
pub(super) const CONTENT_BYTES_MAX: usize = KEYS_PER_FILE_MAX * (KEK_BYTES * 2 + 2);

/// A key, in memory that is locked, kept out of core files and zeroed on drop.
pub type KekBytes = LockedBytes<KEK_BYTES>;

impl KeyMemory for KekBytes {
    fn expose(&self) -> &[u8; KEK_BYTES] {
        LockedBytes::expose(self)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store exists, its key file does not.
    #[error(
        "{path}: there is no key file, and this store needs key {wanted}; put the file back, or \
         name another with --key-file (a new key would open none of the recordings)"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// The key that is needed.
        wanted: u32,
    },
    /// A key was found, and it is none of the store's.
    #[error("{origin}: not key {wanted}, which this store was sealed with; give that key")]
    Wrong {
        /// Where the key came from.
        origin: String,
        /// The keys that it could be.
        wanted: String,
    },
    /// A key was found that must not be used any more.
    #[error("{origin}: key {id} was destroyed; remove it there, `tallyfs keys destroy {id}` removes a file of its own")]
    Destroyed {
        /// Where the key came from.
        origin: String,
        /// Its id.
        id: u32,
    },
    /// Keys were found, but not the one for new recordings.
    #[error("{given}: key {wanted}, which seals new recordings, is not among the keys given; give it as well")]
    NotCurrent {
        /// Where the others came from.
        given: String,
        /// The key that is needed.
        wanted: u32,
    },
    /// A key command that did not work.
    #[error("{origin} {reason}")]
    Command {
        /// The command's name.
        origin: String,
        /// What went wrong; nothing that it printed.
        reason: String,
    },
    /// It is no file that nobody else can have read or written.
    #[error(transparent)]
    File(PrivateFileError),
    /// Not a key.
    #[error("{origin}: not a key; it takes 64 hex digits{or_raw}", or_raw = or_raw(*.is_file))]
    Form {
        /// Where it came from.
        origin: String,
        /// Whether raw bytes would do as well.
        is_file: bool,
    },
    /// What the store says about its keys cannot be used.
    #[error(transparent)]
    Ring(#[from] KeyRingError),
    /// The ring does not allow it.
    #[error("{0}")]
    Refused(String),
    /// A new store begins with one key.
    #[error("a new store takes one key; give one, and add others later (`tallyfs keys add`)")]
    Several,
    /// Something the system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What it was done to.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn or_raw(is_file: bool) -> &'static str {
    if is_file { " or 32 raw bytes" } else { "" }
}

impl From<PrivateFileError> for KeyError {
    fn from(e: PrivateFileError) -> Self {
        match e {
            PrivateFileError::Io { path, action, source } => Self::Io { path, action, source },
            other => Self::File(other),
        }
    }
}

impl KeyError {
    /// Whether there is no file.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError + use<> {
    let path = path.to_owned();
    move |source| KeyError::Io { path, action, source }
}

/// The key for `store`: found, checked against its key ring, and for a new store made where the
/// chosen file is missing.
///
/// Crash at first use: the key file is durable before the key ring, that before the store's
/// version. Cut short in between, the next start finds an unfinished store and uses the same file.
///
/// # Errors
/// See [`KeyError`].
pub fn obtain(store: &Store, choice: KeyChoice, now_s: u64) -> Result<KeyRing, KeyError> {
    let paths = store.paths();
    if !store.is_new() {
        return of_existing(paths, choice);
    }
    let to_make = choice.file_to_make(paths);
    let mut given = match (key_source::take(paths, choice), to_make) {
        (Err(e), Some(path)) if e.is_not_found() => vec![Given {
            bytes: make(&path)?,
            origin: path.display().to_string(),
            own_file: Some(path),
            is_found: false,
        }],
        (taken, _) => taken?,
    };
    if given.len() != 1 {
        return Err(KeyError::Several);
    }
    let bytes = given.remove(0).bytes;
    note_unlocked(&bytes);
    Ok(key_ring::begin(&paths.keyring(), Kek::held_by(bytes), now_s)?)
}

/// The keys for a store that exists, each matched to its key ring; writes nothing. Those of the ring that were not given
/// are missing until a recording asks for them; the current one has to be there.
///
/// # Errors
/// See [`KeyError`].
pub fn of_existing(paths: &StorePaths, choice: KeyChoice) -> Result<KeyRing, KeyError> {
    let given = match key_source::take(paths, choice) {
        Err(KeyError::Io { path, source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let wanted = key_ring::load(&paths.keyring())?.current_id();
            return Err(KeyError::Missing { path, wanted });
        }
        other => other?,
    };
    let ring = key_ring::load(&paths.keyring())?;
    let (mut origins, mut destroyed) = (Vec::new(), None);
    for key in given {
        note_unlocked(&key.bytes);
        match ring.admit(Kek::held_by(key.bytes)) {
            Ok(_) => origins.push(key.origin),
            // A recovery copy may be older than that.
            Err(SealedError::KeyDestroyed(id)) => {
                log::warn!("{}: key {id} was destroyed and is not used", key.origin);
                destroyed.get_or_insert(KeyError::Destroyed { origin: key.origin, id });
            }
            Err(_) if key.is_found => log::warn!("{}: is none of this store's keys", key.origin),
            Err(_) => {
                return Err(KeyError::Wrong {
                    origin: key.origin,
                    wanted: living_ids(&ring),
                });
            }
        }
    }
    if ring.kek(ring.current_id()).is_err() {
        let not_current = KeyError::NotCurrent {
            given: origins.join(", "),
            wanted: ring.current_id(),
        };
        return Err(destroyed.filter(|_| origins.is_empty()).unwrap_or(not_current));
    }
    for key in ring.list() {
        if !key.is_given && key.state != KeyState::Destroyed {
            match key.tenant.filter(|_| key.state == KeyState::Active) {
                Some(tenant) => log::warn!(
                    "key {} was not given: recordings of tenant {tenant} under it cannot be opened, and new ones not be made",
                    key.id
                ),
                None => log::warn!("key {} was not given: recordings under it cannot be opened", key.id),
            }
        }
    }
    Ok(ring)
}

/// `1`, or `1 or 2`.
fn living_ids(ring: &KeyRing) -> String {
    let living = ring.list().into_iter().filter(|key| key.state != KeyState::Destroyed);
    let ids: Vec<String> = living.map(|key| key.id.to_string()).collect();
    ids.join(" or ")
}

fn note_unlocked(bytes: &KekBytes) {
    if !bytes.is_locked() {
        log::warn!("the key could not be locked into memory; raise the limit for it (LimitMEMLOCK)");
    }
}

/// `STORE.key`.
pub fn beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".key");
    PathBuf::from(name)
}

/// A key from the text of an environment variable.
///
/// # Errors
/// [`KeyError::Form`], which does not repeat the text.
pub fn from_hex(text: &str, origin: &str) -> Result<KekBytes, KeyError> {
    decode(text.trim().as_bytes(), origin, false)
}

/// `FILE.ID`, for a further key.
pub fn numbered(first: &Path, id: u32) -> PathBuf {
    let mut name = first.as_os_str().to_owned();
    name.push(format!(".{id}"));
    PathBuf::from(name)
}

/// Reads a key file, opened by the check that it deserves.
pub(super) fn read_all(
    path: &Path,
    open: impl FnOnce(&Path) -> Result<fs::File, PrivateFileError>,
) -> Result<Vec<KekBytes>, KeyError> {
    let file = open(path)?;
    // One byte more than allowed, so that a longer file is seen as one; no second allocation that
    // would leave a copy behind.
    let mut content = Zeroizing::new([0; CONTENT_BYTES_MAX + 1]);
    let len = read_up_to(&file, &mut *content).map_err(failed("read the key file", path))?;
    decode_all(&content[..len], &path.display().to_string())
}

/// 32 raw bytes, or lines of hex digits; empty lines are passed over.
pub(super) fn decode_all(content: &[u8], origin: &str) -> Result<Vec<KekBytes>, KeyError> {
    let is_one = content.len() <= KEK_BYTES || content.len() > CONTENT_BYTES_MAX;
    if is_one {
        return Ok(vec![decode(content, origin, true)?]);
    }
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let keys: Result<Vec<_>, _> = lines
        .filter(|line| !line.is_empty())
        .map(|line| decode(line, origin, true))
        .collect();
    match keys {
        Ok(keys) if keys.is_empty() => Err(KeyError::Form {
            origin: origin.to_owned(),
            is_file: true,
        }),
        keys => keys,
    }
}

/// A key from 64 hex digits or, in a file, 32 raw bytes. 32 hex digits are refused: they are half
/// a key, and random bytes do not look like that.
fn decode(content: &[u8], origin: &str, is_file: bool) -> Result<KekBytes, KeyError> {
    let refuse = || KeyError::Form {
        origin: origin.to_owned(),
        is_file,
    };
    let mut key = KekBytes::zeroed().map_err(failed("get memory for", Path::new("the key")))?;
    let is_raw = content.len() == KEK_BYTES && !content.iter().all(u8::is_ascii_hexdigit);
    if is_file && is_raw {
        key.expose_mut().copy_from_slice(content);
        return Ok(key);
    }
    let digits = content.trim_ascii_end();
    if digits.len() != KEK_BYTES * 2 {
        return Err(refuse());
    }
    for (byte, pair) in key.expose_mut().iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(refuse);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Ok(key)
}

/// Makes a key file with a new random key: mode 0400, durable on return, never over another file.
///
/// Crash: before the rename there is at most a `.new` file under which nothing was sealed, and it
/// is removed here; after it the key file is whole.
pub fn make(path: &Path) -> Result<KekBytes, KeyError> {
    let mut key = KekBytes::zeroed().map_err(failed("get memory for", path))?;
    getrandom::fill(key.expose_mut()).map_err(|e| failed("get random bytes for", path)(io::Error::other(e)))?;
    let text = Zeroizing::new(line_of(key.expose()));
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove what a crash left", &new)(e));
        }
        _ => {}
    }
    write_new(&new, &*text).map_err(failed("make the key file", &new))?;
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, &new, cwd, path, RenameFlags::NOREPLACE)
        .map_err(|e| failed("make the key file", path)(e.into()))?;
    sync_parent(path).map_err(failed("save the name of", path))?;
    log::warn!(
        "made a new key: {}. Keep a copy in a safe place: who loses it loses every recording",
        path.display()
    );
    Ok(key)
}

/// 64 hex digits and a line feed. The caller wipes them.
pub(super) fn line_of(key: &[u8; KEK_BYTES]) -> [u8; KEK_BYTES * 2 + 1] {
    let mut line = [b'\n'; KEK_BYTES * 2 + 1];
    for (pair, byte) in line.chunks_exact_mut(2).zip(key) {
        pair[0] = hex_digit(byte >> 4);
        pair[1] = hex_digit(byte & 15);
    }
    line
}

fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn read(path: &Path) -> Result<KekBytes, KeyError> {
        read_all(path, private_file::open).map(|mut keys| keys.remove(0))
    }

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    const NOW_S: u64 = 1_700_000_000;

    fn new_store(dir: &TempDir) -> Store {
        Store::open(&dir.path().join("store")).unwrap()
    }

    fn key_file(dir: &TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.path().join("the.key");
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn error_of<T>(result: Result<T, KeyError>) -> String {
        match result {
            Ok(_) => panic!("it should have been refused"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_new_store_gets_a_key_that_opens_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = new_store(&dir);
        let made = obtain(&store, KeyChoice::Beside, NOW_S).unwrap();
        store.finish_first_use().unwrap();
        let path = dir.path().join("store.key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o400);
        assert_eq!(fs::read(&path).unwrap().len(), 65);
        assert_ne!(fs::read(&path).unwrap()[..64], [b'0'; 64]);
        let again = obtain(&store, KeyChoice::Beside, NOW_S).unwrap();
        assert_eq!(again.current_id(), made.current_id());
    }

    #[test]
    fn a_first_use_cut_short_keeps_the_key_it_made() {
        let dir = tempfile::tempdir().unwrap();
        obtain(&new_store(&dir), KeyChoice::Beside, NOW_S).unwrap();
        let made = fs::read(dir.path().join("store.key")).unwrap();
        obtain(&new_store(&dir), KeyChoice::Beside, NOW_S).unwrap();
        assert_eq!(fs::read(dir.path().join("store.key")).unwrap(), made);
    }

    #[test]
    fn an_existing_store_never_gets_a_new_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = new_store(&dir);
        obtain(&store, KeyChoice::Beside, NOW_S).unwrap();
        store.finish_first_use().unwrap();
        fs::remove_file(dir.path().join("store.key")).unwrap();
        let error = error_of(obtain(&store, KeyChoice::Beside, NOW_S));
        assert!(error.contains("needs key 1"), "{error}");
        assert!(error.contains("store.key"), "{error}");
        assert!(!dir.path().join("store.key").exists());
    }

    #[test]
    fn another_key_than_the_stores_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = new_store(&dir);
        obtain(&store, KeyChoice::Beside, NOW_S).unwrap();
        store.finish_first_use().unwrap();
        let other = from_hex(HEX, "ENCRYPTION_KEY").unwrap();
        let error = error_of(obtain(&store, KeyChoice::Environment(other), NOW_S));
        assert!(error.starts_with("ENCRYPTION_KEY: not key 1"), "{error}");
    }

    #[test]
    fn hex_digits_and_raw_bytes_are_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Vec<u8> = (0..32).collect();
        for content in [HEX.as_bytes(), format!("{HEX}\r\n").as_bytes(), &raw] {
            let key = read(&key_file(&dir, content, 0o400)).unwrap();
            assert_eq!(key.expose(), &raw[..]);
        }
        assert_eq!(from_hex(HEX, "x").unwrap().expose(), &raw[..]);
    }

    #[test]
    fn content_of_another_form_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "secret", &HEX[..32], &HEX[..63], &format!("{HEX}00")] {
            let path = key_file(&dir, content.as_bytes(), 0o400);
            let error = error_of(read(&path));
            assert!(error.contains("64 hex digits"), "{error}");
            assert!(content.is_empty() || !error.contains(content), "{error}");
        }
        let not_hex = HEX.replace('a', "g");
        assert!(error_of(from_hex(&not_hex, "x")).contains("64 hex digits"));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o440, 0o404, 0o420, 0o644] {
            let path = key_file(&dir, HEX.as_bytes(), mode);
            let error = error_of(read(&path));
            assert!(error.contains("chmod 0400"), "{mode:o}: {error}");
        }
        read(&key_file(&dir, HEX.as_bytes(), 0o600)).unwrap();
    }

    #[test]
    fn a_directory_is_no_key_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = error_of(read(dir.path()));
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn a_key_file_of_a_stranger_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(&dir, HEX.as_bytes(), 0o400);
        if !rustix::process::geteuid().is_root() {
            return; // only root can give a file away
        }
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        let error = error_of(read(&path));
        assert!(error.contains("owned by uid 12345"), "{error}");
    }

    #[test]
    fn what_a_crash_left_of_a_key_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("store.key.new"), "00ff").unwrap();
        obtain(&new_store(&dir), KeyChoice::Beside, NOW_S).unwrap();
        assert!(!dir.path().join("store.key.new").exists());
    }
}
