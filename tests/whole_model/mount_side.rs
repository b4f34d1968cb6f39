//! A real mount as a side of the model: system calls, and `kill -9` of the daemon as the crash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};

use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags};

use crate::common::{Mount, Totals};
use crate::whole_model::limits::LimitSet;
use crate::whole_model::model::{Meters, Seen};
use crate::whole_model::op::{How, Kind, Op, SLOTS};
use crate::whole_model::run::{Answer, Outcome, Side};

/// A mount and its open files.
pub struct MountSide {
    // Closed before the mount goes.
    files: [Option<File>; SLOTS as usize],
    mount: Mount,
    /// Steps until the figures are asked for again.
    quiet_steps: u32,
}

/// `tallyfs usage` waits until the database has what was written, up to a second.
const STEPS_BETWEEN_FIGURES: u32 = 30;

type Done<T> = std::io::Result<T>;

impl MountSide {
    pub fn new() -> Self {
        Self {
            files: [const { None }; SLOTS as usize],
            mount: Mount::with_config(LimitSet::default().to_toml()),
            quiet_steps: STEPS_BETWEEN_FIGURES,
        }
    }

    fn file(&self, slot: u64) -> &File {
        self.files[slot as usize].as_ref().expect("the model has it open")
    }

    fn open(&mut self, slot: u64, path: &str, how: How) -> Done<()> {
        let exclusive = if how.creates && how.exclusive { libc::O_EXCL } else { 0 };
        let appends = if how.appends { libc::O_APPEND } else { 0 };
        let truncates = if how.truncates { libc::O_TRUNC } else { 0 };
        let creates = if how.creates { libc::O_CREAT } else { 0 };
        let file = File::options()
            .read(true)
            .write(how.writes)
            .custom_flags(libc::O_NOFOLLOW | exclusive | appends | truncates | creates)
            .open(self.mount.path(path))?;
        if file.metadata()?.is_dir() {
            // To be read, a directory opens.
            return Err(rustix::io::Errno::ISDIR.into());
        }
        self.files[slot as usize] = Some(file);
        Ok(())
    }

    fn rename(&self, path: &str, new: &str, kind: Kind) -> Done<()> {
        let flags = match kind {
            Kind::Replace => RenameFlags::empty(),
            Kind::NoReplace => RenameFlags::NOREPLACE,
            Kind::Exchange => RenameFlags::EXCHANGE,
        };
        let (from, to) = (self.mount.path(path), self.mount.path(new));
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, flags)?)
    }

    fn read(&self, slot: u64, at: u64, bytes: u64) -> Done<Vec<u8>> {
        let mut buffer = vec![0xee; bytes as usize];
        let mut got = 0;
        while got < buffer.len() {
            match self.file(slot).read_at(&mut buffer[got..], at + got as u64)? {
                0 => break,
                more => got += more,
            }
        }
        buffer.truncate(got);
        Ok(buffer)
    }

    fn copy(&self, from: (u64, u64), to: (u64, u64), bytes: u64) -> Done<usize> {
        let (mut at, mut to_at) = (from.1, to.1);
        let (source, target) = (self.file(from.0), self.file(to.0));
        Ok(rustix::fs::copy_file_range(
            source,
            Some(&mut at),
            target,
            Some(&mut to_at),
            bytes as usize,
        )?)
    }

    fn truncate(&self, path: &str, length: u64) -> Done<()> {
        // The kernel follows links here; those of the model lead nowhere.
        File::options().write(true).open(self.mount.path(path))?.set_len(length)
    }

    fn link(&self, path: &str, new: &str) -> Done<()> {
        let (from, to) = (self.mount.path(path), self.mount.path(new));
        Ok(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?)
    }

    fn restart(&mut self, op: &Op) {
        // What a start found is looked at at once.
        self.quiet_steps = 0;
        let closed = [const { None }; SLOTS as usize];
        match op {
            Op::Kill | Op::PowerCut => {
                self.mount.kill();
                // Of a mount that is dead.
                self.files = closed;
                self.mount.start();
            }
            Op::Limits { set } => {
                self.files = closed;
                self.mount.remount_with(set.to_toml());
            }
            _ => {
                self.files = closed;
                self.mount.remount();
            }
        }
    }
}

