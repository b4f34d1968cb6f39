//! Keys of a mounted store: taken in, changed for others in a thread of its own, destroyed.
//!
//! A mark in the store says that recordings are to be brought under the keys of now; a daemon that finds it goes on. It goes
//! when files and rows of the database are under them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use super::layout::{StorePaths, replace_durably, sync_parent};
use super::{key_file, keys};
use crate::admin::KeyDesk;
use crate::clock::Clock;
use crate::db::{self, Errands};
use crate::fs::{FileSystem, KeyState};
use crate::id::Ino;

/// A pass that finds nothing ends it: another may find what moved past the one before. Files that fail are found each time.
const PASSES_MAX: usize = 4;
/// Rows that are looked up at once.
const ROWS_AT_ONCE: u32 = 1000;
/// As that of the hasher: recordings go first.
const NICE: i32 = 19;
/// Between two looks whether the daemon is stopping.
const PACE: Duration = Duration::from_millis(500);
/// Some rows take no longer, or the database does not answer.
const ROWS_TIME_MAX: Duration = Duration::from_secs(10);
/// Times that the database may not answer in a row.
const TRIES: u32 = 5;

/// What requests about keys are answered from.
pub struct Desk {
    paths: StorePaths,
    fs: Arc<FileSystem>,
    clock: Arc<dyn Clock>,
    /// Where the next start looks for further keys, with their numbers behind its name; `None`: the keys come from no file.
    first_file: Option<PathBuf>,
    wanted: Sender<()>,
    /// Held while it is asked for, and while it ends.
    turn: Arc<Mutex<()>>,
}

/// A desk, and the work for a thread that ends with the mount.
pub fn desk(
    paths: &StorePaths,
    fs: &Arc<FileSystem>,
    clock: &Arc<dyn Clock>,
    errands: Errands,
    first_file: Option<PathBuf>,
) -> (Desk, Work) {
    let (wanted, asked) = crossbeam_channel::bounded(1);
    if is_marked(paths) {
        fs.rotation().begin();
        let _ = wanted.try_send(());
    }
    let turn = Arc::default();
    let work = Work {
        paths: paths.clone(),
        fs: fs.clone(),
        errands,
        asked,
        turn: Arc::clone(&turn),
    };
    let desk = Desk {
        paths: paths.clone(),
        fs: fs.clone(),
        clock: clock.clone(),
        first_file,
        wanted,
        turn,
    };
    (desk, work)
}

fn mark(paths: &StorePaths) -> PathBuf {
    paths.root.join("rewrap")
}

fn is_marked(paths: &StorePaths) -> bool {
    fs::exists(mark(paths)).unwrap_or(true)
}

/// No daemon has to go on: every recording was brought along.
///
/// # Errors
/// The mark cannot be removed.
pub fn unmark(paths: &StorePaths) -> io::Result<()> {
    match fs::remove_file(mark(paths)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => sync_parent(&mark(paths)),
    }
}

impl KeyDesk for Desk {
    fn next_file(&self) -> Option<PathBuf> {
        let first = self.first_file.as_ref()?;
        Some(key_file::numbered(first, self.fs.ring().next_id()))
    }

    fn adopt(&self, file: &Path, tenant: Option<&str>) -> Result<u32, String> {
        // One change of the ring after the other.
        let _turn = self.turn.lock();
        keys::adopt(&self.paths, self.fs.ring(), file, tenant, self.clock.now().as_secs()).map_err(|e| e.to_string())
    }

    fn rewrap(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        replace_durably(&mark(&self.paths), b"")?;
        self.fs.rotation().begin();
        // One that waits stands for all.
        let _ = self.wanted.try_send(());
        Ok(())
    }

    fn destroy(&self, id: u32, with_recordings: bool) -> Result<(), String> {
        let _turn = self.turn.lock();
        if !with_recordings {
            self.refuse_if_needed(id)?;
        }
        keys::forget(&self.paths, self.fs.ring(), id, self.clock.now().as_secs()).map_err(|e| e.to_string())
    }
}

