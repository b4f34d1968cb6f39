//! Recordings under old keys are brought under the keys of now while requests go on: heads in the committer's way, bodies never.
//!
//! A file that somebody writes is brought along when it is sealed; the pass waits for it. Whoever opens a file meanwhile finds
//! heads under both keys, and both are given.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::fs::committer::Begun;
use crate::fs::errno::Errno;
use crate::fs::node::{Node, Pin};
use crate::fs::{CommitStatus, FileSystem};
use crate::id::Ino;
use crate::sealed::keyring::KeyRing;
use crate::store::error::StoreError;
use crate::store::sealed_file::key_ids;

/// Files whose heads are written together: three syncs for all of them.
const BATCH_FILES: usize = 256;
/// Between two looks at files that are being written.
const OPEN_PACE: Duration = Duration::from_millis(500);
/// Files that could not be brought along are told by name up to here, and counted beyond.
const LEFT_MAX: usize = 100;

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RotationState {
    /// None was asked for since the start.
    #[default]
    None,
    /// Files are looked at.
    Running,
    /// All others are done: some are being written, and come along when they are closed.
    Waiting,
    /// No file that could be read is under an old key.
    Done,
}

/// How far it is.
#[derive(Clone, Default, Debug)]
pub struct RotationProgress {
    pub state: RotationState,
    /// Files that this pass has looked at.
    pub looked_at: u64,
    /// Files that got new heads.
    pub changed: u64,
    /// Files that are being written under an old key.
    pub open: u64,
    /// Files and directories that this pass could do nothing about.
    pub left_count: u64,
    /// Path and reason of the first of them.
    pub left: Vec<(String, String)>,
}

/// The progress, for who asks.
#[derive(Default)]
pub struct Rotation {
    progress: Mutex<RotationProgress>,
}

impl Rotation {
    /// Of now.
    pub fn progress(&self) -> RotationProgress {
        self.progress.lock().clone()
    }

    /// It is asked for; from here on it counts as running.
    pub fn begin(&self) {
        *self.progress.lock() = RotationProgress {
            state: RotationState::Running,
            ..RotationProgress::default()
        };
    }

    /// Nothing is left to be done, but for what was told.
    pub fn end(&self) {
        self.progress.lock().state = RotationState::Done;
    }

    fn begin_pass(&self) {
        let mut progress = self.progress.lock();
        *progress = RotationProgress {
            state: RotationState::Running,
            changed: progress.changed,
            ..RotationProgress::default()
        };
    }

    /// Something stays as it is.
    pub fn left(&self, path: String, reason: String) {
        let mut progress = self.progress.lock();
        progress.left_count += 1;
        if progress.left.len() < LEFT_MAX {
            progress.left.push((path, reason));
        }
    }
}

/// What stands in the way of a file for now.
enum Outcome {
    /// It is under keys of now.
    Current,
    /// Its heads are to be written.
    Old(Pin),
    /// It is being written.
    Open(Pin),
}

impl FileSystem {
    /// The keys.
    pub fn ring(&self) -> &Arc<KeyRing> {
        &self.ring
    }

