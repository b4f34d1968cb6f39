//! Inodes that the kernel or the daemon has in mind, and the table that finds them by number.
//!
//! A node lives while the kernel has looked it up or something here pins it (an open handle, a file
//! that waits for sealing). A file that both have forgotten costs no memory at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Mutex, RwLock};
use rustix::fs::{FileType, OFlags, Statx, StatxFlags};

use crate::fs::closing::Closing;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::is_figure;
use crate::id::Ino;
use crate::quota::{Account, Booking};
use crate::store::sealed_file::SealedFile;
use crate::store::tree::{Anchor, Tree};
use crate::sys::FileHandle;

/// FUSE's number for the root, whatever the backing inode is.
pub const ROOT_NODE: u64 = 1;

/// Below this many nodes their memory is not worth giving back (some 200 bytes each).
const WORTH_SHRINKING_COUNT: usize = 50_000;

/// What is kept of one inode.
pub struct Node {
    /// Backing inode number, which the mount shows.
    pub ino: Ino,
    /// Tells apart two inodes that had the same number one after the other.
    pub generation: u32,
    /// Type, from the mode.
    pub kind: FileType,
    /// Mode bits as last seen or set; the daemon alone changes them.
    pub mode: AtomicU32,
    /// When the inode was made, where the backing file system tells; see [`Nodes::recognise`].
    birth: Option<(i64, u32)>,
    /// Its last name is going or gone, so its number may come to be another inode's.
    leaving: AtomicBool,
    anchor: Anchor,
    /// Keeps the number of an inode without a name from being given to another; see [`Node::hold`].
    held: OnceLock<Arc<File>>,
    lookups: AtomicU64,
    pins: AtomicU32,
    /// Of a directory: its time of change when it was last opened for reading at rest; else 0.
    pub listed_at_ns: AtomicU64,
    /// Of regular files and other inodes that are not directories.
    pub file: FileNode,
}

/// The part of a node that is not a directory.
pub struct FileNode {
    /// The account that the inode is charged to. Changed under `state`.
    pub home: RwLock<Arc<Account>>,
    /// Whether the inode has several names. Changed under `state`.
    pub several_links: AtomicBool,
    /// The last name is gone; the charge goes with the last handle. Changed under `state`.
    pub unlinked: AtomicBool,
    /// Content and handles. Held over the I/O of one request on this file, of no other file.
    pub state: Mutex<FileState>,
    /// Syncs of one file take turns; taken before `state`, held over the sync.
    pub sync_turn: Arc<Mutex<()>>,
}

/// Content and handles of a regular file.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that hold independently of each other"
)]
pub struct FileState {
    /// The opened sealed file, while something needs it; boxed, since most nodes are only looked at.
    pub sealed: Option<Box<SealedFile<File>>>,
    /// Open handles.
    pub opens: u32,
    /// Open handles that may write.
    pub writers: u32,
    /// In the committer's list.
    pub listed: bool,
    /// `change_count` when the kernel was last told that it may cache pages.
    pub cached_at: Option<u64>,
    /// The backing file was left empty by this process, which knows that nothing of it is at risk.
    pub known_empty: bool,
    /// Room that the limits keep for what is recorded into it, until its last close.
    pub booking: Option<Booking>,
    /// The committer carries a job of this file out, whose marks belong to `sealed` as it is.
    pub in_job: bool,
    /// A sync or sealing that failed was logged already.
    pub failure_logged: bool,
    /// Reads of this inode that failed were logged already.
    pub damage_logged: bool,
}

impl FileState {
    /// The backing file, while it is in memory.
    pub fn backing(&self) -> Option<&Arc<File>> {
        self.sealed.as_deref().map(SealedFile::backing)
    }

    /// Frees the memory of a file when it is not in use for anything.
    pub fn put_away_if_idle(&mut self) {
        if self.opens == 0 && !self.listed {
            self.put_away();
        }
    }

    /// Frees the memory of a clean file that nobody has open; not under a job, which ends with it.
    pub fn put_away(&mut self) {
        if self.in_job {
            return;
        }
        if let Some(sealed) = self.sealed.take() {
            self.known_empty = sealed.plain_length() == 0 && sealed.is_clean() && !sealed.is_unsynced();
            // The next life counts changes anew: the kernel's pages are good only if this one had none.
            self.cached_at = self.cached_at.filter(|&at| at == sealed.change_count()).map(|_| 0);
        }
    }
}

