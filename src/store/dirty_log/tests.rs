//! Logs on real files. "Kill" is to forget a log without finishing it.

use std::fs;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};
use tempfile::TempDir;

use super::*;

const BOOT: [u8; 16] = [1; 16];

fn dir(temp: &TempDir) -> OwnedFd {
    File::open(temp.path()).unwrap().into()
}

fn open(temp: &TempDir, committed_epoch: u64) -> (DirtyLog, Leftover) {
    DirtyLog::open(dir(temp), BOOT, committed_epoch).unwrap()
}

/// What a start would find, without starting.
fn leftover(temp: &TempDir) -> Leftover {
    read_leftover(dir(temp).as_fd(), &BOOT).unwrap().0
}

fn files(temp: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mark(log: &DirtyLog, ino: u64) {
    log.enter().mark(Ino(ino), &AtomicU64::new(0));
}

fn inos(inos: &[u64]) -> Vec<Ino> {
    inos.iter().copied().map(Ino).collect()
}

#[test]
fn a_mark_is_on_disk_when_it_returns_and_only_once_per_epoch() {
    let temp = tempfile::tempdir().unwrap();
    let (log, found) = open(&temp, 0);
    assert_eq!(found, Leftover::default());
    let account = AtomicU64::new(0);
    for _ in 0..3 {
        log.enter().mark(Ino(5), &account);
    }
    let found = leftover(&temp);
    assert_eq!(found.inos, inos(&[5]));
    assert!(found.is_complete(0));
    let len = fs::metadata(temp.path().join("dirty-1.log")).unwrap().len();
    assert_eq!(len, 48 + 16);
    let rotated = log.rotate();
    assert_eq!((rotated.epoch, &rotated.inos), (1, &inos(&[5])));
    log.enter().mark(Ino(5), &account);
    assert_eq!(log.rotate().inos, inos(&[5]));
}

#[test]
fn a_retired_log_is_gone_and_a_failed_commit_hands_out_again() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    mark(&log, 5);
    let first = log.rotate();
    mark(&log, 6);
    let second = log.rotate();
    assert_eq!((second.epoch, &second.inos), (2, &inos(&[5, 6])));
    mark(&log, 7);
    log.retire(&first);
    assert_eq!(leftover(&temp).inos, inos(&[6, 7]));
    assert!(leftover(&temp).is_complete(first.epoch));
    assert!(!leftover(&temp).is_complete(0), "a gap");
    log.retire(&second);
    assert_eq!(files(&temp), ["dirty-3.log"]);
    assert_eq!(log.rotate().inos, inos(&[7]));
}

#[test]
fn nothing_marked_means_no_new_file() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 41);
    for _ in 0..3 {
        let rotated = log.rotate();
        assert_eq!((rotated.epoch, rotated.inos.len()), (41, 0));
        log.retire(&rotated);
    }
    assert_eq!(files(&temp), ["dirty-42.log"]);
    assert!(leftover(&temp).is_complete(41));
}

#[test]
fn leftovers_stay_until_the_first_commit_after_them() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    mark(&log, 5);
    drop(log);
    for _ in 0..2 {
        let (log, found) = open(&temp, 0);
        assert_eq!(found.inos, inos(&[5]));
        assert!(found.is_complete(0));
        drop(log);
    }
    let (log, _) = open(&temp, 0);
    let rotated = log.rotate();
    assert_eq!(rotated.inos, inos(&[5]));
    log.retire(&rotated);
    assert_eq!(leftover(&temp).inos, []);
    assert!(leftover(&temp).is_complete(rotated.epoch));
}

#[test]
fn logs_of_another_boot_or_damaged_ones_are_not_complete() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = DirtyLog::open(dir(&temp), [2; 16], 0).unwrap();
    mark(&log, 5);
    drop(log);
    let found = leftover(&temp);
    assert!((found.boot_id_matches, found.readable) == (false, true) && !found.is_complete(0));
    fs::write(temp.path().join("dirty-1.log"), b"").unwrap();
    let found = leftover(&temp);
    assert!(!found.readable && !found.is_complete(0));
}

#[test]
fn files_that_never_became_a_log_are_removed() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("dirty-9.tmp"), b"half a head").unwrap();
    let (_log, found) = open(&temp, 0);
    assert_eq!(found, Leftover::default());
    assert_eq!(files(&temp), ["dirty-1.log"]);
}

#[test]
fn a_failed_append_does_away_with_all_logs_and_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    mark(&log, 5);
    let first = log.rotate();
    // A file that takes no more: it may shrink but not grow.
    let full = rustix::fs::memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&full, &[1; 48]).unwrap();
    rustix::fs::fcntl_add_seals(&full, SealFlags::GROW).unwrap();
    let full = File::from(full);
    log.current.lock().file.as_mut().unwrap().1 = full.try_clone().unwrap();
    mark(&log, 6);
    assert!(log.is_lost());
    assert_eq!(
        full.metadata().unwrap().len(),
        0,
        "unreadable before the first is removed"
    );
    assert_eq!(files(&temp), [""; 0]);
    assert!(!leftover(&temp).is_complete(0));
    log.retire(&first);
    mark(&log, 7);
    // Rows are written back all the same.
    assert_eq!(log.rotate().inos, inos(&[6, 7]));
    assert_eq!(files(&temp), [""; 0]);
}

