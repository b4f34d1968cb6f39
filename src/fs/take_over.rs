//! Living on in the next process: what is kept while this one runs, and how the next one takes it over.
//!
//! The kernel goes on with the numbers that it was told. A directory is found again through its account, an open file
//! through what is kept of its handle, any other file by its number, where the backing file system opens one by that
//! alone (ext4). Else it answers ESTALE, upon which the kernel looks the path up once more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Statx};

use crate::fs::dir::Stream;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::file::told_to_kernel;
use crate::fs::handles::Handle;
use crate::fs::kept::{Kept, KeptHandle};
use crate::fs::node::{Meeting, Node, Pin};
use crate::fs::{Attr, Entry, FileSystem, Opened, OpenedDirectory, Remembered, c_name};
use crate::id::{Fh, Ino};
use crate::quota::Account;
use crate::store::orphans::Orphans;
use crate::store::sealed_file::SealedFile;
use crate::store::tree::{Anchor, stat_fd};
use crate::sys::FileHandle;
use crate::units::Meters;

/// What makes the mount outlive this process.
pub struct Estate {
    /// Handles.
    pub kept: Arc<Kept>,
    /// Files without a name.
    pub orphans: Orphans,
}

/// What was taken over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TakenOver {
    /// Handles that go on.
    pub handles_count: usize,
    /// Those that do not: their inodes cannot be opened.
    pub lost_count: usize,
}

impl FileSystem {
    /// The node that the kernel calls `number`; one that an earlier process told it of is found again.
    ///
    /// # Errors
    /// ESTALE when there is none.
    pub(super) fn node(&self, number: u64) -> FsResult<Arc<Node>> {
        match self.nodes.get(number) {
            Err(Errno::ESTALE) if self.is_taken_over() => {
                // Counted as looked up: the kernel will forget it one day.
                self.meet_directory(Ino(number), Meeting::LookedUp)
                    .or_else(|_| self.meet_file_by_number(Ino(number)))
            }
            other => other,
        }
    }

    /// The memory of open handles, where somebody keeps the mount when this process ends.
    pub fn kept(&self) -> Option<&Arc<Kept>> {
        self.estate.as_ref().map(|estate| &estate.kept)
    }

    fn is_taken_over(&self) -> bool {
        self.estate.as_ref().is_some_and(|estate| estate.kept.is_taken_over())
    }

    fn meet_directory(&self, ino: Ino, by: Meeting) -> FsResult<Arc<Node>> {
        let account = self.account_by_ino(ino)?;
        let directory = self.tree.open_path(&account.path()).map_err(|_| Errno::ESTALE)?;
        let stat = stat_fd(&directory)?;
        if stat.stx_ino != ino.0 {
            return Err(Errno::ESTALE);
        }
        let handle = FileHandle::of(&directory)?;
        let generation = handle.generation();
        self.nodes.meet(ino.0, generation, by, || {
            let anchor = self.tree.anchor(&directory, c".", handle, &stat)?;
            Ok(Node::new(&stat, generation, anchor, account.clone()))
        })
    }

    /// Where a file lies is told by the kernel's memory of names, and believed only if it is there.
    fn meet_file_by_number(&self, ino: Ino) -> FsResult<Arc<Node>> {
        let found = self.tree.find(ino).map_err(|_| Errno::ESTALE)?;
        let parent = self.tree.open_path(&found.parent).map_err(|_| Errno::ESTALE)?;
        let home = self.account_by_ino(Ino(stat_fd(&parent)?.stx_ino))?;
        let stat = self.tree.stat_at(&parent, &found.name).map_err(|_| Errno::ESTALE)?;
        let is_directory = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory;
        if stat.stx_ino != ino.0 || is_directory {
            return Err(Errno::ESTALE);
        }
        self.meet_file(found.handle, &stat, Meeting::LookedUp, || Ok(home))
    }

    /// The node of a file that is not a directory; `home` is told where it has one name.
    fn meet_file(
        &self,
        handle: FileHandle,
        stat: &Statx,
        by: Meeting,
        home: impl FnOnce() -> FsResult<Arc<Account>>,
    ) -> FsResult<Arc<Node>> {
        let several = stat.stx_nlink > 1;
        let shared = several
            .then(|| self.links.home(&self.ledger, Ino(stat.stx_ino)))
            .flatten();
        let home = shared.map_or_else(home, Ok)?;
        let generation = handle.generation();
        self.nodes.meet(stat.stx_ino, generation, by, || {
            let node = Node::new(stat, generation, Anchor::Handle(handle), home);
            node.file.several_links.store(several, Ordering::Release);
            Ok(node)
        })
    }

