//! FUSE requests, one method each.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::fs::{
    CopyEnd, Entry, Errno, FileSystem, Found, FsResult, Listing, NewMode, OpenMode, RenameKind, Seek, SetAttr,
    WriteAsked, XattrAnswer,
};
use crate::fuse::convert::{
    TTL, UNSURE_TTL, absent, attr, caller, errno, fopen_flags, generation, kind, listing_flags, new_time, open_mode,
    without_entry,
};
use crate::fuse::handshake::resends;
use crate::fuse::readers::{Readers, Takes, Turn};
use crate::fuse::repeated::{Name, gone, is_sent_again, made, rename};
use crate::fuse::session::{REQUEST_BYTES_MAX, negotiate};
use crate::fuse::sync_gate::SyncGate;
use crate::id::Fh;
use crate::metrics::RequestKind;

/// Content that is sealed or opened in so little time that nobody has to be called meanwhile: 50 us.
const LONG_BYTES: usize = 128 * 1024;

thread_local! {
    /// Answers of read requests, one buffer for each thread that serves.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system as fuser calls it.
pub struct Adapter {
    fs: Arc<FileSystem>,
    syncs: SyncGate,
    readers: Readers,
    ttl: Duration,
}

impl Adapter {
    /// Serves `fs` with so many threads.
    pub fn new(fs: Arc<FileSystem>, threads: usize, readers: Readers) -> Self {
        Self {
            fs,
            syncs: SyncGate::new(threads),
            readers,
            ttl: TTL,
        }
    }

    /// The calling thread has read a request.
    fn turn(&self, request: &Request, takes: Takes, kind: RequestKind) -> Turn<'_> {
        if let Some(kept) = self.fs.kept() {
            kept.note_request(request.unique().0);
        }
        self.readers.begin(request.pid(), takes, kind)
    }

    fn reply_entry(&self, found: FsResult<Entry>, reply: ReplyEntry) {
        match found {
            Ok(entry) => reply.entry(&self.ttl, &attr(&entry.attr), generation(entry.generation)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn reply_attr(&self, found: FsResult<crate::fs::Attr>, reply: ReplyAttr) {
        match found {
            Ok(found) => reply.attr(&self.ttl, &attr(&found)),
            Err(e) => reply.error(errno(e)),
        }
    }
}

/// A request that moves so many bytes of content.
fn moving(bytes: usize) -> Takes {
    if bytes > LONG_BYTES { Takes::Long } else { Takes::Moment }
}

fn reply_empty(done: FsResult<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

fn reply_xattr(answer: FsResult<XattrAnswer>, reply: ReplyXattr) {
    match answer {
        Ok(XattrAnswer::Size(bytes)) => reply.size(bytes as u32),
        Ok(XattrAnswer::Value(value)) => reply.data(&value),
        Err(e) => reply.error(errno(e)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, kernel: &mut KernelConfig) -> io::Result<()> {
        if self.fs.kept().is_some() && !resends(kernel) {
            self.ttl = UNSURE_TTL;
        }
        negotiate(kernel)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Lookup);
        match self.fs.lookup(parent.0, name, caller(request)) {
            Ok(Found::Entry(entry)) => reply.entry(&self.ttl, &attr(&entry.attr), generation(entry.generation)),
            Ok(Found::Absent) => reply.entry(&self.ttl, &absent(), generation(0)),
            Ok(Found::Figure(entry)) => {
                reply.entry(&Duration::ZERO, &attr(&entry.attr), generation(entry.generation));
            }
            Ok(Found::AbsentForNow) => reply.entry(&Duration::ZERO, &absent(), generation(0)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, request: &Request, ino: INodeNo, lookups: u64) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Forget);
        self.fs.forget(ino.0, lookups);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Getattr);
        self.reply_attr(self.fs.getattr(ino.0), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Setattr);
        let set = SetAttr {
            mode,
            uid,
            gid,
            plain_length: size,
            atime: atime.map(new_time),
            mtime: mtime.map(new_time),
        };
        self.reply_attr(self.fs.setattr(ino.0, &set, caller(request)), reply);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        match self.fs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Create);
        let mode = NewMode { bits: mode, umask };
        let entry = self.fs.mknod(parent.0, name, mode, u64::from(rdev), caller(request));
        self.reply_entry(made(&self.fs, request, entry, parent, name), reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Create);
        let mode = NewMode { bits: mode, umask };
        let entry = self.fs.mkdir(parent.0, name, mode, caller(request));
        self.reply_entry(made(&self.fs, request, entry, parent, name), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Unlink);
        reply_empty(gone(request, self.fs.unlink(parent.0, name), Errno::ENOENT), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Unlink);
        reply_empty(gone(request, self.fs.rmdir(parent.0, name), Errno::ENOENT), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Create);
        let entry = self.fs.symlink(parent.0, link_name, target, caller(request));
        self.reply_entry(made(&self.fs, request, entry, parent, link_name), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Rename);
        let kind = match flags.bits() {
            0 => RenameKind::Replace,
            bits if bits == RenameFlags::RENAME_NOREPLACE.bits() => RenameKind::NoReplace,
            bits if bits == RenameFlags::RENAME_EXCHANGE.bits() => RenameKind::Exchange,
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        let from = Name { parent, name };
        let to = Name {
            parent: newparent,
            name: newname,
        };
        reply_empty(rename(&self.fs, request, from, to, kind), reply);
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Create);
        let entry = self.fs.link(ino.0, newparent.0, newname);
        self.reply_entry(made(&self.fs, request, entry, newparent, newname), reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Open);
        let how = open_mode(flags);
        let before = is_sent_again(request).then(|| self.fs.opened_before(request.unique().0));
        let opened = before
            .flatten()
            .map_or_else(|| self.fs.open(ino.0, how, caller(request)), Ok);
        match opened {
            Ok(opened) => {
                self.fs.keep(opened.fh, request.unique().0);
                reply.opened(FileHandle(opened.fh.0), fopen_flags(&opened, how));
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.turn(request, moving(size as usize), RequestKind::Read);
        READ_BUFFER.with_borrow_mut(|buffer| {
            let size = size.min(REQUEST_BYTES_MAX) as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.fs.read(Fh(fh.0), offset, &mut buffer[..size]) {
                Ok(bytes) => reply.data(&buffer[..bytes]),
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.turn(request, moving(data.len()), RequestKind::Write);
        let asked = WriteAsked {
            plain_offset: offset,
            data,
            caller: caller(request),
            drops_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            from_mapping: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            is_repeated: is_sent_again(request),
        };
        match self.fs.write(Fh(fh.0), &asked) {
            Ok(bytes) => reply.written(bytes as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn flush(&self, request: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Flush);
        // Nothing waits for a close: a write was acknowledged only after it was in the backing page cache.
        // Told so once, the kernel spares every further close this round trip, and goes on writing the
        // dirty pages of mappings back first, which FOPEN_NOFLUSH would leave.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn release(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Release);
        reply_empty(self.fs.release(Fh(fh.0)), reply);
    }

    fn fsync(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut turn = self.turn(request, Takes::Long, RequestKind::Fsync);
        let apart = turn.apart();
        let fs = self.fs.clone();
        self.syncs.run(move || {
            let _apart = apart;
            reply_empty(fs.fsync(Fh(fh.0)), reply);
        });
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Open);
        let before = is_sent_again(request).then(|| self.fs.directory_opened_before(request.unique().0));
        match before.flatten().map_or_else(|| self.fs.opendir(ino.0), Ok) {
            Ok(opened) => {
                self.fs.keep(opened.fh, request.unique().0);
                reply.opened(FileHandle(opened.fh.0), listing_flags(opened));
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdir(&self, request: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Readdir);
        let listed = self.fs.readdir(Fh(fh.0), offset, Listing::Names, |name| {
            reply.add(
                INodeNo(name.ino.0),
                name.next,
                kind(name.kind),
                OsStr::from_bytes(name.name.to_bytes()),
            )
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Readdir);
        let listed = self.fs.readdir(Fh(fh.0), offset, Listing::WithEntries, |name| {
            let os_name = OsStr::from_bytes(name.name.to_bytes());
            if let Some(entry) = &name.entry {
                let found = attr(&entry.attr);
                let generation = generation(entry.generation);
                return reply.add(found.ino, name.next, os_name, &self.ttl, &found, generation);
            }
            let bare = without_entry(name);
            reply.add(bare.ino, name.next, os_name, &Duration::ZERO, &bare, generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn releasedir(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Release);
        reply_empty(self.fs.releasedir(Fh(fh.0)), reply);
    }

    fn fsyncdir(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut turn = self.turn(request, Takes::Long, RequestKind::Fsync);
        let apart = turn.apart();
        let fs = self.fs.clone();
        self.syncs.run(move || {
            let _apart = apart;
            reply_empty(fs.fsyncdir(Fh(fh.0)), reply);
        });
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        match self.fs.statfs(ino.0) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.blocks_free,
                s.blocks_free,
                s.files,
                s.files_free,
                4096,
                s.name_bytes_max,
                4096,
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        let set = self.fs.setxattr(ino.0, name, value, flags, caller(request));
        reply_empty(gone(request, set, Errno::EEXIST), reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        reply_xattr(self.fs.getxattr(ino.0, name, size as usize), reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        reply_xattr(self.fs.listxattr(ino.0, size as usize), reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        let removed = self.fs.removexattr(ino.0, name, caller(request));
        reply_empty(gone(request, removed, Errno(libc::ENODATA)), reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        // The kernel checks permissions (default_permissions); what is left to say is whether it exists.
        reply_empty(self.fs.getattr(ino.0).map(|_| ()), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Create);
        let how = open_mode(OpenFlags(flags));
        let mode = NewMode { bits: mode, umask };
        let before = is_sent_again(request).then(|| self.fs.opened_before(request.unique().0));
        let created = if let Some(opened) = before.flatten() {
            self.fs.made_before(parent.0, name).map(|entry| (entry, opened))
        } else {
            // What is there was made by the process before.
            let exclusive = how.exclusive && !is_sent_again(request);
            let how = OpenMode { exclusive, ..how };
            self.fs.create(parent.0, name, mode, how, caller(request))
        };
        match created {
            Ok((entry, opened)) => {
                self.fs.keep(opened.fh, request.unique().0);
                reply.created(
                    &self.ttl,
                    &attr(&entry.attr),
                    generation(entry.generation),
                    FileHandle(opened.fh.0),
                    fopen_flags(&opened, how),
                );
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turn(request, Takes::Long, RequestKind::Other);
        let done = self.fs.fallocate(Fh(fh.0), offset, length, mode, caller(request));
        reply_empty(done, reply);
    }

    fn lseek(&self, request: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        let to = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(fuser::Errno::ENXIO);
        };
        match self.fs.seek(Fh(fh.0), offset, to) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn poll(
        &self,
        request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        // The kernel asks no more, and knows that files are always ready.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let _turn = self.turn(request, Takes::Moment, RequestKind::Other);
        reply.error(fuser::Errno::ENOTTY);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _turn = self.turn(request, Takes::Long, RequestKind::Other);
        let from = CopyEnd {
            fh: Fh(fh_in.0),
            plain_offset: offset_in,
        };
        let to = CopyEnd {
            fh: Fh(fh_out.0),
            plain_offset: offset_out,
        };
        match self.fs.copy_range(from, to, len, caller(request)) {
            Ok(bytes) => reply.written(bytes as u32),
            Err(e) => reply.error(errno(e)),
        }
    }
}
