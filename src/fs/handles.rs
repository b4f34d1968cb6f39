//! Open files and directories, by the numbers that the kernel was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;

use crate::fs::dir::Stream;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::node::{Node, Pin};
use crate::id::Fh;

/// One open file or directory. Dropping the last reference unpins the node.
pub struct Handle {
    pin: Pin,
    /// Opened with `O_APPEND`: every write goes to the end, whatever its offset says.
    pub appends: bool,
    /// May write.
    pub writes: bool,
    /// Of directories: where the reader is.
    pub stream: Option<Stream>,
    /// Where it is kept for the next process; see [`Handle::slot`].
    pub kept_slot: AtomicU32,
}

/// It is not kept.
const NO_SLOT: u32 = u32::MAX;

impl Handle {
    /// A handle on a file.
    pub fn file(pin: Pin, appends: bool, writes: bool) -> Self {
        Self {
            pin,
            appends,
            writes,
            stream: None,
            kept_slot: NO_SLOT.into(),
        }
    }

    /// A handle on a directory.
    pub fn directory(pin: Pin, stream: Stream) -> Self {
        Self {
            pin,
            appends: false,
            writes: false,
            stream: Some(stream),
            kept_slot: NO_SLOT.into(),
        }
    }

    /// Where it is kept for the next process.
    pub fn slot(&self) -> Option<u32> {
        let slot = self.kept_slot.load(Ordering::Acquire);
        (slot != NO_SLOT).then_some(slot)
    }

    /// What is open.
    pub fn node(&self) -> &Arc<Node> {
        self.pin.node()
    }
}

/// The table of handles.
#[derive(Default)]
pub struct Handles {
    table: DashMap<u64, Arc<Handle>>,
    last: AtomicU64,
    writing: AtomicU64,
    reading: AtomicU64,
    directories: AtomicU64,
}

/// How many there are, by what they are for.
pub struct OpenCounts {
    /// On files, that may write.
    pub writing: u64,
    /// On files, that only read.
    pub reading: u64,
    /// On directories.
    pub directories: u64,
}

impl Handles {
    /// Handles whose numbers begin behind this one.
    pub fn behind(last: u64) -> Self {
        Self {
            last: last.into(),
            ..Self::default()
        }
    }

    /// Takes in a handle that an earlier process numbered.
    pub fn insert_as(&self, fh: Fh, handle: Handle) {
        self.count_of(&handle).fetch_add(1, Ordering::Relaxed);
        self.table.insert(fh.0, Arc::new(handle));
    }

    /// Numbers a handle. No number is used twice.
    pub fn insert(&self, handle: Handle) -> Fh {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.count_of(&handle).fetch_add(1, Ordering::Relaxed);
        self.table.insert(number, Arc::new(handle));
        Fh(number)
    }

    /// The handle with this number.
    ///
    /// # Errors
    /// EBADF when there is none.
    pub fn get(&self, fh: Fh) -> FsResult<Arc<Handle>> {
        self.table.get(&fh.0).map(|handle| handle.clone()).ok_or(Errno::EBADF)
    }

    /// Takes a handle out.
    ///
    /// # Errors
    /// EBADF when there is none.
    pub fn remove(&self, fh: Fh) -> FsResult<Arc<Handle>> {
        let (_, handle) = self.table.remove(&fh.0).ok_or(Errno::EBADF)?;
        self.count_of(&handle).fetch_sub(1, Ordering::Relaxed);
        Ok(handle)
    }

    fn count_of(&self, handle: &Handle) -> &AtomicU64 {
        match (&handle.stream, handle.writes) {
            (Some(_), _) => &self.directories,
            (None, true) => &self.writing,
            (None, false) => &self.reading,
        }
    }

    /// How many are open.
    pub fn open_counts(&self) -> OpenCounts {
        OpenCounts {
            writing: self.writing.load(Ordering::Relaxed),
            reading: self.reading.load(Ordering::Relaxed),
            directories: self.directories.load(Ordering::Relaxed),
        }
    }

    /// All numbers in use, of files and of directories.
    pub fn numbers(&self) -> Vec<Fh> {
        self.table.iter().map(|handle| Fh(*handle.key())).collect()
    }

    /// All handles.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        self.table.iter().map(|handle| handle.clone()).collect()
    }
}
