//! The log of dirty directories: which directories may differ from their rows in the database.
//!
//! Invariant: whenever something that lies directly in a directory differs from its row, the
//! directory is named in a log file on disk, or there is no readable log at all. A start after a
//! kill re-reads the named directories; a start without a readable log scans everything. So a log
//! may name too much, never too little. Nothing is synced: the page cache outlives a kill, and
//! after a power cut (another boot id) the logs are not used.
//!
//! Time is cut into epochs. Every operation is pinned to the epoch in which it began; a change of
//! epoch waits for the operations of the old one, so what they changed can be seen by then, and
//! what is changed later is named in a later log.
//!
//! ```text
//! offset size  file dirty-<epoch>.log, little-endian
//!      0    8  magic "TLYDIRTY"
//!      8    4  version (1)
//!     12    4  zero
//!     16   16  boot id
//!     32    8  first epoch written to this file
//!     40    8  check over bytes 0..40
//!     48   16  per record: inode number u64, check u64 over number and epoch of the header
//! ```
//!
//! # States a kill can leave, and what a start makes of each
//! - `dirty-*.tmp`: a file whose header was being written; no record can be in it. Deleted.
//! - The last record cut short: its operation had not changed anything yet. Dropped.
//! - Several logs: a write-back was under way, or had failed. The union is re-read; a directory
//!   whose row is new already is read again to the same result.
//! - Oldest logs missing: they were retired after their commit, or the log was being given up
//!   after a failed append (oldest first). The second shows in [`Leftover::first_epoch`], which is
//!   then more than one past the epoch in the database: scan.
//! - A log cut to nothing: being given up. Unreadable: scan.
//! - No log at all and no clean mark in the database: given up. Scan.

mod format;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::id::Ino;
use format::LogName;

/// Set aside for each file at its start, so that appends go on when the disk is full.
const PREALLOCATED_BYTES: u64 = 64 * 1024;
/// Old logs that wait for a commit. At this number epochs stop changing until one succeeds.
const OLD_LOGS_MAX: usize = 8;
/// A longer log is not ours: 64 million directories.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Counters of operations; threads are spread over them.
const SHARD_COUNT: usize = 16;
/// How long a change of epoch waits for operations before it leaves the rest to the next call.
const DRAIN_SPINS_MAX: u32 = 100;
const DRAIN_YIELDS_MAX: u32 = 1000;
const DRAIN_PARKS_MAX: u32 = 2000;
const DRAIN_PARK: Duration = Duration::from_millis(1);

/// The log of one running daemon.
pub struct DirtyLog {
    dir: OwnedFd,
    boot_id: [u8; 16],
    /// The current epoch. Changes only under the lock `current`, by the holder of `old`.
    epoch: AtomicU64,
    /// Operations under way: per shard, of even and of odd epochs.
    pins: [Pins; SHARD_COUNT],
    /// Taken after `old` where both are held. Held over one append.
    current: Mutex<Current>,
    /// Serialises changes of epoch; held while operations are waited for, never by them.
    old: Mutex<Old>,
    lost: AtomicBool,
    /// See [`DRAIN_PARKS_MAX`].
    drain_parks_max: u32,
}

/// On its own cache lines, so that threads do not disturb each other.
#[repr(align(128))]
#[derive(Default)]
struct Pins([AtomicU64; 2]);

/// What takes appends.
struct Current {
    /// `None` once the log was given up.
    file: Option<(LogName, File)>,
    /// Marked in this epoch.
    inos: Vec<Ino>,
}

/// Epochs that are over but not yet committed.
#[derive(Default)]
struct Old {
    logs: Vec<OldLog>,
    /// Operations of the last of them may be under way still.
    draining: bool,
}

struct OldLog {
    epoch: u64,
    /// `None` when its records lie in a file that is still in use.
    name: Option<LogName>,
    inos: Vec<Ino>,
}

/// What a daemon that was killed left behind.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Leftover {
    /// There are logs, all of this boot.
    pub boot_id_matches: bool,
    /// There are logs, and all of them are sound.
    pub readable: bool,
    /// First epoch that the logs cover.
    pub first_epoch: Option<u64>,
    /// Directories to re-read, each once, ascending.
    pub inos: Vec<Ino>,
}