impl Node {
    /// A node about to be put in the table.
    pub fn new(stat: &Statx, generation: u32, anchor: Anchor, home: Arc<Account>) -> Self {
        Self {
            ino: Ino(stat.stx_ino),
            generation,
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            mode: AtomicU32::new(u32::from(stat.stx_mode)),
            birth: birth(stat),
            leaving: AtomicBool::new(false),
            anchor,
            held: OnceLock::new(),
            lookups: AtomicU64::new(0),
            pins: AtomicU32::new(0),
            listed_at_ns: AtomicU64::new(0),
            file: FileNode {
                home: RwLock::new(home),
                several_links: AtomicBool::new(false),
                unlinked: AtomicBool::new(false),
                state: Mutex::default(),
                sync_turn: Arc::new(Mutex::new(())),
            },
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// When it was made, seconds since 1970, where the backing file system tells.
    pub fn born_s(&self) -> Option<i64> {
        self.birth.map(|(born_s, _)| born_s)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether the last name is gone.
    pub fn is_unlinked(&self) -> bool {
        self.file.unlinked.load(Ordering::Acquire)
    }

    /// The last name went; called under the lock of `state`.
    pub fn set_unlinked(&self) {
        self.file.unlinked.store(true, Ordering::Release);
    }

    /// The account that a file is charged to.
    pub fn home(&self) -> Arc<Account> {
        self.file.home.read().clone()
    }

    /// Lends an `O_PATH` descriptor of the inode.
    ///
    /// # Errors
    /// ESTALE when it is gone.
    pub fn with_path<T>(&self, tree: &Tree, work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> FsResult<T> {
        match self.held.get() {
            Some(held) => work(held.as_fd()),
            None => tree.with_path(&self.anchor, work),
        }
        .map_err(Errno::from)
    }

    /// The last name is about to go: what keeps the inode itself, handed to [`Node::keep`] once it went.
    ///
    /// Its number would go to the next new inode otherwise; the kernel, told of that one, takes this one
    /// for bad, and a program that is just about to open it gets EIO where ENOENT is due. Without a
    /// descriptor to spare it is left to that. `open` is the file where it is in memory: it does as well.
    pub fn hold(&self, tree: &Tree, open: Option<&Arc<File>>) -> Option<Arc<File>> {
        self.leaving.store(true, Ordering::Release);
        if self.held.get().is_some() || !matches!(self.anchor, Anchor::Handle(_)) {
            return None;
        }
        match open {
            Some(open) => Some(open.clone()),
            None => tree.open(&self.anchor, OFlags::PATH).ok().map(Arc::new),
        }
    }

    /// The last name went: keeps the inode until the kernel has forgotten it.
    pub fn keep(&self, held: Option<Arc<File>>) {
        if let Some(held) = held {
            let _ = self.held.set(held);
        }
    }

    /// The kernel's handle of the inode, which outlives this process.
    ///
    /// # Errors
    /// Where the backing file system has none.
    pub fn handle(&self, tree: &Tree) -> io::Result<FileHandle> {
        match &self.anchor {
            Anchor::Handle(handle) => Ok(handle.clone()),
            Anchor::Descriptor(fd) => tree.handle_of(fd),
        }
    }

    /// Opens the backing inode for I/O of the daemon's own, without a trace in its access time.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_quietly(&self, tree: &Tree, flags: OFlags) -> io::Result<File> {
        tree.open_quietly(&self.anchor, flags)
    }

    /// Opens the backing inode.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, tree: &Tree, flags: OFlags) -> io::Result<File> {
        tree.open(&self.anchor, flags)
    }
}

/// Keeps a node in the table while it lives.
pub struct Pin {
    node: Arc<Node>,
    nodes: Arc<Nodes>,
}

impl Pin {
    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.node.pins.fetch_sub(1, Ordering::AcqRel);
        self.nodes.drop_if_unused(self.node.ino.0, &self.node);
    }
}

/// The table of nodes.
pub struct Nodes {
    table: DashMap<u64, Arc<Node>>,
    /// Most nodes seen by [`Nodes::shrink`] since it last gave memory back.
    peak_count: AtomicUsize,
    root: Arc<Node>,
    tree: Arc<Tree>,
    closing: Closing,
}

impl Nodes {
    /// A table with nothing but the root in it.
    pub fn new(root: Node, tree: Arc<Tree>) -> Self {
        Self {
            table: DashMap::new(),
            peak_count: AtomicUsize::new(0),
            root: Arc::new(root),
            tree,
            closing: Closing::default(),
        }
    }

