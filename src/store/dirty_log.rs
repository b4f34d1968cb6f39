//! Which directories changed since the last write-back: a log of inode numbers beside the database.
//!
//! Before an operation changes what lies directly in a directory (or the length of a file charged
//! to it), the directory's number is appended with a plain write, once per epoch. The log survives a
//! killed daemon without a sync; after a power cut it is not used. A write-back rotates the log,
//! waits until the operations that entered before are finished, saves the figures of every directory
//! in the old log in one transaction, and then deletes it.
//!
//! States that a kill can leave, and what start-up does: several logs, the older ones whose
//! transaction failed or was not finished (all are read, the directories are counted anew, and that
//! is right however often they were saved already); a log whose transaction was committed but that
//! was not deleted (the same); a torn last record (its operation had not begun); an empty log; no log
//! although the store was in use (an append had failed: full scan).

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use crate::id::Ino;
use crate::store::fault_points::{self, Call};

const MAGIC: [u8; 8] = *b"TallyDL1";
const HEADER_BYTES: usize = 40;
const RECORD_BYTES: usize = 16;
/// Taken on the disk ahead, so that appends do not fail when it is full.
const PREALLOCATED_BYTES: u64 = 64 * 1024;
/// Epochs count write-backs: one from here on is a damaged number, and behind it there would be none.
const EPOCH_MAX: u64 = u64::MAX / 2;
/// Makes a record of zeros, or of the wrong epoch, no record.
const CHECK_SALT: u64 = 0x7461_6c6c_7966_7301;

/// What an earlier daemon left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// There were logs.
    pub found: bool,
    /// All of them were whole and of this boot: their directories are all that changed.
    pub usable: bool,
    /// The directories, each once.
    pub inos: Vec<Ino>,
}

struct Current {
    file: File,
    epoch: u64,
    inos: Vec<Ino>,
    /// Marked by operations that entered in the epoch before.
    late: Vec<Ino>,
}

/// The log.
pub struct DirtyLog {
    dir: PathBuf,
    boot_id: [u8; 16],
    epoch: CachePadded<AtomicU64>,
    active: [CachePadded<AtomicU64>; 2],
    current: Mutex<Current>,
    /// Of epochs whose write-back failed.
    unsaved: Mutex<Vec<Ino>>,
    lost: AtomicBool,
}

/// One operation: what it marks is in the log before it changes anything. Short-lived.
pub struct Operation<'a> {
    log: &'a DirtyLog,
    epoch: u64,
}

/// An epoch that is over.
#[derive(Debug)]
pub struct Rotated {
    /// Directories to save.
    pub inos: Vec<Ino>,
    /// The epoch; logs up to it go when the save is committed.
    pub epoch: u64,
}

impl DirtyLog {
    /// Reads what an earlier daemon left in `dir` and begins a new log there, with an epoch behind
    /// all of them and behind `saved_epoch`, the last one in the database, unless that number cannot
    /// be. The old logs stay until [`DirtyLog::retire`].
    ///
    /// # Errors
    /// When no log can be made; a full disk is none, there it does without.
    pub fn open(dir: &Path, boot_id: [u8; 16], saved_epoch: u64) -> io::Result<(Self, Leftover)> {
        let logs = logs_in(dir)?;
        let saved = Some(saved_epoch).filter(|&epoch| epoch < EPOCH_MAX);
        let last = logs.iter().map(|(epoch, _)| *epoch).chain(saved).max().unwrap_or(0);
        let leftover = read_all(&logs, boot_id);
        let (current, lost) = begin_or_lose(dir, boot_id, last + 1)?;
        let log = Self {
            dir: dir.to_owned(),
            boot_id,
            epoch: CachePadded::new(AtomicU64::new(last + 1)),
            active: [const { CachePadded::new(AtomicU64::new(0)) }; 2],
            current: Mutex::new(current),
            unsaved: Mutex::default(),
            lost: AtomicBool::new(lost),
        };
        Ok((log, leftover))
    }

