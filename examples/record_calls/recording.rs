//! One recording with the system calls of FreeSWITCH 1.10 and libsndfile, in their order.
//!
//! What FreeSWITCH takes for a failure is a failure here too: on the way down after an ENOENT, a directory that somebody else
//! made a moment before (EEXIST) loses the recording. No recovery may be added that FreeSWITCH does not have.
#![allow(clippy::disallowed_methods, reason = "a program of its own records in real time")]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::audio;

const PROBED_RATES: [&str; 5] = ["8000", "48000", "32000", "16000", "8000"];

/// What a call writes and where.
#[derive(Clone, Debug)]
pub struct Call {
    /// Full path of the recording.
    pub path: PathBuf,
    /// Chooses the audio.
    pub seed: u64,
    /// Audio bytes offered; the file has 44 more.
    pub audio_bytes: u64,
    /// Bytes of one write.
    pub frame_bytes: usize,
    /// Writes at the pace of a call instead of as fast as it goes.
    pub real_time: bool,
}

/// How far a call got; shared with readers while it is written.
#[derive(Default, Debug)]
pub struct Progress {
    /// Length of the file that write(2) has acknowledged.
    pub acknowledged_len: AtomicU64,
}

/// What became of a call.
#[derive(Default, Debug)]
pub struct Outcome {
    /// Step and error that lost the recording before its first byte.
    pub failed_start: Option<(&'static str, i32)>,
    /// The mount went away (killed daemon) while the call was written.
    pub interrupted: bool,
    /// The header of the end was written and close succeeded.
    pub closed: bool,
    /// Length of the file that write(2) acknowledged.
    pub acknowledged_len: u64,
    /// A write that was under way when the mount went away may have grown the file by this much.
    pub in_flight_bytes: u64,
    /// Audio bytes that were refused by a limit.
    pub refused_bytes: u64,
    /// First error of a write, if any.
    pub write_errno: Option<i32>,
    /// First error of the last header rewrite or of the size queries at the end.
    pub end_errno: Option<i32>,
    /// Size that fstat gave at the end when it was not the acknowledged length.
    pub wrong_size: Option<u64>,
    /// Writes that ended more than 20 ms after their due time (real time only).
    pub late_writes: u64,
    /// From the first mkdir to the first acknowledged byte.
    pub start_us: u64,
    /// One figure per audio write.
    pub write_us: Vec<u32>,
    /// From the last partial buffer's end to the end of close.
    pub close_us: u64,
}

/// Makes the recording.
pub fn record(call: &Call, progress: &Progress) -> Outcome {
    let mut outcome = Outcome::default();
    let begun = Instant::now();
    let file = match start(call) {
        Ok(file) => file,
        Err((step, error)) => {
            outcome.failed_start = Some((step, errno(&error)));
            outcome.interrupted = is_gone(&error);
            return outcome;
        }
    };
    outcome.acknowledged_len = audio::HEADER_BYTES;
    progress.acknowledged_len.store(audio::HEADER_BYTES, Ordering::Release);
    outcome.start_us = micros(begun.elapsed());
    write_audio(call, &file, progress, &mut outcome);
    if !outcome.interrupted {
        let ending = Instant::now();
        end(call, file, &mut outcome);
        outcome.close_us = micros(ending.elapsed());
    }
    outcome
}

/// `switch_dir_make_recursive`: the full path first, up on ENOENT, then down, where EEXIST is a failure.
pub fn make_directories(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o750);
    match builder.create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(dir.parent().ok_or(error)?)?;
            builder.create(dir)
        }
        other => other,
    }
}

