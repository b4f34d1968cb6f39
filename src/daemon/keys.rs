//! Keys of a store at rest: counted, added, changed for another, destroyed, copied.
//!
//! Heads first, then the ring, then key files: a key is never forgotten while anything on disk that was not given up
//! still needs it. Whoever calls holds the lock of the store, but for counting.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Timespec, Timestamps};
use zeroize::Zeroizing;

use super::DaemonError;
use super::baseline::{place_row, sealed_row};
use super::key_file::{self, KekBytes, KeyError};
use super::key_ring::{self, KeyRingError};
use super::key_source::Given;
use super::layout::{Store, StorePaths, sync_parent};
use crate::db::{self, AuditRow, Database, PlaceRow, Reader, SealedRow};
use crate::id::Ino;
use crate::mend::trusted;
use crate::private_file;
use crate::sealed::SealedError;
use crate::sealed::keyring::KeyRing;
use crate::sealed::keys::{Kek, KeyMemory};
use crate::sealed::row_mac::{RowKey, SealedFields};
use crate::store::files::{Found, Range, walk};
use crate::store::sealed_file::{SealedFile, WriteOptions, key_ids};

/// Rows that are written at once.
const ROWS_AT_ONCE: usize = 1000;

/// Recordings under each key, as the clear part of their heads tells; one with heads under two keys counts for both.
///
/// # Errors
/// The data directory.
pub fn count(paths: &StorePaths) -> io::Result<BTreeMap<u32, u64>> {
    let data = File::open(paths.data())?;
    let mut counts = BTreeMap::new();
    let mut unreadable = None;
    let visit = &mut |found: &Found<'_>| {
        if found.is_file() {
            match ids_of(found) {
                Ok(ids) => ids.into_iter().for_each(|id| *counts.entry(id).or_default() += 1),
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => unreadable = Some(e),
            }
        }
        ControlFlow::Continue(())
    };
    let mut failed = None;
    let all = Range {
        below: b"",
        after: None,
    };
    walk(data.as_fd(), all, visit, &mut |_, e| failed = Some(e))?;
    // What was not counted may need any key.
    unreadable.or(failed).map_or(Ok(counts), Err)
}

fn ids_of(found: &Found<'_>) -> io::Result<BTreeSet<u32>> {
    key_ids(&found.open()?).map_err(io::Error::other)
}

/// Makes a new key in `path`, which seals new recordings from then on: those of a tenant, or of all who have none of their
/// own.
///
/// Crash: the key file is durable before the ring knows it. One that was left so is told as a file that exists.
///
/// # Errors
/// The key file or the ring; the old key stays current.
pub fn add(paths: &StorePaths, ring: &KeyRing, path: &Path, tenant: Option<&str>, now_s: u64) -> Result<u32, KeyError> {
    take_in(paths, ring, key_file::make(path)?, tenant, now_s)
}

/// Makes the key in an existing file the current one; otherwise as [`add`].
///
/// # Errors
/// The key file or the ring; the old key stays current.
pub fn adopt(
    paths: &StorePaths,
    ring: &KeyRing,
    path: &Path,
    tenant: Option<&str>,
    now_s: u64,
) -> Result<u32, KeyError> {
    let mut keys = key_file::read_all(path, private_file::open)?;
    match (keys.pop(), keys.is_empty()) {
        (Some(bytes), true) => take_in(paths, ring, bytes, tenant, now_s),
        _ => Err(KeyError::Several),
    }
}

fn take_in(
    paths: &StorePaths,
    ring: &KeyRing,
    bytes: KekBytes,
    tenant: Option<&str>,
    now_s: u64,
) -> Result<u32, KeyError> {
    let keyring = paths.keyring();
    let added = ring.with_key(Kek::held_by(bytes), tenant, key_ring::new_salt(&keyring)?, now_s);
    let (next, id) = added.map_err(|cause| KeyRingError::Damaged {
        path: keyring.clone(),
        cause,
    })?;
    key_ring::save(&keyring, &next)?;
    ring.replace(next);
    Ok(id)
}

