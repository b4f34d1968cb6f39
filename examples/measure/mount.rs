//! A file system under measurement: its daemon, its mount point, and what can be asked of the daemon from outside.
//!
//! Whatever happens, it is unmounted and its daemon ended when this is dropped.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::daemon::Allocations;

/// How long a mount may take to come or go.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is mounted.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A new store.
    TallyFs,
    /// libfuse's pass-through, this program of it.
    PassThrough(PathBuf),
}

/// A mounted file system.
pub struct Mount {
    kind: Kind,
    backing: PathBuf,
    point: PathBuf,
    daemon: Option<Daemon>,
}

struct Daemon {
    child: Child,
    talk: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Mount {
    /// Makes the directories below `place` and mounts.
    pub fn start(kind: Kind, place: &Path) -> io::Result<Self> {
        let name = match kind {
            Kind::TallyFs => "tallyfs",
            Kind::PassThrough(_) => "pass-through",
        };
        let place = place.join(name).canonicalize().or_else(|_| {
            fs::create_dir_all(place.join(name))?;
            place.join(name).canonicalize()
        })?;
        let mut mount = Self {
            kind,
            backing: place.join("backing"),
            point: place.join("point"),
            daemon: None,
        };
        fs::create_dir_all(&mount.point)?;
        mount.begin()?;
        Ok(mount)
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::TallyFs => "tallyfs",
            Kind::PassThrough(_) => "pass-through",
        }
    }

    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Empties the caches of the mount; what lies below it stays in the kernel's memory.
    pub fn remount(&mut self) -> io::Result<()> {
        self.stop()?;
        self.begin()
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut command = match &self.kind {
            Kind::TallyFs => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--serve").arg(&self.backing).arg(&self.point);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                command
            }
            Kind::PassThrough(program) => {
                fs::create_dir_all(&self.backing)?;
                let mut command = Command::new(program);
                command.arg("-f").arg("-o");
                command
                    .arg(format!("source={}", self.backing.display()))
                    .arg(&self.point);
                command.stdin(Stdio::null());
                command
            }
        };
        let mut child = command.spawn()?;
        let talk = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        let daemon = self.daemon.insert(Daemon { child, talk });
        let begun = Instant::now();
        while !is_mounted(&self.point)? {
            if let Some(status) = daemon.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "{}: {status}",
                    command.get_program().display()
                )));
            }
            in_time(begun, "mounted")?;
        }
        Ok(())
    }

    /// Unmounts and waits for the daemon's end.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(daemon) = self.daemon.as_mut() else {
            return Ok(());
        };
        match self.kind {
            Kind::TallyFs => {
                if let Some(pid) = Pid::from_raw(daemon.child.id().cast_signed()) {
                    kill_process(pid, Signal::TERM)?;
                }
            }
            Kind::PassThrough(_) => take_away(&self.point)?,
        }
        let begun = Instant::now();
        while daemon.child.try_wait()?.is_none() {
            in_time(begun, "ended")?;
        }
        self.daemon = None;
        Ok(())
    }

    /// Process number of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, |daemon| daemon.child.id())
    }

    /// The number under which the kernel's events know the mount.
    pub fn connection(&self) -> io::Result<u32> {
        Ok(rustix::fs::minor(rustix::fs::stat(&self.point)?.st_dev))
    }

    /// What the daemon has allocated so far; `None` where that is not counted.
    pub fn allocations(&mut self) -> io::Result<Option<Allocations>> {
        let Some((ask, answers)) = self.daemon.as_mut().and_then(|daemon| daemon.talk.as_mut()) else {
            return Ok(None);
        };
        ask.write_all(b"\n")?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(count), Some(bytes)) => Ok(Some(Allocations {
                count,
                bytes,
                held_bytes: 0,
            })),
            _ => Err(io::Error::other("the daemon does not tell its allocations")),
        }
    }

    /// Processor time of all threads that the daemon has, in nanoseconds.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for (_, dir) in self.threads()? {
            // A thread that has just ended has nothing to read.
            let text = fs::read_to_string(dir.join("schedstat")).unwrap_or_default();
            let word = text.split_whitespace().next().unwrap_or("0");
            sum += word.parse::<u64>().map_err(io::Error::other)?;
        }
        Ok(sum)
    }

    /// Kernel numbers and /proc directories of the daemon's threads.
    pub fn threads(&self) -> io::Result<Vec<(u32, PathBuf)>> {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let entry = entry?;
            if let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                threads.push((tid, entry.path()));
            }
        }
        Ok(threads)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.stop().is_ok() {
            return;
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
        }
        let _ = take_away(&self.point);
    }
}

fn take_away(point: &Path) -> io::Result<()> {
    if unmount(point, UnmountFlags::DETACH).is_ok() {
        return Ok(());
    }
    // An ordinary user needs the helper.
    let status = Command::new("fusermount3").arg("-uz").arg(point).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "fusermount3 -uz {}: {status}",
        point.display()
    )))
}

fn is_mounted(point: &Path) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(4) == point.to_str()))
}

/// A short rest while something is awaited.
fn in_time(begun: Instant, what: &str) -> io::Result<()> {
    if begun.elapsed() > PATIENCE {
        let what = format!("not {what} within {} s", PATIENCE.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, what));
    }
    std::thread::sleep(Duration::from_millis(2));
    Ok(())
}