/// All that happens up to the header: directories, probes, the empty create and close, the real open.
fn start(call: &Call) -> Result<File, (&'static str, io::Error)> {
    let path = &call.path;
    let dir = path.parent().expect("a recording has a directory");
    make_directories(dir).map_err(|e| ("mkdir", e))?;
    absent(
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
            .open(path),
    )
    .map_err(|e| ("directory probe", e))?;
    let name = path.file_name().expect("a recording has a name");
    for rate in PROBED_RATES {
        let probed = dir.join(rate).join(name);
        absent(probed.metadata()).map_err(|e| ("rate stat", e))?;
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&probed);
        absent(opened).map_err(|e| ("rate open", e))?;
    }
    absent(path.metadata()).map_err(|e| ("stat", e))?;
    let empty = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o666)
        .open(path);
    drop(empty.map_err(|e| ("create", e))?);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .open(path);
    let mut file = opened.map_err(|e| ("open", e))?;
    file.metadata().map_err(|e| ("fstat", e))?;
    whole_header(&mut file, None).map_err(|e| ("header", e))?;
    file.set_len(audio::HEADER_BYTES).map_err(|e| ("ftruncate", e))?;
    path.metadata().map_err(|e| ("stat after create", e))?;
    file.rewind()
        .and_then(|()| whole_header(&mut file, None))
        .map_err(|e| ("second header", e))?;
    Ok(file)
}

/// Buffer after buffer; a short count is retried for the rest as libsndfile does, an error drops the rest of that buffer.
fn write_audio(call: &Call, mut file: &File, progress: &Progress, outcome: &mut Outcome) {
    let begun = Instant::now();
    let mut buffer = vec![0; call.frame_bytes];
    let mut offered: u64 = 0;
    while offered < call.audio_bytes && !outcome.interrupted {
        let count = (call.audio_bytes - offered).min(call.frame_bytes as u64) as usize;
        offered += count as u64;
        let due = Duration::from_micros(offered * 1_000_000 / audio::BYTES_PER_SECOND);
        if call.real_time {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        audio::fill(call.seed, outcome.acknowledged_len, &mut buffer[..count]);
        let called = Instant::now();
        let mut done = 0;
        while done < count {
            match file.write(&buffer[done..count]) {
                Ok(0) => {
                    outcome.write_errno = outcome.write_errno.or(Some(0));
                    break;
                }
                Ok(written) => {
                    done += written;
                    outcome.acknowledged_len += written as u64;
                    progress
                        .acknowledged_len
                        .store(outcome.acknowledged_len, Ordering::Release);
                }
                Err(error) => {
                    outcome.write_errno = outcome.write_errno.or(Some(errno(&error)));
                    outcome.interrupted = is_gone(&error);
                    break;
                }
            }
        }
        outcome
            .write_us
            .push(u32::try_from(called.elapsed().as_micros()).unwrap_or(u32::MAX));
        outcome.late_writes += u64::from(call.real_time && begun.elapsed() > due + Duration::from_millis(20));
        let left = (count - done) as u64;
        if outcome.interrupted {
            outcome.in_flight_bytes = left;
        } else {
            outcome.refused_bytes += left;
        }
    }
}

/// The size asked through a second open, the header with the length from fstat, close.
fn end(call: &Call, mut file: File, outcome: &mut Outcome) {
    let ended = (|| {
        let seen_by_path = File::open(&call.path)?.metadata()?.len();
        let size = file.metadata()?.len();
        for seen in [seen_by_path, size] {
            if seen != outcome.acknowledged_len {
                outcome.wrong_size = Some(seen);
            }
        }
        file.rewind()?;
        whole_header(&mut file, Some(size))?;
        file.seek(SeekFrom::End(0))?;
        Ok(())
    })();
    if let Err(error) = &ended {
        outcome.end_errno = Some(errno(error));
        outcome.interrupted = is_gone(error);
    }
    // std ignores what close(2) answers; the file system may not refuse it, and the content is checked afterwards.
    drop(file);
    outcome.closed = ended.is_ok();
}

fn whole_header(file: &mut File, file_len: Option<u64>) -> io::Result<()> {
    file.write_all(&audio::header(file_len))
}

/// The probes must find nothing; finding something would send the recording elsewhere.
fn absent<T>(answer: io::Result<T>) -> io::Result<()> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::from_raw_os_error(Errno::EXIST.raw_os_error())),
    }
}

/// The daemon behind the mount has died: not a verdict on the file system, the bytes acknowledged before are still owed.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTCONN | Errno::CONNABORTED))
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
