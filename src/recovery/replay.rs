//! Recovery after a kill: the rows of the database, corrected by re-reading what the dirty log
//! names. Reads nothing else, so it takes time with what changed, not with what is stored.
//!
//! It relies on this duty of those who change things: before anything changes that lies directly
//! in a directory, the directory is marked. A move marks both parents, a change of an inode's
//! number of links marks all directories that hold one, a change of its length the directory that
//! it is charged to. From that follows:
//! - The listing of an unmarked directory is that of its rows. So a walk from the root, which
//!   takes marked directories from disk and the others from rows, sees the tree as it is.
//! - A directory that moved was taken out of one marked directory and put into another; the rows
//!   below it hold, unless they are marked themselves.
//! - A directory that the walk does not meet is gone.
//! - Length and links of an inode with several links can only have changed if a directory is
//!   marked that lies on the way from one of its rows up to the root, as the rows have it: that
//!   it was charged to, or one that a directory on this way was moved out of.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

use super::error::Error;
use super::list::{Absent, Counted, Found, Listing, Opened, Probe, Root, child, to_path};
use crate::db::{DirRow, LinkRow};
use crate::id::Ino;

/// Corrects `dirs` and `links` for the directories in `dirty`; the result is what a scan would
/// find, except that `unclean` and `damaged` name only files in directories that were read.
///
/// # Errors
/// [`Error::Disagree`] when rows and log do not account for the disk: scan instead.
/// [`Error::Read`] when the disk would not show a directory or a file.
pub fn replay(
    data: BorrowedFd<'_>,
    dirs: Vec<DirRow>,
    links: Vec<LinkRow>,
    dirty: &[Ino],
    probe: Probe<'_>,
) -> Result<Counted, Error> {
    let begun = (probe.now)();
    let root = Root::new(data)?;
    let recorded = Recorded::new(dirs, &links, dirty);
    let mut walk = Walk {
        root,
        probe,
        recorded: &recorded,
        pending: Vec::new(),
        rows: HashMap::new(),
        reread: HashSet::new(),
        found: Found::default(),
        buffer: Vec::new(),
    };
    walk.start()?;
    while let Some(step) = walk.pending.pop() {
        walk.take(step)?;
    }
    let mut kept = links;
    kept.retain(|row| walk.rows.contains_key(&row.parent) && !walk.reread.contains(&row.parent));
    let elapsed = (probe.now)().saturating_sub(begun);
    let rows = walk.rows.into_values().collect();
    Ok(walk.found.into_counted(rows, kept, elapsed))
}

/// The rows as a tree, and what of it has to be looked at.
struct Recorded {
    rows: Vec<DirRow>,
    index: HashMap<Ino, usize>,
    children: Vec<Vec<usize>>,
    /// Directories to read from disk, known or not.
    reread: HashSet<Ino>,
    /// Something to read lies at or below this row.
    is_on_the_way: Vec<bool>,
}

impl Recorded {
    fn new(rows: Vec<DirRow>, links: &[LinkRow], dirty: &[Ino]) -> Self {
        let index: HashMap<Ino, usize> = rows.iter().enumerate().map(|(at, row)| (row.ino, at)).collect();
        let mut children = vec![Vec::new(); rows.len()];
        for (at, row) in rows.iter().enumerate() {
            match index.get(&row.parent) {
                Some(&parent) if parent != at => children[parent].push(at),
                _ => {}
            }
        }
        let mut recorded = Self {
            is_on_the_way: vec![false; rows.len()],
            rows,
            index,
            children,
            reread: dirty.iter().copied().collect(),
        };
        recorded.add_holders_of_links(links);
        recorded.mark_the_way();
        recorded
    }

    /// All directories that hold a link of an inode which may have changed.
    fn add_holders_of_links(&mut self, links: &[LinkRow]) {
        if links.is_empty() {
            return;
        }
        let is_below_dirty = self.below_dirty();
        let may_have_changed = |row: &LinkRow| match self.index.get(&row.parent) {
            Some(&at) => is_below_dirty[at],
            None => true,
        };
        let changed = links
            .chunk_by(|a, b| a.ino == b.ino)
            .filter(|rows| rows.iter().any(may_have_changed));
        let holders: Vec<Ino> = changed.flatten().map(|row| row.parent).collect();
        self.reread.extend(holders);
    }

    /// For each row: is it, or a row above it, dirty?
    fn below_dirty(&self) -> Vec<bool> {
        let mut is_below = vec![false; self.rows.len()];
        let dirty = self.reread.iter().filter_map(|ino| self.index.get(ino));
        let mut pending: Vec<usize> = dirty.copied().collect();
        while let Some(at) = pending.pop() {
            if !is_below[at] {
                is_below[at] = true;
                pending.extend(&self.children[at]);
            }
        }
        is_below
    }

