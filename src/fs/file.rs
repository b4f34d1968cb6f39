//! Open, read, write, flush, fsync and release of regular files.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use rustix::fs::{FileType, OFlags};

use crate::fs::acl::is_member;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::is_figure;
use crate::fs::handles::Handle;
use crate::fs::node::{FileState, Node};
use crate::fs::{Caller, FileSystem};
use crate::id::Fh;
use crate::quota::{Booking, OperationKind, WriteAsk};
use crate::sealed::keyring::KeyLine;
use crate::sealed::length::{SizeOnDisk, classify};
use crate::store::backing::Backing;
use crate::store::error::StoreError;
use crate::store::sealed_file::{SealedFile, WriteOptions};
use crate::store::tree::{set_mode, stat_fd};
use crate::units::Meters;

/// suid and sgid.
const PRIVILEGE_BITS: u32 = libc::S_ISUID | libc::S_ISGID;

/// How a file is opened.
#[derive(Clone, Copy, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of open(2)")]
pub struct OpenMode {
    /// May read.
    pub reads: bool,
    /// May write.
    pub writes: bool,
    /// `O_APPEND`.
    pub appends: bool,
    /// `O_TRUNC`.
    pub truncates: bool,
    /// `O_EXCL`.
    pub exclusive: bool,
}

/// An open file, and how the kernel may treat its pages.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its number.
    pub fh: Fh,
    /// Every read and write has to come here; no page cache.
    pub direct: bool,
    /// Pages that the kernel still has are good.
    pub keep_cache: bool,
}

/// A write as the kernel sends it.
pub struct WriteAsked<'a> {
    /// Offset in the plaintext.
    pub plain_offset: u64,
    /// The bytes, borrowed from the receive buffer.
    pub data: &'a [u8],
    /// Who writes.
    pub caller: Caller,
    /// The writer may not keep suid and sgid.
    pub drops_privileges: bool,
    /// Dirty pages of a shared mapping: inside the length, whoever wrote them.
    pub from_mapping: bool,
    /// An earlier process may have written it: to its offset and not to the end, wherever that is by now.
    pub is_repeated: bool,
}

/// What the kernel is told of an open file; from then on it may cache pages, unless somebody writes.
pub(super) fn told_to_kernel(fh: Fh, state: &mut FileState) -> Opened {
    let direct = state.writers > 0;
    let changes = state.sealed.as_deref().map(SealedFile::change_count);
    let keep_cache = !direct && state.cached_at.is_some() && state.cached_at == changes;
    if !direct {
        state.cached_at = changes;
    }
    Opened { fh, direct, keep_cache }
}

impl FileSystem {
    /// Opens a file.
    ///
    /// # Errors
    /// EIO when its head does not open (logged once); errors of the backing open.
    pub fn open(&self, number: u64, how: OpenMode, caller: Caller) -> FsResult<Opened> {
        if is_figure(number) {
            return self.open_figure(number, how);
        }
        let node = self.node(number)?;
        let opened = self.open_node(&node, how, caller)?;
        self.count(
            &node,
            if how.writes {
                OperationKind::Write
            } else {
                OperationKind::Read
            },
        );
        Ok(opened)
    }