impl Leftover {
    /// The logs name everything that can differ from rows that were committed up to
    /// `committed_epoch` (`log_epoch` of the database). If not, everything has to be scanned.
    pub fn is_complete(&self, committed_epoch: u64) -> bool {
        let no_gap = |first| first <= committed_epoch.saturating_add(1);
        self.boot_id_matches && self.readable && self.first_epoch.is_some_and(no_gap)
    }
}

/// Directories whose rows are to be written now.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "retire it after the commit"]
pub struct Rotated {
    /// Every change of this epoch and of those before it can be seen: `log_epoch` of the batch.
    pub epoch: u64,
    /// Each once, ascending.
    pub inos: Vec<Ino>,
}

impl DirtyLog {
    /// Reads what a killed daemon left in `dir` and starts a log of its own behind it. The old
    /// files stay until the first [`DirtyLog::retire`], which has to follow a commit of all rows
    /// that the recovery changed: a kill before that leaves them to the next start.
    ///
    /// Epochs begin after `committed_epoch`, that of the database. Call it before the database is
    /// marked as running: a kill between the two would find no log, and scan.
    ///
    /// # Errors
    /// `dir` cannot be read. A log that cannot be written is no error: see [`DirtyLog::is_lost`].
    pub fn open(
        dir: OwnedFd,
        boot_id: [u8; 16],
        committed_epoch: u64,
    ) -> io::Result<(Self, Leftover)> {
        let (leftover, logs) = read_leftover(dir.as_fd(), &boot_id)?;
        let last = logs.iter().map(|log| log.epoch).max();
        let epoch = last.unwrap_or(0).max(committed_epoch) + 1;
        let log = Self {
            dir,
            boot_id,
            epoch: AtomicU64::new(epoch),
            pins: std::array::from_fn(|_| Pins::default()),
            current: Mutex::new(Current {
                file: None,
                inos: Vec::new(),
            }),
            old: Mutex::new(Old {
                logs,
                draining: false,
            }),
            lost: AtomicBool::new(false),
            drain_parks_max: DRAIN_PARKS_MAX,
        };
        let mut current = log.current.lock();
        match log.create(epoch).and_then(|file| log.publish(file, epoch)) {
            Ok(file) => current.file = Some(file),
            Err(e) => log.give_up(&mut current, &e),
        }
        drop(current);
        Ok((log, leftover))
    }
    /// Begins an operation: everything it marks and changes belongs to one epoch. No lock, two
    /// uncontended atomics. End it (drop) once the change can be seen by a snapshot.
    pub fn enter(&self) -> Operation<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if let Some(operation) = self.enter_epoch(epoch) {
                return operation;
            }
        }
    }

    /// Pins `epoch`. The pin counts only if the epoch is current while it is in place: whoever
    /// ends the epoch then sees it.
    fn enter_epoch(&self, epoch: u64) -> Option<Operation<'_>> {
        let pin = self.pins[SHARD.with(|shard| *shard)].of(epoch);
        pin.fetch_add(1, Ordering::SeqCst);
        let operation = Operation {
            log: self,
            pin,
            epoch,
        };
        (self.epoch.load(Ordering::SeqCst) == epoch).then_some(operation)
    }

    /// Ends the epoch, waits until the operations that began in it are over, and hands out the
    /// directories it marked, with those of earlier epochs that no commit covered. After that a
    /// snapshot sees what those operations changed; what changes from now on is in a newer log.
    ///
    /// Operations that take very long are left to the next call, and their epoch with them. If
    /// the next log file cannot be made, the file in use takes the next epoch, too.
    pub fn rotate(&self) -> Rotated {
        let mut old = self.old.lock();
        if !old.draining && old.logs.len() < OLD_LOGS_MAX {
            self.begin_epoch(&mut old);
        }
        let current = self.epoch.load(Ordering::SeqCst);
        old.draining = old.draining && !self.is_drained(current - 1);
        let unfinished = usize::from(old.draining);
        let ready = &old.logs[..old.logs.len() - unfinished];
        let inos = ready.iter().flat_map(|log| log.inos.iter().copied());
        Rotated {
            epoch: current - 1 - u64::from(old.draining),
            inos: each_once(inos.collect()),
        }
    }

    /// The rows of all that was handed out are committed: removes the logs that named it. When a
    /// commit failed, do nothing instead: the next [`DirtyLog::rotate`] hands it out again.
    pub fn retire(&self, rotated: &Rotated) {
        let mut old = self.old.lock();
        let is_done = |log: &mut OldLog| log.epoch <= rotated.epoch;
        // Oldest first, so that a kill in between leaves no gap.
        for log in old.logs.extract_if(.., is_done) {
            if let Some(Err(e)) = log.name.map(|name| self.remove(&name.file_name())) {
                log::warn!(
                    "{}: cannot be removed: {e}",
                    log.name.map_or_else(String::new, LogName::file_name)
                );
            }
        }
    }

    /// An append failed and there are no logs any more: a start after a kill has to scan.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Removes all logs on an orderly stop, after the database was marked clean. A kill in
    /// between leaves logs beside a clean database, which a start may ignore.
    ///
    /// # Errors
    /// The directory cannot be read or a file not be removed.
    pub fn finish(self) -> io::Result<()> {
        let mut current = self.current.lock();
        current.file = None;
        remove_all(self.dir.as_fd())
    }

    fn begin_epoch(&self, old: &mut Old) {
        if self.current.lock().inos.is_empty() {
            return;
        }
        let ended = self.epoch.load(Ordering::SeqCst);
        let unborn = if self.is_lost() {
            None
        } else {
            let made = self.create(ended + 1);
            made.inspect_err(|e| log::warn!("no new dirty log, the old one goes on: {e}"))
                .ok()
        };
        let mut current = self.current.lock();
        let published = unborn.and_then(|file| self.publish(file, ended + 1).ok());
        let inos = std::mem::take(&mut current.inos);
        let name = match published {
            Some(file) => current.file.replace(file).map(|(name, _)| name),
            None => None,
        };
        self.epoch.store(ended + 1, Ordering::SeqCst);
        drop(current);
        old.draining = true;
        old.logs.push(OldLog {
            epoch: ended,
            name,
            inos,
        });
    }

    /// Waits for the operations of `epoch`, but not for ever.
    fn is_drained(&self, epoch: u64) -> bool {
        let is_quiet = || {
            let pins = self.pins.iter().map(|shard| shard.of(epoch));
            pins.map(|pin| pin.load(Ordering::SeqCst)).sum::<u64>() == 0
        };
        for round in 0..DRAIN_SPINS_MAX + DRAIN_YIELDS_MAX + self.drain_parks_max {
            if is_quiet() {
                return true;
            }
            if round < DRAIN_SPINS_MAX {
                std::hint::spin_loop();
            } else if round < DRAIN_SPINS_MAX + DRAIN_YIELDS_MAX {
                thread::yield_now();
            } else {
                thread::park_timeout(DRAIN_PARK);
            }
        }
        false
    }

    /// Makes the file of `epoch` under a name that no start reads, with its header.
    fn create(&self, epoch: u64) -> io::Result<File> {
        let name = LogName(epoch);
        let flags = OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(
            &self.dir,
            name.unborn_name(),
            flags,
            mode,
        )?);
        let fill = || {
            match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, PREALLOCATED_BYTES) {
                // Not every file system can; appends then take their chance.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(e) => Err(io::Error::from(e)),
            }
        };
        let filled = fill().and_then(|()| file.write_all(&format::header(&self.boot_id, name)));
        if let Err(e) = filled {
            // What stays is removed by the next start.
            let _ = self.remove(&name.unborn_name());
            return Err(e);
        }
        Ok(file)
    }

    /// Gives the file its name. Call it under the lock `current`, which also keeps a log that is
    /// being given up from getting a successor.
    fn publish(&self, file: File, epoch: u64) -> io::Result<(LogName, File)> {
        let name = LogName(epoch);
        if self.is_lost() {
            self.remove(&name.unborn_name())?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        rustix::fs::renameat(&self.dir, name.unborn_name(), &self.dir, name.file_name())?;
        Ok((name, file))
    }

    /// The slow way of [`Operation::mark`]: one write, under the lock.
    fn append(&self, ino: Ino, dirty_epoch: &AtomicU64) {
        let mut current = self.current.lock();
        let epoch = self.epoch.load(Ordering::SeqCst);
        if dirty_epoch.load(Ordering::Acquire) >= epoch {
            return;
        }
        if let Some((name, file)) = &mut current.file {
            let record = format::record(ino, *name);
            if let Err(e) = file.write_all(&record) {
                self.give_up(&mut current, &e);
            }
        }
        current.inos.push(ino);
        // Only now may others rely on it.
        dirty_epoch.store(epoch, Ordering::Release);
    }

    /// Does away with all logs, since one of them is going to lack a record: recordings go on,
    /// and a start after a kill scans. The states on the way are in the table above; the file in
    /// use is emptied first, because that alone makes the lot unreadable and needs no space.
    fn give_up(&self, current: &mut Current, why: &io::Error) {
        self.lost.store(true, Ordering::SeqCst);
        log::error!("dirty log given up, a start after a kill will scan everything: {why}");
        if let Some((_, file)) = current.file.take()
            && let Err(e) = file.set_len(0)
        {
            log::error!("dirty log cannot be emptied: {e}");
        }
        if let Err(e) = remove_all(self.dir.as_fd()) {
            log::error!("dirty logs cannot be removed: {e}");
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }
}

/// An operation under way. Its epoch cannot end before it is dropped, so keep it short.
#[must_use = "the operation lasts until this is dropped"]
pub struct Operation<'a> {
    log: &'a DirtyLog,
    pin: &'a AtomicU64,
    epoch: u64,
}