    /// Begins an operation.
    pub fn enter(&self) -> Operation<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            self.slot(epoch).fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return Operation { log: self, epoch };
            }
            self.slot(epoch).fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn slot(&self, epoch: u64) -> &AtomicU64 {
        &self.active[(epoch & 1) as usize]
    }

    /// Ends the epoch and waits for its operations. `None` when nothing was marked. Every directory that
    /// an operation of the epoch marked is among those to save, also when it was marked during the wait:
    /// a new directory must not be saved in its parent's figures and left out itself.
    ///
    /// # Errors
    /// Not even a log that is kept nowhere could be begun.
    pub fn rotate(&self) -> io::Result<Option<Rotated>> {
        if self.current.lock().inos.is_empty() && self.unsaved.lock().is_empty() {
            return Ok(None);
        }
        let old = self.epoch.load(Ordering::SeqCst);
        let next = if self.is_lost() {
            nowhere(old + 1)?
        } else {
            self.next_log(old + 1)?
        };
        let ended = {
            let mut current = self.current.lock();
            let ended = std::mem::replace(&mut *current, next);
            self.epoch.store(old + 1, Ordering::SeqCst);
            ended
        };
        while self.slot(old).load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        let mut inos = ended.inos;
        inos.append(&mut self.current.lock().late);
        inos.append(&mut self.unsaved.lock());
        let mut seen = HashSet::with_capacity(inos.len());
        inos.retain(|ino| seen.insert(*ino));
        Ok(Some(Rotated { inos, epoch: old }))
    }

    /// The epoch of now: all before it are over.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Whether anything waits to be saved.
    pub fn has_marks(&self) -> bool {
        !self.current.lock().inos.is_empty() || !self.unsaved.lock().is_empty()
    }

    /// The directories of an epoch are saved: its log and all before it go.
    pub fn retire(&self, epoch: u64) {
        let Ok(logs) = logs_in(&self.dir) else { return };
        for (_, path) in logs.iter().filter(|(of, _)| *of <= epoch) {
            if let Err(e) = fs::remove_file(path) {
                log::warn!("{}: cannot remove a dirty log that is saved: {e}", path.display());
            }
        }
    }

    /// The directories of an epoch could not be saved; the next rotation hands them out again.
    pub fn not_saved(&self, inos: Vec<Ino>) {
        self.unsaved.lock().extend(inos);
    }

    /// An append failed, so a start after a kill needs a full scan.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Removes every log, after everything was saved.
    pub fn finish(&self) {
        self.retire(u64::MAX);
    }

    /// The log of the next epoch; without one the logs are lost from here on.
    fn next_log(&self, epoch: u64) -> io::Result<Current> {
        begin(&self.dir, self.boot_id, epoch).or_else(|e| {
            self.lose(&self.current.lock(), &e);
            nowhere(epoch)
        })
    }

    /// From now on no log tells the whole truth, so none may be found: the current one is emptied
    /// first, for a kill may come before all are removed.
    fn lose(&self, current: &Current, why: &io::Error) {
        self.lost.store(true, Ordering::Relaxed);
        log::error!("the dirty log cannot be written: {why}; a start after a crash will scan the whole store");
        let _ = current.file.set_len(0);
        self.retire(u64::MAX);
    }

    /// `entered` is the epoch of the operation.
    fn append(&self, entered: u64, ino: Ino, account_epoch: &AtomicU64) {
        let mut current = self.current.lock();
        if entered < current.epoch {
            current.late.push(ino);
        }
        if account_epoch.load(Ordering::Acquire) >= current.epoch {
            return;
        }
        let record = record(ino, current.epoch);
        let written = fault_points::pass(Call::DirtyLog).and_then(|()| current.file.write_all(&record));
        if let Err(e) = written
            && !self.is_lost()
        {
            self.lose(&current, &e);
        }
        current.inos.push(ino);
        account_epoch.store(current.epoch, Ordering::Release);
    }
}

impl Operation<'_> {
    /// Notes a directory before it changes; `account_epoch` is the account's own note of when it was
    /// logged last.
    pub fn mark(&self, ino: Ino, account_epoch: &AtomicU64) {
        // In a later epoch it was marked by somebody else: that does not save it with this one.
        if account_epoch.load(Ordering::Acquire) != self.epoch {
            self.log.append(self.epoch, ino, account_epoch);
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.log.slot(self.epoch).fetch_sub(1, Ordering::SeqCst);
    }
}

