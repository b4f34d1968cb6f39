//! What TallyFS adds to a pass-through, each part alone, through the library's own parts: sealing, charging, noting what is
//! dirty, commit ticks, writing back, and the memory of an account. No mount, no disk: a store lies in memory.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Instant;

use tallyfs::clock::SystemClock;
use tallyfs::fs::{Errno, FsResult, NewMode, OpenMode, ROOT_NODE, WriteAsked};
use tallyfs::id::{Fh, Ino};
use tallyfs::metrics::{RequestKind, RequestTimes};
use tallyfs::quota::{Account, Ledger, Limits, WriteAsk};
use tallyfs::sealed::keyring::KeyRing;
use tallyfs::sealed::keys::Kek;
use tallyfs::store::backing::Backing;
use tallyfs::store::dirty_log::DirtyLog;
use tallyfs::store::sealed_file::{SealedFile, WriteOptions};
use tallyfs::units::Meters;

use super::bare::{Bare, ROOT};
use super::bench::nanos;
use super::daemon::Allocations;
use super::measured::percentile;

const FRAME_BYTES: usize = 320;

/// One part.
pub struct Part {
    /// What was done, once for each operation.
    pub name: String,
    /// How long it took; in nanoseconds.
    pub latency_ns: Vec<u64>,
    /// Allocations for each operation, where they were counted.
    pub allocations: Option<f64>,
    /// A figure instead of times: how much, of what.
    pub figure: Option<(f64, &'static str)>,
}

/// All parts.
pub fn all(scale: f64) -> io::Result<Vec<Part>> {
    let times = ((20_000.0 * scale) as usize).max(200);
    let mut parts = vec![each("reading the clock, which is in every figure", times, |_| Ok(()))?];
    for (what, bytes) in [
        ("320-byte append", FRAME_BYTES),
        ("4 KiB page", 4 << 10),
        ("64 KiB", 64 << 10),
    ] {
        parts.push(sealing(what, bytes, times)?);
    }
    parts.push(charging(times)?);
    parts.push(marking(times)?);
    parts.extend([1, 2, 4].map(|threads| timing(threads, times)));
    parts.extend(committing((times / 20).max(50))?);
    parts.extend(writing_back(((10_000.0 * scale) as usize).max(100))?);
    let accounts = ((100_000.0 * scale) as usize).max(1000);
    parts.push(account_memory("a directory account", accounts, |_, _| ()));
    parts.push(account_memory("a tenant with limits", accounts, |ledger, account| {
        ledger.set_level(account, Some("tenant"), true);
        let limits = Limits {
            bytes: Some(1 << 40),
            day_files: Some(1000),
            ..Limits::NONE
        };
        ledger.set_limits(account, limits);
    }));
    Ok(parts)
}

/// Takes the time of `work` so many times, after some that are not counted.
fn each(name: &str, times: usize, mut work: impl FnMut(usize) -> io::Result<()>) -> io::Result<Part> {
    let warm_up = times / 10;
    let mut latency_ns = Vec::with_capacity(times);
    let mut before = Allocations::now();
    for number in 0..warm_up + times {
        if number == warm_up {
            latency_ns.clear();
            before = Allocations::now();
        }
        let begun = Instant::now();
        work(number)?;
        latency_ns.push(nanos(begun.elapsed()));
    }
    let allocated = Allocations::now().since(before);
    Ok(Part {
        name: name.to_owned(),
        latency_ns,
        allocations: Some(allocated.count as f64 / times as f64),
        figure: None,
    })
}

/// A backing file that takes everything and keeps nothing.
struct Nowhere;

impl Backing for Nowhere {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn set_size(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn next_data(&self, _: u64) -> io::Result<Option<u64>> {
        Ok(None)
    }
    fn next_hole(&self, sealed_offset: u64) -> io::Result<u64> {
        Ok(sealed_offset)
    }
}

/// Pages laid out, sealed and handed to a backing file that does nothing.
fn sealing(what: &str, bytes: usize, times: usize) -> io::Result<Part> {
    let ring = Arc::new(KeyRing::create(Kek::take(&mut [7; 32]), [1; 16], 0));
    let mut file = SealedFile::new_empty(Arc::new(Nowhere), ring, WriteOptions::default());
    let data = vec![0x5A; bytes];
    each(&format!("sealing, {what}"), times, |_| {
        let mut done = 0;
        while done < bytes {
            let length = file.plain_length();
            done += file.write(length, &data[done..]).map_err(io::Error::other)?;
        }
        Ok(())
    })
}

/// What a growing write asks of the ledger, with limits on all four levels.
fn charging(times: usize) -> io::Result<Part> {
    let limits = Limits {
        bytes: Some(1 << 50),
        files: Some(1 << 30),
        ..Limits::NONE
    };
    let ledger = Ledger::new(Ino(1), limits);
    let mut home = ledger.root().clone();
    for level in 2..=4 {
        home = ledger.insert(&home, Ino(level), 0, format!("level-{level}").as_bytes());
        ledger.set_limits(&home, limits);
    }
    let frame = FRAME_BYTES as u64;
    each(
        "charging a write over 4 levels: reserve, claim, history",
        times,
        |number| {
            let ask = WriteAsk {
                plain_offset: number as u64 * frame,
                size: frame,
                old_length: number as u64 * frame,
            };
            let reserved = ledger.reserve_write(&home, ask);
            let (accepted, reservation) = reserved.map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
            reservation.claim(Meters::of_bytes(accepted));
            ledger.count_added(&home, 0, accepted);
            Ok(())
        },
    )
}

/// The note before each change, of a directory that is noted already.
fn marking(times: usize) -> io::Result<Part> {
    let dir = tempfile::tempdir()?;
    let (log, _) = DirtyLog::open(dir.path(), [1; 16], 0)?;
    let epoch = AtomicU64::new(0);
    each("noting a dirty directory", times, |_| {
        log.enter().mark(Ino(2), &epoch);
        Ok(())
    })
}

/// What the metrics add to a request: two readings of the clock, and the counts. The median of many batches, for a batch in
/// which another process had the core tells nothing. Where the thread looks out for the next request, that needs the second
/// reading in any case.
fn timing(threads: usize, batches: usize) -> Part {
    const BATCH: usize = 100;
    let (counted, clock) = (RequestTimes::default(), SystemClock::new());
    let each_thread = || -> Vec<u64> {
        let batch = |_| {
            let begun = Instant::now();
            for _ in 0..BATCH {
                let began = clock.moment();
                counted.note(RequestKind::Write, began.ns_until(clock.moment()));
            }
            nanos(begun.elapsed()) / BATCH as u64
        };
        (0..batches).map(batch).collect()
    };
    let took_ns: Vec<u64> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(each_thread)).collect();
        running
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .flatten()
            .collect()
    });
    Part {
        name: format!("timing a request for the metrics, {threads} at once"),
        latency_ns: took_ns,
        allocations: None,
        figure: None,
    }
}

