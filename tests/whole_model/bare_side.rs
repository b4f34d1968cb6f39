//! The file system without FUSE as a side of the model: paths are walked by look-ups, as the kernel
//! does it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;

use tallyfs::fs::{Attr, WriteAsked};
use tallyfs::fs::{
    CopyEnd, Errno, FileSystem, Found, FsResult, Listing, NewMode, OpenMode, ROOT_NODE, RenameKind, SetAttr,
};
use tallyfs::id::Fh;

use super::model::{Meters, Seen};
use super::op::{How, Kind, Op, SLOTS};
use super::run::{Answer, Outcome, Side};
use crate::common::bare::{Bare, ROOT};
use crate::common::scan;

/// A store, its open files, and what was looked up and not forgotten.
pub struct BareSide {
    bare: Bare,
    handles: [Option<(Fh, u64)>; SLOTS as usize],
    lookups: HashMap<u64, u64>,
    /// What a scan of the stopped store found last, until it is compared.
    scanned: Option<scan::Totals>,
}

impl BareSide {
    pub fn new() -> Self {
        Self {
            bare: Bare::in_memory(&super::limits::LimitSet::default().to_toml()),
            handles: [None; SLOTS as usize],
            lookups: HashMap::new(),
            scanned: None,
        }
    }

    fn fs(&self) -> &FileSystem {
        self.bare.fs()
    }

    fn note(&mut self, attr: &Attr) -> u64 {
        *self.lookups.entry(attr.ino.0).or_default() += 1;
        attr.ino.0
    }

    fn look_up(&mut self, parent: u64, name: &str) -> FsResult<Attr> {
        match self.fs().lookup(parent, OsStr::new(name), ROOT)? {
            Found::Entry(entry) => {
                self.note(&entry.attr);
                Ok(entry.attr)
            }
            Found::Absent | Found::AbsentForNow | Found::Figure(_) => Err(Errno::ENOENT),
        }
    }

