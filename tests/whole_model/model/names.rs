//! Names: what is made, linked, removed, renamed and exchanged, in the order in which the kernel and
//! the file system look at it.

use std::collections::BTreeMap;

use super::quota::{Meters, ONE_DIR, ONE_FILE};
use super::{Checked, DONE, Dir, Entry, Expected, Id, Model, ROOT, kernel};
use crate::whole_model::op::Kind;

impl Model {
    /// The directory that holds the last name of a path, and that name.
    pub(super) fn parent_of<'a>(&self, path: &'a str) -> Checked<(Id, &'a str)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = ROOT;
        for component in above.split('/').filter(|component| !component.is_empty()) {
            at = match self.dirs[&at].names.get(component) {
                None => return kernel(libc::ENOENT),
                Some(Entry::Dir(id)) => *id,
                // A link that leads nowhere.
                Some(Entry::Inode(id)) if self.inodes[id].content.is_none() => return kernel(libc::ENOENT),
                Some(Entry::Inode(_)) => return kernel(libc::ENOTDIR),
            };
        }
        Ok((at, name))
    }

    fn find(&self, path: &str) -> Checked<Entry> {
        let (parent, name) = self.parent_of(path)?;
        let entry = self.dirs[&parent].names.get(name).copied();
        entry.map_or_else(|| kernel(libc::ENOENT), Ok)
    }

    /// A name that does not exist, with room for what it will be.
    fn free_name<'a>(&self, path: &'a str, wanted: Meters) -> Checked<(Id, &'a str)> {
        let (parent, name) = self.parent_of(path)?;
        if self.dirs[&parent].names.contains_key(name) {
            return kernel(libc::EEXIST);
        }
        match self.refusal(&self.chain(parent), wanted) {
            Some(errno) => Err(Expected::Refused(vec![errno])),
            None => Ok((parent, name)),
        }
    }

    pub(super) fn put(&mut self, parent: Id, name: &str, entry: Entry) {
        let dir = self.dirs.get_mut(&parent).expect("parents exist");
        dir.names.insert(name.to_owned(), entry);
        if let Entry::Dir(id) = entry {
            self.dirs.get_mut(&id).expect("entries exist").parent = parent;
        }
    }

    fn take(&mut self, parent: Id, name: &str) {
        self.dirs.get_mut(&parent).expect("parents exist").names.remove(name);
    }

    pub(super) fn mkdir(&mut self, path: &str) -> Checked<Expected> {
        let (parent, name) = self.free_name(path, ONE_DIR)?;
        let id = self.new_id();
        let dir = Dir {
            parent,
            names: BTreeMap::new(),
            ghost: None,
        };
        self.dirs.insert(id, dir);
        self.put(parent, name, Entry::Dir(id));
        Ok(DONE)
    }

    pub(super) fn rmdir(&mut self, path: &str) -> Checked<Expected> {
        let (parent, name) = self.parent_of(path)?;
        let Entry::Dir(id) = self.find(path)? else {
            return kernel(libc::ENOTDIR);
        };
        if !self.dirs[&id].names.is_empty() {
            return Err(Expected::Refused(vec![libc::ENOTEMPTY]));
        }
        self.bury(id);
        self.take(parent, name);
        Ok(DONE)
    }

    /// Before its name goes: unlinked open files are still charged to it.
    fn bury(&mut self, dir: Id) {
        let last = self.bounds(dir);
        self.dirs.get_mut(&dir).expect("it is there").ghost = Some(last);
    }

    pub(super) fn symlink(&mut self, path: &str) -> Checked<Expected> {
        let (parent, name) = self.free_name(path, ONE_FILE)?;
        self.add_inode(parent, name, None);
        Ok(DONE)
    }

    pub(super) fn link(&mut self, path: &str, new: &str) -> Checked<Expected> {
        let entry = self.find(path)?;
        let (parent, name) = self.parent_of(new)?;
        if self.dirs[&parent].names.contains_key(name) {
            return kernel(libc::EEXIST);
        }
        let Entry::Inode(id) = entry else {
            return kernel(libc::EPERM);
        };
        let home = self.home(&self.inodes[&id]);
        let mut differing = self.payers_alone(parent, home);
        differing.extend(self.payers_alone(home, parent));
        if differing.iter().any(|dir| !self.bounds(*dir).is_none()) {
            return Err(Expected::Refused(vec![libc::EXDEV]));
        }
        self.inodes.get_mut(&id).expect("it is there").parents.push(parent);
        self.put(parent, name, Entry::Inode(id));
        Ok(DONE)
    }

    pub(super) fn unlink(&mut self, path: &str) -> Checked<Expected> {
        let (parent, name) = self.parent_of(path)?;
        let Entry::Inode(id) = self.find(path)? else {
            return kernel(libc::EISDIR);
        };
        self.take(parent, name);
        self.drop_name(id, parent);
        Ok(DONE)
    }

    /// Whether a directory lies inside another, or is it.
    fn is_inside(&self, dir: Id, outer: Entry) -> bool {
        matches!(outer, Entry::Dir(outer) if self.chain(dir).contains(&outer))
    }

    pub(super) fn rename(&mut self, path: &str, new: &str, kind: Kind) -> Checked<Expected> {
        let (parent, name) = self.parent_of(path)?;
        let (new_parent, new_name) = self.parent_of(new)?;
        let source = self.find(path)?;
        let target = self.dirs[&new_parent].names.get(new_name).copied();
        if kind == Kind::NoReplace && target.is_some() {
            return kernel(libc::EEXIST);
        }
        if self.is_inside(new_parent, source) {
            return kernel(libc::EINVAL);
        }
        if target.is_some_and(|target| self.is_inside(parent, target)) {
            return kernel(libc::ENOTEMPTY);
        }
        match (source, target) {
            _ if target == Some(source) => return Ok(DONE),
            (Entry::Dir(_), Some(Entry::Inode(_))) => return kernel(libc::ENOTDIR),
            (Entry::Inode(_), Some(Entry::Dir(_))) => return kernel(libc::EISDIR),
            _ => {}
        }
        let refusals = self.rename_refusals((parent, source), (new_parent, target));
        if !refusals.is_empty() {
            return Err(Expected::Refused(refusals));
        }
        match target {
            Some(Entry::Dir(id)) => self.bury(id),
            Some(Entry::Inode(id)) => self.drop_name(id, new_parent),
            None => {}
        }
        self.take(parent, name);
        self.put(new_parent, new_name, source);
        self.moved(source, parent, new_parent);
        Ok(DONE)
    }

    /// Any of these may be answered.
    fn rename_refusals(&self, (parent, source): (Id, Entry), (new_parent, target): (Id, Option<Entry>)) -> Vec<i32> {
        let mut refusals = Vec::new();
        let (old_home, new_home) = match source {
            Entry::Dir(_) => (parent, new_parent),
            Entry::Inode(id) => {
                let inode = &self.inodes[&id];
                let mut parents = inode.parents.clone();
                if let Some(at) = parents.iter().position(|held| *held == parent) {
                    parents[at] = new_parent;
                }
                let new_home = self.deepest_common(&parents).unwrap_or(new_parent);
                (self.home(inode), new_home)
            }
        };
        let credit = match target {
            Some(Entry::Dir(id)) => {
                if !self.dirs[&id].names.is_empty() {
                    refusals.push(libc::ENOTEMPTY);
                }
                ONE_DIR
            }
            // Given back at once only when nobody has it open and it has no other name.
            Some(Entry::Inode(id)) if self.opens(id) == 0 && self.inodes[&id].parents.len() == 1 => {
                self.inodes[&id].meters()
            }
            _ => Meters::default(),
        };
        let payers = self.payers_alone(new_home, old_home);
        refusals.extend(self.refusal(&payers, self.weight(source).less(credit)));
        refusals
    }

    fn moved(&mut self, entry: Entry, from: Id, to: Id) {
        let Entry::Inode(id) = entry else { return };
        let inode = self.inodes.get_mut(&id).expect("it is there");
        if let Some(at) = inode.parents.iter().position(|held| *held == from) {
            inode.parents[at] = to;
        }
    }

    pub(super) fn exchange(&mut self, path: &str, new: &str) -> Checked<Expected> {
        let (parent, name) = self.parent_of(path)?;
        let (new_parent, new_name) = self.parent_of(new)?;
        let (source, target) = (self.find(path)?, self.find(new)?);
        if self.is_inside(new_parent, source) || self.is_inside(parent, target) {
            return kernel(libc::EINVAL);
        }
        if source == target {
            return Ok(DONE);
        }
        // An inode with several names is not moved by one of them; its charge follows afterwards.
        let weight = |entry| match entry {
            Entry::Inode(id) if self.inodes[&id].parents.len() > 1 => Meters::default(),
            _ => self.weight(entry),
        };
        let (comes, goes) = (weight(source), weight(target));
        let to = self.refusal(&self.payers_alone(new_parent, parent), comes.less(goes));
        let from = self.refusal(&self.payers_alone(parent, new_parent), goes.less(comes));
        if let Some(errno) = to.or(from) {
            return Err(Expected::Refused(vec![errno]));
        }
        self.put(parent, name, target);
        self.put(new_parent, new_name, source);
        self.moved(source, parent, new_parent);
        self.moved(target, new_parent, parent);
        Ok(DONE)
    }
}
