//! Contents: open, read, write, cut, allocate, copy.

use super::quota::{Meters, ONE_FILE};
use super::{Checked, DONE, Entry, Expected, Handle, Id, Inode, Model, kernel};
use crate::whole_model::op::How;

const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

impl Model {
    pub(super) fn handle(&self, slot: u64) -> Checked<Handle> {
        self.handles[slot as usize].ok_or(Expected::Skip)
    }

    pub(super) fn writer(&self, slot: u64) -> Checked<Handle> {
        let handle = self.handle(slot)?;
        if handle.how.writes {
            Ok(handle)
        } else {
            // ftruncate(2) has EINVAL and write(2) EBADF; no file system is asked.
            Err(Expected::Skip)
        }
    }

    fn content(&self, inode: Id) -> &Vec<u8> {
        let content = self.inodes.get(&inode).and_then(|inode| inode.content.as_ref());
        content.expect("handles are of files that exist")
    }

    fn content_mut(&mut self, inode: Id) -> &mut Vec<u8> {
        let content = self.inodes.get_mut(&inode).and_then(|inode| inode.content.as_mut());
        content.expect("handles are of files that exist")
    }

    pub(super) fn open(&mut self, slot: u64, path: &str, how: How) -> Checked<Expected> {
        if self.is_open(slot) {
            return Err(Expected::Skip);
        }
        let (parent, name) = self.parent_of(path)?;
        let inode = match self.dirs[&parent].names.get(name).copied() {
            Some(_) if how.creates && how.exclusive => return kernel(libc::EEXIST),
            Some(Entry::Dir(_)) => return kernel(libc::EISDIR),
            Some(Entry::Inode(id)) if self.inodes[&id].content.is_none() => return kernel(libc::ELOOP),
            Some(Entry::Inode(id)) => {
                if how.truncates {
                    self.content_mut(id).clear();
                }
                id
            }
            None if !how.creates => return kernel(libc::ENOENT),
            None => {
                if let Some(errno) = self.refusal(&self.chain(parent), ONE_FILE) {
                    return Err(Expected::Refused(vec![errno]));
                }
                self.add_inode(parent, name, Some(Vec::new()))
            }
        };
        self.handles[slot as usize] = Some(Handle { inode, how });
        Ok(DONE)
    }

    pub(super) fn add_inode(&mut self, parent: Id, name: &str, content: Option<Vec<u8>>) -> Id {
        let id = self.new_id();
        let inode = Inode {
            content,
            parents: vec![parent],
            last_home: parent,
        };
        self.inodes.insert(id, inode);
        self.put(parent, name, Entry::Inode(id));
        id
    }

    pub(super) fn close(&mut self, slot: u64) -> Checked<Expected> {
        let handle = self.handle(slot)?;
        self.handles[slot as usize] = None;
        if self.opens(handle.inode) == 0 && self.inodes[&handle.inode].parents.is_empty() {
            self.inodes.remove(&handle.inode);
        }
        Ok(DONE)
    }

    pub(super) fn read(&self, slot: u64, at: u64, bytes: u64) -> Checked<Expected> {
        let content = self.content(self.handle(slot)?.inode);
        let from = content.len().min(at as usize);
        let to = content.len().min((at + bytes) as usize);
        Ok(Expected::Bytes(content[from..to].to_vec()))
    }

    pub(super) fn write(&mut self, slot: u64, at: u64, bytes: u64) -> Checked<Expected> {
        let handle = self.writer(slot)?;
        let data = self.payload(bytes);
        self.writes += 1;
        self.put_bytes(handle, at, &data)
    }

    fn put_bytes(&mut self, handle: Handle, at: u64, data: &[u8]) -> Checked<Expected> {
        let old = self.content(handle.inode).len() as u64;
        let at = if handle.how.appends { old } else { at };
        let home = self.home(&self.inodes[&handle.inode]);
        let taken = self
            .write_fits(home, old, at, data.len() as u64)
            .map_err(|errno| Expected::Refused(vec![errno]))?;
        let end = at + taken;
        let content = self.content_mut(handle.inode);
        content.resize(old.max(end) as usize, 0);
        content[at as usize..end as usize].copy_from_slice(&data[..taken as usize]);
        Ok(Expected::Count(taken))
    }

    pub(super) fn truncate(&mut self, path: &str, length: u64) -> Checked<Expected> {
        let (parent, name) = self.parent_of(path)?;
        match self.dirs[&parent].names.get(name).copied() {
            None => kernel(libc::ENOENT),
            Some(Entry::Dir(_)) => kernel(libc::EISDIR),
            // The links of the model lead nowhere.
            Some(Entry::Inode(id)) if self.inodes[&id].content.is_none() => kernel(libc::ENOENT),
            Some(Entry::Inode(id)) => self.set_length(id, length),
        }
    }

    pub(super) fn set_length(&mut self, inode: Id, length: u64) -> Checked<Expected> {
        let old = self.content(inode).len() as u64;
        if length > old {
            let home = self.home(&self.inodes[&inode]);
            if length > self.file_size(home) {
                return Err(Expected::Refused(vec![libc::EFBIG]));
            }
            let growth = Meters {
                bytes: length - old,
                ..Meters::default()
            };
            if let Some(errno) = self.refusal(&self.chain(home), growth) {
                return Err(Expected::Refused(vec![errno]));
            }
        }
        self.content_mut(inode).resize(length as usize, 0);
        Ok(DONE)
    }

    pub(super) fn allocate(&mut self, slot: u64, at: u64, bytes: u64, mode: i32) -> Checked<Expected> {
        let inode = self.writer(slot)?.inode;
        let length = self.content(inode).len() as u64;
        let end = at + bytes;
        let zeroes = mode & (PUNCH | ZERO) != 0;
        match mode {
            0 | ZERO => {
                if end > length {
                    self.set_length(inode, end)?;
                }
            }
            KEEP if end > length => return Err(Expected::Refused(vec![libc::EOPNOTSUPP])),
            KEEP => {}
            _ if mode == PUNCH | KEEP || mode == ZERO | KEEP => {}
            _ => return kernel(libc::EOPNOTSUPP),
        }
        if zeroes {
            let content = self.content_mut(inode);
            let (from, to) = (content.len().min(at as usize), content.len().min(end as usize));
            content[from..to].fill(0);
        }
        Ok(DONE)
    }

    pub(super) fn copy(&mut self, from: (u64, u64), to: (u64, u64), bytes: u64) -> Checked<Expected> {
        let (source, target) = (self.handle(from.0)?, self.writer(to.0)?);
        let overlaps = source.inode == target.inode && from.1 < to.1 + bytes && to.1 < from.1 + bytes;
        if target.how.appends || overlaps {
            // EBADF and EINVAL of the kernel.
            return Err(Expected::Skip);
        }
        let content = self.content(source.inode);
        let (first, last) = (
            content.len().min(from.1 as usize),
            content.len().min((from.1 + bytes) as usize),
        );
        let data = content[first..last].to_vec();
        if data.is_empty() {
            return Ok(Expected::Count(0));
        }
        self.put_bytes(target, to.1, &data)
    }
}
