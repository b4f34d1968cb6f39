//! Rename in all its forms: atomic, EXDEV only between tenants with keys of their own (a recording stays under the keys of whom it
//! belongs to; `mv` copies it then), and the accounts that the two places do not share
//! are charged and credited in the same step.
//!
//! A kill between the backing rename and the commit of the transfer costs nothing: both parents were
//! noted as dirty before, and start-up counts them again.

use std::ffi::{CStr, OsStr};
use std::sync::Arc;

use parking_lot::MutexGuard;
use rustix::fs::{FileType, RenameFlags, Statx};

use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::{keep_figure, unless_figure};
use crate::fs::node::{FileState, Meeting, Node, Pin};
use crate::fs::remove::{Gone, length_under_lock};
use crate::fs::{ContentNote, FileSystem, c_name, mark};
use crate::id::Ino;
use crate::quota::{Account, ExchangeSide, Moved, Transfer};
use crate::store::dirty_log::Operation;
use crate::store::tree::{rename, stat_fd};
use crate::units::Meters;

/// What to do about a target that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameKind {
    /// Replace it.
    Replace,
    /// EEXIST.
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// One name that takes part.
struct Side<'a> {
    dir: &'a Arc<Node>,
    account: Arc<Account>,
    name: &'a CStr,
}

impl Side<'_> {
    /// Below the mount, as text.
    fn path(&self) -> String {
        let name = String::from_utf8_lossy(self.name.to_bytes());
        match self.account.display_path() {
            root if root.is_empty() => name.into_owned(),
            path => format!("{path}/{name}"),
        }
    }
}

/// What a name was before the rename.
struct Was {
    stat: Statx,
    pin: Pin,
}

impl Was {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(u32::from(self.stat.stx_mode)) == FileType::Directory
    }
}

impl FileSystem {
    /// Renames.
    ///
    /// # Errors
    /// ENOENT, EEXIST, ENOTEMPTY, EISDIR, ENOTDIR, EINVAL; EDQUOT or ENOSPC when the new place has
    /// no room, and then nothing changed.
    pub fn rename(
        &self,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        kind: RenameKind,
    ) -> FsResult<()> {
        let (from_dir, to_dir) = (self.node(parent)?, self.node(new_parent)?);
        let (name, new_name) = (c_name(name)?, c_name(new_name)?);
        let from = Side {
            dir: &from_dir,
            account: self.account_of(&from_dir)?,
            name: &name,
        };
        let to = Side {
            dir: &to_dir,
            account: self.account_of(&to_dir)?,
            name: &new_name,
        };
        let _turn = self.tree_lock.lock();
        let absent = || unless_figure(&from.account, from.name, Errno::ENOENT);
        let source = self.was(&from)?.ok_or_else(absent)?;
        let target = self.was(&to)?;
        if target.is_none() {
            keep_figure(&to.account, to.name).map_err(|_| Errno::EPERM)?;
        }
        if self.ring.has_tenants() && self.ring.separates(&from.path(), &to.path()) {
            return Err(Errno::EXDEV);
        }
        let operation = self.dirty.enter();
        self.mark_side(&operation, &from, &source);
        mark(&operation, &to.account);
        if let Some(target) = &target {
            self.mark_side(&operation, &to, target);
        }
        match (kind, &target) {
            (RenameKind::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameKind::Exchange, None) => return Err(Errno::ENOENT),
            (RenameKind::Exchange, Some(target)) => self.exchange(&from, &to, &source, target)?,
            (_, Some(target)) if target.stat.stx_ino == source.stat.stx_ino => return Ok(()),
            (_, target) => self.replace(&from, &to, &source, target.as_ref(), kind)?,
        }
        self.note_moved(&to, &source);
        match (kind, &target) {
            (RenameKind::Exchange, Some(target)) => self.note_moved(&from, target),
            (_, Some(target)) if target.stat.stx_nlink == 1 => {
                self.notes().content(Ino(target.stat.stx_ino), ContentNote::Gone);
            }
            _ => {}
        }
        Ok(())
    }

    fn note_moved(&self, to: &Side<'_>, was: &Was) {
        if !was.is_directory() {
            self.notes()
                .placed(Ino(was.stat.stx_ino), to.account.ino(), to.name.to_bytes());
        }
    }