impl Desk {
    /// Whoever is recorded meanwhile is not under a retired key.
    fn refuse_if_needed(&self, id: u32) -> Result<(), String> {
        let ring = self.fs.ring();
        if ring
            .list()
            .iter()
            .any(|key| key.id == id && key.state == KeyState::Active)
        {
            return Err(format!(
                "key {id} seals new recordings: make another one first, or say that those shall be unreadable"
            ));
        }
        if is_marked(&self.paths) {
            return Err("recordings are being brought under other keys just now: wait until that is done".to_owned());
        }
        let count = keys::count(&self.paths).map_err(|e| format!("recordings cannot be counted: {e}"))?;
        if let Some(count) = count.get(&id) {
            return Err(keys::still_needed(*count, id));
        }
        let rows = db::open_read_only(&self.paths.database()).and_then(|reader| reader.rows_under(id));
        match rows {
            Ok(0) => Ok(()),
            Ok(count) => Err(format!(
                "{count} rows of the database are under key {id}: run `tallyfs keys rewrap` first"
            )),
            Err(e) => Err(format!("rows cannot be counted: {e}")),
        }
    }
}

/// What the thread does.
pub struct Work {
    paths: StorePaths,
    fs: Arc<FileSystem>,
    errands: Errands,
    asked: Receiver<()>,
    turn: Arc<Mutex<()>>,
}

impl Work {
    /// Until the file system stops.
    pub fn run(&self) {
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            log::debug!("the rotation keeps its priority: {e}");
        }
        while !self.fs.is_stopping() {
            if self.asked.recv_timeout(PACE).is_err() {
                continue;
            }
            let Some(are_rows_done) = self.rotate() else {
                // The next daemon goes on.
                return;
            };
            let _turn = self.turn.lock();
            // Asked for again meanwhile: not done yet.
            if self.asked.is_empty() {
                self.end(are_rows_done);
            }
        }
    }

    /// Whether rows of the database are under the key of now; `None`: the daemon is stopping.
    fn rotate(&self) -> Option<bool> {
        let mut passes = 0;
        while self.fs.rotate(passes == PASSES_MAX)? > 0 {
            passes += 1;
        }
        match self.renew_rows()? {
            Ok(()) => Some(true),
            Err(reason) => {
                log::error!(
                    "keys: rows of the database stay under an old key: {reason}; `tallyfs keys rewrap` tries again"
                );
                self.fs.rotation().left("tallyfs.db".to_owned(), reason);
                Some(false)
            }
        }
    }

    fn end(&self, are_rows_done: bool) {
        if are_rows_done && let Err(e) = unmark(&self.paths) {
            log::warn!(
                "{}: {e}; the next start looks at all keys again",
                mark(&self.paths).display()
            );
        }
        self.fs.rotation().end();
        let progress = self.fs.rotation().progress();
        log::info!(
            "keys: {} recordings brought under the current keys, {} could not be",
            progress.changed,
            progress.left_count
        );
    }

    /// What the database says of files bears the code of a key, too. The writer's own thread does it, between two
    /// write-backs, so no row is older than what is written over it. `None`: the daemon is stopping.
    fn renew_rows(&self) -> Option<Result<(), String>> {
        let mut after = Some(Ino(0));
        let mut tries = 0;
        while let Some(behind) = after {
            let (ring, (answer, told)) = (self.fs.ring().clone(), crossbeam_channel::bounded(1));
            let is_taken = self.errands.hand_over(move |database| {
                let _ = answer.send(keys::renew_rows(database, &ring, behind, ROWS_AT_ONCE));
            });
            match told.recv_timeout(ROWS_TIME_MAX) {
                Ok(Ok(next)) => (after, tries) = (next, 0),
                Ok(Err(e)) => return Some(Err(e.to_string())),
                Err(_) if self.fs.is_stopping() => return None,
                Err(_) if tries == TRIES => {
                    let reason = if is_taken {
                        "the database does not answer"
                    } else {
                        "the database is gone"
                    };
                    return Some(Err(reason.to_owned()));
                }
                Err(_) => {
                    tries += 1;
                    std::thread::park_timeout(PACE);
                }
            }
        }
        Some(Ok(()))
    }
}
