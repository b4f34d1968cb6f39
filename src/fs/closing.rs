//! Inodes without a name whose last descriptor the daemon has: closing one gives its room back to the disk,
//! which takes the disk its time, so a thread of its own does it, and not the one that answers.
//!
//! It does so a moment later. The kernel waits, busy, in the removal of a directory for every file of it that
//! is just being given back, and whoever removes a tree removes the directory right after its files.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::fs::FileSystem;

/// Files that wait. What does not fit is closed by who brings it, so room and descriptors of deleted files
/// come back as fast as files are deleted.
const QUEUE_FILES: usize = 1024;
/// The moment.
const LATER: Duration = Duration::from_millis(20);

/// The queue in front of the thread.
pub struct Closing {
    wanted: Sender<Arc<File>>,
    queue: Receiver<Arc<File>>,
}

impl Default for Closing {
    fn default() -> Self {
        let (wanted, queue) = bounded(QUEUE_FILES);
        Self { wanted, queue }
    }
}

impl Closing {
    /// Has a file closed soon.
    pub fn close(&self, file: Arc<File>) {
        drop(self.wanted.try_send(file));
    }
}

impl FileSystem {
    /// Closes the files that wait, or waits for one as long as `patience`.
    pub fn close_next(&self, patience: Duration) {
        let queue = &self.nodes.closing().queue;
        let Ok(first) = queue.recv_timeout(patience) else {
            return;
        };
        let rest: Vec<Arc<File>> = queue.try_iter().collect();
        std::thread::park_timeout(LATER);
        drop((first, rest));
    }
}
