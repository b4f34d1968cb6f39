//! Length changes: truncate both ways, fallocate, and where data and holes are.

use std::sync::Arc;

use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::is_figure;
use crate::fs::node::{FileState, Node};
use crate::fs::{Caller, FileSystem};
use crate::id::Fh;
use crate::units::Meters;

const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// Which of the two lseek(2) looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

impl FileSystem {
    /// Sets the length with the state's lock held: down is always allowed, up is charged in full
    /// and all or nothing.
    pub(super) fn truncate_under_lock(&self, node: &Arc<Node>, state: &mut FileState, length: u64) -> FsResult<()> {
        let sealed = state.sealed.as_mut().ok_or(Errno::EIO)?;
        let old = sealed.plain_length();
        if length == old {
            // An empty file whose sync failed starts anew, as any other file cut to zero does.
            if length == 0 {
                let emptied = sealed.set_plain_length(0);
                emptied.map_err(|e| self.failed(node, state, e))?;
            }
            return Ok(());
        }
        let home = node.home();
        if length < old {
            let cut = sealed.set_plain_length(length);
            let shrunk = old.saturating_sub(sealed.plain_length());
            self.ledger.uncharge(&home, Meters::of_bytes(shrunk));
            self.ledger.count_deleted(&home, 0, shrunk);
            cut.map_err(|e| self.failed(node, state, e))?;
        } else {
            let reservation = self
                .ledger
                .reserve_recording_length(&home, old, length, &mut state.booking)
                .map_err(|refusal| self.refused(&refusal))?;
            let grown = sealed.set_plain_length(length);
            let growth = sealed.plain_length().saturating_sub(old);
            reservation.claim(Meters::of_bytes(growth));
            self.ledger.count_added(&home, 0, growth);
            grown.map_err(|e| self.failed(node, state, e))?;
        }
        self.note_length(node, length);
        self.list(node, state);
        Ok(())
    }

    /// truncate(2) and ftruncate(2).
    pub(super) fn truncate_node(&self, node: &Arc<Node>, length: u64) -> FsResult<()> {
        if node.is_directory() {
            return Err(Errno::EISDIR);
        }
        if !node.is_file() {
            return Err(Errno::EINVAL);
        }
        let operation = self.dirty.enter();
        let mut state = node.file.state.lock();
        self.mark_file(&operation, node);
        self.loaded(node, &mut state)?;
        if state
            .sealed
            .as_ref()
            .is_some_and(|sealed| sealed.plain_length() == length)
        {
            self.truncate_under_lock(node, &mut state, length)?;
            return self.touch(node);
        }
        let done = self.truncate_under_lock(node, &mut state, length);
        // Also a file that nobody has open: it is sealed again by the committer.
        self.list(node, &mut state);
        done
    }

    pub(super) fn loaded(&self, node: &Arc<Node>, state: &mut FileState) -> FsResult<()> {
        if state.sealed.is_some() {
            return Ok(());
        }
        self.load(node, state, true).map_err(|e| self.failed(node, state, e))
    }

    /// fallocate(2). Room is promised by the limits, not taken on the disk.
    ///
    /// # Errors
    /// EOPNOTSUPP for modes that recordings do not need; EDQUOT, ENOSPC, EFBIG as truncate up.
    pub fn fallocate(&self, fh: Fh, plain_offset: u64, bytes: u64, mode: i32, caller: Caller) -> FsResult<()> {
        let handle = self.handles.get(fh)?;
        let node = handle.node();
        let end = plain_offset.checked_add(bytes).ok_or(Errno::EFBIG)?;
        let operation = self.dirty.enter();
        let mut state = node.file.state.lock();
        self.mark_file(&operation, node);
        let length = state.sealed.as_ref().ok_or(Errno::EIO)?.plain_length();
        let done = match mode {
            0 if end > length => self.truncate_under_lock(node, &mut state, end),
            0 => Ok(()),
            KEEP_SIZE if end <= length => Ok(()),
            _ if mode == PUNCH_HOLE | KEEP_SIZE || mode == ZERO_RANGE | KEEP_SIZE => {
                let sealed = state.sealed.as_mut().ok_or(Errno::EIO)?;
                let zeroed = sealed.zero_range(plain_offset, bytes);
                zeroed.map_err(|e| self.failed(node, &mut state, e))
            }
            ZERO_RANGE => {
                let grown = if end > length {
                    self.truncate_under_lock(node, &mut state, end)
                } else {
                    Ok(())
                };
                let sealed = state.sealed.as_mut().ok_or(Errno::EIO)?;
                let zeroed = grown.map(|()| sealed.zero_range(plain_offset, bytes));
                zeroed.and_then(|zeroed| zeroed.map_err(|e| self.failed(node, &mut state, e)))
            }
            _ => Err(Errno::EOPNOTSUPP),
        };
        self.list(node, &mut state);
        done?;
        self.drop_privileges(node, caller)
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// ENXIO behind the end.
    pub fn seek(&self, fh: Fh, plain_offset: u64, to: Seek) -> FsResult<u64> {
        if is_figure(fh.0) {
            return self.seek_in_figure(fh, plain_offset, to);
        }
        let handle = self.handles.get(fh)?;
        let state = handle.node().file.state.lock();
        let sealed = state.sealed.as_ref().ok_or(Errno::EIO)?;
        let found = match to {
            Seek::Data => sealed.next_data(plain_offset)?,
            Seek::Hole => sealed.next_hole(plain_offset)?,
        };
        found.ok_or(Errno::ENXIO)
    }
}
