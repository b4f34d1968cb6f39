//! Keys of a mounted store: taken in, changed for others in a thread of its own, destroyed.
//!
//! A mark in the store says that recordings are to be brought under the keys of now; a daemon that finds it goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use super::DaemonError;
use super::keys;
use super::layout::{StorePaths, replace_durably, sync_parent};
use crate::admin::KeyDesk;
use crate::clock::Clock;
use crate::db::{self, PlaceRow};
use crate::fs::FileSystem;
use crate::id::Ino;

/// A pass that finds nothing ends it: another may find what moved past the one before. Files that fail are found each time.
const PASSES_MAX: usize = 4;
/// Rows that are looked up at once.
const ROWS_AT_ONCE: u32 = 1000;
/// As that of the hasher: recordings go first.
const NICE: i32 = 19;

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

/// A desk, and the thread that works for it.
///
/// # Errors
/// No thread can be had.
pub fn start(
    paths: &StorePaths,
    fs: &Arc<FileSystem>,
    clock: &Arc<dyn Clock>,
    first_file: Option<PathBuf>,
) -> Result<Desk, DaemonError> {
    let (wanted, asked) = crossbeam_channel::bounded(1);
    if is_marked(paths) {
        fs.rotation().begin();
        let _ = wanted.try_send(());
    }
    let turn = Arc::default();
    let work = Work {
        paths: paths.clone(),
        fs: fs.clone(),
        turn: Arc::clone(&turn),
    };
    let thread = thread::Builder::new().name("rotation".to_owned());
    thread.spawn(move || work.run(&asked)).map_err(DaemonError::Thread)?;
    Ok(Desk {
        paths: paths.clone(),
        fs: fs.clone(),
        clock: clock.clone(),
        first_file,
        wanted,
        turn,
    })
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
    fn first_file(&self) -> Option<PathBuf> {
        self.first_file.clone()
    }

    fn adopt(&self, file: &Path, tenant: Option<&str>) -> Result<u32, String> {
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

    fn destroy(&self, id: u32) -> Result<(), String> {
        keys::forget(&self.paths, self.fs.ring(), id, self.clock.now().as_secs()).map_err(|e| e.to_string())
    }
}

/// The thread's own.
struct Work {
    paths: StorePaths,
    fs: Arc<FileSystem>,
    turn: Arc<Mutex<()>>,
}

impl Work {
    fn run(&self, asked: &Receiver<()>) {
        if let Err(e) = rustix::process::setpriority_process(None, NICE) {
            log::debug!("the rotation keeps its priority: {e}");
        }
        for () in asked {
            if self.rotate().is_none() {
                // The daemon is stopping; the next one goes on.
                return;
            }
            let _turn = self.turn.lock();
            // Asked for again meanwhile: not done yet.
            if asked.is_empty() {
                self.end();
            }
        }
    }

    fn rotate(&self) -> Option<()> {
        for _ in 0..PASSES_MAX {
            if self.fs.rotate()? == 0 {
                break;
            }
        }
        if let Err(e) = self.renew_rows() {
            log::error!(
                "keys: rows of recordings stay under an old key for now: {e}; `tallyfs keys rewrap` tries again"
            );
        }
        Some(())
    }

    fn end(&self) {
        if let Err(e) = unmark(&self.paths) {
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

    /// What the database says of files bears the code of a key, too.
    fn renew_rows(&self) -> Result<(), db::Error> {
        let reader = db::open_read_only(&self.paths.database())?;
        let mut after = Ino(0);
        loop {
            let rows = reader.under_other_keys(self.fs.ring().current_id(), after, ROWS_AT_ONCE)?;
            for PlaceRow { ino, parent, name, .. } in &rows {
                if self.fs.is_stopping() {
                    return Ok(());
                }
                self.fs.renew_rows(*ino, *parent, name);
                after = *ino;
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}
