//! Hashes of contents, computed after the last close by a thread of its own, with a bounded queue, beside
//! everything else: never in a request, never in the committer, and given up when a file is opened for
//! writing again. The committer puts finished hashes into the heads, in its batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::fs::FileSystem;
use crate::fs::errno::FsResult;
use crate::fs::node::{FileState, Node, Pin};
use crate::id::Fh;
use crate::store::sealed_file::HeadFacts;

/// Files that wait; what does not fit is found again by the rows that have no hash.
const QUEUE_FILES: usize = 4096;
/// So many finished hashes start the next tick of the committer early.
const DONE_FILES: usize = 1024;
/// Plaintext of one read.
const READ_BYTES: usize = 1 << 20;
/// At most so much is read in a second: four thousand recordings of 16 KiB/s.
const READ_BYTES_PER_S: u64 = 64 << 20;

/// A file whose content is known now.
pub struct Hashed {
    /// Keeps the node.
    pub pin: Pin,
    /// Head under which the content was read.
    pub facts: HeadFacts,
    /// SHA-256 of the plaintext.
    pub content_sha256: [u8; 32],
}

/// The queue in front of the thread, and what it has done.
pub struct Hashing {
    wanted: Sender<Pin>,
    queue: Receiver<Pin>,
    dropped: AtomicBool,
    done: Mutex<Vec<Hashed>>,
    /// Kept between files: a fresh one for each costs more than a short recording takes to read.
    buffer: Mutex<Vec<u8>>,
}

impl Default for Hashing {
    fn default() -> Self {
        let (wanted, queue) = bounded(QUEUE_FILES);
        Self {
            wanted,
            queue,
            dropped: AtomicBool::new(false),
            done: Mutex::default(),
            buffer: Mutex::default(),
        }
    }
}

impl Hashing {
    /// Has a file hashed some time. Never blocks.
    pub fn want(&self, pin: Pin) {
        if self.wanted.try_send(pin).is_err() {
            self.dropped.store(true, Ordering::Release);
        }
    }

    /// What was finished since the last call.
    pub fn take_done(&self) -> Vec<Hashed> {
        std::mem::take(&mut self.done.lock())
    }

    /// Nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Files that wait, and finished hashes that wait for their heads.
    pub fn counts(&self) -> (usize, usize) {
        (self.queue.len(), self.done.lock().len())
    }

    /// Whether files did not fit since the last call.
    pub fn take_dropped(&self) -> bool {
        self.dropped.swap(false, Ordering::AcqRel)
    }
}

impl FileSystem {
    /// The queue of files to be hashed.
    pub fn hashing(&self) -> &Hashing {
        &self.hashing
    }

    /// Whoever wrote a whole file knows its hash, and sealing puts it into the heads: nobody has to read it again. The
    /// next change of the content forgets it.
    ///
    /// # Errors
    /// EBADF.
    pub fn know_hash(&self, fh: Fh, content_sha256: [u8; 32]) -> FsResult<()> {
        let handle = self.handles.get(fh)?;
        if let Some(sealed) = handle.node().file.state.lock().sealed.as_mut() {
            sealed.know_hash(content_sha256);
        }
        Ok(())
    }

    /// Hashes one file, or waits for one as long as `patience`.
    pub fn hash_next(&self, patience: Duration) {
        let Ok(pin) = self.hashing.queue.recv_timeout(patience) else {
            return;
        };
        let hashed = self.hash(pin.node());
        pin.node().file.state.lock().put_away_if_idle();
        let Some((facts, content_sha256)) = hashed else {
            return;
        };
        let waiting_count = {
            let mut done = self.hashing.done.lock();
            done.push(Hashed {
                pin,
                facts,
                content_sha256,
            });
            done.len()
        };
        if waiting_count >= DONE_FILES {
            self.wake_committer();
            // It takes them all at once; a committer that hangs is not run away from.
            std::thread::park_timeout(patience);
        }
    }

    /// `None`: damaged, or changed meanwhile.
    fn hash(&self, node: &Arc<Node>) -> Option<(HeadFacts, [u8; 32])> {
        // Not the file's own descriptor, whose reads are clients' and move the access time.
        let quiet = Arc::new(node.open_quietly(&self.tree, OFlags::RDONLY).ok()?);
        let mut facts = None;
        let mut hash = Sha256::new();
        let mut buffer = self.hashing.buffer.lock();
        buffer.resize(READ_BYTES, 0);
        let mut plain_offset = 0;
        let begun = self.clock.monotonic();
        loop {
            let plan = {
                let mut state = node.file.state.lock();
                let now = self.sealed_and_idle(node, &mut state)?;
                if *facts.get_or_insert(now) != now || now.content_sha256 != [0; 32] || self.is_stopping() {
                    return None;
                }
                state.sealed.as_ref()?.plan_read(plain_offset, &mut buffer)
            };
            let bytes = match plan.through(&quiet).finish(&mut buffer) {
                Ok(0) => return Some((facts?, hash.finalize().into())),
                Ok(bytes) => bytes,
                Err(e) => {
                    let mut state = node.file.state.lock();
                    // Or a writer was half-way, whose change has it hashed again.
                    if self.sealed_and_idle(node, &mut state) == facts {
                        self.note_damage(node, &mut state, &e);
                    }
                    return None;
                }
            };
            hash.update(&buffer[..bytes]);
            plain_offset += bytes as u64;
            let due = Duration::from_millis(plain_offset * 1000 / READ_BYTES_PER_S);
            std::thread::park_timeout((begun + due).saturating_sub(self.clock.monotonic()));
        }
    }

    /// The head of a file that nobody writes and nothing waits for; brings it to memory.
    pub(super) fn sealed_and_idle(&self, node: &Arc<Node>, state: &mut FileState) -> Option<HeadFacts> {
        if node.is_unlinked() || state.writers > 0 || state.listed {
            return None;
        }
        if state.sealed.is_none() {
            self.load(node, state, false).ok()?;
        }
        let sealed = state.sealed.as_ref().filter(|sealed| sealed.is_clean())?;
        sealed.head_facts().filter(|facts| facts.is_sealed)
    }
}