fn record(ino: Ino, epoch: u64) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&ino.0.to_le_bytes());
    record[8..].copy_from_slice(&check(ino.0, epoch).to_le_bytes());
    record
}

fn check(ino: u64, epoch: u64) -> u64 {
    (ino ^ CHECK_SALT)
        .rotate_left(17)
        .wrapping_add(epoch.wrapping_mul(CHECK_SALT))
}

/// A log that is kept nowhere, once logs are lost.
fn nowhere(epoch: u64) -> io::Result<Current> {
    let file = OpenOptions::new().append(true).open("/dev/null")?;
    Ok(Current {
        file,
        epoch,
        inos: Vec::new(),
        late: Vec::new(),
    })
}

/// The first log of a daemon. On a full disk it does without: recordings can be read and deleted.
fn begin_or_lose(dir: &Path, boot_id: [u8; 16], epoch: u64) -> io::Result<(Current, bool)> {
    match begin(dir, boot_id, epoch) {
        Ok(current) => Ok((current, false)),
        Err(e) if e.kind() == io::ErrorKind::StorageFull => {
            log::error!("the dirty log cannot be written: {e}; a start after a crash will scan the whole store");
            Ok((nowhere(epoch)?, true))
        }
        Err(e) => Err(e),
    }
}

fn begin(dir: &Path, boot_id: [u8; 16], epoch: u64) -> io::Result<Current> {
    fault_points::pass(Call::DirtyLog)?;
    let path = dir.join(format!("dirty-{epoch}.log"));
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    if let Err(e) = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, PREALLOCATED_BYTES) {
        log::debug!("{}: nothing taken ahead: {e}", path.display());
    }
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&boot_id);
    header[24..32].copy_from_slice(&epoch.to_le_bytes());
    header[32..].copy_from_slice(&check(u64::from_le_bytes(MAGIC), epoch).to_le_bytes());
    if let Err(e) = file.write_all(&header) {
        let _ = fs::remove_file(&path);
        return Err(e);
    }
    Ok(Current {
        file,
        epoch,
        inos: Vec::new(),
        late: Vec::new(),
    })
}

/// The newest epoch with a record among the logs in `dir`; `None` when nothing waits to be saved. For
/// a reader beside the daemon: once the database's `log_epoch` has reached it, its rows hold every
/// change that was finished before this call.
///
/// # Errors
/// When the directory cannot be read.
pub fn newest_marked_epoch(dir: &Path) -> io::Result<Option<u64>> {
    let has_record = |path: &Path| match fs::metadata(path) {
        Ok(meta) => Ok(meta.len() >= (HEADER_BYTES + RECORD_BYTES) as u64),
        // Saved and removed in the meantime.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    };
    for (epoch, path) in logs_in(dir)?.into_iter().rev() {
        if has_record(&path)? {
            return Ok(Some(epoch));
        }
    }
    Ok(None)
}

/// Whether a log is kept in `dir`: a running daemon without one has lost it, and nobody can tell what
/// waits to be saved.
///
/// # Errors
/// When the directory cannot be read.
pub fn is_kept(dir: &Path) -> io::Result<bool> {
    Ok(!logs_in(dir)?.is_empty())
}

fn logs_in(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let epoch = name
            .to_str()
            .and_then(|name| name.strip_prefix("dirty-")?.strip_suffix(".log")?.parse().ok());
        if let Some(epoch) = epoch.filter(|&epoch| epoch < EPOCH_MAX) {
            logs.push((epoch, entry.path()));
        }
    }
    logs.sort_unstable();
    Ok(logs)
}

fn read_all(logs: &[(u64, PathBuf)], boot_id: [u8; 16]) -> Leftover {
    let mut inos = HashSet::new();
    let usable = logs.iter().all(|(epoch, path)| match read_one(path, *epoch, boot_id) {
        Ok(found) => {
            inos.extend(found);
            true
        }
        Err(e) => {
            log::info!("{}: not usable: {e}", path.display());
            false
        }
    });
    let mut inos: Vec<_> = inos.into_iter().collect();
    inos.sort_unstable();
    Leftover {
        found: !logs.is_empty(),
        usable: usable && !logs.is_empty(),
        inos,
    }
}

