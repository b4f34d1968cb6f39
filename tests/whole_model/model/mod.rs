//! The plain model of a store: a tree in memory, contents in vectors, and figures that are counted
//! anew whenever they are needed.
//!
//! It shares no code with the product. What the product keeps by adding and subtracting, the model
//! sums up from what is there.

mod files;
mod names;
mod quota;

use std::collections::{BTreeMap, BTreeSet};

use super::limits::{Bounds, LimitSet};
use super::op::{How, Kind, Op, SLOTS};
pub use quota::Meters;

pub type Id = u64;

/// The root directory.
pub const ROOT: Id = 0;

/// What a step has to answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Expected {
    /// Done, with a count where there is one.
    Count(u64),
    /// Bytes read.
    Bytes(Vec<u8>),
    /// Refused by the kernel, which never asks the file system.
    ByKernel(i32),
    /// Refused by the file system with one of these.
    Refused(Vec<i32>),
    /// Means nothing now.
    Skip,
}

/// Done without a count.
pub const DONE: Expected = Expected::Count(0);

/// A refusal on the way to an answer.
type Checked<T> = Result<T, Expected>;

fn kernel<T>(errno: i32) -> Checked<T> {
    Err(Expected::ByKernel(errno))
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Dir(Id),
    Inode(Id),
}

struct Dir {
    parent: Id,
    names: BTreeMap<String, Entry>,
    /// Of a removed directory, which unlinked open files are still charged to: its last limits.
    ghost: Option<Bounds>,
}

struct Inode {
    /// `None`: a symbolic link.
    content: Option<Vec<u8>>,
    /// Directory of each name.
    parents: Vec<Id>,
    /// The directory that is charged once the last name is gone.
    last_home: Id,
}

#[derive(Clone, Copy)]
struct Handle {
    inode: Id,
    how: How,
}

/// What a name shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Dir,
    Symlink,
    File { content: Vec<u8>, links: u64 },
}

/// The whole.
pub struct Model {
    dirs: BTreeMap<Id, Dir>,
    inodes: BTreeMap<Id, Inode>,
    handles: [Option<Handle>; SLOTS as usize],
    limits: LimitSet,
    last_id: Id,
    writes: u64,
}

impl Model {
    pub fn new(limits: LimitSet) -> Self {
        let root = Dir {
            parent: ROOT,
            names: BTreeMap::new(),
            ghost: None,
        };
        Self {
            dirs: BTreeMap::from([(ROOT, root)]),
            inodes: BTreeMap::new(),
            handles: [None; SLOTS as usize],
            limits,
            last_id: ROOT,
            writes: 0,
        }
    }

    /// Whether a slot holds an open file.
    pub fn is_open(&self, slot: u64) -> bool {
        self.handles[slot as usize].is_some()
    }

    /// The bytes that the next write writes.
    pub fn payload(&self, bytes: u64) -> Vec<u8> {
        crate::common::rng::content(self.writes + 1, bytes as usize)
    }

    /// Takes a step.
    pub fn apply(&mut self, op: &Op) -> Expected {
        self.answer(op).unwrap_or_else(|refusal| refusal)
    }

    fn answer(&mut self, op: &Op) -> Checked<Expected> {
        match op {
            Op::Mkdir { path } => self.mkdir(path),
            Op::Rmdir { path } => self.rmdir(path),
            Op::Symlink { path } => self.symlink(path),
            Op::Open { slot, path, how } => self.open(*slot, path, *how),
            Op::Close { slot } => self.close(*slot),
            Op::Read { slot, at, bytes } => self.read(*slot, *at, *bytes),
            Op::Write { slot, at, bytes } => self.write(*slot, *at, *bytes),
            Op::SetLength { slot, length } => {
                let handle = self.writer(*slot)?;
                self.set_length(handle.inode, *length)
            }
            Op::Truncate { path, length } => self.truncate(path, *length),
            Op::Allocate { slot, at, bytes, mode } => self.allocate(*slot, *at, *bytes, *mode),
            Op::Copy {
                from,
                at,
                to,
                to_at,
                bytes,
            } => self.copy((*from, *at), (*to, *to_at), *bytes),
            Op::Sync { slot } => self.handle(*slot).map(|_| DONE),
            Op::Link { path, new } => self.link(path, new),
            Op::Unlink { path } => self.unlink(path),
            Op::Rename { path, new, kind } => match kind {
                Kind::Exchange => self.exchange(path, new),
                _ => self.rename(path, new, *kind),
            },
            Op::CommitTick | Op::Save | Op::Forget => Ok(DONE),
            Op::Remount | Op::Kill | Op::PowerCut => {
                self.all_closed();
                Ok(DONE)
            }
            Op::Limits { set } => {
                self.all_closed();
                self.limits = LimitSet::clone(set);
                Ok(DONE)
            }
        }
    }

