//! Recordings on their way in: many open files that grow, headers rewritten at the end, small files made whole,
//! and appends that have to be durable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::audio::{self, HEADER_BYTES};
use super::bench::Bench;
use super::measured::Unit;

/// Recordings that are open at once.
const OPEN_FILES: usize = 200;
/// 20 ms of 8 kHz, 16 bits, mono.
const FRAME_BYTES: usize = 320;
/// What FreeSWITCH gathers before it writes.
const BUFFER_BYTES: usize = 64 << 10;

/// A place-holder of a header in each.
fn begin(bench: &Bench<'_>) -> io::Result<Vec<File>> {
    let paths = (0..OPEN_FILES).map(|number| bench.dir().join(format!("call-{number:04}.wav")));
    paths
        .map(|path| {
            let file = File::create_new(path)?;
            file.write_all_at(&audio::header(None), 0)?;
            Ok(file)
        })
        .collect()
}

/// Appends of `bytes` to each file in turn, `rounds` times.
fn grow(bench: &mut Bench<'_>, row: &'static str, unit: Unit, bytes: usize, rounds: u32) -> io::Result<Vec<File>> {
    let mut files = begin(bench)?;
    bench.phase(row, unit, |bench, timer| {
        for round in 0..rounds as usize {
            for (number, file) in files.iter_mut().enumerate() {
                let data = bench.payload(round * OPEN_FILES + number, bytes);
                timer.operation(bytes, || file.write_all_at(data, HEADER_BYTES + (round * bytes) as u64))?;
            }
        }
        Ok(())
    })?;
    let expected = HEADER_BYTES + u64::from(rounds) * bytes as u64;
    for file in &files {
        check_length(file.metadata()?.len(), expected)?;
    }
    Ok(files)
}

/// 320 bytes for each 20 ms of each call; then the header and close.
pub fn frames(bench: &mut Bench<'_>) -> io::Result<()> {
    let rounds = bench.count(100, 10);
    let files = grow(bench, "frames", Unit::Operations, FRAME_BYTES, rounds)?;
    bench.phase("close", Unit::Operations, |_, timer| {
        for file in files {
            timer.operation(0, move || {
                let length = HEADER_BYTES + u64::from(rounds) * FRAME_BYTES as u64;
                file.write_all_at(&audio::header(Some(length)), 0)?;
                drop(file);
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// 64 KiB at a time.
pub fn buffered(bench: &mut Bench<'_>) -> io::Result<()> {
    let rounds = bench.count(10, 8);
    grow(bench, "buffered", Unit::MiB, BUFFER_BYTES, rounds).map(drop)
}

/// Create, write 64 KiB, close.
pub fn create(bench: &mut Bench<'_>) -> io::Result<()> {
    let files = bench.count(1000, 100);
    bench.phase("create", Unit::Operations, |bench, timer| {
        for number in 0..files as usize {
            let path = bench.dir().join(format!("{number:05}.wav"));
            let data = bench.payload(number, BUFFER_BYTES);
            timer.operation(BUFFER_BYTES, || File::create_new(path)?.write_all(data))?;
        }
        Ok(())
    })?;
    check_length(fs::read_dir(bench.dir())?.count() as u64, u64::from(files))
}

/// Append 4 KiB and fsync.
pub fn fsync(bench: &mut Bench<'_>) -> io::Result<()> {
    let times = bench.count(300, 50);
    let path: PathBuf = bench.dir().join("durable.wav");
    let mut file = File::create_new(path)?;
    bench.phase("fsync", Unit::Operations, |bench, timer| {
        for number in 0..times as usize {
            let data = bench.payload(number, 4 << 10);
            timer.operation(data.len(), || {
                file.write_all(data)?;
                file.sync_all()
            })?;
        }
        Ok(())
    })?;
    check_length(file.metadata()?.len(), u64::from(times) * (4 << 10))
}

/// Fast and wrong is no result.
pub fn check_length(found: u64, expected: u64) -> io::Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("{found} where {expected} were expected")))
}