/// What `rewrap` did.
#[derive(Default, Debug)]
pub struct Rewrapped {
    /// Recordings that are under the current key now and were not before.
    pub changed: u64,
    /// Recordings that were there already.
    pub current: u64,
    /// Path and reason of those that are still under an old key.
    pub left: Vec<(Vec<u8>, String)>,
    /// Whether every file was looked at.
    pub is_complete: bool,
}

/// Wraps the keys of every sealed recording under the current KEK; `step` is called after each and may stop it.
///
/// Crash: see [`SealedFile::rewrap`] for one file. Its row may be that of the old head: it is older than the head, so
/// it says nothing against it, and the next run writes it anew because it bears the old key's code.
///
/// # Errors
/// The data directory or the database; what is done stays.
pub fn rewrap(
    store: &Store,
    ring: &Arc<KeyRing>,
    now_s: u64,
    step: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Rewrapped, DaemonError> {
    let data = File::open(store.paths().data()).map_err(DaemonError::Data)?;
    let path = store.paths().database();
    let (mut database, _) = Database::open(&path, now_s).map_err(DaemonError::Database)?;
    let mut pass = Pass {
        ring,
        key: RowKey::current(ring).map_err(|e| DaemonError::Data(io::Error::other(e)))?,
        reader: db::open_read_only(&path).map_err(DaemonError::Database)?,
        sealed: Vec::new(),
        places: Vec::new(),
        done: Rewrapped::default(),
    };
    let (mut failed, mut is_stopped, mut unseen) = (None, false, Vec::new());
    let visit = &mut |found: &Found<'_>| {
        if !found.is_file() {
            return ControlFlow::Continue(());
        }
        if let Err(reason) = pass.visit(found) {
            pass.done.left.push((found.path.to_vec(), reason));
        }
        if pass.sealed.len() + pass.places.len() >= ROWS_AT_ONCE {
            failed = pass.save(&mut database).err();
        }
        is_stopped = step(pass.done.changed + pass.done.current).is_break();
        if is_stopped || failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let all = Range {
        below: b"",
        after: None,
    };
    walk(data.as_fd(), all, visit, &mut |path, e| {
        unseen.push((path.to_vec(), e.to_string()));
    })
    .map_err(DaemonError::Data)?;
    failed.map_or(Ok(()), |e| Err(DaemonError::Database(e)))?;
    pass.save(&mut database).map_err(DaemonError::Database)?;
    pass.done.left.append(&mut unseen);
    pass.done.is_complete = !is_stopped;
    Ok(pass.done)
}

struct Pass<'a> {
    ring: &'a Arc<KeyRing>,
    key: RowKey,
    reader: Reader,
    sealed: Vec<SealedRow>,
    places: Vec<PlaceRow>,
    done: Rewrapped,
}

