//! Whoever waits for an answer of a process that died, where the kernel cannot send the requests again (before Linux
//! 6.9): each gets EIO, instead of waiting for ever.
//!
//! Which requests the dead process had read nobody knows. But the kernel numbers them upwards, hands them out in that
//! order, and takes an answer for a number that nobody waits for with ENOENT. So every number is answered that may have
//! been handed out: the newest ones before this process reads a request of its own, the others beside its work.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::fs::{FileSystem, Kept, NEWEST_STEP};

/// Between the numbers of two requests (`FUSE_REQ_ID_STEP`); what lies between is an interruption of the lower one.
const STEP: u64 = 2;
/// Beyond the newest number that is known: that is known but for a step, and each of the dead threads had read another.
const ABOVE: u64 = 16 * NEWEST_STEP;
/// Below it: these are answered before anything is read. 16 ms or so, and almost all of those who wait.
const BELOW: u64 = 16 * NEWEST_STEP;
/// So many numbers are answered at a time beside other work, with a pause behind them.
const BATCH: u64 = 1 << 15;
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of `struct fuse_out_header`: length, error, number of a request.
const ANSWER_BYTES: u32 = 16;

/// Ends the waiting for an earlier process, which has left `kept`; `why` the kernel does not send the requests again.
/// Nobody reads requests yet.
pub fn end(live: BorrowedFd<'_>, fs: &Arc<FileSystem>, kept: &Arc<Kept>, why: &io::Error) {
    let newest = kept.newest_request();
    let begin = newest.saturating_sub(BELOW).max(kept.answered()) / STEP * STEP;
    let ended = end_between(live, fs, begin, newest + ABOVE);
    log::warn!(
        "the kernel does not send again what the last process had read ({why}; Linux 6.9 is needed): {} requests got EIO",
        ended.as_ref().unwrap_or(&0)
    );
    let rest = ended.and_then(|_| live.try_clone_to_owned()).and_then(|live| {
        let (fs, kept) = (fs.clone(), kept.clone());
        let named = thread::Builder::new().name("unanswered".to_owned());
        named.spawn(move || end_older(&live, &fs, &kept, begin, newest))
    });
    if let Err(e) = rest {
        log::error!("whoever asked the last process long ago may wait until the mount is taken away: {e}");
    }
}

/// The older ones, from the newer to the oldest. Ends with the mount.
fn end_older(live: &OwnedFd, fs: &FileSystem, kept: &Kept, begin: u64, newest: u64) {
    use std::os::fd::AsFd;
    let floor = kept.answered() / STEP * STEP;
    let mut end = begin;
    while end > floor && !fs.is_stopping() {
        let begin = end.saturating_sub(BATCH * STEP).max(floor);
        match end_between(live.as_fd(), fs, begin, end) {
            Ok(0) => {}
            Ok(count) => log::warn!("{count} more requests that the last process had read got EIO"),
            // The mount is gone.
            Err(_) => return,
        }
        end = begin;
        thread::park_timeout(PAUSE);
    }
    if end <= floor {
        // A forgotten inode gets its number when it is read, so somewhat older requests may wait to be read still.
        kept.set_answered(newest.saturating_sub(BELOW));
    }
}

/// Answers these numbers, and closes what was opened for those who waited. Returns how many did.
fn end_between(live: BorrowedFd<'_>, fs: &FileSystem, begin: u64, end: u64) -> io::Result<usize> {
    let waited = answer(live, begin, end)?;
    let closed = fs.close_unanswered(&waited);
    if closed > 0 {
        log::warn!("{closed} files and directories that were just opened are closed");
    }
    Ok(waited.len())
}

/// Those who waited.
fn answer(live: BorrowedFd<'_>, begin: u64, end: u64) -> io::Result<Vec<u64>> {
    let mut waited = Vec::new();
    // 0 would be a notice.
    for number in (begin.max(STEP)..=end).step_by(STEP as usize) {
        match rustix::io::write(live, &refusal(number)) {
            Ok(_) => waited.push(number),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(waited)
}

/// EIO for a request.
fn refusal(number: u64) -> [u8; ANSWER_BYTES as usize] {
    let mut answer = [0; ANSWER_BYTES as usize];
    answer[..4].copy_from_slice(&ANSWER_BYTES.to_ne_bytes());
    answer[4..8].copy_from_slice(&(-libc::EIO).to_ne_bytes());
    answer[8..].copy_from_slice(&number.to_ne_bytes());
    answer
}
