//! Random requests against a file system on a real directory and against a plain model, with one
//! fault in every other request.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tallyfs::clock::SystemClock;
use tallyfs::config::Config;
use tallyfs::fs::{
    Caller, Errno, FileSystem, Found, KnownHeads, NewMode, OpenMode, Parts, PastOperations, RenameKind, SetAttr,
    WriteAsked,
};
use tallyfs::id::{Fh, Ino};
use tallyfs::quota::{Ledger, Limits, OperationCounts};
use tallyfs::recovery::{Probe, limits_on, scan};
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::Kek;
use tallyfs::sealed::row_mac::SealedFields;
use tallyfs::store::dirty_log::DirtyLog;
use tallyfs::store::fault_points::{Call, Fate, arm};
use tallyfs::store::sealed_file::{SealedFile, WriteOptions};
use tallyfs::store::tree::{AccessTimes, Tree, stat_fd};
use tallyfs::sys::FileHandle;

use crate::rng::{Rng, content};

const ERRNOS: [i32; 5] = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EMFILE];
const MOST_BYTES: usize = 120_000;

pub const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    thread: 1,
};

pub const READ_WRITE: OpenMode = OpenMode {
    reads: true,
    writes: true,
    appends: false,
    truncates: false,
    exclusive: true,
};

/// Kinds of calls that were made to fail, and requests that answered with an error for it.
#[derive(Default, Clone)]
pub struct Met {
    failed: BTreeMap<Call, u64>,
    shortened: BTreeMap<Call, u64>,
    answered: BTreeMap<i32, u64>,
}

impl Met {
    pub fn add(&mut self, other: &Self) {
        for (call, count) in &other.failed {
            *self.failed.entry(*call).or_default() += count;
        }
        for (call, count) in &other.shortened {
            *self.shortened.entry(*call).or_default() += count;
        }
        for (errno, count) in &other.answered {
            *self.answered.entry(*errno).or_default() += count;
        }
    }

    /// Every kind of fault and every errno came up.
    pub fn assert_complete(&self) {
        let kinds = [
            Call::Read,
            Call::Write,
            Call::Sync,
            Call::SetSize,
            Call::Punch,
            Call::Stat,
            Call::Handle,
            Call::Open,
            Call::Create,
            Call::MakeDirectory,
            Call::Link,
            Call::Unlink,
            Call::RemoveDirectory,
            Call::Rename,
            Call::SetAttributes,
            Call::DirtyLog,
        ];
        for call in kinds {
            assert!(self.failed.contains_key(&call), "no {call:?} was made to fail");
        }
        for call in [Call::Read, Call::Write] {
            assert!(self.shortened.contains_key(&call), "no {call:?} was cut short");
        }
        for errno in ERRNOS {
            assert!(self.answered.contains_key(&errno), "no request answered errno {errno}");
        }
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "failed {:?}, short {:?}, answers {:?}",
            self.failed, self.shortened, self.answered
        )
    }
}

/// A file system without FUSE, over a temporary directory.
pub struct Mounted {
    pub temp: tempfile::TempDir,
    pub fs: Arc<FileSystem>,
    pub ring: Arc<KeyRing>,
}

/// No database remembers heads: disks fail here, and nobody puts old copies back.
struct NoBaseline;

impl KnownHeads for NoBaseline {
    fn known(&self, _: Ino) -> Option<SealedFields> {
        None
    }
}

impl PastOperations for NoBaseline {
    fn months(&self, _: &str) -> Option<Vec<String>> {
        None
    }

    fn operations(&self, _: &str, _: &str) -> Option<OperationCounts> {
        None
    }
}