impl Side for MountSide {
    fn apply(&mut self, op: &Op, payload: &[u8]) -> Outcome {
        let count = |count: usize| Answer::Count(count as u64);
        let done = |()| Answer::Count(0);
        let outcome = match op {
            Op::Mkdir { path } => fs::create_dir(self.mount.path(path)).map(done),
            Op::Rmdir { path } => fs::remove_dir(self.mount.path(path)).map(done),
            Op::Symlink { path } => symlink("nowhere", self.mount.path(path)).map(done),
            Op::Open { slot, path, how } => self.open(*slot, path, *how).map(done),
            Op::Close { slot } => {
                self.files[*slot as usize] = None;
                Ok(done(()))
            }
            Op::Read { slot, at, bytes } => self.read(*slot, *at, *bytes).map(Answer::Bytes),
            Op::Write { slot, at, .. } => self.file(*slot).write_at(payload, *at).map(count),
            Op::SetLength { slot, length } => self.file(*slot).set_len(*length).map(done),
            Op::Truncate { path, length } => self.truncate(path, *length).map(done),
            Op::Allocate { slot, at, bytes, mode } => {
                let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
                let fd = self.file(*slot).as_fd();
                rustix::fs::fallocate(fd, mode, *at, *bytes)
                    .map(done)
                    .map_err(Into::into)
            }
            Op::Copy {
                from,
                at,
                to,
                to_at,
                bytes,
            } => self.copy((*from, *at), (*to, *to_at), *bytes).map(count),
            Op::Sync { slot } => self.file(*slot).sync_all().map(done),
            Op::Link { path, new } => self.link(path, new).map(done),
            Op::Unlink { path } => fs::remove_file(self.mount.path(path)).map(done),
            Op::Rename { path, new, kind } => self.rename(path, new, *kind).map(done),
            // The daemon does these by itself, and the kernel forgets when it likes.
            Op::CommitTick | Op::Save | Op::Forget => Ok(done(())),
            Op::Remount | Op::Limits { .. } | Op::Kill | Op::PowerCut => {
                self.restart(op);
                Ok(done(()))
            }
        };
        outcome.map_err(|e| e.raw_os_error().unwrap_or(0))
    }

    fn is_behind_kernel(&self) -> bool {
        true
    }

    fn tree(&mut self) -> BTreeMap<String, Seen> {
        let mut seen = BTreeMap::new();
        let top = self.mount.point();
        let mut waiting = vec![top.clone()];
        while let Some(dir) = waiting.pop() {
            for name in crate::common::names(&dir) {
                let path = dir.join(name);
                let meta = fs::symlink_metadata(&path).expect("listed names exist");
                let relative = path.strip_prefix(&top).expect("below the mount");
                let what = if meta.is_dir() {
                    waiting.push(path.clone());
                    Seen::Dir
                } else if meta.is_symlink() {
                    Seen::Symlink
                } else {
                    let content = crate::common::read(&path);
                    assert_eq!(content.len() as u64, meta.len(), "bytes read and length");
                    Seen::File {
                        content,
                        links: meta.nlink(),
                    }
                };
                seen.insert(relative.to_string_lossy().into_owned(), what);
            }
        }
        seen
    }

    fn check_figures(&mut self, expected: &BTreeMap<String, Meters>) -> Result<(), String> {
        if self.quiet_steps > 0 {
            self.quiet_steps -= 1;
            return Ok(());
        }
        self.quiet_steps = STEPS_BETWEEN_FIGURES;
        let usage = self.mount.usage();
        let totals = |meters: &Meters| Totals {
            bytes: meters.bytes,
            files: meters.files,
            dirs: meters.dirs,
        };
        if usage.total != totals(&expected[""]) {
            return Err(format!("usage says {:?}, expected {:?}", usage.total, expected[""]));
        }
        for (path, meters) in expected
            .iter()
            .filter(|(path, _)| !path.is_empty() && !path.contains('/'))
        {
            let found = usage.tenants.get(path).copied().unwrap_or_default();
            if found != totals(meters) {
                return Err(format!("usage of '{path}' is {found:?}, expected {meters:?}"));
            }
        }
        Ok(())
    }
}