/// Ticks of the committer, with the time of each divided by the files.
fn committing(files: usize) -> io::Result<Vec<Part>> {
    let bare = Bare::in_memory("");
    let mut open = Vec::new();
    for number in 0..files {
        open.push(new_file(&bare, ROOT_NODE, &format!("{number}.wav"))?);
    }
    let tick = |name: &str| {
        let begun = Instant::now();
        let status = bare.commit_tick();
        let each_us = begun.elapsed().as_secs_f64() * 1e6 / files as f64;
        let name = format!(
            "{name} ({} synced, {} sealed)",
            status.synced_count, status.sealed_count
        );
        figure(name, each_us, "us for each file")
    };
    let written = tick(&format!("commit tick over {files} open files"));
    let idle = tick("the next tick, with nothing new");
    for fh in open {
        bare.fs().release(fh).map_err(os_error)?;
    }
    Ok(vec![written, idle, tick("the tick after they were closed")])
}

/// Directories with changed figures, saved at once.
fn writing_back(accounts: usize) -> io::Result<Vec<Part>> {
    let mut bare = Bare::in_memory("");
    let mut directories = Vec::new();
    for number in 0..accounts {
        let name = OsString::from(format!("tenant-{number}"));
        let mode = NewMode {
            bits: libc::S_IFDIR | 0o755,
            umask: 0,
        };
        let made = bare.fs().mkdir(ROOT_NODE, &name, mode, ROOT).map_err(os_error)?;
        directories.push(made.attr.ino.0);
    }
    let mut parts = vec![save(&mut bare, format!("writing {accounts} new accounts back"))];
    // A symbolic link changes its directory's figures and has no row of its own.
    for &directory in &directories {
        let made = bare.fs().symlink(directory, "link".as_ref(), "call.wav".as_ref(), ROOT);
        made.map_err(os_error)?;
    }
    parts.push(save(&mut bare, format!("writing {accounts} changed accounts back")));
    for &directory in &directories {
        let fh = new_file(&bare, directory, "call.wav")?;
        bare.fs().release(fh).map_err(os_error)?;
    }
    parts.push(save(&mut bare, "the same with a new recording in each".to_owned()));
    parts.push(save(&mut bare, "the next, with nothing new".to_owned()));
    parts.push(save(&mut bare, "the one after that".to_owned()));
    Ok(parts)
}

fn save(bare: &mut Bare, name: String) -> Part {
    let begun = Instant::now();
    bare.save();
    figure(name, begun.elapsed().as_secs_f64() * 1e3, "ms")
}

fn account_memory(what: &str, accounts: usize, finish: impl Fn(&Ledger, &Account)) -> Part {
    let ledger = Ledger::new(Ino(1), Limits::NONE);
    let root = ledger.root().clone();
    let before = Allocations::now();
    for number in 0..accounts as u64 {
        let account = ledger.insert(&root, Ino(number + 2), 0, format!("2026-11-{number:05}").as_bytes());
        finish(&ledger, &account);
    }
    let held = Allocations::now().since(before).held_bytes;
    figure(
        format!("memory of {what}, of {accounts}"),
        held as f64 / accounts as f64,
        "bytes",
    )
}

fn figure(name: String, value: f64, unit: &'static str) -> Part {
    Part {
        name,
        latency_ns: Vec::new(),
        allocations: None,
        figure: Some((value, unit)),
    }
}

impl Part {
    /// Median and slowest hundredth.
    pub fn times_ns(&self) -> Option<(u64, u64)> {
        Some((percentile(&self.latency_ns, 50)?, percentile(&self.latency_ns, 99)?))
    }
}

/// A file with one frame in it, still open.
fn new_file(bare: &Bare, directory: u64, name: &str) -> io::Result<Fh> {
    let mode = NewMode {
        bits: libc::S_IFREG | 0o644,
        umask: 0,
    };
    let how = OpenMode {
        writes: true,
        ..OpenMode::default()
    };
    let made: FsResult<Fh> = (|| {
        let (_, opened) = bare.fs().create(directory, name.as_ref(), mode, how, ROOT)?;
        let asked = WriteAsked {
            plain_offset: 0,
            data: &[0x5A; FRAME_BYTES],
            caller: ROOT,
            drops_privileges: false,
            from_mapping: false,
            is_repeated: false,
        };
        bare.fs().write(opened.fh, &asked)?;
        Ok(opened.fh)
    })();
    made.map_err(os_error)
}

fn os_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}