    fn parent_of<'a>(&mut self, path: &'a str) -> FsResult<(u64, &'a OsStr)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = ROOT_NODE;
        for component in above.split('/').filter(|component| !component.is_empty()) {
            at = self.look_up(at, component)?.ino.0;
        }
        Ok((at, OsStr::new(name)))
    }

    fn find(&mut self, path: &str) -> FsResult<Attr> {
        let (parent, name) = self.parent_of(path)?;
        self.look_up(parent, &name.to_string_lossy())
    }

    fn handle(&self, slot: u64) -> (Fh, u64) {
        self.handles[slot as usize].expect("the model has it open")
    }

    fn open(&mut self, slot: u64, path: &str, how: How) -> FsResult<()> {
        let mode = OpenMode {
            reads: true,
            writes: how.writes,
            appends: how.appends,
            truncates: how.truncates,
            exclusive: how.exclusive,
        };
        let (parent, name) = self.parent_of(path)?;
        let known = if how.creates && how.exclusive {
            Err(Errno::ENOENT)
        } else {
            self.look_up(parent, &name.to_string_lossy())
        };
        let (fh, ino) = match known {
            Ok(attr) => (self.fs().open(attr.ino.0, mode, ROOT)?.fh, attr.ino.0),
            Err(Errno::ENOENT) if how.creates => {
                let (entry, opened) = self.fs().create(parent, name, NewMode::exactly(0o644), mode, ROOT)?;
                (opened.fh, self.note(&entry.attr))
            }
            Err(e) => return Err(e),
        };
        self.handles[slot as usize] = Some((fh, ino));
        Ok(())
    }

    fn set_length(&mut self, number: u64, length: u64) -> FsResult<()> {
        let set = SetAttr {
            plain_length: Some(length),
            ..SetAttr::default()
        };
        let attr = self.fs().setattr(number, &set, ROOT)?;
        assert_eq!(attr.size, length, "the length that setattr answers");
        Ok(())
    }

    fn link(&mut self, path: &str, new: &str) -> FsResult<()> {
        let attr = self.find(path)?;
        let (parent, name) = self.parent_of(new)?;
        let entry = self.fs().link(attr.ino.0, parent, name)?;
        self.note(&entry.attr);
        Ok(())
    }

    fn rename(&mut self, path: &str, new: &str, kind: Kind) -> FsResult<()> {
        let kind = match kind {
            Kind::Replace => RenameKind::Replace,
            Kind::NoReplace => RenameKind::NoReplace,
            Kind::Exchange => RenameKind::Exchange,
        };
        let (parent, name) = self.parent_of(path)?;
        let (new_parent, new_name) = self.parent_of(new)?;
        self.fs().rename(parent, name, new_parent, new_name, kind)
    }

    fn remove(&mut self, path: &str, is_directory: bool) -> FsResult<()> {
        let (parent, name) = self.parent_of(path)?;
        if is_directory {
            self.fs().rmdir(parent, name)
        } else {
            self.fs().unlink(parent, name)
        }
    }

    fn make(&mut self, path: &str, is_directory: bool) -> FsResult<()> {
        let (parent, name) = self.parent_of(path)?;
        let entry = if is_directory {
            self.fs().mkdir(parent, name, NewMode::exactly(0o755), ROOT)?
        } else {
            self.fs().symlink(parent, name, "nowhere".as_ref(), ROOT)?
        };
        self.note(&entry.attr);
        Ok(())
    }

    fn read(&self, fh: Fh, at: u64, bytes: u64) -> FsResult<Vec<u8>> {
        let mut buffer = vec![0xee; bytes as usize];
        let got = self.fs().read(fh, at, &mut buffer)?;
        buffer.truncate(got);
        Ok(buffer)
    }

    fn write(&self, fh: Fh, at: u64, data: &[u8]) -> FsResult<usize> {
        let asked = WriteAsked {
            plain_offset: at,
            data,
            caller: ROOT,
            drops_privileges: false,
            from_mapping: false,
            is_repeated: false,
        };
        self.fs().write(fh, &asked)
    }

    fn copy(&self, from: (u64, u64), to: (u64, u64), bytes: u64) -> FsResult<usize> {
        let end = |(slot, plain_offset): (u64, u64)| CopyEnd {
            fh: self.handle(slot).0,
            plain_offset,
        };
        self.fs().copy_range(end(from), end(to), bytes, ROOT)
    }

    /// The kernel drops what it has in mind, but for what is open.
    fn forget(&mut self) {
        for (number, count) in std::mem::take(&mut self.lookups) {
            self.fs().forget(number, count);
        }
    }

    fn gone(&mut self) {
        self.handles = [None; SLOTS as usize];
        self.lookups.clear();
    }

    fn stopped(&mut self) {
        self.bare.stop();
        self.gone();
        self.scanned = Some(scan::store(&self.bare.paths().root).total);
    }

    fn restart(&mut self, op: &Op) {
        match op {
            Op::Kill => self.bare.kill(),
            Op::PowerCut => self.bare.power_cut(),
            Op::Limits { set } => {
                self.stopped();
                self.bare.set_config(&set.to_toml());
            }
            _ => self.stopped(),
        }
        self.gone();
        self.bare.start();
    }

    /// What lies in a directory, with the kinds of the names.
    fn list(&mut self, number: u64) -> Vec<String> {
        let fh = self.fs().opendir(number).expect("a directory opens").fh;
        let mut names = Vec::new();
        let listed = self.fs().readdir(fh, 0, Listing::Names, |entry| {
            names.push(entry.name.to_string_lossy().into_owned());
            false
        });
        listed.expect("a directory is read");
        self.fs().releasedir(fh).expect("a directory closes");
        names.retain(|name| name != "." && name != "..");
        names
    }

    fn seen(&mut self, attr: &Attr) -> Seen {
        if attr.kind == rustix::fs::FileType::Symlink {
            let target = self.fs().readlink(attr.ino.0).expect("a link has a target");
            assert_eq!(target, b"nowhere");
            return Seen::Symlink;
        }
        let opened = self.fs().open(attr.ino.0, OpenMode::default(), ROOT);
        let fh = opened.expect("a file opens").fh;
        let content = self.read(fh, 0, attr.size + 9).expect("a file is read");
        self.fs().release(fh).expect("a file closes");
        assert_eq!(content.len() as u64, attr.size, "bytes read and length");
        Seen::File {
            content,
            links: u64::from(attr.links),
        }
    }
}