impl Pass<'_> {
    /// One file and its rows; the error is why it stays as it is.
    fn visit(&mut self, found: &Found<'_>) -> Result<(), String> {
        let ino = Ino(found.stat.stx_ino);
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let row = self.reader.sealed(ino).map_err(|e| text(&e))?;
        let mut known = match &row {
            Some(row) => {
                let fields = trusted(self.ring, row);
                Some(fields.ok_or("its row in the database was not written by this program; run `tallyfs fsck`")?)
            }
            None => None,
        };
        let ids = ids_of(found).map_err(|e| text(&e))?;
        if self.ring.is_outdated(&String::from_utf8_lossy(found.path), &ids) {
            known = self.rewrap(found, known)?;
            self.done.changed += 1;
        } else {
            self.done.current += 1;
        }
        // Also of a file that an earlier run changed just before it was stopped.
        if let (Some(fields), Some(row)) = (known, row)
            && (row.key_id != self.key.key_id() || fields.generation != row.generation)
        {
            self.sealed.push(sealed_row(&fields, &self.key));
        }
        self.place(ino).map_err(|e| text(&e))
    }

    fn rewrap(&self, found: &Found<'_>, known: Option<SealedFields>) -> Result<Option<SealedFields>, String> {
        let file = Arc::new(found.open_for_repair().map_err(|e| e.to_string())?);
        let options = WriteOptions {
            key_line: self.ring.line_at(&String::from_utf8_lossy(found.path)),
            ..WriteOptions::default()
        };
        let loaded = SealedFile::load(file.clone(), self.ring.clone(), options);
        let mut sealed = loaded.map_err(|e| e.to_string())?;
        let before = sealed.head_facts();
        if let (Some(known), Some(facts)) = (known, before)
            && known.file_id == facts.file_id
            && facts.generation.0 < known.generation
        {
            // A new head would hide that.
            return Err("an old copy was put back; run `tallyfs fsck`".to_owned());
        }
        if !sealed.rewrap().map_err(|e| e.to_string())? {
            return Err("was left open by a crash; mount the store once, or run `tallyfs fsck --repair`".to_owned());
        }
        // The recording did not change.
        let time = |at: rustix::fs::StatxTimestamp| Timespec {
            tv_sec: at.tv_sec,
            tv_nsec: at.tv_nsec.into(),
        };
        let times = Timestamps {
            last_access: time(found.stat.stx_atime),
            last_modification: time(found.stat.stx_mtime),
        };
        rustix::fs::futimens(&*file, &times).map_err(|e| e.to_string())?;
        let same = |(known, facts): (SealedFields, _)| (known.file_id == before?.file_id).then_some((known, facts));
        Ok(known
            .zip(sealed.head_facts())
            .and_then(same)
            .map_or(known, |(known, facts)| {
                Some(SealedFields {
                    generation: facts.generation.0,
                    content_sha256: facts.content_sha256,
                    ..known
                })
            }))
    }

    fn place(&mut self, ino: Ino) -> Result<(), db::Error> {
        let Some(row) = self.reader.place(ino)?.filter(|row| row.key_id != self.key.key_id()) else {
            return Ok(());
        };
        if is_ours(self.ring, &row) {
            self.places.push(place_row(ino, row.parent, &row.name, &self.key));
        }
        Ok(())
    }

    fn save(&mut self, database: &mut Database) -> Result<(), db::Error> {
        database.put_baseline(&self.sealed, &self.places)?;
        self.sealed.clear();
        self.places.clear();
        Ok(())
    }
}

/// Gives rows that bear the code of an old key that of the key of now, as far as the old code is right: some of them behind
/// an inode number. Given back is where to go on; `None`: that was all.
///
/// # Errors
/// The database; the key of now.
pub fn renew_rows(database: &mut Database, ring: &KeyRing, after: Ino, count: u32) -> Result<Option<Ino>, DaemonError> {
    let key = RowKey::current(ring).map_err(|e| DaemonError::Data(io::Error::other(e)))?;
    let found = database.under_other_keys(key.key_id(), after, count);
    let (sealed, places) = found.map_err(DaemonError::Database)?;
    // Both tables go on behind the same number: behind the last of the one that was not read to its end.
    let is_cut = |len: usize| len == count as usize;
    let ends = [
        sealed.last().map(|row| row.ino).filter(|_| is_cut(sealed.len())),
        places.last().map(|row| row.ino).filter(|_| is_cut(places.len())),
    ];
    let next = ends.into_iter().flatten().min();
    let new_sealed: Vec<_> = sealed
        .iter()
        .filter_map(|row| Some(sealed_row(&trusted(ring, row)?, &key)))
        .collect();
    let new_places: Vec<_> = places
        .iter()
        .filter(|row| is_ours(ring, row))
        .map(|row| place_row(row.ino, row.parent, &row.name, &key))
        .collect();
    let foreign_count = sealed.len() - new_sealed.len() + places.len() - new_places.len();
    if foreign_count > 0 {
        log::error!(
            "keys: {foreign_count} rows of the database were not written by this program, and stay; run `tallyfs scrub`"
        );
    }
    if !(new_sealed.is_empty() && new_places.is_empty()) {
        database
            .recode(&new_sealed, &new_places)
            .map_err(DaemonError::Database)?;
    }
    Ok(next)
}

