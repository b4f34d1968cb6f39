//! Taking files with several names out of the tree, when all of it has been met: with one name gone and a kill before the
//! next is made in the store, nobody could tell any more that they were one file.
//!
//! The store is synced before. A kill in the midst leaves names that are in the store; the next run compares and removes them.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::fs::{FileType, Statx};

use super::remarks::{Remarks, Why};
use super::source::{InodeId, Seen, SourceDir, Visitor, inode_id};
use super::target::{Known, Target};

/// Files with several names whose copies are verified: what they were, and their inodes in the store.
#[derive(Default)]
pub struct Shared {
    files: HashMap<InodeId, (Seen, u64)>,
    /// Directories that did not come along whole.
    pub kept: HashSet<InodeId>,
}

impl Shared {
    /// One more.
    pub fn add(&mut self, id: InodeId, seen: Seen, number: u64) {
        self.files.insert(id, (seen, number));
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// One walk.
pub struct Sweep<'a> {
    target: &'a Target,
    shared: &'a Shared,
    remarks: &'a mut Remarks,
    way: Vec<Level>,
    /// Names that went.
    pub removed_count: u64,
}

struct Level {
    target: Known,
    has_lost: bool,
}

impl<'a> Sweep<'a> {
    /// Over the tree whose top is at `top` in the store.
    pub fn new(target: &'a Target, shared: &'a Shared, top: Known, remarks: &'a mut Remarks) -> Self {
        let top = Level {
            target: top,
            has_lost: false,
        };
        Self {
            target,
            shared,
            remarks,
            way: vec![top],
            removed_count: 0,
        }
    }

    fn removed(&mut self) {
        self.removed_count += 1;
        if let Some(level) = self.way.last_mut() {
            level.has_lost = true;
        }
    }

    /// Whether the store has the same name for the same file.
    fn is_in_store(&self, name: &CStr, number: u64) -> bool {
        let found = self.way.last().map(|level| self.target.find(&level.target, name));
        matches!(found, Some(Ok(Some((known, _)))) if known.number == number)
    }
}

impl Visitor for Sweep<'_> {
    fn enter(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<(), bool> {
        let (Some(above), Some(name)) = (self.way.last(), dir.name()) else {
            return ControlFlow::Continue(false);
        };
        match self.target.find(&above.target, name) {
            Ok(Some((target, attr))) if attr.kind == FileType::Directory => {
                self.way.push(Level {
                    target,
                    has_lost: false,
                });
                ControlFlow::Continue(true)
            }
            _ => ControlFlow::Continue(false),
        }
    }

    fn leave(&mut self, dir: &Arc<SourceDir>) -> ControlFlow<()> {
        let has_lost = self.way.pop().is_some_and(|level| level.has_lost);
        if has_lost && !self.shared.kept.contains(&inode_id(dir.stat())) {
            match dir.remove_itself() {
                Ok(true) => self.removed(),
                Ok(false) => {}
                Err(source) => self.remarks.add(dir.path(), &Why::Left(source)),
            }
        }
        ControlFlow::Continue(())
    }

    fn meet(&mut self, dir: &Arc<SourceDir>, name: &CStr, stat: &Statx) -> ControlFlow<()> {
        let Some((seen, number)) = self.shared.files.get(&inode_id(stat)) else {
            return ControlFlow::Continue(());
        };
        if self.is_in_store(name, *number) {
            match dir.remove(name, seen) {
                Ok(true) => self.removed(),
                Ok(false) => self.remarks.add(&dir.path_of(name), &Why::NotRemoved),
                Err(source) => self.remarks.add(&dir.path_of(name), &Why::Left(source)),
            }
        }
        ControlFlow::Continue(())
    }

    fn fail(&mut self, path: &[u8], source: io::Error) {
        self.remarks.add(path, &Why::Left(source));
    }
}
