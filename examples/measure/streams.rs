//! Large files: written and read from end to end, by one and by several, and read and changed at random.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::audio;
use super::bench::Bench;
use super::measured::Unit;
use super::writes::check_length;

const MIB: usize = 1 << 20;
const BLOCK_BYTES: usize = 4 << 10;
const WRITERS: u32 = 4;

/// One stream out with fsync, in when the mount is cold, in again.
pub fn sequential(bench: &mut Bench<'_>) -> io::Result<()> {
    let path = bench.dir().join("stream");
    let size_mib = bench.count(256, 16);
    bench.phase("seq_write", Unit::MiB, |bench, timer| {
        let mut file = File::create_new(&path)?;
        for number in 0..size_mib as usize {
            timer.operation(MIB, || file.write_all(bench.payload(number, MIB)))?;
        }
        file.sync_all()
    })?;
    bench.make_cold()?;
    for row in ["seq_read_cold", "seq_read_warm"] {
        let mut read_bytes = 0;
        bench.phase(row, Unit::MiB, |_, timer| {
            let mut file = File::open(&path)?;
            let mut buffer = vec![0; MIB];
            for _ in 0..size_mib {
                timer.operation(MIB, || file.read_exact(&mut buffer))?;
                read_bytes += MIB as u64;
            }
            Ok(())
        })?;
        check_length(read_bytes, path.metadata()?.len())?;
    }
    Ok(())
}

/// Blocks of 4 KiB in any order: read when the mount is cold, then overwritten with one fsync at the end.
pub fn random(bench: &mut Bench<'_>) -> io::Result<()> {
    let path = bench.dir().join("random");
    let size_mib = bench.count(64, 16);
    fill(bench, &path, size_mib)?;
    bench.make_cold()?;
    let blocks = u64::from(size_mib) * (MIB / BLOCK_BYTES) as u64;
    let times = bench.count(2000, 500);
    let file = File::options().read(true).write(true).open(&path)?;
    bench.phase("rand_read", Unit::Operations, |_, timer| {
        let mut block = vec![0; BLOCK_BYTES];
        for number in 0..u64::from(times) {
            let at = audio::mix(1, number) % blocks * BLOCK_BYTES as u64;
            timer.operation(BLOCK_BYTES, || file.read_exact_at(&mut block, at))?;
        }
        Ok(())
    })?;
    bench.phase("rand_write", Unit::Operations, |bench, timer| {
        for number in 0..u64::from(times) {
            let at = audio::mix(2, number) % blocks * BLOCK_BYTES as u64;
            let data = bench.payload(number as usize, BLOCK_BYTES);
            timer.operation(BLOCK_BYTES, || file.write_all_at(data, at))?;
        }
        file.sync_all()
    })
}

fn fill(bench: &Bench<'_>, path: &Path, size_mib: u32) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    for number in 0..size_mib as usize {
        file.write_all(bench.payload(number, MIB))?;
    }
    Ok(())
}

/// Four large files at once, each with fsync.
pub fn parallel(bench: &mut Bench<'_>) -> io::Result<()> {
    let each_mib = bench.count(64, 8);
    bench.phase("parallel_write", Unit::MiB, |bench, timer| {
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        let mut file = File::create_new(bench.dir().join(format!("stream-{writer}")))?;
                        for number in 0..each_mib {
                            file.write_all(bench.payload((writer * each_mib + number) as usize, MIB))?;
                        }
                        file.sync_all()
                    })
                })
                .collect();
            for writer in writers {
                writer.join().expect("a writer does not panic")?;
                timer.count(u64::from(each_mib), u64::from(each_mib) * MIB as u64);
            }
            Ok(())
        })
    })
}