    /// A handle is about to be told to the kernel: keeps it for the next process, with the request that asked for it.
    pub fn keep(&self, fh: Fh, request: u64) {
        let Some(estate) = &self.estate else {
            return;
        };
        let Ok(handle) = self.handles.get(fh) else {
            return;
        };
        // It may be one of the process before.
        if handle.slot().is_some() {
            return;
        }
        let node = handle.node();
        let Ok(found) = node.handle(&self.tree) else {
            return;
        };
        let kept = KeptHandle {
            fh,
            ino: node.ino,
            request,
            home: node.home().ino(),
            handle: found,
            is_directory: handle.stream.is_some(),
            appends: handle.appends,
            writes: handle.writes,
        };
        if let Some(slot) = estate.kept.put(&kept) {
            handle.kept_slot.store(slot, Ordering::Release);
        }
    }

    /// Requests of an earlier process got errors, and will not be sent again: what it opened for them nobody has, and is
    /// closed. Returns how many handles.
    pub fn close_unanswered(&self, requests: &[u64]) -> usize {
        let Some(kept) = self.kept() else {
            return 0;
        };
        let is_left = |handle: &KeptHandle| handle.fh.0 <= kept.first_number() && requests.contains(&handle.request);
        let handles = kept.handles().into_iter().map(|(_, handle)| handle);
        handles
            .filter(|handle| is_left(handle) && self.release(handle.fh).is_ok())
            .count()
    }

    /// The handle is closed: nobody has to know of it any more.
    pub(super) fn forget_handle(&self, handle: &Handle) {
        if let Some(estate) = &self.estate
            && let Some(slot) = handle.slot()
        {
            estate.kept.free(slot);
        }
    }

    /// A file is charged to another directory now.
    pub(super) fn note_home(&self, node: &Node, home: &Account) {
        if let Some(estate) = &self.estate {
            estate.kept.moved(node.ino, home.ino());
        }
    }

    /// Two names are about to be exchanged.
    pub fn begin_exchange(&self, request: u64, parent: u64, name: &std::ffi::OsStr) {
        if let Some(estate) = &self.estate
            && let Ok(ino) = self.ino_at(parent, name)
        {
            estate.kept.begin_exchange(request, ino);
        }
    }

    /// Whether an exchange that an earlier process began was carried out.
    pub fn is_exchanged(&self, request: u64, parent: u64, name: &std::ffi::OsStr) -> bool {
        let begun = self
            .estate
            .as_ref()
            .and_then(|estate| estate.kept.exchange_begun(request));
        begun.is_some_and(|before| self.ino_at(parent, name).is_ok_and(|now| now != before))
    }

    fn ino_at(&self, parent: u64, name: &std::ffi::OsStr) -> FsResult<Ino> {
        let (parent, name) = (self.node(parent)?, c_name(name)?);
        parent.with_path(&self.tree, |dir| Ok(Ino(self.tree.stat_at(dir, &name)?.stx_ino)))
    }