    /// Nobody has anything open any more.
    fn all_closed(&mut self) {
        self.handles = [None; SLOTS as usize];
        self.inodes.retain(|_, inode| !inode.parents.is_empty());
        self.dirs.retain(|_, dir| dir.ghost.is_none());
    }

    /// The tree with everything that is in it.
    pub fn tree(&self) -> BTreeMap<String, Seen> {
        let mut seen = BTreeMap::new();
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((above, dir)) = waiting.pop() {
            for (name, entry) in &self.dirs[&dir].names {
                let path = join(&above, name);
                let what = match entry {
                    Entry::Dir(id) => {
                        waiting.push((path.clone(), *id));
                        Seen::Dir
                    }
                    Entry::Inode(id) => {
                        let inode = &self.inodes[id];
                        match &inode.content {
                            None => Seen::Symlink,
                            Some(content) => Seen::File {
                                content: content.clone(),
                                links: inode.parents.len() as u64,
                            },
                        }
                    }
                };
                seen.insert(path, what);
            }
        }
        seen
    }

    /// Figures of every directory by path; the root's is "".
    pub fn figures(&self) -> BTreeMap<String, Meters> {
        let usage = self.usage();
        let alive = self.dirs.iter().filter(|(_, dir)| dir.ghost.is_none());
        alive
            .map(|(id, _)| (self.components(*id).join("/"), usage[id]))
            .collect()
    }

    fn new_id(&mut self) -> Id {
        self.last_id += 1;
        self.last_id
    }

    fn components(&self, dir: Id) -> Vec<&str> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != ROOT {
            let parent = self.dirs[&at].parent;
            let name = self.dirs[&parent]
                .names
                .iter()
                .find(|(_, entry)| **entry == Entry::Dir(at));
            names.push(name.map_or("", |(name, _)| name.as_str()));
            at = parent;
        }
        names.reverse();
        names
    }

    /// A directory and all above it, innermost first.
    fn chain(&self, dir: Id) -> Vec<Id> {
        let mut chain = vec![dir];
        while let Some(&at) = chain.last().filter(|&&at| at != ROOT) {
            chain.push(self.dirs[&at].parent);
        }
        chain
    }

    fn deepest_common(&self, dirs: &[Id]) -> Option<Id> {
        let chains: Vec<BTreeSet<Id>> = dirs.iter().map(|dir| self.chain(*dir).into_iter().collect()).collect();
        let first = self.chain(*dirs.first()?);
        first
            .into_iter()
            .find(|id| chains.iter().all(|chain| chain.contains(id)))
    }

    /// The directory that an inode is charged to.
    fn home(&self, inode: &Inode) -> Id {
        self.deepest_common(&inode.parents).unwrap_or(inode.last_home)
    }

    fn opens(&self, inode: Id) -> usize {
        self.handles
            .iter()
            .flatten()
            .filter(|handle| handle.inode == inode)
            .count()
    }

    /// A name of an inode is gone.
    fn drop_name(&mut self, inode: Id, parent: Id) {
        let open = self.opens(inode) > 0;
        let Some(held) = self.inodes.get_mut(&inode) else {
            return;
        };
        if let Some(at) = held.parents.iter().position(|held| *held == parent) {
            held.parents.remove(at);
        }
        held.last_home = parent;
        if held.parents.is_empty() && !open {
            self.inodes.remove(&inode);
        }
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() {
        name.to_owned()
    } else {
        format!("{above}/{name}")
    }
}