fn is_ours(ring: &KeyRing, row: &PlaceRow) -> bool {
    RowKey::of(ring, row.key_id).is_ok_and(|key| key.place(row.ino.0, row.parent.0, &row.name) == row.mac)
}

/// Says that recordings are under a key that was to be destroyed.
pub fn still_needed(count: u64, id: u32) -> String {
    format!(
        "{count} recordings are under key {id} and would be unreadable for ever: run `tallyfs keys rewrap` to keep them, or say \
         --with-recordings"
    )
}

/// Notes that a key is gone and removes its file, where it is one of `files` and holds nothing else; returns those.
///
/// Crash: the ring says destroyed before the file goes; done again, the rest is done.
///
/// # Errors
/// The current key, an unknown id, the ring or a file.
pub fn destroy(store: &Store, files: &[PathBuf], id: u32, who: &str, now_s: u64) -> Result<Vec<PathBuf>, DaemonError> {
    let ring = key_ring::load(&store.paths().keyring()).map_err(KeyError::from)?;
    let ours = files_of(files, &ring, id);
    forget(store.paths(), &ring, id, now_s)?;
    let (mut database, _) = Database::open(&store.paths().database(), now_s).map_err(DaemonError::Database)?;
    let row = AuditRow {
        at_s: now_s,
        who: who.to_owned(),
        action: "destroy".to_owned(),
        subject: format!("key {id}"),
        detail: "recordings under it are unreadable for ever".to_owned(),
    };
    database.note_audit(&[row]).map_err(DaemonError::Database)?;
    for path in &ours {
        wipe(path)?;
    }
    Ok(ours.into_iter().cloned().collect())
}

/// Notes in the ring that a key is gone.
///
/// # Errors
/// The store's current key, an unknown id, the ring; the key stays.
pub fn forget(paths: &StorePaths, ring: &KeyRing, id: u32, now_s: u64) -> Result<(), KeyError> {
    let keyring = paths.keyring();
    let next = ring.without_key(id, now_s).map_err(|cause| match cause {
        SealedError::KeyRing(reason) => KeyError::Refused(reason),
        other => KeyError::Refused(format!("{}: {other}", keyring.display())),
    })?;
    key_ring::save(&keyring, &next)?;
    ring.replace(next);
    Ok(())
}

/// Those of `files` that hold this key and nothing else.
pub fn files_of<'a>(files: &'a [PathBuf], ring: &KeyRing, id: u32) -> Vec<&'a PathBuf> {
    files.iter().filter(|path| holds_only(path, ring, id)).collect()
}

/// Overwrites and removes a key file.
///
/// # Errors
/// The file is there.
pub fn wipe(path: &Path) -> Result<(), KeyError> {
    overwrite_and_remove(path).map_err(|source| KeyError::Io {
        path: path.to_owned(),
        action: "overwrite and remove",
        source,
    })
}

fn holds_only(path: &Path, ring: &KeyRing, id: u32) -> bool {
    let keys = key_file::read_all(path, private_file::open);
    keys.is_ok_and(|mut keys| keys.len() == 1 && ring.id_of(&Kek::held_by(keys.remove(0))) == Some(id))
}

/// On a file system that writes elsewhere (copy on write, a flash disk) the old bytes may outlive this.
fn overwrite_and_remove(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let len = file.metadata()?.len().min(key_file::CONTENT_BYTES_MAX as u64);
    file.write_all_at(&vec![0; len as usize], 0)?;
    file.sync_all()?;
    fs::remove_file(path)?;
    sync_parent(path)
}

/// Writes the keys to a new file, a line each.
///
/// # Errors
/// A file that exists, or that is none.
pub fn export(given: &[Given], out: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(out)?;
    for key in given {
        let line = Zeroizing::new(key_file::line_of(KeyMemory::expose(&key.bytes)));
        file.write_all(&*line)?;
    }
    file.sync_all()?;
    sync_parent(out)
}
