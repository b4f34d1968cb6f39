//! Names to inodes, attributes, and forgetting.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Statx};

use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::is_figure;
use crate::fs::node::{Meeting, Node};
use crate::fs::{Attr, Caller, Entry, FileSystem, Found, c_name};
use crate::id::Ino;
use crate::quota::{Account, OperationKind};
use crate::sealed::length::{SizeOnDisk, classify};
use crate::store::sealed_file::SealedFile;
use crate::store::tree::stat_fd;

impl FileSystem {
    /// Looks a name up; today's and tomorrow's date directories of a tenant are made on the way.
    ///
    /// # Errors
    /// Errors of the backing look-up; a missing name is no error.
    pub fn lookup(&self, parent: u64, name: &OsStr, caller: Caller) -> FsResult<Found> {
        if is_figure(parent) {
            let month = self.look_up_month(parent, name)?;
            return Ok(month.map_or(Found::AbsentForNow, Found::Figure));
        }
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let found = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, &name));
        match found {
            Ok(_) if self.may_still_make(&parent, &name, caller) => Ok(Found::AbsentForNow),
            Ok(stat) => {
                let (node, entry) = self.meet(&parent, &name, &stat)?;
                self.count(&node, OperationKind::Stat);
                Ok(Found::Entry(entry))
            }
            Err(Errno::ENOENT) => match self.figure_named(&parent, &name) {
                Some(figure) => Ok(Found::Figure(figure)),
                None => self.lookup_absent(&parent, &name, caller),
            },
            Err(e) => Err(e),
        }
    }

    /// The node and entry of a name that was just seen; counts as looked up.
    pub(super) fn meet(&self, parent: &Node, name: &CStr, stat: &Statx) -> FsResult<(Arc<Node>, Entry)> {
        let node = self.meet_as(parent, name, stat, Meeting::LookedUp)?;
        let entry = self.entry(&node, stat);
        match entry {
            Ok(entry) => Ok((node, entry)),
            Err(e) => {
                self.nodes.forget(node.ino.0, 1);
                Err(e)
            }
        }
    }

    /// The node and entry of a file that was just made in the account's directory; counts as looked up.
    pub(super) fn meet_made(&self, account: &Arc<Account>, file: &File) -> FsResult<(Arc<Node>, Entry)> {
        let stat = stat_fd(file)?;
        let handle = self.tree.handle_of(file)?;
        let generation = handle.generation();
        let node = self.nodes.meet(stat.stx_ino, generation, Meeting::LookedUp, || {
            let anchor = self.tree.anchor_new(file, handle)?;
            Ok(Node::new(&stat, generation, anchor, account.clone()))
        })?;
        let attr = Attr::of(&stat, Some(0));
        Ok((node, Entry { attr, generation }))
    }

    pub(super) fn meet_as(&self, parent: &Node, name: &CStr, stat: &Statx, by: Meeting) -> FsResult<Arc<Node>> {
        let is_directory = FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory;
        let account = self.account_of(parent)?;
        let node = match self.nodes.recognise(stat, by) {
            Some(known) => known,
            None => parent.with_path(&self.tree, |dir| {
                let handle = self.tree.handle_at(dir, name)?;
                let generation = handle.generation();
                let fresh = || {
                    let anchor = self.tree.anchor(dir, name, handle, stat)?;
                    Ok(Node::new(stat, generation, anchor, account.clone()))
                };
                Ok(self.nodes.meet(stat.stx_ino, generation, by, fresh))
            })??,
        };
        node.mode.store(u32::from(stat.stx_mode), Ordering::Release);
        if is_directory {
            if self.ledger.account(node.ino).is_none() {
                log::warn!(
                    "directory inode {} appeared in the store behind the daemon's back; it is counted from now on",
                    node.ino
                );
                let found = self.insert_account(&account, node.ino, node.generation, name.to_bytes());
                self.adopt_limits(&found, &node);
            }
        } else if stat.stx_nlink > 1 {
            let _state = node.file.state.lock();
            if let Some(home) = self.links.home(&self.ledger, node.ino) {
                node.file.several_links.store(true, Ordering::Release);
                *node.file.home.write() = home;
            }
        }
        Ok(node)
    }

    /// Makes the account of a directory, with the limits that its path gets from the rules.
    pub(super) fn insert_account(&self, parent: &Arc<Account>, ino: Ino, generation: u32, name: &[u8]) -> Arc<Account> {
        let account = self.ledger.insert(parent, ino, generation, name);
        self.place(&account);
        account
    }

    /// Gives an account the level and limits of its path, with those over them that were set on the directory. All of it
    /// in one turn: what is placed after a move or under a new configuration is not overwritten by who looked before.
    pub(super) fn place(&self, account: &Arc<Account>) {
        let _placing = self.placing.lock();
        let config = self.config();
        let components = account.components();
        let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
        let placement = config.placement(&components);
        self.ledger.set_level(account, placement.level, placement.is_tenant);
        let mut policy = placement.policy;
        policy.limits = account.overrides().over(policy.limits);
        self.ledger.set_policy(account, &policy);
    }

    fn entry(&self, node: &Arc<Node>, stat: &Statx) -> FsResult<Entry> {
        let length = if node.is_file() {
            Some(self.length_of(node, stat)?)
        } else {
            None
        };
        Ok(Entry {
            attr: Attr::of(stat, length),
            generation: node.generation,
        })
    }

    /// The plaintext length: from memory while the file is in use, else from its size on disk.
    pub(super) fn length_of(&self, node: &Arc<Node>, stat: &Statx) -> FsResult<u64> {
        let mut state = node.file.state.lock();
        if let Some(sealed) = &state.sealed {
            return Ok(sealed.plain_length());
        }
        let mut size = classify(stat.stx_size);
        if size == SizeOnDisk::Unclean {
            // It may have been sealed between the look-up and here.
            size = node.with_path(&self.tree, |fd| stat_fd(fd).map(|stat| classify(stat.stx_size)))?;
        }
        match size {
            SizeOnDisk::Clean(length) => Ok(length),
            SizeOnDisk::Damaged => {
                self.note_impossible_size(node, &mut state);
                Ok(0)
            }
            SizeOnDisk::Unclean => {
                if let Err(e) = self.load(node, &mut state, false) {
                    self.note_damage(node, &mut state, &e);
                    return Ok(0);
                }
                let length = state.sealed.as_deref().map_or(0, SealedFile::plain_length);
                self.list(node, &mut state);
                Ok(length)
            }
        }
    }

    /// Attributes of an inode, exact also while it is being written.
    ///
    /// # Errors
    /// ESTALE when it is gone.
    pub fn getattr(&self, number: u64) -> FsResult<Attr> {
        if is_figure(number) {
            return self.figure_attr(number);
        }
        let node = self.node(number)?;
        self.count(&node, OperationKind::Stat);
        self.attr_of(&node)
    }

    /// Counts what was done to a node for the statistics of its tenant.
    pub(super) fn count(&self, node: &Node, operation: OperationKind) {
        if node.is_directory() {
            if let Some(account) = self.ledger.account(node.ino) {
                self.ledger.count_operation(&account, operation);
            }
        } else {
            self.ledger.count_operation(&node.file.home.read(), operation);
        }
    }

    pub(super) fn attr_of(&self, node: &Arc<Node>) -> FsResult<Attr> {
        if !node.is_file() {
            let stat = node.with_path(&self.tree, |fd| stat_fd(fd))?;
            return Ok(self.without_hidden_name(node, Attr::of(&stat, None)));
        }
        {
            let state = node.file.state.lock();
            if let Some(sealed) = &state.sealed {
                // Under the lock, or sealing could be seen half-way in the times.
                let stat = stat_fd(&**sealed.backing())?;
                let attr = Attr::of(&stat, Some(sealed.plain_length()));
                return Ok(self.without_hidden_name(node, attr));
            }
        }
        let stat = node.with_path(&self.tree, |fd| stat_fd(fd))?;
        let length = self.length_of(node, &stat)?;
        Ok(self.without_hidden_name(node, Attr::of(&stat, Some(length))))
    }

    /// The kernel forgets `count` look-ups of an inode.
    pub fn forget(&self, number: u64, count: u64) {
        self.nodes.forget(number, count);
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL for anything else.
    pub fn readlink(&self, number: u64) -> FsResult<Vec<u8>> {
        let node = self.node(number)?;
        node.with_path(&self.tree, |fd| {
            Ok(rustix::fs::readlinkat(fd, c"", Vec::new())?.into_bytes())
        })
    }

    /// Gives a new inode to its caller. In a set-group-id directory the group is the directory's.
    pub(super) fn give_to(&self, caller: Caller, parent: &Node, fd: BorrowedFd<'_>) -> FsResult<bool> {
        let inherits_group = parent.mode.load(Ordering::Acquire) & libc::S_ISGID != 0;
        let uid = (caller.uid != self.daemon.uid).then_some(caller.uid);
        let gid = (caller.gid != self.daemon.gid && !inherits_group).then_some(caller.gid);
        if uid.is_none() && gid.is_none() {
            return Ok(false);
        }
        crate::store::tree::set_owner(fd, uid, gid)?;
        Ok(true)
    }

    pub(super) fn now_unix_s(&self) -> u64 {
        self.clock.now().as_secs()
    }

    /// Answers a refusal: logged once per burst.
    pub(super) fn refused(&self, refusal: &crate::quota::Refusal) -> Errno {
        self.refusals.note(refusal, self.clock.monotonic(), self.clock.now());
        if let Some(account) = self.ledger.account(refusal.account) {
            self.ledger.count_operation(&account, OperationKind::Denied);
            self.ledger.note_refusal(&account, refusal);
        }
        Errno(refusal.errno())
    }
}