    pub(super) fn open_node(&self, node: &Arc<Node>, how: OpenMode, caller: Caller) -> FsResult<Opened> {
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::EISDIR),
            FileType::Symlink => return Err(Errno(libc::ELOOP)),
            _ => return Err(Errno::ENXIO),
        }
        let operation = self.dirty.enter();
        let mut state = node.file.state.lock();
        if how.truncates {
            self.mark_file(&operation, node);
        }
        if node.is_unlinked() && state.opens == 0 {
            return Err(Errno::ESTALE);
        }
        if state.sealed.is_none() {
            self.load(node, &mut state, how.writes)
                .map_err(|e| self.failed(node, &mut state, e))?;
        }
        if how.truncates {
            self.truncate_under_lock(node, &mut state, 0)?;
            self.drop_privileges(node, caller)?;
        }
        Ok(self.admit(node, &mut state, how))
    }

    /// Opens a file that was just made, over the descriptor that made it.
    pub(super) fn open_new(&self, node: &Arc<Node>, file: File, how: OpenMode, booking: Option<Booking>) -> Opened {
        let mut state = node.file.state.lock();
        state.booking = booking;
        if state.sealed.is_none() {
            let empty = SealedFile::new_empty(Arc::new(file), self.ring.clone(), self.write_options(node));
            state.sealed = Some(Box::new(empty));
        }
        self.admit(node, &mut state, how)
    }

    fn admit(&self, node: &Arc<Node>, state: &mut FileState, how: OpenMode) -> Opened {
        state.opens += 1;
        if how.writes {
            state.writers += 1;
        }
        let pin = self.nodes.pin(node);
        let fh = self.handles.insert(Handle::file(pin, how.appends, how.writes));
        told_to_kernel(fh, state)
    }

    /// A file gets the key of the tenant that it lies with.
    fn write_options(&self, node: &Node) -> WriteOptions {
        WriteOptions {
            strict_overwrite: self.strict_overwrite,
            key_line: self.key_line(node),
        }
    }

    fn key_line(&self, node: &Node) -> KeyLine {
        if self.ring.has_tenants() {
            self.ring.line_at(&node.home().display_path())
        } else {
            KeyLine::default()
        }
    }

    /// The tenant may have got a key since the file came to memory.
    pub(super) fn follow_tenant(&self, node: &Node, sealed: &mut SealedFile<File>) {
        sealed.set_key_line(self.key_line(node));
    }

    /// Brings the sealed file of a node to memory.
    pub(super) fn load(&self, node: &Arc<Node>, state: &mut FileState, for_writing: bool) -> Result<(), StoreError> {
        let file = match node.open_quietly(&self.tree, OFlags::RDWR) {
            Ok(file) => file,
            Err(e) if !for_writing && e.kind() == std::io::ErrorKind::PermissionDenied => {
                node.open_quietly(&self.tree, OFlags::RDONLY)?
            }
            Err(e) => return Err(e.into()),
        };
        let file = Arc::new(file);
        let size = file.size()?;
        if size == 0 && std::mem::take(&mut state.known_empty) {
            let empty = SealedFile::new_empty(file, self.ring.clone(), self.write_options(node));
            self.tree.end_quiet(empty.backing())?;
            state.sealed = Some(Box::new(empty));
            return Ok(());
        }
        let sealed = SealedFile::load(file, self.ring.clone(), self.write_options(node))?;
        self.refuse_old_copy(node, &sealed)?;
        self.tree.end_quiet(sealed.backing())?;
        if let SizeOnDisk::Clean(told) = classify(size) {
            self.correct_length(node, told, sealed.plain_length());
        }
        let is_sealed = sealed.is_clean();
        state.sealed = Some(Box::new(sealed));
        if !is_sealed {
            self.list(node, state);
        }
        Ok(())
    }

    /// A power cut can leave a size that looks sealed over pages that tell another length. The pages
    /// are right, and the books follow them.
    fn correct_length(&self, node: &Arc<Node>, told: u64, found: u64) {
        if told == found {
            return;
        }
        let operation = self.dirty.enter();
        self.mark_file(&operation, node);
        let home = node.home();
        self.ledger
            .charge_forced(&home, Meters::of_bytes(found.saturating_sub(told)));
        self.ledger
            .uncharge(&home, Meters::of_bytes(told.saturating_sub(found)));
        self.note_length(node, found);
    }

    /// Reads into `buffer`; returns the bytes read, fewer only at the end.
    ///
    /// # Errors
    /// EIO for a page that does not open (logged once); the rest of the file stays readable.
    pub fn read(&self, fh: Fh, plain_offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        if is_figure(fh.0) {
            return self.read_figure(fh, plain_offset, buffer);
        }
        let handle = self.handles.get(fh)?;
        let node = handle.node();
        let plan = {
            let state = node.file.state.lock();
            state.sealed.as_ref().ok_or(Errno::EIO)?.plan_read(plain_offset, buffer)
        };
        match plan.finish(buffer) {
            Ok(bytes) => Ok(bytes),
            Err(e) if e.is_damage() => self.read_again(node, plain_offset, buffer),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes; returns the bytes that are acknowledged, never 0. At a limit that is the part that
    /// fits, and the next call is refused.
    ///
    /// # Errors
    /// EDQUOT, ENOSPC or EFBIG from a limit, errors of the disk.
    pub fn write(&self, fh: Fh, asked: &WriteAsked<'_>) -> FsResult<usize> {
        let handle = self.handles.get(fh)?;
        let node = handle.node();
        if asked.data.is_empty() {
            return Ok(0);
        }
        let operation = self.dirty.enter();
        let mut state = node.file.state.lock();
        self.mark_file(&operation, node);
        if asked.drops_privileges {
            self.drop_privileges(node, asked.caller)?;
        }
        if asked.from_mapping {
            return self.write_back_page(node, &mut state, asked);
        }
        let written = self.write_under_lock(
            node,
            &mut state,
            asked.plain_offset,
            asked.data,
            handle.appends && !asked.is_repeated,
        );
        self.list(node, &mut state);
        written
    }

    pub(super) fn write_under_lock(
        &self,
        node: &Node,
        state: &mut FileState,
        plain_offset: u64,
        data: &[u8],
        appends: bool,
    ) -> FsResult<usize> {
        let sealed = state.sealed.as_mut().ok_or(Errno::EIO)?;
        let old_length = sealed.plain_length();
        if old_length == 0 {
            self.follow_tenant(node, sealed);
        }
        let plain_offset = if appends { old_length } else { plain_offset };
        let home = node.home();
        let ask = WriteAsk {
            plain_offset,
            size: data.len() as u64,
            old_length,
        };
        let (accepted, reservation) = self
            .ledger
            .reserve_recording_write(&home, ask, &mut state.booking)
            .map_err(|refusal| self.refused(&refusal))?;
        let written = sealed.write(plain_offset, &data[..accepted as usize]);
        let growth = sealed.plain_length().saturating_sub(old_length);
        reservation.claim(Meters::of_bytes(growth));
        if growth > 0 {
            self.ledger.count_added(&home, 0, growth);
            self.note_length(node, old_length + growth);
        }
        written.map_err(|e| self.failed(node, state, e))
    }

    /// Pages of a shared mapping: what lies inside the length is written, the rest of the last page
    /// is not content. The kernel takes no short answer here.
    fn write_back_page(
        &self,
        node: &Arc<Node>,
        state: &mut MutexGuard<'_, FileState>,
        asked: &WriteAsked<'_>,
    ) -> FsResult<usize> {
        let sealed = state.sealed.as_mut().ok_or(Errno::EIO)?;
        let inside = sealed
            .plain_length()
            .saturating_sub(asked.plain_offset)
            .min(asked.data.len() as u64) as usize;
        let mut done = 0;
        while done < inside {
            match sealed.write(asked.plain_offset + done as u64, &asked.data[done..inside]) {
                Ok(bytes) => done += bytes,
                Err(e) => return Err(self.failed(node, state, e)),
            }
        }
        self.list(node, state);
        Ok(asked.data.len())
    }

    /// Lengths of inodes with several names are kept beside the accounts.
    pub(super) fn note_length(&self, node: &Node, length: u64) {
        if node.file.several_links.load(Ordering::Acquire) {
            self.links.set_bytes(node.ino, length);
        }
    }

    /// Takes set-user-id and set-group-id away, as a change of content by anyone but root does.
    pub(super) fn drop_privileges(&self, node: &Node, caller: Caller) -> FsResult<()> {
        let mode = node.mode.load(Ordering::Acquire);
        if caller.uid == 0 || mode & PRIVILEGE_BITS == 0 {
            return Ok(());
        }
        let kept = node.with_path(&self.tree, |fd| {
            // Without group execution set-group-id is no privilege, and members may keep it.
            let is_harmless = mode & libc::S_IXGRP == 0 && is_member(caller, stat_fd(fd)?.stx_gid);
            let dropped = if is_harmless { libc::S_ISUID } else { PRIVILEGE_BITS };
            set_mode(fd, mode & !dropped)?;
            Ok(mode & !dropped)
        })?;
        node.mode.store(kept, Ordering::Release);
        Ok(())
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// EIO when the disk failed, now or at an earlier sync of this file.
    pub fn fsync(&self, fh: Fh) -> FsResult<()> {
        if is_figure(fh.0) {
            return Ok(());
        }
        let handle = self.handles.get(fh)?;
        self.sync_node(handle.node())
    }

    /// A handle is closed for the last time. Sealing happens later, or now with `sync_on_close`.
    ///
    /// # Errors
    /// EBADF.
    pub fn release(&self, fh: Fh) -> FsResult<()> {
        if is_figure(fh.0) {
            return self.close_figure(fh);
        }
        let handle = self.handles.remove(fh)?;
        self.forget_handle(&handle);
        if handle.stream.is_some() {
            // A directory, whose release an unmount swallowed: it is not counted among the opens.
            return Ok(());
        }
        let node = handle.node();
        {
            let mut state = node.file.state.lock();
            state.opens -= 1;
            if handle.writes {
                state.writers -= 1;
            }
            if state.opens > 0 {
                return Ok(());
            }
            state.booking = None;
            if node.is_unlinked() {
                self.let_orphan_go(node);
                let operation = self.dirty.enter();
                self.mark_file(&operation, node);
                let Some(sealed) = state.sealed.as_ref() else {
                    return Ok(());
                };
                let bytes = sealed.plain_length();
                self.uncharge_unlinked(node, &mut state, bytes);
                return Ok(());
            }
            if state.sealed.as_deref().is_none_or(SealedFile::is_clean) {
                self.rest_unchanged(node, &mut state);
                state.put_away();
                return Ok(());
            }
            self.list(node, &mut state);
        }
        if self.config().durability.sync_on_close {
            self.seal_now(node);
        }
        self.help_committer();
        Ok(())
    }

    /// A page that did not open may have been half-way to the disk: once more, with the writer out.
    fn read_again(&self, node: &Arc<Node>, plain_offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let mut state = node.file.state.lock();
        let again = state.sealed.as_ref().ok_or(Errno::EIO)?.read(plain_offset, buffer);
        again.map_err(|e| self.failed(node, &mut state, e))
    }

    /// Syncs one file, in turn with other syncs of it.
    fn sync_node(&self, node: &Arc<Node>) -> FsResult<()> {
        let _turn = node.file.sync_turn.lock();
        let (backing, ticket) = {
            let mut state = node.file.state.lock();
            let Some(sealed) = state.sealed.as_mut() else {
                return Ok(());
            };
            let begun = sealed.begin_sync();
            let backing = sealed.backing().clone();
            (backing, begun.map_err(|e| self.failed(node, &mut state, e))?)
        };
        let synced = Backing::sync_data(&*backing);
        let mut state = node.file.state.lock();
        let Some(sealed) = state.sealed.as_mut() else {
            self.failures.count_failed_syncs(u64::from(synced.is_err()));
            return Ok(synced?);
        };
        let finished = sealed.finish_sync(ticket, synced);
        finished.map_err(|e| self.failed(node, &mut state, e))
    }
}