impl Operation<'_> {
    /// Says that something in the directory `ino` is about to change. `dirty_epoch` belongs to
    /// the directory's account and begins at 0. When this returns the log on disk names it; call
    /// it before anything changes. The first mark of an epoch costs one write, the others a load.
    pub fn mark(&self, ino: Ino, dirty_epoch: &AtomicU64) {
        if dirty_epoch.load(Ordering::Acquire) < self.epoch {
            self.log.append(ino, dirty_epoch);
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        // Release: whoever reads zero sees what the operation did.
        self.pin.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pins {
    /// Two epochs at most have operations at one time: that before was waited for.
    fn of(&self, epoch: u64) -> &AtomicU64 {
        &self.0[usize::from(!epoch.is_multiple_of(2))]
    }
}

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARD_COUNT;
}

/// Reads all logs, and removes files that never became one.
fn read_leftover(dir: BorrowedFd<'_>, boot_id: &[u8; 16]) -> io::Result<(Leftover, Vec<OldLog>)> {
    let mut logs = Vec::new();
    let mut is_sound = true;
    let mut is_same_boot = true;
    for name in log_names(dir)? {
        let parsed = read_file(dir, name)?.and_then(|bytes| format::parse(&bytes, name));
        is_sound &= parsed.is_some();
        is_same_boot &= parsed.as_ref().is_some_and(|log| log.boot_id == *boot_id);
        logs.push(OldLog {
            epoch: name.0,
            name: Some(name),
            inos: parsed.map_or_else(Vec::new, |log| log.inos),
        });
    }
    let inos = logs.iter().flat_map(|log| log.inos.iter().copied());
    let leftover = Leftover {
        boot_id_matches: is_same_boot && !logs.is_empty(),
        readable: is_sound && !logs.is_empty(),
        first_epoch: logs.first().map(|log| log.epoch),
        inos: each_once(inos.collect()),
    };
    Ok((leftover, logs))
}

/// `None` for a file too long to be a log.
fn read_file(dir: BorrowedFd<'_>, name: LogName) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::openat(
        dir,
        name.file_name(),
        flags,
        Mode::empty(),
    )?);
    let mut bytes = Vec::new();
    let len = file.take(LOG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((len as u64 <= LOG_BYTES_MAX).then_some(bytes))
}

/// Ascending, that is oldest first. Files that never became a log are removed on the way.
fn log_names(dir: BorrowedFd<'_>) -> io::Result<Vec<LogName>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if LogName::is_unborn(name) {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        names.extend(LogName::parse(name));
    }
    names.sort_unstable();
    Ok(names)
}

/// Oldest first: what a kill leaves then begins too late, and is known for incomplete.
fn remove_all(dir: BorrowedFd<'_>) -> io::Result<()> {
    for name in log_names(dir)? {
        rustix::fs::unlinkat(dir, name.file_name(), AtFlags::empty())?;
    }
    Ok(())
}

fn each_once(mut inos: Vec<Ino>) -> Vec<Ino> {
    inos.sort_unstable();
    inos.dedup();
    inos
}
