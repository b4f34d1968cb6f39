//! Who is charged with what, and who refuses: summed up from the tree.

use std::collections::BTreeMap;

use super::{Entry, Id, Inode, Model, ROOT};
use crate::whole_model::limits::Bounds;

/// Bytes, files and directories.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meters {
    pub bytes: u64,
    pub files: u64,
    pub dirs: u64,
}

pub const ONE_FILE: Meters = Meters {
    bytes: 0,
    files: 1,
    dirs: 0,
};

pub const ONE_DIR: Meters = Meters {
    bytes: 0,
    files: 0,
    dirs: 1,
};

impl Meters {
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            files: self.files + other.files,
            dirs: self.dirs + other.dirs,
        }
    }

    pub fn less(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
            dirs: self.dirs.saturating_sub(other.dirs),
        }
    }
}

impl Inode {
    pub fn meters(&self) -> Meters {
        Meters {
            bytes: self.content.as_ref().map_or(0, Vec::len) as u64,
            files: 1,
            dirs: 0,
        }
    }
}

impl Model {
    /// What each directory is charged with, itself not counted.
    pub fn usage(&self) -> BTreeMap<Id, Meters> {
        let mut usage: BTreeMap<Id, Meters> = self.dirs.keys().map(|id| (*id, Meters::default())).collect();
        let mut charge = |home: Id, amount: Meters| {
            for payer in self.chain(home) {
                let sum = usage.entry(payer).or_default();
                *sum = sum.plus(amount);
            }
        };
        for inode in self.inodes.values() {
            charge(self.home(inode), inode.meters());
        }
        for (id, dir) in &self.dirs {
            if *id != ROOT && dir.ghost.is_none() {
                charge(dir.parent, ONE_DIR);
            }
        }
        usage
    }

    pub fn bounds(&self, dir: Id) -> Bounds {
        let ghost = self.dirs[&dir].ghost;
        ghost.unwrap_or_else(|| self.limits.of(&self.components(dir)))
    }

    /// The errno of the first of `payers` (innermost first) that has no room.
    pub fn refusal(&self, payers: &[Id], wanted: Meters) -> Option<i32> {
        let usage = self.usage();
        let full = |payer: &&Id| {
            let (bounds, used) = (self.bounds(**payer), usage[payer]);
            [
                (bounds.bytes, used.bytes, wanted.bytes),
                (bounds.files, used.files, wanted.files),
                (bounds.dirs, used.dirs, wanted.dirs),
            ]
            .into_iter()
            .any(|(limit, used, wanted)| wanted > 0 && limit.is_some_and(|limit| used + wanted > limit))
        };
        payers.iter().find(full).map(|payer| errno_of(*payer))
    }

    /// The accounts above `to` that are not above `from`, innermost first.
    pub fn payers_alone(&self, to: Id, from: Id) -> Vec<Id> {
        let shared = self.chain(from);
        self.chain(to).into_iter().filter(|id| !shared.contains(id)).collect()
    }

    /// The smallest limit of one file's size in the chain.
    pub fn file_size(&self, home: Id) -> u64 {
        let bounds = self.chain(home).into_iter().filter_map(|id| self.bounds(id).file_size);
        bounds.min().unwrap_or(u64::MAX)
    }

    /// How many bytes of a write are taken.
    ///
    /// # Errors
    /// The errno when it is none.
    pub fn write_fits(&self, home: Id, old: u64, at: u64, bytes: u64) -> Result<u64, i32> {
        let growth = |bytes: u64| (at + bytes).saturating_sub(old);
        if growth(bytes) == 0 {
            return Ok(bytes);
        }
        let size_limit = self.file_size(home).max(old);
        let sized = bytes.min(size_limit.saturating_sub(at));
        if sized == 0 {
            return Err(libc::EFBIG);
        }
        let usage = self.usage();
        let mut taken = sized;
        for payer in self.chain(home) {
            let Some(limit) = self.bounds(payer).bytes else {
                continue;
            };
            let room = limit.saturating_sub(usage[&payer].bytes);
            if growth(taken) <= room {
                continue;
            }
            // The longest part that fits and ends on a frame, or before what is new.
            let fits = |part: &u64| growth(*part) <= room && (growth(*part) == 0 || (at + part).is_multiple_of(4));
            match (1..taken).rev().find(fits) {
                Some(part) => taken = part,
                None => return Err(errno_of(payer)),
            }
        }
        Ok(taken)
    }

    /// What moves with a name.
    pub(super) fn weight(&self, entry: Entry) -> Meters {
        match entry {
            Entry::Dir(id) => self.usage()[&id].plus(ONE_DIR),
            Entry::Inode(id) => self.inodes[&id].meters(),
        }
    }
}

/// The mount is full like a disk; all below it by quota.
fn errno_of(payer: Id) -> i32 {
    if payer == ROOT { libc::ENOSPC } else { libc::EDQUOT }
}