    fn mark_the_way(&mut self) {
        for ino in &self.reread {
            let mut next = self.index.get(ino).copied();
            while let Some(at) = next.filter(|&at| !self.is_on_the_way[at]) {
                self.is_on_the_way[at] = true;
                next = self.index.get(&self.rows[at].parent).copied();
            }
        }
    }

    fn find(&self, ino: Ino, generation: u32) -> Option<usize> {
        let at = self.index.get(&ino).copied()?;
        (self.rows[at].generation == generation).then_some(at)
    }
}

/// A directory to take into the result.
struct Step {
    parent: Ino,
    name: Vec<u8>,
    /// Empty where nothing below is going to be read.
    path: Vec<u8>,
    how: How,
}

enum How {
    /// As in this row, whose place and name may be old.
    Keep(usize),
    /// From disk.
    Read(Ino),
}

struct Walk<'a> {
    root: Root<'a>,
    probe: Probe<'a>,
    recorded: &'a Recorded,
    pending: Vec<Step>,
    rows: HashMap<Ino, DirRow>,
    reread: HashSet<Ino>,
    found: Found,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn start(&mut self) -> Result<(), Error> {
        let ino = self.root.ino;
        let generation = (self.probe.generation)(self.root.fd);
        let known = self.recorded.find(ino, generation);
        let at = known.ok_or_else(|| disagree(b"", "the database does not know this directory"))?;
        if self.recorded.rows[at].parent != ino {
            return Err(disagree(b"", "the database has it below another directory"));
        }
        self.pending.push(Step {
            parent: ino,
            name: Vec::new(),
            path: Vec::new(),
            how: self.how(at),
        });
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), Error> {
        match step.how {
            How::Keep(at) => self.keep(at, step),
            How::Read(ino) => self.read(ino, step),
        }
    }

    fn keep(&mut self, at: usize, step: Step) -> Result<(), Error> {
        let recorded = self.recorded;
        let row = &recorded.rows[at];
        for &below in &recorded.children[at] {
            let name = recorded.rows[below].name.clone();
            let path = if recorded.is_on_the_way[below] {
                child(&step.path, &name)
            } else {
                Vec::new()
            };
            self.pending.push(Step {
                parent: row.ino,
                name,
                path,
                how: self.how(below),
            });
        }
        let moved = DirRow {
            parent: step.parent,
            name: step.name,
            ..row.clone()
        };
        self.add(moved, &step.path)
    }

    fn read(&mut self, ino: Ino, step: Step) -> Result<(), Error> {
        let opened = match self.root.open(&step.path)? {
            Ok(opened) if opened.ino == ino => opened,
            _ => {
                return Err(disagree(&step.path, "it is not the directory that was expected"));
            }
        };
        let listing = Listing::read(&opened, &step.path, &mut self.buffer)?;
        let all = 0..listing.others_len();
        let mut own = listing.count(all, &opened, &step.path, &self.root, &mut self.found)?;
        own.dirs = self.queue_subdirs(&opened, &listing, &step.path)?;
        self.found.directories_read += 1;
        self.reread.insert(ino);
        let row = DirRow {
            ino,
            generation: (self.probe.generation)(opened.fd.as_fd()),
            parent: step.parent,
            name: step.name,
            own,
            limits: (self.probe.limits)(opened.fd.as_fd()),
        };
        self.add(row, &step.path)
    }

    /// Queues what a listing shows and returns how many directories that are. One that is not
    /// the directory of its row, by generation, is a new one.
    fn queue_subdirs(&mut self, dir: &Opened, listing: &Listing, path: &[u8]) -> Result<u64, Error> {
        let mut count = 0;
        for name in &listing.subdirs {
            let path = child(path, name);
            let opened = match self.root.open(&path)? {
                Ok(opened) => opened,
                Err(Absent::Vanished) => continue,
                Err(Absent::Foreign) => {
                    self.found.foreign.push(to_path(&path));
                    continue;
                }
            };
            let generation = (self.probe.generation)(opened.fd.as_fd());
            let known = self.recorded.find(opened.ino, generation);
            self.pending.push(Step {
                parent: dir.ino,
                name: name.clone(),
                path,
                how: known.map_or(How::Read(opened.ino), |at| self.how(at)),
            });
            count += 1;
        }
        Ok(count)
    }

    fn how(&self, at: usize) -> How {
        let ino = self.recorded.rows[at].ino;
        if self.recorded.reread.contains(&ino) {
            How::Read(ino)
        } else {
            How::Keep(at)
        }
    }

    /// Each directory has one place, so meeting it twice means that rows or log lied. This also
    /// ends a walk through rows that are each other's parents.
    fn add(&mut self, row: DirRow, path: &[u8]) -> Result<(), Error> {
        match self.rows.insert(row.ino, row) {
            None => Ok(()),
            Some(_) => Err(disagree(path, "it is in two places")),
        }
    }
}

fn disagree(path: &[u8], reason: &'static str) -> Error {
    Error::Disagree {
        path: to_path(path),
        reason,
    }
}