fn read_one(path: &Path, epoch: u64, boot_id: [u8; 16]) -> io::Result<Vec<Ino>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let is_ours = bytes.len() >= HEADER_BYTES
        && bytes[..8] == MAGIC
        && u64_at(24) == epoch
        && u64_at(32) == check(u64::from_le_bytes(MAGIC), epoch);
    if !is_ours {
        return Err(io::Error::other("its header is damaged"));
    }
    if bytes[8..24] != boot_id {
        return Err(io::Error::other("it is from before the machine was started"));
    }
    let mut inos = Vec::new();
    for at in (HEADER_BYTES..bytes.len()).step_by(RECORD_BYTES) {
        if at + RECORD_BYTES > bytes.len() {
            break;
        }
        if u64_at(at + 8) != check(u64_at(at), epoch) {
            return Err(io::Error::other("a record is damaged"));
        }
        inos.push(Ino(u64_at(at)));
    }
    Ok(inos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const BOOT: [u8; 16] = [7; 16];

    #[test]
    fn what_was_marked_is_found_after_a_kill_and_only_in_the_same_boot() {
        let dir = tempfile::tempdir().unwrap();
        let (log, leftover) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        assert_eq!(leftover, Leftover::default());
        let (a, b) = (AtomicU64::new(0), AtomicU64::new(0));
        let operation = log.enter();
        operation.mark(Ino(5), &a);
        operation.mark(Ino(5), &a);
        operation.mark(Ino(9), &b);
        drop(operation);
        drop(log);
        let (log, leftover) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        assert_eq!(
            leftover,
            Leftover {
                found: true,
                usable: true,
                inos: vec![Ino(5), Ino(9)]
            }
        );
        drop(log);
        let (log, leftover) = DirtyLog::open(dir.path(), [8; 16], 0).unwrap();
        assert!(leftover.found && !leftover.usable);
        log.finish();
        assert!(logs_in(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn an_epoch_that_cannot_be_is_not_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        for stray in [u64::MAX, EPOCH_MAX] {
            fs::write(dir.path().join(format!("dirty-{stray}.log")), b"").unwrap();
            let (log, leftover) = DirtyLog::open(dir.path(), BOOT, stray).unwrap();
            assert_eq!((log.epoch(), leftover.found), (1, false));
            log.enter().mark(Ino(5), &AtomicU64::new(0));
            assert!(log.has_marks());
            log.finish();
        }
    }

    #[test]
    fn a_reader_sees_which_epoch_waits_to_be_saved() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        assert_eq!(newest_marked_epoch(dir.path()).unwrap(), None);
        log.enter().mark(Ino(5), &AtomicU64::new(0));
        let waiting = newest_marked_epoch(dir.path()).unwrap();
        let rotated = log.rotate().unwrap().unwrap();
        assert_eq!(waiting, Some(rotated.epoch));
        assert_eq!(newest_marked_epoch(dir.path()).unwrap(), waiting, "rotated, not saved");
        log.retire(rotated.epoch);
        assert_eq!(newest_marked_epoch(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_no_record_and_a_damaged_one_spoils_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        log.enter().mark(Ino(5), &AtomicU64::new(0));
        drop(log);
        let path = dir.path().join("dirty-1.log");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &[1, 2, 3]].concat()).unwrap();
        assert_eq!(read_one(&path, 1, BOOT).unwrap(), [Ino(5)]);
        fs::write(&path, [&whole[..], &[1; RECORD_BYTES]].concat()).unwrap();
        assert!(read_one(&path, 1, BOOT).is_err());
    }

    #[test]
    fn an_epoch_that_was_not_saved_is_handed_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        assert!(log.rotate().unwrap().is_none());
        log.enter().mark(Ino(5), &AtomicU64::new(0));
        let rotated = log.rotate().unwrap().unwrap();
        assert_eq!(rotated.inos, [Ino(5)]);
        log.not_saved(rotated.inos);
        log.enter().mark(Ino(6), &AtomicU64::new(0));
        let rotated = log.rotate().unwrap().unwrap();
        assert_eq!(rotated.inos, [Ino(6), Ino(5)]);
        log.retire(rotated.epoch);
        assert_eq!(logs_in(dir.path()).unwrap().len(), 1);
    }

    /// Begins to end the epoch, has an operation of it go on meanwhile, and returns what is to be saved.
    fn rotated_during(log: &DirtyLog, operation: Operation<'_>, meanwhile: impl FnOnce(&Operation<'_>)) -> Vec<Ino> {
        let epoch = log.epoch();
        std::thread::scope(|scope| {
            let rotated = scope.spawn(|| log.rotate().unwrap().unwrap());
            while log.epoch() == epoch {
                std::thread::yield_now();
            }
            meanwhile(&operation);
            drop(operation);
            rotated.join().unwrap().inos
        })
    }

    #[test]
    fn what_an_operation_marks_while_its_epoch_ends_is_saved_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        let (parent, child) = (AtomicU64::new(0), AtomicU64::new(0));
        let operation = log.enter();
        operation.mark(Ino(5), &parent);
        let saved = rotated_during(&log, operation, |operation| operation.mark(Ino(6), &child));
        assert_eq!(saved, [Ino(5), Ino(6)]);
        let saved = log.rotate().unwrap().unwrap().inos;
        assert_eq!(saved, [Ino(6)], "and noted for a kill before it is");
    }

    #[test]
    fn what_another_operation_marked_first_is_saved_with_both_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        let (parent, child) = (AtomicU64::new(0), AtomicU64::new(0));
        let operation = log.enter();
        operation.mark(Ino(5), &parent);
        let saved = rotated_during(&log, operation, |operation| {
            log.enter().mark(Ino(6), &child);
            operation.mark(Ino(6), &child);
        });
        assert_eq!(saved, [Ino(5), Ino(6)]);
        assert_eq!(log.rotate().unwrap().unwrap().inos, [Ino(6)]);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_not_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        log.enter().mark(Ino(5), &AtomicU64::new(0));
        log.lose(&log.current.lock(), &io::Error::other("test"));
        log.enter().mark(Ino(6), &AtomicU64::new(0));
        let rotated = log.rotate().unwrap().unwrap();
        assert_eq!(rotated.inos, [Ino(5), Ino(6)], "the running daemon still knows all");
        log.enter().mark(Ino(7), &AtomicU64::new(0));
        drop(log);
        let (_, leftover) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        assert!(!leftover.usable, "the next start has to scan");
    }

    /// Every change is either in the figures that a rotation lets one save, or its directory is in a
    /// later log.
    #[test]
    fn no_change_falls_between_two_epochs() {
        const THREADS: usize = 4;
        const CHANGES: u64 = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = DirtyLog::open(dir.path(), BOOT, 0).unwrap();
        let log = Arc::new(log);
        let accounts: Arc<Vec<(AtomicU64, AtomicU64)>> = Arc::new((0..8).map(|_| Default::default()).collect());
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (log, accounts) = (log.clone(), accounts.clone());
                std::thread::spawn(move || {
                    for i in 0..CHANGES {
                        let ino = (i as usize * 7 + thread) % accounts.len();
                        let operation = log.enter();
                        operation.mark(Ino(ino as u64), &accounts[ino].0);
                        accounts[ino].1.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let mut saved = vec![0; accounts.len()];
        let mut save = |log: &DirtyLog| {
            if let Some(rotated) = log.rotate().unwrap() {
                for ino in &rotated.inos {
                    saved[ino.0 as usize] = accounts[ino.0 as usize].1.load(Ordering::SeqCst);
                }
                log.retire(rotated.epoch);
            }
        };
        while writers.iter().any(|writer| !writer.is_finished()) {
            save(&log);
        }
        for writer in writers {
            writer.join().unwrap();
        }
        save(&log);
        let real: Vec<_> = accounts
            .iter()
            .map(|account| account.1.load(Ordering::SeqCst))
            .collect();
        assert_eq!(saved, real);
        assert_eq!(real.iter().sum::<u64>(), THREADS as u64 * CHANGES);
    }
}