    /// The queue of files to be closed.
    pub(super) fn closing(&self) -> &Closing {
        &self.closing
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// The node that the kernel calls `number`.
    ///
    /// # Errors
    /// ESTALE when there is none.
    pub fn get(&self, number: u64) -> FsResult<Arc<Node>> {
        if number == ROOT_NODE || number == self.root.ino.0 {
            return Ok(self.root.clone());
        }
        match self.table.get(&number) {
            Some(node) => Ok(node.clone()),
            // Nobody changes one.
            None if is_figure(number) => Err(Errno::EPERM),
            None => Err(Errno::ESTALE),
        }
    }

    /// The known node of an inode that was found on disk, told by number and time of birth, without a look at
    /// its handle. A number is another inode's only after a last name went, and then the node says so.
    pub fn recognise(&self, stat: &Statx, by: Meeting) -> Option<Arc<Node>> {
        let node = self.table.get(&stat.stx_ino)?;
        let is_same = node.birth.is_some()
            && node.birth == birth(stat)
            && node.kind == FileType::from_raw_mode(u32::from(stat.stx_mode))
            && !node.leaving.load(Ordering::Acquire);
        if !is_same {
            return None;
        }
        count(&node, by);
        Some(node.clone())
    }

    /// The node of an inode that was found on disk: the known one, or `fresh` when there is none or
    /// the number was reused. It is counted as looked up, or pinned, before anyone can drop it.
    pub fn meet(
        self: &Arc<Self>,
        ino: u64,
        generation: u32,
        by: Meeting,
        fresh: impl FnOnce() -> io::Result<Node>,
    ) -> FsResult<Arc<Node>> {
        if let Some(node) = self.table.get(&ino)
            && node.generation == generation
        {
            count(&node, by);
            return Ok(node.clone());
        }
        let made = Arc::new(fresh()?);
        Ok(match self.table.entry(ino) {
            Entry::Occupied(mut entry) if entry.get().generation == generation => {
                self.tree.release_anchor(&made.anchor);
                count(entry.get(), by);
                entry.get_mut().clone()
            }
            Entry::Occupied(mut entry) => {
                // The kernel counts look-ups by number, so the new inode inherits the old one's.
                made.lookups
                    .store(entry.get().lookups.load(Ordering::Acquire), Ordering::Release);
                count(&made, by);
                let old = entry.insert(made.clone());
                self.tree.release_anchor(&old.anchor);
                made
            }
            Entry::Vacant(entry) => {
                count(&made, by);
                entry.insert(made.clone());
                made
            }
        })
    }

    /// Keeps a node in the table until the pin is dropped.
    pub fn pin(self: &Arc<Self>, node: &Arc<Node>) -> Pin {
        node.pins.fetch_add(1, Ordering::AcqRel);
        Pin {
            node: node.clone(),
            nodes: self.clone(),
        }
    }

    /// A pin for a node that was met with [`Meeting::Pinned`].
    pub fn adopt_pin(self: &Arc<Self>, node: Arc<Node>) -> Pin {
        Pin {
            node,
            nodes: self.clone(),
        }
    }

    /// The kernel forgets `count` look-ups.
    pub fn forget(&self, number: u64, count: u64) {
        let Some(node) = self.table.get(&number).map(|node| node.clone()) else {
            return;
        };
        let lower = |now: u64| Some(now.saturating_sub(count));
        let _ = node.lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, lower);
        self.drop_if_unused(number, &node);
    }

    fn drop_if_unused(&self, number: u64, node: &Arc<Node>) {
        let unused = |node: &Node| node.lookups.load(Ordering::Acquire) == 0 && node.pins.load(Ordering::Acquire) == 0;
        if !unused(node) {
            return;
        }
        if let Some((_, gone)) = self
            .table
            .remove_if(&number, |_, held| Arc::ptr_eq(held, node) && unused(held))
        {
            self.tree.release_anchor(&gone.anchor);
            if let Some(held) = gone.held.get() {
                self.closing.close(held.clone());
            }
        }
    }

    /// Gives the memory of a table back that was large once and is no longer, and tells whether it
    /// did: the rest of what the nodes held is the allocator's then. Called now and then.
    pub fn shrink(&self) -> bool {
        let count = self.table.len();
        let peak = self.peak_count.fetch_max(count, Ordering::Relaxed).max(count);
        if peak < WORTH_SHRINKING_COUNT || count > peak / 2 {
            return false;
        }
        self.peak_count.store(count, Ordering::Relaxed);
        self.table.shrink_to_fit();
        true
    }
}

/// Who met an inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// The kernel, in an entry reply: counts as a look-up.
    LookedUp,
    /// The daemon, which pins it.
    Pinned,
}

fn birth(stat: &Statx) -> Option<(i64, u32)> {
    let is_told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    is_told.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

fn count(node: &Node, by: Meeting) {
    match by {
        Meeting::LookedUp => node.lookups.fetch_add(1, Ordering::AcqRel),
        Meeting::Pinned => u64::from(node.pins.fetch_add(1, Ordering::AcqRel)),
    };
}