impl Mounted {
    pub fn new(strict: bool) -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        let data = temp.path().join("data");
        std::fs::create_dir(&data).expect("a data directory");
        let root = File::open(&data).expect("it is there").into();
        let tree = Tree::new(root, 3, AccessTimes::Move).expect("a tree");
        let root_ino = Ino(stat_fd(tree.root()).expect("stat").stx_ino);
        let (dirty, _) = DirtyLog::open(temp.path(), [7; 16], 0).expect("a dirty log");
        let ring = Arc::new(KeyRing::create(Kek::take(&mut [7; 32]), [1; 16], 0));
        let mut config = Config::default();
        config.durability.strict_overwrite = strict;
        let fs = FileSystem::new(Parts {
            tree: Arc::new(tree),
            ledger: Ledger::new(root_ino, Limits::default()),
            links: Vec::new(),
            dirty: Arc::new(dirty),
            ring: ring.clone(),
            config: Arc::new(config),
            clock: Arc::new(SystemClock::new()),
            unsealed_files_max: usize::MAX,
            administrators: None,
            estate: None,
            daemon: ROOT,
            known_heads: Arc::new(NoBaseline),
            past_operations: Arc::new(NoBaseline),
        });
        let fs = Arc::new(fs.expect("a file system"));
        Self { temp, fs, ring }
    }

    pub fn number(&self, parent: u64, name: &str) -> Result<Option<u64>, Errno> {
        match self.fs.lookup(parent, OsStr::new(name), ROOT)? {
            Found::Entry(entry) => Ok(Some(entry.attr.ino.0)),
            Found::Absent | Found::AbsentForNow | Found::Figure(_) => Ok(None),
        }
    }

    pub fn write(&self, fh: Fh, at: u64, data: &[u8]) -> Result<usize, Errno> {
        self.fs.write(
            fh,
            &WriteAsked {
                plain_offset: at,
                data,
                caller: ROOT,
                drops_privileges: false,
                from_mapping: false,
                is_repeated: false,
            },
        )
    }

    pub fn read_all(&self, fh: Fh) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; MOST_BYTES * 4];
        let read = self.fs.read(fh, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// One fault.
struct Plan {
    calls_left: u64,
    fate: Fate,
    persistent: bool,
    met: Met,
    fired: bool,
    sync_failed: bool,
}

/// A file of the model.
struct Known {
    bytes: Vec<u8>,
    fh: Option<Fh>,
    /// A sync of it may have failed since a good one.
    tainted: bool,
}

type Place = (usize, String);

pub struct World {
    mounted: Mounted,
    rng: Rng,
    seed: u64,
    dirs: Vec<u64>,
    files: BTreeMap<Place, Known>,
    extra_dirs: BTreeSet<String>,
    writes: u64,
    plan: Rc<RefCell<Option<Plan>>>,
    met: Met,
    log: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        arm(None);
        if std::thread::panicking() {
            eprintln!("TALLYFS_FAULT_SEED={}", self.seed);
            for line in self.log.iter().rev().take(30).rev() {
                eprintln!("  {line}");
            }
        }
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mounted = Mounted::new(rng.one_in(2));
        let dirs = ["acme", "beta"].map(|name| {
            let made = mounted.fs.mkdir(1, OsStr::new(name), NewMode::exactly(0o755), ROOT);
            made.expect("a directory").attr.ino.0
        });
        let plan: Rc<RefCell<Option<Plan>>> = Rc::default();
        let asked = plan.clone();
        arm(Some(Box::new(move |call| {
            asked.borrow_mut().as_mut().map_or(Fate::Goes, |plan| plan.fate(call))
        })));
        Self {
            mounted,
            rng,
            seed,
            dirs: dirs.to_vec(),
            files: BTreeMap::new(),
            extra_dirs: BTreeSet::new(),
            writes: seed << 20,
            plan,
            met: Met::default(),
            log: Vec::new(),
        }
    }

    fn inject(&mut self) {
        if self.rng.one_in(2) {
            return;
        }
        let fate = if self.rng.one_in(5) {
            Fate::MovesAtMost(4096 * self.rng.below(3) as usize)
        } else {
            Fate::Fails(self.rng.pick(&ERRNOS))
        };
        let plan = Plan {
            calls_left: self.rng.below(10),
            fate,
            persistent: self.rng.one_in(4),
            met: Met::default(),
            fired: false,
            sync_failed: false,
        };
        *self.plan.borrow_mut() = Some(plan);
    }

    /// The fault is over; whether it came up, and its errno.
    fn end_fault(&mut self) -> (bool, Option<i32>) {
        let Some(plan) = self.plan.borrow_mut().take() else {
            return (false, None);
        };
        self.met.add(&plan.met);
        if plan.sync_failed {
            self.files.values_mut().for_each(|known| known.tainted = true);
        }
        let errno = match plan.fate {
            Fate::Fails(errno) => Some(errno),
            Fate::MovesAtMost(_) => Some(libc::ENOSPC),
            Fate::Goes => None,
        };
        (plan.fired, errno.filter(|_| plan.fired))
    }

    /// An error must be the one that was injected, or tell of a sync that failed before.
    fn judge<T: fmt::Debug>(&mut self, what: &str, answer: &Result<T, Errno>, tainted: bool) {
        let (_, errno) = self.end_fault();
        self.log
            .push(format!("{what}: {:?} (fault {errno:?})", answer.as_ref().err()));
        let Err(e) = answer else { return };
        *self.met.answered.entry(e.0).or_default() += 1;
        assert!(
            Some(e.0) == errno || (tainted && e.0 == libc::EIO),
            "{what} answers errno {}, the disk said {errno:?}",
            e.0
        );
    }

    pub fn step(&mut self) {
        match self.rng.below(41) {
            0..4 => self.create(),
            4..16 => self.write(),
            16..19 => self.resize(),
            19..22 => self.fsync(),
            22..25 => self.close(),
            25..28 => self.tick(),
            28..30 => self.unlink(),
            30..33 => self.rename(),
            33..35 => self.directories(),
            35 => self.link_and_unlink(),
            36 => self.chmod(),
            37 => self.reopen(),
            38 => self.rotate(),
            _ => self.read(),
        }
    }

    fn any_place(&mut self) -> Place {
        (self.rng.below(2) as usize, format!("f{}", self.rng.below(6)))
    }

    fn some_file(&mut self) -> Option<Place> {
        let places: Vec<Place> = self.files.keys().cloned().collect();
        (!places.is_empty()).then(|| self.rng.pick(&places.iter().collect::<Vec<_>>()).clone())
    }

    fn create(&mut self) {
        let place = self.any_place();
        if self.files.contains_key(&place) {
            return;
        }
        self.inject();
        let dir = self.dirs[place.0];
        let made = self
            .mounted
            .fs
            .create(dir, OsStr::new(&place.1), NewMode::exactly(0o640), READ_WRITE, ROOT);
        let made = made.map(|(_, opened)| opened.fh);
        self.judge(&format!("create {place:?}"), &made, false);
        let there = self
            .mounted
            .number(dir, &place.1)
            .expect("the disk is well again")
            .is_some();
        assert!(there || made.is_err());
        if there {
            let known = Known {
                bytes: Vec::new(),
                fh: made.ok(),
                tainted: false,
            };
            self.files.insert(place, known);
        }
    }

    /// An open handle on the file, opened without a fault.
    fn handle(&mut self, place: &Place) -> Fh {
        let known = &self.files[place];
        if let Some(fh) = known.fh {
            return fh;
        }
        let number = self.mounted.number(self.dirs[place.0], &place.1).expect("lookup");
        let number = number.expect("what the model has is there");
        let opened = self.mounted.fs.open(number, READ_WRITE, ROOT).expect("open");
        self.files.get_mut(place).expect("known").fh = Some(opened.fh);
        opened.fh
    }

    fn write(&mut self) {
        let Some(place) = self.some_file() else { return };
        let fh = self.handle(&place);
        let before = self.files[&place].bytes.clone();
        let tainted = self.files[&place].tainted;
        let at = match self.rng.below(5) {
            0 => 0,
            1 => self.rng.below(before.len() as u64 + 1) as usize,
            _ => before.len(),
        };
        if at > MOST_BYTES {
            return;
        }
        self.writes += 1;
        let bytes = self.rng.pick(&[44, 320, 320, 320, 4048, 9000, 20_000]);
        let data = content(self.writes, bytes);
        self.inject();
        let answer = self.mounted.write(fh, at as u64, &data);
        self.judge(
            &format!("write {bytes} at {at} of {place:?} ({})", before.len()),
            &answer,
            tainted,
        );
        let mut after = before.clone();
        if let Ok(written) = answer {
            assert!(written > 0 && written <= bytes, "{written} of {bytes}");
            after.resize(before.len().max(at + written), 0);
            after[at..at + written].copy_from_slice(&data[..written]);
        }
        self.files.get_mut(&place).expect("known").bytes = after;
        self.check(&place);
    }

    fn resize(&mut self) {
        let Some(place) = self.some_file() else { return };
        let before = self.files[&place].bytes.clone();
        let tainted = self.files[&place].tainted;
        let to = match self.rng.below(3) {
            0 => 0,
            _ => self.rng.below(before.len() as u64 + 6000) as usize,
        };
        let number = self
            .mounted
            .number(self.dirs[place.0], &place.1)
            .expect("lookup")
            .expect("known");
        self.inject();
        let set = SetAttr {
            plain_length: Some(to as u64),
            ..SetAttr::default()
        };
        let answer = self.mounted.fs.setattr(number, &set, ROOT).map(|_| ());
        self.judge(
            &format!("resize {place:?} from {} to {to}", before.len()),
            &answer,
            tainted,
        );
        let fh = self.handle(&place);
        let now = self
            .mounted
            .read_all(fh)
            .expect("a file can be read when the disk is well");
        let mut after = before.clone();
        after.resize(to, 0);
        let is_after = now == after;
        assert!(
            is_after || answer.is_err(),
            "{to} was acknowledged and is {}",
            now.len()
        );
        if !is_after {
            let kept = before.len().min(now.len());
            assert!(now[..kept] == before[..kept] && now[kept..].iter().all(|&byte| byte == 0));
            assert!(now.len() >= before.len().min(to), "cut too far");
        }
        let known = self.files.get_mut(&place).expect("known");
        known.bytes = now;
        known.tainted &= !(answer.is_ok() && to == 0);
    }

    fn fsync(&mut self) {
        let Some(place) = self.some_file() else { return };
        let fh = self.handle(&place);
        let tainted = self.files[&place].tainted;
        self.inject();
        let answer = self.mounted.fs.fsync(fh);
        self.judge(&format!("fsync {place:?}"), &answer, tainted);
        let known = self.files.get_mut(&place).expect("known");
        known.tainted = answer.is_err();
        self.check(&place);
    }

    fn close(&mut self) {
        let Some(place) = self.some_file() else { return };
        let Some(fh) = self.files.get_mut(&place).expect("known").fh.take() else {
            return;
        };
        self.inject();
        let answer = self.mounted.fs.release(fh);
        self.judge(&format!("close {place:?}"), &answer, false);
    }

    fn tick(&mut self) {
        self.inject();
        let status = self.mounted.fs.commit_tick();
        let (fired, _) = self.end_fault();
        self.log.push(format!("tick: {status:?}"));
        assert!(status.failed_count == 0 || fired || self.files.values().any(|known| known.tainted));
        if let Some(place) = self.some_file() {
            self.check(&place);
        }
    }

    fn unlink(&mut self) {
        let Some(place) = self.some_file() else { return };
        let dir = self.dirs[place.0];
        self.inject();
        let answer = self.mounted.fs.unlink(dir, OsStr::new(&place.1));
        self.judge(&format!("unlink {place:?}"), &answer, false);
        let there = self.mounted.number(dir, &place.1).expect("lookup").is_some();
        assert_eq!(there, answer.is_err(), "unlink and the name");
        if !there && let Some(fh) = self.files.remove(&place).and_then(|known| known.fh) {
            self.mounted.fs.release(fh).expect("an unlinked file can be closed");
        }
    }

    fn rename(&mut self) {
        let Some(from) = self.some_file() else { return };
        let to = self.any_place();
        if from == to {
            return;
        }
        self.inject();
        let answer = self.mounted.fs.rename(
            self.dirs[from.0],
            OsStr::new(&from.1),
            self.dirs[to.0],
            OsStr::new(&to.1),
            RenameKind::Replace,
        );
        self.judge(&format!("rename {from:?} to {to:?}"), &answer, false);
        let there = self
            .mounted
            .number(self.dirs[from.0], &from.1)
            .expect("lookup")
            .is_some();
        assert_eq!(there, answer.is_err(), "rename and the old name");
        if answer.is_ok() {
            let known = self.files.remove(&from).expect("known");
            if let Some(fh) = self.files.insert(to.clone(), known).and_then(|old| old.fh) {
                self.mounted.fs.release(fh).expect("a replaced file can be closed");
            }
            self.check(&to);
        }
    }

    fn directories(&mut self) {
        let name = format!("d{}", self.rng.below(3));
        let known = self.extra_dirs.contains(&name);
        self.inject();
        let answer = if known {
            self.mounted.fs.rmdir(1, OsStr::new(&name))
        } else {
            self.mounted
                .fs
                .mkdir(1, OsStr::new(&name), NewMode::exactly(0o2755), ROOT)
                .map(|_| ())
        };
        self.judge(&format!("mkdir or rmdir {name}"), &answer, false);
        let there = self.mounted.number(1, &name).expect("lookup").is_some();
        assert!(answer.is_err() || there != known);
        if there {
            self.extra_dirs.insert(name);
        } else {
            self.extra_dirs.remove(&name);
        }
    }

    /// A second name, and away with it.
    fn link_and_unlink(&mut self) {
        let Some(place) = self.some_file() else { return };
        let (dir, other) = (self.dirs[place.0], self.dirs[1 - place.0]);
        let number = self.mounted.number(dir, &place.1).expect("lookup").expect("known");
        self.inject();
        let answer = self.mounted.fs.link(number, other, OsStr::new("second")).map(|_| ());
        self.judge(&format!("link {place:?}"), &answer, false);
        if self.mounted.number(other, "second").expect("lookup").is_some() {
            self.mounted.fs.unlink(other, OsStr::new("second")).expect("unlink");
        } else {
            assert!(answer.is_err());
        }
        self.check(&place);
    }

    fn chmod(&mut self) {
        let Some(place) = self.some_file() else { return };
        let number = self
            .mounted
            .number(self.dirs[place.0], &place.1)
            .expect("lookup")
            .expect("known");
        let set = SetAttr {
            mode: Some(0o600 + self.rng.below(64) as u32),
            ..SetAttr::default()
        };
        self.inject();
        let answer = self.mounted.fs.setattr(number, &set, ROOT).map(|_| ());
        self.judge(&format!("chmod {place:?}"), &answer, false);
    }

    /// A read under a fault gives the right bytes or the errno.
    fn read(&mut self) {
        let Some(place) = self.some_file() else { return };
        let fh = self.handle(&place);
        self.inject();
        let answer = self.mounted.read_all(fh);
        if let Ok(bytes) = &answer {
            assert!(*bytes == self.files[&place].bytes, "a read under a fault is wrong");
        }
        self.judge(&format!("read {place:?}"), &answer.map(|_| ()), false);
    }

    /// Opens a file that is sealed and out of memory.
    fn reopen(&mut self) {
        let Some(place) = self.some_file() else { return };
        if let Some(fh) = self.files.get_mut(&place).expect("known").fh.take() {
            self.mounted.fs.release(fh).expect("close");
        }
        self.mounted.fs.commit_tick();
        let number = self
            .mounted
            .number(self.dirs[place.0], &place.1)
            .expect("lookup")
            .expect("known");
        self.inject();
        let answer = self.mounted.fs.open(number, READ_WRITE, ROOT).map(|opened| opened.fh);
        self.judge(&format!("open {place:?}"), &answer, false);
        if let Ok(fh) = answer {
            self.mounted.fs.release(fh).expect("close");
        }
    }

    /// Every file comes under a new key. What a failing disk keeps from that opens all the same, and the next pass brings
    /// it along; then nothing needs the old key any more.
    fn rotate(&mut self) {
        let places: Vec<Place> = self.files.keys().cloned().collect();
        for place in &places {
            if let Some(fh) = self.files.get_mut(place).expect("known").fh.take() {
                self.mounted.fs.release(fh).expect("close");
            }
        }
        self.mounted.fs.commit_tick();
        let ring = self.mounted.ring.clone();
        let old = ring.current_id();
        let kek = Kek::take(&mut [old as u8 + 100; 32]);
        ring.replace(ring.with_key(kek, None, [1; 16], 0).expect("another key").0);
        self.inject();
        let found = self.mounted.fs.rotate(false).expect("nobody stops it");
        let (fired, _) = self.end_fault();
        let progress = self.mounted.fs.rotation().progress();
        self.log.push(format!(
            "rotate from key {old}: {found} of {}, {progress:?}",
            places.len()
        ));
        assert!(progress.left_count == 0 || fired, "{progress:?}");
        for place in &places {
            self.check(place);
            if let Some(fh) = self.files.get_mut(place).expect("known").fh.take() {
                self.mounted.fs.release(fh).expect("close");
            }
        }
        self.mounted.fs.commit_tick();
        self.mounted.fs.rotate(false).expect("nobody stops it");
        let progress = self.mounted.fs.rotation().progress();
        assert_eq!(progress.left_count, 0, "{:?}", progress.left);
        ring.replace(ring.without_key(old, 0).expect("it is retired"));
        for place in &places {
            self.check(place);
        }
    }

    /// What is acknowledged can be read, through a handle and by its length.
    fn check(&mut self, place: &Place) {
        let fh = self.handle(place);
        let now = self
            .mounted
            .read_all(fh)
            .expect("a file can be read when the disk is well");
        let known = &self.files[place].bytes;
        // A growth that the disk refused all the way may leave zeros.
        let kept = known.len().min(now.len());
        let differs = now[..kept].iter().zip(known).position(|(a, b)| a != b);
        assert_eq!(
            (differs, kept),
            (None, known.len()),
            "{place:?} of {} bytes now",
            now.len()
        );
        assert!(now[kept..].iter().all(|&byte| byte == 0), "{place:?} grew by something");
        self.files.get_mut(place).expect("known").bytes = now;
    }

    /// Seals everything on a disk that is well: contents, sizes and charges are right.
    pub fn finish(mut self) -> Met {
        let places: Vec<Place> = self.files.keys().cloned().collect();
        for place in &places {
            self.check(place);
            let fh = self.handle(place);
            self.mounted.fs.release(fh).expect("close");
        }
        self.mounted.fs.commit_tick();
        assert_eq!(
            self.mounted.fs.seal_all(),
            0,
            "files that cannot be sealed on a good disk"
        );
        let data = self.mounted.temp.path().join("data");
        for (place, known) in &self.files {
            let path = data.join(["acme", "beta"][place.0]).join(&place.1);
            let file = File::options()
                .read(true)
                .write(true)
                .open(path)
                .expect("a backing file");
            let options = WriteOptions::default();
            let sealed = SealedFile::load(Arc::new(file), self.mounted.ring.clone(), options).expect("it loads");
            let mut bytes = vec![0; known.bytes.len() + 1];
            let read = sealed.read(0, &mut bytes).expect("it can be read");
            assert!(bytes[..read] == known.bytes[..], "{place:?} on the disk");
            assert!(sealed.is_clean(), "{place:?} is not sealed");
        }
        self.assert_books_true(&data);
        self.met.clone()
    }

    fn assert_books_true(&self, data: &std::path::Path) {
        let root = File::open(data).expect("the data directory");
        let probe = Probe {
            generation: &|fd| FileHandle::of(fd).map_or(0, |handle| handle.generation()),
            limits: &limits_on,
            now: &|| Duration::ZERO,
        };
        let counted = scan(root.as_fd(), probe).expect("a scan");
        let ledger = self.mounted.fs.ledger();
        for row in &counted.dirs {
            let account = ledger
                .account(row.ino)
                .unwrap_or_else(|| panic!("no account of {:?}", row.name));
            assert_eq!(account.own(), row.own, "{:?}", CString::new(row.name.clone()));
            assert!(
                account.reserved() == tallyfs::units::Meters::ZERO,
                "a reservation was left"
            );
        }
        assert_eq!(ledger.accounts_count(), counted.dirs.len());
        assert_eq!((ledger.miscounts_count(), ledger.inconsistent()), (0, Vec::new()));
    }
}

impl Plan {
    fn fate(&mut self, call: Call) -> Fate {
        if self.fired && !self.persistent {
            return Fate::Goes;
        }
        let moves = matches!(call, Call::Read | Call::Write);
        let applies = moves || !matches!(self.fate, Fate::MovesAtMost(_));
        if !applies {
            return Fate::Goes;
        }
        if self.calls_left > 0 {
            self.calls_left -= 1;
            return Fate::Goes;
        }
        self.fired = true;
        self.sync_failed |= call == Call::Sync;
        match (self.fate, call) {
            (Fate::MovesAtMost(most), Call::Read) => {
                *self.met.shortened.entry(call).or_default() += 1;
                // A read of nothing is the end of the file.
                Fate::MovesAtMost(most.max(512))
            }
            (Fate::MovesAtMost(_), _) => {
                *self.met.shortened.entry(call).or_default() += 1;
                self.fate
            }
            _ => {
                *self.met.failed.entry(call).or_default() += 1;
                self.fate
            }
        }
    }
}