    /// How far bringing recordings under the keys of now is.
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// One pass over all files and what it takes until those that were open are closed; `None`: the daemon is stopping.
    /// Given back is how many files were under an old key: they were brought along, unless something failed; the next pass
    /// tells. A pass that `gives_up` brings none along, and tells each as left.
    pub fn rotate(&self, gives_up: bool) -> Option<u64> {
        self.rotation.begin_pass();
        let mut found_count = 0;
        let mut batch = Vec::new();
        let mut open = Vec::new();
        for account in self.ledger.accounts() {
            let told = |name: &[u8]| format!("{}/{}", account.display_path(), String::from_utf8_lossy(name));
            let names = self.list_names(account.ino()).unwrap_or_else(|e| {
                // One that was removed has no files.
                if e.kind() != std::io::ErrorKind::NotFound {
                    self.rotation.left(told(b""), e.to_string());
                }
                Vec::new()
            });
            for name in names {
                if self.is_stopping() {
                    return None;
                }
                match self.look_at_keys(account.ino(), &name) {
                    Ok(Outcome::Current) => {}
                    Ok(Outcome::Old(_) | Outcome::Open(_)) if gives_up => {
                        self.rotation.left(told(&name), "still under an old key".to_owned());
                    }
                    Ok(Outcome::Old(pin)) => batch.push(pin),
                    Ok(Outcome::Open(pin)) => open.push(pin),
                    Err(reason) => self.rotation.left(told(&name), reason),
                }
                self.rotation.progress.lock().looked_at += 1;
                if batch.len() >= BATCH_FILES {
                    found_count += batch.len() as u64;
                    open.extend(self.rewrap(std::mem::take(&mut batch)));
                }
            }
        }
        found_count += (batch.len() + open.len()) as u64;
        open.extend(self.rewrap(batch));
        self.wait_for_closes(open)?;
        Some(found_count)
    }

    /// `None`: the daemon is stopping.
    fn wait_for_closes(&self, mut open: Vec<Pin>) -> Option<()> {
        while !open.is_empty() {
            {
                let mut progress = self.rotation.progress.lock();
                progress.state = RotationState::Waiting;
                progress.open = open.len() as u64;
            }
            std::thread::park_timeout(OPEN_PACE);
            if self.is_stopping() {
                return None;
            }
            let (mut old, mut still) = (Vec::new(), Vec::new());
            for pin in open {
                match self.keys_of(pin) {
                    Ok(Outcome::Current) => {}
                    Ok(Outcome::Old(pin)) => old.push(pin),
                    Ok(Outcome::Open(pin)) => still.push(pin),
                    Err((node, reason)) => self.rotation.left(path_of(&node), reason),
                }
            }
            still.extend(self.rewrap(old));
            open = still;
        }
        let mut progress = self.rotation.progress.lock();
        progress.state = RotationState::Running;
        progress.open = 0;
        Some(())
    }

    fn look_at_keys(&self, parent: Ino, name: &[u8]) -> Result<Outcome, String> {
        match self.pin_at(parent, name) {
            Ok(pin) => self.keys_of(pin).map_err(|(_, reason)| reason),
            // No file, or gone.
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(Outcome::Current),
            Err(e) => Err(std::io::Error::from_raw_os_error(e.0).to_string()),
        }
    }

    fn keys_of(&self, pin: Pin) -> Result<Outcome, (Arc<Node>, String)> {
        let node = pin.node().clone();
        if node.is_unlinked() {
            return Ok(Outcome::Current);
        }
        let ids = node
            .open_quietly(&self.tree, OFlags::RDONLY)
            .map_err(StoreError::from)
            .and_then(|file| key_ids(&file));
        let ids = match ids {
            Ok(ids) => ids,
            Err(e) => return Err((node, e.to_string())),
        };
        if !self.ring.is_outdated(&node.home().display_path(), &ids) {
            return Ok(Outcome::Current);
        }
        let state = node.file.state.lock();
        Ok(if state.writers > 0 || state.listed {
            Outcome::Open(pin)
        } else {
            Outcome::Old(pin)
        })
    }

    /// New heads for these files; given back are those that somebody began to write, or is busy with.
    fn rewrap(&self, pins: Vec<Pin>) -> Vec<Pin> {
        let (mut jobs, mut busy, mut status) = (Vec::new(), Vec::new(), CommitStatus::default());
        for pin in pins {
            match self.begin_rewrap(pin.node()) {
                Begun::Job(job) => jobs.push(job),
                Begun::Busy => busy.push(pin),
                Begun::Failed(reason) => self.rotation.left(path_of(pin.node()), reason),
            }
        }
        self.carry_out(jobs, &mut status);
        self.rotation.progress.lock().changed += status.sealed_count as u64;
        busy
    }
}

fn path_of(node: &Node) -> String {
    format!("inode {} in {}", node.ino, node.home().display_path())
}