    fn was(&self, side: &Side<'_>) -> FsResult<Option<Was>> {
        match side.dir.with_path(&self.tree, |dir| self.tree.stat_at(dir, side.name)) {
            Ok(stat) => {
                let node = self.meet_as(side.dir, side.name, &stat, Meeting::Pinned)?;
                Ok(Some(Was {
                    stat,
                    pin: self.nodes.adopt_pin(node),
                }))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Plaintext length with the state's lock held; the name is another look, which needs no descriptor.
    fn length_of_side(&self, side: &Side<'_>, was: &Was, state: &MutexGuard<'_, FileState>) -> u64 {
        let node = was.pin.node();
        length_under_lock(node, state, &was.stat, || {
            let now = side
                .dir
                .with_path(&self.tree, |dir| self.tree.stat_at(dir, side.name))?;
            if now.stx_ino == was.stat.stx_ino {
                Ok(now)
            } else {
                node.with_path(&self.tree, |fd| stat_fd(fd))
            }
        })
    }

    fn what_goes(&self, side: &Side<'_>, was: &Was, state: &MutexGuard<'_, FileState>) -> Gone {
        Gone {
            bytes: self.length_of_side(side, was, state),
            names: was.stat.stx_nlink,
        }
    }

    fn mark_side(&self, operation: &Operation<'_>, side: &Side<'_>, was: &Was) {
        mark(operation, &side.account);
        if was.is_directory() {
            if let Some(account) = self.ledger.account(Ino(was.stat.stx_ino)) {
                mark(operation, &account);
            }
        } else {
            self.mark_file(operation, was.pin.node());
        }
    }

    fn rename_on_disk(&self, from: &Side<'_>, to: &Side<'_>, flags: RenameFlags) -> FsResult<()> {
        from.dir.with_path(&self.tree, |from_fd| {
            to.dir
                .with_path(&self.tree, |to_fd| {
                    rename((from_fd, from.name), (to_fd, to.name), flags)
                })
                .map_err(|e| std::io::Error::from_raw_os_error(e.0))
        })
    }

    fn replace(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: &Was,
        target: Option<&Was>,
        kind: RenameKind,
    ) -> FsResult<()> {
        let flags = if kind == RenameKind::NoReplace {
            RenameFlags::NOREPLACE
        } else {
            RenameFlags::empty()
        };
        if source.is_directory() {
            self.replace_by_directory(from, to, source, target, flags)
        } else {
            self.replace_by_file(from, to, source, target, flags)
        }
    }

    /// After a directory moved, an inode with names in and beside it has another deepest directory
    /// that holds them all.
    fn rehome(&self, before: Vec<(Ino, Arc<Account>)>) {
        let operation = self.dirty.enter();
        for (ino, old_home) in before {
            let node = self.nodes.get(ino.0).ok();
            let _state = node.as_ref().map(|node| node.file.state.lock());
            let Some(new_home) = self.links.home(&self.ledger, ino) else {
                continue;
            };
            if new_home.ino() == old_home.ino() {
                continue;
            }
            mark(&operation, &old_home);
            mark(&operation, &new_home);
            self.recharge(&old_home, &new_home, Meters::of_file(self.links.bytes(ino)));
            if let Some(node) = &node {
                *node.file.home.write() = new_home;
            }
        }
    }

    fn replace_by_directory(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: &Was,
        target: Option<&Was>,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let account = self.account_by_ino(Ino(source.stat.stx_ino))?;
        let credit = if target.is_some() {
            Meters::ONE_DIR
        } else {
            Meters::ZERO
        };
        let before = self.links.homes(&self.ledger);
        let moved = self
            .ledger
            .move_directory(&account, &to.account, to.name.to_bytes(), credit);
        let moved = moved.map_err(|refusal| self.refused(&refusal))?;
        let held = target.and_then(|target| target.pin.node().hold(&self.tree, None));
        self.rename_on_disk(from, to, flags)?;
        if let Some(target) = target {
            target.pin.node().keep(held);
        }
        moved.commit();
        if let Some(target) = target {
            self.ledger.remove(Ino(target.stat.stx_ino));
        }
        self.rehome(before);
        self.place_below(&account);
        Ok(())
    }

    fn replace_by_file(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: &Was,
        target: Option<&Was>,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let source_node = source.pin.node();
        let source_state = source_node.file.state.lock();
        let bytes = self.length_of_side(from, source, &source_state);
        let old_home = source_node.home();
        let new_home = if source.stat.stx_nlink > 1 {
            self.links
                .home_if_moved(&self.ledger, source_node.ino, &from.account, &to.account)
                .unwrap_or_else(|| old_home.clone())
        } else {
            to.account.clone()
        };
        let victim = target
            .filter(|target| !target.is_directory())
            .map(|target| (target, target.pin.node()));
        let mut victim_state = victim.map(|(_, node)| node.file.state.lock());
        let gone = victim
            .zip(victim_state.as_ref())
            .map(|((target, _), state)| self.what_goes(to, target, state));
        // Given back in the same step only where it is really held.
        let credit = match (victim, &victim_state, gone) {
            (Some((_, node)), Some(state), Some(gone))
                if gone.names == 1 && state.opens == 0 && node.home().ino() == new_home.ino() =>
            {
                Meters::of_file(gone.bytes)
            }
            _ => Meters::ZERO,
        };
        let moved = self
            .ledger
            .transfer(&old_home, &new_home, Meters::of_file(bytes), credit);
        let moved = moved.map_err(|refusal| self.refused(&refusal))?;
        let held = match (victim, gone) {
            (Some((_, node)), Some(Gone { names: 1, .. })) => {
                node.hold(&self.tree, victim_state.as_ref().and_then(|state| state.backing()))
            }
            _ => None,
        };
        let orphan = match (victim, gone, &victim_state) {
            (Some((_, node)), Some(Gone { names: 1, .. }), Some(state)) if state.opens > 0 => Some(node),
            _ => None,
        };
        self.with_orphan(orphan, || self.rename_on_disk(from, to, flags))?;
        if let Some((_, node)) = victim {
            node.keep(held);
        }
        moved.commit();
        if source.stat.stx_nlink > 1 {
            self.links
                .moved(&self.ledger, source_node.ino, &from.account, &to.account);
        }
        self.note_home(source_node, &new_home);
        *source_node.file.home.write() = new_home;
        if let (Some((_, node)), Some(state), Some(gone)) = (victim, victim_state.as_mut(), gone) {
            self.victim_gone(node, state, &to.account, gone, credit);
        }
        Ok(())
    }

    /// The books after a file was replaced; `credit` was given back for it already.
    fn victim_gone(
        &self,
        node: &Arc<Node>,
        state: &mut MutexGuard<'_, FileState>,
        parent: &Account,
        gone: Gone,
        credit: Meters,
    ) {
        if credit == Meters::ZERO {
            self.name_gone(node, state, parent, gone);
        } else {
            self.count_gone(node, parent, credit.bytes);
            node.set_unlinked();
            state.sealed = None;
        }
    }

    fn exchange(&self, from: &Side<'_>, to: &Side<'_>, source: &Was, target: &Was) -> FsResult<()> {
        if source.stat.stx_ino == target.stat.stx_ino {
            return self.rename_on_disk(from, to, RenameFlags::EXCHANGE);
        }
        let before = if source.is_directory() || target.is_directory() {
            self.links.homes(&self.ledger)
        } else {
            Vec::new()
        };
        // Under the tree lock nobody else holds two of these, so their order does not matter.
        let source_state = source.pin.node().file.state.lock();
        let target_state = target.pin.node().file.state.lock();
        let source_bytes = self.length_of_side(from, source, &source_state);
        let target_bytes = self.length_of_side(to, target, &target_state);
        let a = ExchangeSide {
            parent: &from.account,
            name: from.name.to_bytes(),
            moved: self.moved(source, source_bytes)?,
        };
        let b = ExchangeSide {
            parent: &to.account,
            name: to.name.to_bytes(),
            moved: self.moved(target, target_bytes)?,
        };
        let moved_itself = [source.pin.node().ino, target.pin.node().ino];
        let swapped: Transfer = self.ledger.exchange(a, b).map_err(|refusal| self.refused(&refusal))?;
        self.rename_on_disk(from, to, RenameFlags::EXCHANGE)?;
        swapped.commit();
        self.after_exchange(source, from, to, source_bytes)?;
        self.after_exchange(target, to, from, target_bytes)?;
        drop((source_state, target_state));
        self.rehome(
            before
                .into_iter()
                .filter(|(ino, _)| !moved_itself.contains(ino))
                .collect(),
        );
        Ok(())
    }

    fn after_exchange(&self, was: &Was, old: &Side<'_>, new: &Side<'_>, bytes: u64) -> FsResult<()> {
        let node = was.pin.node();
        if was.is_directory() {
            self.place_below(&self.account_by_ino(Ino(was.stat.stx_ino))?);
        } else if was.stat.stx_nlink > 1 {
            let home = node.home();
            if let Some(new_home) = self.links.moved(&self.ledger, node.ino, &old.account, &new.account) {
                self.recharge(&home, &new_home, Meters::of_file(bytes));
                *node.file.home.write() = new_home;
            }
        } else {
            self.note_home(node, &new.account);
            *node.file.home.write() = new.account.clone();
        }
        Ok(())
    }

    /// What an exchange moves for one side. Inodes with several names follow their own rule after.
    fn moved(&self, was: &Was, bytes: u64) -> FsResult<Moved> {
        if was.is_directory() {
            return Ok(Moved::Dir(self.account_by_ino(Ino(was.stat.stx_ino))?));
        }
        Ok(Moved::File(if was.stat.stx_nlink > 1 {
            Meters::ZERO
        } else {
            Meters::of_file(bytes)
        }))
    }

    /// After a directory moved, its path and those of everything below fall under other rules.
    fn place_below(&self, moved: &Arc<Account>) {
        self.place(moved);
        if !self.config().has_rules() {
            return;
        }
        let is_below = |account: &Arc<Account>| {
            std::iter::successors(account.parent(), |above| above.parent()).any(|above| above.ino() == moved.ino())
        };
        for account in self.ledger.accounts().iter().filter(|account| is_below(account)) {
            self.place(account);
        }
    }
}