#[test]
fn without_room_for_a_new_file_the_old_one_takes_the_next_epoch() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    mark(&log, 5);
    // A directory in the way of the next file.
    fs::create_dir(temp.path().join("dirty-2.tmp")).unwrap();
    let first = log.rotate();
    assert_eq!((first.epoch, &first.inos), (1, &inos(&[5])));
    fs::remove_dir(temp.path().join("dirty-2.tmp")).unwrap();
    mark(&log, 6);
    log.retire(&first);
    let found = leftover(&temp);
    assert_eq!(found.inos, inos(&[5, 6]));
    assert!(found.is_complete(1));
    let second = log.rotate();
    assert_eq!(second.inos, inos(&[6]));
    log.retire(&second);
    assert_eq!(files(&temp), ["dirty-3.log"]);
    assert!(!log.is_lost());
}

#[test]
fn logs_waiting_for_a_commit_are_limited() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    for n in 0..50 {
        mark(&log, n);
        let _ = log.rotate();
    }
    assert_eq!(files(&temp).len(), OLD_LOGS_MAX + 1);
    let rotated = log.rotate();
    assert_eq!(rotated.inos.len(), OLD_LOGS_MAX);
    log.retire(&rotated);
    assert_eq!(log.rotate().inos.len(), 50 - OLD_LOGS_MAX);
}

#[test]
fn an_operation_that_does_not_end_keeps_its_epoch_back() {
    let temp = tempfile::tempdir().unwrap();
    let (mut log, _) = open(&temp, 0);
    log.drain_parks_max = 0;
    let stuck = log.enter();
    stuck.mark(Ino(5), &AtomicU64::new(0));
    let rotated = log.rotate();
    assert_eq!((rotated.epoch, rotated.inos.len()), (0, 0));
    log.retire(&rotated);
    assert_eq!(leftover(&temp).inos, inos(&[5]));
    drop(stuck);
    let rotated = log.rotate();
    assert_eq!((rotated.epoch, &rotated.inos), (1, &inos(&[5])));
}

#[test]
fn no_operation_begins_in_an_epoch_that_has_ended_meanwhile() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    let seen = log.epoch.load(Ordering::SeqCst);
    mark(&log, 5);
    let _ = log.rotate();
    assert!(log.enter_epoch(seen).is_none());
    assert!(log.enter_epoch(seen + 1).is_some());
    let pins = log.pins.iter().flat_map(|pins| &pins.0);
    assert!(pins.into_iter().all(|pin| pin.load(Ordering::SeqCst) == 0));
}

#[test]
fn finish_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = open(&temp, 0);
    mark(&log, 5);
    let _ = log.rotate();
    mark(&log, 6);
    log.finish().unwrap();
    assert_eq!(files(&temp), [""; 0]);
}

/// Accounts whose figure only grows; a row is right if it equals the figure.
struct Model {
    figures: Vec<AtomicU64>,
    epochs: Vec<AtomicU64>,
    rows: Vec<AtomicU64>,
}

impl Model {
    fn new(len: usize) -> Self {
        let zeros = || (0..len).map(|_| AtomicU64::new(0)).collect();
        Self {
            figures: zeros(),
            epochs: zeros(),
            rows: zeros(),
        }
    }

    fn change(&self, log: &DirtyLog, at: usize) {
        let operation = log.enter();
        operation.mark(Ino(at as u64), &self.epochs[at]);
        // The window in which a change of epoch must not slip through.
        thread::yield_now();
        self.figures[at].fetch_add(1, Ordering::Relaxed);
    }

    /// One write-back; a commit that fails writes no row and retires nothing.
    fn write_back(&self, log: &DirtyLog, succeeds: bool) {
        let rotated = log.rotate();
        if succeeds {
            for ino in &rotated.inos {
                let at = ino.0 as usize;
                let figure = self.figures[at].load(Ordering::Relaxed);
                self.rows[at].store(figure, Ordering::Relaxed);
            }
            log.retire(&rotated);
        }
    }

    /// A kill now: everything that differs from its row has to be named on disk.
    fn check(&self, left: &Leftover) {
        for (at, figure) in self.figures.iter().enumerate() {
            let differs = figure.load(Ordering::Relaxed) != self.rows[at].load(Ordering::Relaxed);
            assert!(
                !differs || left.inos.contains(&Ino(at as u64)),
                "account {at}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_lost_between_rows_and_logs(
        accounts in 1_usize..40,
        changes in 200_usize..2000,
        failures in proptest::collection::vec(any::<bool>(), 1..10),
    ) {
        let temp = tempfile::tempdir().unwrap();
        let (log, _) = open(&temp, 0);
        let model = Model::new(accounts);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..6).map(|thread| {
                let (log, model) = (&log, &model);
                scope.spawn(move || {
                    for n in 0..changes {
                        model.change(log, (n * 7 + thread * 13) % accounts);
                    }
                })
            }).collect();
            let rotator = scope.spawn(|| {
                for fails in failures.iter().cycle() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    model.write_back(&log, !fails);
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            rotator.join().unwrap();
        });
        model.check(&leftover(&temp));
        model.write_back(&log, true);
        model.write_back(&log, true);
        model.check(&Leftover::default());
    }
}
