//! New names: files, directories, links and special inodes. Charged before they exist; a name that
//! exists or a parent that is missing is told before any quota answer.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode};

use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::keep_figure;
use crate::fs::node::Node;
use crate::fs::remove::length_under_lock;
use crate::fs::{Caller, Entry, FileSystem, NewMode, OpenMode, Opened, c_name, mark};
use crate::quota::{Account, Booking, OperationKind, Reservation};
use crate::store::tree::{link, make_directory, make_node, make_symlink, set_mode, stat_fd};
use crate::units::Meters;

/// Mode bits that are set after the owner, because chown clears them.
const SPECIAL_BITS: u32 = 0o7000;

/// A regular file that was just made.
struct NewFile {
    node: Arc<Node>,
    entry: Entry,
    file: File,
    booking: Option<Booking>,
}

impl FileSystem {
    /// Makes a regular file and opens it; opens the existing one without `O_EXCL`.
    ///
    /// # Errors
    /// EEXIST, ENOENT; EDQUOT or ENOSPC from a limit.
    pub fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: NewMode,
        how: OpenMode,
        caller: Caller,
    ) -> FsResult<(Entry, Opened)> {
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let made = self.new_file(&parent, &name, mode, caller);
        match made {
            Ok(made) => {
                let opened = self.open_new(&made.node, made.file, how, made.booking);
                Ok((made.entry, opened))
            }
            Err(Errno::EEXIST) if !how.exclusive => {
                let stat = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, &name))?;
                let (node, entry) = self.meet(&parent, &name, &stat)?;
                let opened = self
                    .open_node(&node, how, caller)
                    .inspect_err(|_| self.nodes.forget(node.ino.0, 1))?;
                Ok((
                    Entry {
                        attr: self.attr_of(&node)?,
                        ..entry
                    },
                    opened,
                ))
            }
            Err(e) => Err(e),
        }
    }

    fn new_file(&self, parent: &Arc<Node>, name: &CStr, mode: NewMode, caller: Caller) -> FsResult<NewFile> {
        let account = self.account_of(parent)?;
        keep_figure(&account, name)?;
        let operation = self.dirty.enter();
        mark(&operation, &account);
        let recording_bytes = self.ledger.recording_bytes(&account);
        let reservation = self.reserve_name(parent, name, &account, Meters::of_file(recording_bytes))?;
        let file = parent.with_path(&self.tree, |dir| self.tree.create(dir, name, mode.permissions_in(dir)?))?;
        // It is on disk, so it counts, whatever goes wrong from here on.
        let booking = reservation.claim_recording();
        self.ledger.count_added(&account, 1, 0);
        self.ledger.count_operation(&account, OperationKind::Create);
        self.finish_inode(parent, file.as_fd(), mode.bits, caller)?;
        let (node, entry) = self.meet_made(&account, &file)?;
        self.notes.placed(node.ino, account.ino(), name.to_bytes());
        Ok(NewFile {
            node,
            entry,
            file,
            booking,
        })
    }

    /// Room for a new name, asked for only after a name that exists was ruled out.
    fn reserve_name(
        &self,
        parent: &Node,
        name: &CStr,
        account: &Arc<Account>,
        wanted: Meters,
    ) -> FsResult<Reservation> {
        self.ledger.reserve(account, wanted).map_err(|refusal| {
            match parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, name)) {
                Ok(_) => Errno::EEXIST,
                Err(Errno::ENOENT) => self.refused(&refusal),
                Err(e) => e,
            }
        })
    }

    /// Owner, group and the mode bits that the owner change would clear.
    fn finish_inode(&self, parent: &Node, fd: BorrowedFd<'_>, mode: u32, caller: Caller) -> FsResult<()> {
        self.give_to(caller, parent, fd)?;
        if mode & SPECIAL_BITS != 0 {
            // The permissions are there already, and so is what the directory hands down.
            let made = u32::from(stat_fd(fd)?.stx_mode);
            set_mode(fd, made | mode & SPECIAL_BITS)?;
        }
        Ok(())
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// EEXIST, ENOENT; EDQUOT or ENOSPC from a limit.
    pub fn mkdir(&self, parent: u64, name: &OsStr, mode: NewMode, caller: Caller) -> FsResult<Entry> {
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let account = self.account_of(&parent)?;
        keep_figure(&account, &name)?;
        let operation = self.dirty.enter();
        mark(&operation, &account);
        let made = self
            .reserve_name(&parent, &name, &account, Meters::ONE_DIR)
            .and_then(|reservation| {
                parent
                    .with_path(&self.tree, |dir| make_directory(dir, &name, mode.permissions_in(dir)?))
                    .map(|()| reservation)
            });
        let reservation = match made {
            Ok(reservation) => reservation,
            Err(Errno::EEXIST) if self.may_still_make(&parent, &name, caller) => {
                self.note_made(&parent, &name, caller);
                let stat = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, &name))?;
                return self.meet(&parent, &name, &stat).map(|(_, entry)| entry);
            }
            Err(e) => return Err(e),
        };
        reservation.claim(Meters::ONE_DIR);
        self.note_made(&parent, &name, caller);
        let (node, entry) = self.finish_named(&parent, &name, mode.bits, caller, |node| {
            let account = self.insert_account(&account, node.ino, node.generation, name.to_bytes());
            mark(&operation, &account);
        })?;
        debug_assert!(node.is_directory());
        Ok(entry)
    }

    /// Makes a regular file, fifo, socket or device without opening it.
    ///
    /// # Errors
    /// EEXIST, ENOENT; EDQUOT or ENOSPC from a limit; EPERM for devices without the right.
    pub fn mknod(&self, parent: u64, name: &OsStr, mode: NewMode, device: u64, caller: Caller) -> FsResult<Entry> {
        let kind = mode.bits & libc::S_IFMT;
        self.new_name(parent, name, mode.bits, caller, |dir, name| {
            make_node(dir, name, kind | mode.permissions_in(dir)?, device)
        })
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// EEXIST, ENOENT; EDQUOT or ENOSPC from a limit.
    pub fn symlink(&self, parent: u64, name: &OsStr, target: &Path, caller: Caller) -> FsResult<Entry> {
        self.new_name(parent, name, 0o777, caller, |dir, name| make_symlink(target, dir, name))
    }

    fn new_name(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        caller: Caller,
        make: impl FnOnce(BorrowedFd<'_>, &CStr) -> io::Result<()>,
    ) -> FsResult<Entry> {
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let account = self.account_of(&parent)?;
        keep_figure(&account, &name)?;
        let operation = self.dirty.enter();
        mark(&operation, &account);
        let reservation = self.reserve_name(&parent, &name, &account, Meters::of_file(0))?;
        parent.with_path(&self.tree, |dir| make(dir, &name))?;
        reservation.claim(Meters::of_file(0));
        self.ledger.count_added(&account, 1, 0);
        let (_, entry) = self.finish_named(&parent, &name, mode, caller, |_| ())?;
        Ok(entry)
    }

    /// Owner, mode and entry of an inode that was made by name.
    fn finish_named(
        &self,
        parent: &Arc<Node>,
        name: &CStr,
        mode: u32,
        caller: Caller,
        before_meeting: impl FnOnce(&Made),
    ) -> FsResult<(Arc<Node>, Entry)> {
        let (stat, generation) = parent.with_path(&self.tree, |dir| {
            let stat = self.tree.stat_at(dir, name)?;
            Ok((stat, self.tree.handle_at(dir, name)?.generation()))
        })?;
        before_meeting(&Made {
            ino: crate::id::Ino(stat.stx_ino),
            generation,
        });
        let given = (caller.uid, caller.gid) != (self.daemon.uid, self.daemon.gid) || mode & SPECIAL_BITS != 0;
        if !given {
            return self.meet(parent, name, &stat);
        }
        let is_link = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Symlink;
        let stat = parent.with_path(&self.tree, |dir| {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let mode = if is_link { 0 } else { mode };
            self.finish_inode(parent, fd.as_fd(), mode, caller)
                .map_err(|e| io::Error::from_raw_os_error(e.0))?;
            stat_fd(fd)
        })?;
        self.meet(parent, name, &stat)
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// EXDEV when the new place has other limited accounts above it, or is with another tenant's keys; EEXIST.
    pub fn link(&self, number: u64, parent: u64, name: &OsStr) -> FsResult<Entry> {
        let node = self.node(number)?;
        if node.is_directory() {
            return Err(Errno::EPERM);
        }
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let account = self.account_of(&parent)?;
        keep_figure(&account, &name)?;
        let state = node.file.state.lock();
        let home = node.home();
        let is_separate = || self.ring.line_at(&home.display_path()) != self.ring.line_at(&account.display_path());
        if !self.ledger.same_limited_chain(&home, &account) || (self.ring.has_tenants() && is_separate()) {
            return Err(Errno::EXDEV);
        }
        let operation = self.dirty.enter();
        mark(&operation, &account);
        self.mark_file(&operation, &node);
        let before = node.with_path(&self.tree, |fd| stat_fd(fd))?;
        let bytes = length_under_lock(&node, &state, &before, || Ok(before));
        let known = self.links.parents(node.ino);
        let from = known.first().cloned().unwrap_or_else(|| home.clone());
        parent.with_path(&self.tree, |dir| {
            node.with_path(&self.tree, |fd| link(fd, dir, &name))
                .map_err(|e| io::Error::from_raw_os_error(e.0))
        })?;
        let new_home = self.links.added(&self.ledger, node.ino, bytes, &from, &account);
        self.recharge(&home, &new_home, Meters::of_file(bytes));
        *node.file.home.write() = new_home;
        node.file
            .several_links
            .store(true, std::sync::atomic::Ordering::Release);
        drop(state);
        let stat = node.with_path(&self.tree, |fd| stat_fd(fd))?;
        self.meet(&parent, &name, &stat).map(|(_, entry)| entry)
    }

    /// Moves a charge without asking: the accounts that differ have no limits.
    pub(super) fn recharge(&self, from: &Arc<Account>, to: &Arc<Account>, moved: Meters) {
        if from.ino() != to.ino() {
            self.ledger.charge_forced(to, moved);
            self.ledger.uncharge(from, moved);
        }
    }
}

/// An inode that was just made.
pub(super) struct Made {
    /// Its number.
    pub ino: crate::id::Ino,
    /// Its generation.
    pub generation: u32,
}
