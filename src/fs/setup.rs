//! Putting the file system together, and taking over what a crash left unsealed.

use std::ffi::CString;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{FileType, Mode, OFlags};

use crate::config::Config;
use crate::fs::baseline::ContentNote;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::node::{Meeting, Node, Nodes, Pin};
use crate::fs::{
    FileSystem, MultiLink, Parts, baseline, committer, date_dirs, failures, figures, handles, hashing, links, refusals,
};
use crate::id::Ino;
use crate::store::sealed_file::SealedFile;
use crate::store::tree::{Anchor, stat_fd};
use crate::units::Meters;

impl FileSystem {
    /// A file system over loaded parts.
    ///
    /// # Errors
    /// When the data directory cannot be examined.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let stat = stat_fd(parts.tree.root())?;
        let generation = parts.tree.root_generation();
        let anchor = Anchor::Descriptor(rustix::fs::openat(
            parts.tree.root(),
            c".",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        let root = Node::new(&stat, generation, anchor, parts.ledger.root().clone());
        let links = links::Links::default();
        for link in &parts.links {
            links.load(&parts.ledger, link);
        }
        Ok(Self {
            nodes: Arc::new(Nodes::new(root, parts.tree.clone())),
            tree: parts.tree,
            handles: handles::Handles::behind(parts.estate.as_ref().map_or(0, |estate| estate.kept.first_number())),
            ledger: parts.ledger,
            links,
            dirty: parts.dirty,
            ring: parts.ring,
            strict_overwrite: parts.config.durability.strict_overwrite,
            config: RwLock::new(parts.config),
            clock: parts.clock,
            daemon: parts.daemon,
            administrators: parts.administrators,
            estate: parts.estate,
            refusals: refusals::Refusals::default(),
            failures: failures::Failures::default(),
            committer: committer::Committer::new(parts.unsealed_files_max),
            notes: baseline::Notes::default(),
            hashing: hashing::Hashing::default(),
            rotation: crate::fs::rotation::Rotation::default(),
            known_heads: parts.known_heads,
            past_operations: parts.past_operations,
            open_figures: figures::OpenFigures::default(),
            date_dirs: date_dirs::DateDirs::default(),
            tree_lock: Mutex::new(()),
            limits_turn: Mutex::new(()),
            placing: Mutex::new(()),
            stopping: AtomicBool::new(false),
        })
    }

    /// Takes over a file that a crash left unclean: opens it, charges its length (the file itself is
    /// charged already) and has it sealed. Returns the length, `None` when it does not open.
    ///
    /// # Errors
    /// The name or its directory is gone.
    pub fn adopt_unclean(&self, parent: Ino, name: &[u8]) -> FsResult<Option<u64>> {
        let pin = self.pin_at(parent, name)?;
        let node = pin.node();
        let mut state = node.file.state.lock();
        if state.sealed.is_some() {
            return Ok(state.sealed.as_deref().map(SealedFile::plain_length));
        }
        if let Err(e) = self.load(node, &mut state, false) {
            self.note_damage(node, &mut state, &e);
            return Ok(None);
        }
        let length = state.sealed.as_deref().map_or(0, SealedFile::plain_length);
        self.ledger.charge_forced(&node.home(), Meters::of_bytes(length));
        self.note_length(node, length);
        self.list(node, &mut state);
        self.notes.placed(node.ino, parent, name);
        Ok(Some(length))
    }

    /// The inode behind a name in a directory that is known.
    pub(super) fn pin_at(&self, parent: Ino, name: &[u8]) -> FsResult<Pin> {
        let account = self.account_by_ino(parent)?;
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let dir = self.tree.open_path(&account.path())?;
        let stat = self.tree.stat_at(&dir, &name)?;
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::RegularFile {
            return Err(Errno::EINVAL);
        }
        let handle = self.tree.handle_at(&dir, &name)?;
        let generation = handle.generation();
        let node = self.nodes.meet(stat.stx_ino, generation, Meeting::Pinned, || {
            let anchor = self.tree.anchor(&dir, &name, handle, &stat)?;
            Ok(Node::new(&stat, generation, anchor, account.clone()))
        })?;
        let pin = self.nodes.adopt_pin(node);
        let node = pin.node();
        if stat.stx_nlink > 1
            && let Some(home) = self.links.home(&self.ledger, node.ino)
        {
            node.file.several_links.store(true, Ordering::Release);
            *node.file.home.write() = home;
        }
        Ok(pin)
    }

    /// Takes a file up whose row is missing, or has no hash: notes where it is and what its head says,
    /// and has it hashed. A head that is older than what is known stays what it is, for the alarm.
    /// What an earlier daemon left was synced before ([`FileSystem::sync_store`]): no row is ahead of it.
    pub fn take_up(&self, parent: Ino, name: &[u8]) {
        let Ok(pin) = self.pin_at(parent, name) else {
            return;
        };
        let node = pin.node();
        let mut state = node.file.state.lock();
        if self.sealed_and_idle(node, &mut state).is_some() {
            self.notes.placed(node.ino, parent, name);
            self.note_sealed(node, &state);
        }
        state.put_away_if_idle();
    }

    /// Forgets what was known of the empty files that lie directly in a directory: they may have been cut
    /// to zero before a kill that left no time to save that. One look at each, before there are requests.
    pub fn forget_emptied(&self, directory: Ino) {
        let Ok(account) = self.account_by_ino(directory) else {
            return;
        };
        let Ok(dir) = self.tree.open_path(&account.path()) else {
            return;
        };
        for name in self.names_in(directory) {
            let stat = CString::new(name)
                .ok()
                .and_then(|name| self.tree.stat_at(&dir, &name).ok());
            if let Some(stat) = stat
                && FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::RegularFile
                && stat.stx_size == 0
            {
                self.notes.content(Ino(stat.stx_ino), ContentNote::Unsealed);
            }
        }
    }

    /// [`FileSystem::take_up`] for every file that lies directly in a directory: what a killed daemon had
    /// not saved. Breaks off when the daemon is stopping.
    pub fn take_up_directory(&self, directory: Ino) -> ControlFlow<()> {
        for name in self.names_in(directory) {
            if self.is_stopping() {
                return ControlFlow::Break(());
            }
            self.take_up(directory, &name);
        }
        ControlFlow::Continue(())
    }

    /// What lies directly in a directory; nothing when it cannot be read.
    fn names_in(&self, directory: Ino) -> Vec<Vec<u8>> {
        self.list_names(directory).unwrap_or_else(|e| {
            log::debug!("directory inode {directory}: {e}");
            Vec::new()
        })
    }

    pub(super) fn list_names(&self, directory: Ino) -> io::Result<Vec<Vec<u8>>> {
        let gone = |_| io::Error::from(io::ErrorKind::NotFound);
        let account = self.account_by_ino(directory).map_err(gone)?;
        let dir = self.tree.open_path(&account.path())?;
        let dir = rustix::fs::openat(&dir, c".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// What has to be saved about inodes with several names.
    pub fn changed_links(&self) -> (Vec<MultiLink>, Vec<Ino>) {
        self.links.take_changed()
    }

    /// What could not be saved of them.
    pub fn give_back_links(&self, inos: impl IntoIterator<Item = Ino>) {
        self.links.give_back_changed(inos);
    }

    /// All inodes with several names.
    pub fn all_links(&self) -> Vec<MultiLink> {
        self.links.all()
    }

    /// What they add to the own figures of accounts, which rows of directories do not have.
    pub fn link_charges(&self) -> links::LinkCharge {
        self.links.charges(&self.ledger)
    }

    /// Gives every account the level and limits of its path.
    pub fn place_all(&self) {
        for account in self.ledger.accounts() {
            self.place(&account);
        }
    }

    /// Puts another configuration into force while there are requests: each account gets its limits anew, one after the
    /// other, and nobody waits for more than one of them. What was set on directories stays over it.
    pub fn reconfigure(&self, config: Arc<Config>) {
        {
            let _placing = self.placing.lock();
            *self.config.write() = config;
        }
        self.place_all();
    }

    /// Takes less memory for inodes when there were many and are few; `true` when it did.
    pub fn shrink(&self) -> bool {
        self.nodes.shrink()
    }

    /// After the last request: handles that the kernel did not release any more are closed.
    pub fn release_all(&self) {
        for fh in self.handles.numbers() {
            if let Err(e) = self.release(fh) {
                log::debug!("closing a handle that was left: errno {}", e.0);
            }
        }
    }

    /// Files that somebody has open, by their backing names, at most so many.
    pub fn open_files(&self, count_max: usize) -> Vec<String> {
        let handles = self.handles.all();
        let files = handles.iter().filter(|handle| handle.stream.is_none());
        let name = |handle: &Arc<handles::Handle>| {
            // One that hangs on the disk is not waited for.
            let state = handle.node().file.state.try_lock()?;
            let backing = state.sealed.as_ref()?.backing().as_raw_fd();
            let path = std::fs::read_link(format!("/proc/self/fd/{backing}")).ok()?;
            Some(path.display().to_string())
        };
        let mut names: Vec<String> = files.filter_map(name).collect();
        names.sort();
        names.dedup();
        names.truncate(count_max);
        names
    }

    /// No request is answered any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_committer();
    }

    /// Whether [`FileSystem::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
