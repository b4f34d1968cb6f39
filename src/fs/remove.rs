//! Names that go. Always allowed, also over a limit; bytes and file are given back at the last close
//! of the last name.

use std::ffi::OsStr;
use std::sync::Arc;

use parking_lot::MutexGuard;
use rustix::fs::{FileType, Statx};

use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::unless_figure;
use crate::fs::node::{FileState, Meeting, Node};
use crate::fs::{FileSystem, c_name, mark};
use crate::quota::{Account, OperationKind};
use crate::sealed::length::{SizeOnDisk, classify};
use crate::store::tree::{remove_directory, stat_fd, unlink};
use crate::units::Meters;

/// What a name stood for, found out under the state's lock before it went.
#[derive(Clone, Copy)]
pub(super) struct Gone {
    /// Plaintext length.
    pub bytes: u64,
    /// Names of the inode, this one included.
    pub names: u32,
}

impl FileSystem {
    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn unlink(&self, parent: u64, name: &OsStr) -> FsResult<()> {
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let account = self.account_of(&parent)?;
        let found = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, &name));
        let stat = found.map_err(|e| unless_figure(&account, &name, e))?;
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        let node = self.meet_as(&parent, &name, &stat, Meeting::Pinned)?;
        let pin = self.nodes.adopt_pin(node);
        let node = pin.node();
        let operation = self.dirty.enter();
        mark(&operation, &account);
        let mut state = node.file.state.lock();
        self.mark_file(&operation, node);
        let is_last = stat.stx_nlink == 1;
        let held = is_last.then(|| node.hold(&self.tree, state.backing())).flatten();
        let bytes = length_under_lock(node, &state, &stat, || match &held {
            Some(held) => Ok(stat_fd(held)?),
            None => node.with_path(&self.tree, |fd| stat_fd(fd)),
        });
        let orphan = (is_last && state.opens > 0).then_some(node);
        self.with_orphan(orphan, || parent.with_path(&self.tree, |dir| unlink(dir, &name)))?;
        node.keep(held);
        self.ledger.count_operation(&account, OperationKind::Delete);
        self.name_gone(
            node,
            &mut state,
            &account,
            Gone {
                bytes,
                names: stat.stx_nlink,
            },
        );
        Ok(())
    }

    /// The books after a name of `node` in `parent` is gone.
    pub(super) fn name_gone(
        &self,
        node: &Arc<Node>,
        state: &mut MutexGuard<'_, FileState>,
        parent: &Account,
        gone: Gone,
    ) {
        let bytes = gone.bytes;
        if gone.names > 1 {
            let home = node.home();
            if let Some((new_home, names)) = self.links.removed(&self.ledger, node.ino, parent) {
                self.recharge(&home, &new_home, Meters::of_file(bytes));
                *node.file.home.write() = new_home;
                node.file
                    .several_links
                    .store(names > 1, std::sync::atomic::Ordering::Release);
            }
            return;
        }
        node.set_unlinked();
        self.notes.content(node.ino, crate::fs::ContentNote::Gone);
        if state.opens == 0 {
            self.uncharge_unlinked(node, state, bytes);
        }
    }

    /// The last name and the last handle are gone.
    pub(super) fn uncharge_unlinked(&self, node: &Arc<Node>, state: &mut FileState, bytes: u64) {
        let home = node.home();
        self.ledger.uncharge(&home, Meters::of_file(bytes));
        self.count_gone(node, &home, bytes);
        state.sealed = None;
    }

    /// The history after an inode is gone. A file that never held anything was no recording of its period.
    pub(super) fn count_gone(&self, node: &Node, home: &Account, bytes: u64) {
        self.ledger.count_deleted(home, 1, bytes);
        if bytes == 0
            && node.is_file()
            && let Some(born_s) = node.born_s()
        {
            self.ledger.refund_file(home, born_s);
        }
    }

    /// Removes an empty directory and its account.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY.
    pub fn rmdir(&self, parent: u64, name: &OsStr) -> FsResult<()> {
        let parent = self.node(parent)?;
        let name = c_name(name)?;
        let account = self.account_of(&parent)?;
        let found = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, &name));
        let stat = found.map_err(|e| unless_figure(&account, &name, e))?;
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let operation = self.dirty.enter();
        mark(&operation, &account);
        let gone = self.ledger.account(crate::id::Ino(stat.stx_ino));
        if let Some(gone) = &gone {
            mark(&operation, gone);
        }
        let known = self.nodes.get(stat.stx_ino).ok();
        let held = known.as_ref().and_then(|node| node.hold(&self.tree, None));
        parent.with_path(&self.tree, |dir| remove_directory(dir, &name))?;
        if let Some(node) = known {
            node.keep(held);
        }
        self.directory_gone(&account, stat.stx_ino);
        Ok(())
    }

    pub(super) fn directory_gone(&self, parent: &Arc<Account>, ino: u64) {
        self.ledger.remove(crate::id::Ino(ino));
        self.ledger.uncharge(parent, Meters::ONE_DIR);
    }
}

/// Plaintext length with the state's lock held. `stat` is from before, `look` is for a look now.
pub(super) fn length_under_lock(
    node: &Arc<Node>,
    state: &MutexGuard<'_, FileState>,
    stat: &Statx,
    look: impl FnOnce() -> FsResult<Statx>,
) -> u64 {
    if !node.is_file() {
        return 0;
    }
    if let Some(sealed) = &state.sealed {
        return sealed.plain_length();
    }
    match look().map_or(classify(stat.stx_size), |now| classify(now.stx_size)) {
        SizeOnDisk::Clean(length) => length,
        SizeOnDisk::Unclean | SizeOnDisk::Damaged => 0,
    }
}