impl Side for BareSide {
    fn apply(&mut self, op: &Op, payload: &[u8]) -> Outcome {
        let count = |count: usize| Answer::Count(count as u64);
        let done = |()| Answer::Count(0);
        let outcome = match op {
            Op::Mkdir { path } => self.make(path, true).map(done),
            Op::Rmdir { path } => self.remove(path, true).map(done),
            Op::Symlink { path } => self.make(path, false).map(done),
            Op::Open { slot, path, how } => self.open(*slot, path, *how).map(done),
            Op::Close { slot } => {
                let (fh, _) = self.handles[*slot as usize].take().expect("the model has it open");
                self.fs().release(fh).map(done)
            }
            Op::Read { slot, at, bytes } => self.read(self.handle(*slot).0, *at, *bytes).map(Answer::Bytes),
            Op::Write { slot, at, .. } => self.write(self.handle(*slot).0, *at, payload).map(count),
            Op::SetLength { slot, length } => self.set_length(self.handle(*slot).1, *length).map(done),
            Op::Truncate { path, length } => self
                .find(path)
                .and_then(|attr| self.set_length(attr.ino.0, *length))
                .map(done),
            Op::Allocate { slot, at, bytes, mode } => {
                let fh = self.handle(*slot).0;
                self.fs().fallocate(fh, *at, *bytes, *mode, ROOT).map(done)
            }
            Op::Copy {
                from,
                at,
                to,
                to_at,
                bytes,
            } => self.copy((*from, *at), (*to, *to_at), *bytes).map(count),
            Op::Sync { slot } => self.fs().fsync(self.handle(*slot).0).map(done),
            Op::Link { path, new } => self.link(path, new).map(done),
            Op::Unlink { path } => self.remove(path, false).map(done),
            Op::Rename { path, new, kind } => self.rename(path, new, *kind).map(done),
            Op::CommitTick => {
                let failed = self.bare.commit_tick().failed_count;
                assert_eq!(failed, 0, "files that could not be sealed");
                Ok(done(()))
            }
            Op::Save => {
                self.bare.save();
                Ok(done(()))
            }
            Op::Forget => {
                self.forget();
                Ok(done(()))
            }
            Op::Remount | Op::Limits { .. } | Op::Kill | Op::PowerCut => {
                self.restart(op);
                Ok(done(()))
            }
        };
        outcome.map_err(|e| e.0)
    }

    fn is_behind_kernel(&self) -> bool {
        false
    }

    fn tree(&mut self) -> BTreeMap<String, Seen> {
        let mut seen = BTreeMap::new();
        let mut waiting = vec![(String::new(), ROOT_NODE)];
        while let Some((above, number)) = waiting.pop() {
            for name in self.list(number) {
                let path = format!("{above}{name}");
                let attr = self.look_up(number, &name).expect("listed names exist");
                if attr.kind == rustix::fs::FileType::Directory {
                    waiting.push((format!("{path}/"), attr.ino.0));
                    seen.insert(path, Seen::Dir);
                } else {
                    let what = self.seen(&attr);
                    seen.insert(path, what);
                }
            }
        }
        seen
    }

    fn check_figures(&mut self, expected: &BTreeMap<String, Meters>) -> Result<(), String> {
        let ledger = self.fs().ledger().clone();
        if ledger.miscounts_count() > 0 || !ledger.inconsistent().is_empty() {
            return Err("the ledger miscounted".to_owned());
        }
        if ledger.accounts_count() != expected.len() {
            return Err(format!(
                "{} accounts, {} directories",
                ledger.accounts_count(),
                expected.len()
            ));
        }
        for account in ledger.accounts() {
            let path = String::from_utf8_lossy(&account.path()).into_owned();
            let total = account.total();
            let found = Meters {
                bytes: total.bytes,
                files: total.files,
                dirs: total.dirs,
            };
            match expected.get(&path) {
                Some(wanted) if *wanted == found => {}
                wanted => return Err(format!("'{path}' is charged with {found:?}, expected {wanted:?}")),
            }
            let held = account.reserved();
            if (held.bytes, held.files, held.dirs) != (0, 0, 0) {
                return Err(format!("'{path}' still holds {held:?}"));
            }
        }
        let scanned = self.scanned.take().map(|found| (found.bytes, found.files, found.dirs));
        let total = expected[""];
        match scanned {
            Some(found) if found != (total.bytes, total.files, total.dirs) => {
                Err(format!("a scan of the store found {found:?}, expected {total:?}"))
            }
            _ => Ok(()),
        }
    }
}