    /// What stands at a name now, counted as looked up: of a name that an earlier process made.
    ///
    /// # Errors
    /// ENOENT.
    pub fn made_before(&self, parent: u64, name: &std::ffi::OsStr) -> FsResult<Entry> {
        let (parent, name) = (self.node(parent)?, c_name(name)?);
        let stat = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, &name))?;
        self.meet(&parent, &name, &stat).map(|(_, entry)| entry)
    }

    /// A rename that an earlier process carried out: who has the file open is told where it is charged now. `false`
    /// when nothing stands at the new name.
    pub fn renamed_before(&self, new_parent: u64, new_name: &std::ffi::OsStr) -> bool {
        let Ok(ino) = self.ino_at(new_parent, new_name) else {
            return false;
        };
        let home = self.node(new_parent).and_then(|parent| self.account_of(&parent));
        if let (Ok(node), Ok(home)) = (self.nodes.get(ino.0), home)
            && !node.is_directory()
            && !node.file.several_links.load(Ordering::Acquire)
        {
            let _state = node.file.state.lock();
            *node.file.home.write() = home.clone();
            self.note_home(&node, &home);
        }
        true
    }

    /// The handle that an earlier process opened for this request, and could not tell the kernel of.
    pub fn opened_before(&self, request: u64) -> Option<Opened> {
        let kept = self.kept_for(request).filter(|kept| !kept.is_directory)?;
        let handle = self.handles.get(kept.fh).ok()?;
        let mut state = handle.node().file.state.lock();
        Some(told_to_kernel(kept.fh, &mut state))
    }

    /// The same of a directory.
    pub fn directory_opened_before(&self, request: u64) -> Option<OpenedDirectory> {
        let kept = self.kept_for(request).filter(|kept| kept.is_directory)?;
        self.handles.get(kept.fh).ok()?;
        Some(OpenedDirectory {
            fh: kept.fh,
            remembered: Remembered::Not,
        })
    }

    fn kept_for(&self, request: u64) -> Option<KeptHandle> {
        let kept = &self.estate.as_ref()?.kept;
        let key = crate::fs::kept::request_key(request);
        let mut handles = kept.handles().into_iter().map(|(_, handle)| handle);
        handles.find(|handle| handle.request == key)
    }

    /// Takes over what an earlier process left: its handles go on, and files without a name that nobody has open go.
    pub fn take_over(&self) -> TakenOver {
        let mut taken = TakenOver::default();
        let Some(estate) = &self.estate else {
            return taken;
        };
        for (slot, kept) in estate.kept.handles() {
            match self.take_over_handle(slot, &kept) {
                Ok(()) => taken.handles_count += 1,
                Err(e) => {
                    log::warn!("inode {}: what had it open gets errors: errno {}", kept.ino, e.0);
                    estate.kept.free(slot);
                    taken.lost_count += 1;
                }
            }
        }
        let is_open = |ino: Ino| self.nodes.get(ino.0).is_ok_and(|node| node.is_unlinked());
        if let Err(e) = estate.orphans.remove_all_but(is_open) {
            log::warn!("deleted recordings may still take room in the store: {e}");
        }
        taken
    }

    fn take_over_handle(&self, slot: u32, kept: &KeptHandle) -> FsResult<()> {
        let handle = if kept.is_directory {
            Handle::directory(
                self.nodes.adopt_pin(self.meet_directory(kept.ino, Meeting::Pinned)?),
                Stream::default(),
            )
        } else {
            let pin = self.pin_kept(kept)?;
            self.open_again(&pin, kept);
            Handle::file(pin, kept.appends, kept.writes)
        };
        handle.kept_slot.store(slot, Ordering::Release);
        self.handles.insert_as(kept.fh, handle);
        Ok(())
    }

    /// The file of a handle, which recovery may have met already.
    fn pin_kept(&self, kept: &KeptHandle) -> FsResult<Pin> {
        let anchor = Anchor::Handle(kept.handle.clone());
        let stat = self.tree.with_path(&anchor, |fd| stat_fd(fd))?;
        if stat.stx_ino != kept.ino.0 || FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::RegularFile {
            return Err(Errno::ESTALE);
        }
        let home = || self.account_by_ino(kept.home);
        let node = self.meet_file(kept.handle.clone(), &stat, Meeting::Pinned, home)?;
        Ok(self.nodes.adopt_pin(node))
    }

    fn open_again(&self, pin: &Pin, kept: &KeptHandle) {
        let node = pin.node();
        let mut state = node.file.state.lock();
        let is_new_orphan = !node.is_unlinked()
            && self
                .estate
                .as_ref()
                .is_some_and(|estate| estate.orphans.holds(kept.ino));
        if is_new_orphan {
            node.set_unlinked();
        }
        if state.sealed.is_none()
            && let Err(e) = self.load(node, &mut state, kept.writes)
        {
            // Whoever reads or writes it gets EIO; it can be closed.
            self.note_damage(node, &mut state, &e);
        }
        if is_new_orphan {
            let length = state.sealed.as_deref().map_or(0, SealedFile::plain_length);
            self.ledger.charge_forced(&node.home(), Meters::of_file(length));
        }
        state.opens += 1;
        if kept.writes {
            state.writers += 1;
        }
    }

    /// Takes a name away. If it is the last one of a file that is open, that one gets another, which the next process finds.
    pub(super) fn with_orphan<T>(&self, orphan: Option<&Arc<Node>>, take: impl FnOnce() -> FsResult<T>) -> FsResult<T> {
        let (Some(estate), Some(node)) = (&self.estate, orphan) else {
            return take();
        };
        node.with_path(&self.tree, |fd| estate.orphans.keep(fd, node.ino))?;
        take().inspect_err(|_| estate.orphans.let_go(node.ino))
    }

    /// A file without a name is closed.
    pub(super) fn let_orphan_go(&self, node: &Node) {
        if let Some(estate) = &self.estate {
            estate.orphans.let_go(node.ino);
        }
    }

    /// Without a name there is none to be shown, although the store has one.
    pub(super) fn without_hidden_name(&self, node: &Node, mut attr: Attr) -> Attr {
        if self.estate.is_some() && node.is_unlinked() {
            attr.links = 0;
        }
        attr
    }
}
