//! Names and attributes: what a recorder asks at every start of a call, and what people do with a tree of recordings.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::bench::Bench;
use super::measured::Unit;
use super::writes::check_length;

const DIRECTORIES: u32 = 20;
const FILE_BYTES: usize = 1 << 10;

/// Renames of finished files, mkdir of what is there, look-ups of what is not.
pub fn names(bench: &mut Bench<'_>) -> io::Result<()> {
    let times = bench.count(2000, 200);
    let path = |number: u32, end: &str| bench.dir().join(format!("{number:05}.{end}"));
    let pairs: Vec<(PathBuf, PathBuf)> = (0..times)
        .map(|number| (path(number, "tmp"), path(number, "wav")))
        .collect();
    for (number, (old, _)) in pairs.iter().enumerate() {
        File::create_new(old)?.write_all(bench.payload(number, FILE_BYTES))?;
    }
    bench.phase("rename", Unit::Operations, |_, timer| {
        for (old, new) in &pairs {
            timer.operation(0, || fs::rename(old, new))?;
        }
        Ok(())
    })?;
    let day = bench.dir().join("day");
    fs::create_dir(&day)?;
    bench.phase("mkdir_exists", Unit::Operations, |_, timer| {
        for _ in 0..times {
            timer.operation(0, || match fs::create_dir(&day) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => Err(io::Error::other(format!("mkdir of what is there: {other:?}"))),
            })?;
        }
        Ok(())
    })?;
    bench.phase("look_up_absent", Unit::Operations, |_, timer| {
        for number in 0..times {
            // Another name each time, as each call has: what the kernel remembers does not help.
            let absent = day.join(format!("8000-{number}"));
            timer.operation(0, || check_length(u64::from(absent.exists()), 0))?;
        }
        Ok(())
    })
}

/// A tree made, listed when the mount is cold and again, asked file by file, removed.
pub fn tree(bench: &mut Bench<'_>) -> io::Result<()> {
    let in_each = bench.count(100, 10);
    let root = bench.dir().join("tree");
    let files: Vec<PathBuf> = (0..DIRECTORIES * in_each)
        .map(|number| root.join(format!("{:03}/{number:05}.wav", number / in_each)))
        .collect();
    let files_count = files.len() as u64;
    bench.phase("tree_make", Unit::Operations, |bench, timer| {
        fs::create_dir(&root)?;
        for number in 0..DIRECTORIES {
            fs::create_dir(root.join(format!("{number:03}")))?;
        }
        for (number, path) in files.iter().enumerate() {
            let data = bench.payload(number, FILE_BYTES);
            timer.operation(FILE_BYTES, || File::create_new(path)?.write_all(data))?;
        }
        Ok(())
    })?;
    bench.make_cold()?;
    for row in ["ls_cold", "ls_warm"] {
        bench.phase(row, Unit::Operations, |_, timer| {
            timer.count(files_count, 0);
            command(Command::new("ls").arg("-lR").arg(&root))
        })?;
    }
    bench.phase("stat_warm", Unit::Operations, |_, timer| {
        for path in &files {
            let found = timer.operation(0, || fs::symlink_metadata(path))?;
            check_length(found.len(), FILE_BYTES as u64)?;
        }
        Ok(())
    })?;
    bench.phase("rm_tree", Unit::Operations, |_, timer| {
        timer.count(files_count, 0);
        command(Command::new("rm").arg("-r").arg(&root))
    })?;
    check_length(u64::from(root.exists()), 0)
}

fn command(command: &mut Command) -> io::Result<()> {
    let status = command.env("LC_ALL", "C").stdout(Stdio::null()).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {status}")))
}
