//! One run of one group of work on one mount: sizes, a directory of its own, and phases that are measured.
//!
//! What stands outside a phase (files made beforehand, checks, clearing up) is not in its figures.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::audio;
use super::daemon::Allocations;
use super::measured::{Counts, Measured, Unit};
use super::mount::Mount;
use super::trace::{Tracer, Watch, What, call_name, count, request_name};

/// For what a phase is run.
#[derive(Clone, Copy)]
pub enum Pass<'a> {
    /// Times; nothing is watched.
    Timed,
    /// Counts; the times mean nothing.
    Counted(&'a Tracer),
}

/// Bytes of the payload, which no cipher or disk can make smaller.
const PAYLOAD_BYTES: usize = 2 << 20;
/// Releases and others that nobody waits for come within this time.
const LATE_REQUESTS: Duration = Duration::from_millis(50);
/// Threads of the daemon that answer no request.
const BACKGROUND: &[&str] = &[
    "measure",
    "answers",
    "signals",
    "session",
    "committer",
    "housekeeper",
    "hasher",
    "db-writer",
];

/// One run of a group.
pub struct Bench<'a> {
    mount: &'a mut Mount,
    pass: Pass<'a>,
    scale: f64,
    run: u32,
    dir: PathBuf,
    payload: Vec<u8>,
    done: Vec<Measured>,
}

/// Takes the times of the operations of a phase.
#[derive(Default)]
pub struct Timer {
    latency_ns: Vec<u64>,
    operations: u64,
    bytes: u64,
    failed: u64,
}

impl Timer {
    /// One operation of the client that moves so many bytes.
    pub fn operation<T>(&mut self, bytes: usize, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        let done = work();
        self.latency_ns.push(nanos(begun.elapsed()));
        self.count(1, bytes as u64);
        done
    }

    /// Operations whose times are not known one by one.
    pub fn count(&mut self, operations: u64, bytes: u64) {
        self.operations += operations;
        self.bytes += bytes;
    }

    /// An operation that did not come about.
    pub fn fail(&mut self) {
        self.failed += 1;
    }

    /// A time that the work itself took.
    pub fn add_latency(&mut self, nanoseconds: u64) {
        self.latency_ns.push(nanoseconds);
    }
}

impl<'a> Bench<'a> {
    /// A new directory four levels below the mount, as a campaign's of a tenant is.
    pub fn new(mount: &'a mut Mount, pass: Pass<'a>, scale: f64, run: u32) -> io::Result<Self> {
        let dir = mount.point().join(format!("acme/sales/run-{run}"));
        fs::create_dir_all(&dir)?;
        let mut payload = vec![0; PAYLOAD_BYTES];
        audio::fill(u64::from(run), 0, &mut payload);
        Ok(Self {
            mount,
            pass,
            scale,
            run,
            dir,
            payload,
            done: Vec::new(),
        })
    }

    /// What was measured; the directory goes.
    pub fn finish(self) -> Vec<Measured> {
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("measure: {}: {e}", self.dir.display());
        }
        self.done
    }

    /// The directory of this run.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new tenant with a campaign; it goes with the store.
    pub fn tenant(&self, name: &str) -> io::Result<PathBuf> {
        let tenant = self.mount.point().join(format!("{name}-{}", self.run));
        fs::create_dir_all(tenant.join("sales"))?;
        Ok(tenant)
    }

    /// So many at scale 1, at least `least`.
    pub fn count(&self, full: u32, least: u32) -> u32 {
        ((f64::from(full) * self.scale) as u32).max(least)
    }

    /// `bytes` of payload that are others for each number.
    pub fn payload(&self, number: usize, bytes: usize) -> &[u8] {
        let at = number * 7919 % (PAYLOAD_BYTES - bytes);
        &self.payload[at..at + bytes]
    }

    /// Empties the caches of the mount.
    pub fn make_cold(&mut self) -> io::Result<()> {
        self.mount.remount()
    }

    /// Measures `work`.
    pub fn phase(
        &mut self,
        row: &'static str,
        unit: Unit,
        work: impl FnOnce(&Self, &mut Timer) -> io::Result<()>,
    ) -> io::Result<()> {
        // What an earlier phase left to write is not this one's.
        rustix::fs::syncfs(fs::File::open(self.mount.point())?)?;
        if let Pass::Counted(tracer) = self.pass {
            let threads: Vec<_> = self.mount.threads()?.into_iter().map(|(tid, _)| tid).collect();
            tracer.begin(&Watch {
                connection: self.mount.connection()?,
                threads: &threads,
                with_ends: false,
            })?;
        }
        let mut timer = Timer::default();
        let allocated = self.mount.allocations()?;
        let cpu_ns = self.mount.cpu_ns()?;
        let begun = Instant::now();
        let worked = work(self, &mut timer);
        let elapsed_ns = nanos(begun.elapsed());
        let counts = match self.pass {
            Pass::Timed => None,
            Pass::Counted(tracer) => {
                std::thread::sleep(LATE_REQUESTS);
                Some(self.counts(tracer)?)
            }
        };
        worked?;
        let since = |now: Allocations| allocated.map(|before| now.since(before));
        let measured = Measured {
            row,
            mount: self.mount.name(),
            unit,
            operations: timer.operations,
            bytes: timer.bytes,
            failed: timer.failed,
            elapsed_ns,
            latency_ns: timer.latency_ns,
            cpu_ns: self.mount.cpu_ns()?.saturating_sub(cpu_ns),
            allocations: self.mount.allocations()?.and_then(since),
            counts,
        };
        self.done.push(measured);
        Ok(())
    }

    fn counts(&self, tracer: &Tracer) -> io::Result<Counts> {
        let seen = tracer.end()?;
        let names: HashMap<u32, String> = self
            .mount
            .threads()?
            .into_iter()
            .filter_map(|(tid, dir)| Some((tid, fs::read_to_string(dir.join("comm")).ok()?)))
            .collect();
        let is_background = |thread: u32| {
            let name = names.get(&thread);
            name.is_some_and(|name| BACKGROUND.contains(&name.trim_end()))
        };
        let calls = |background: bool| {
            count(seen.events.iter().filter_map(|event| match event.what {
                What::Begins(number) if is_background(event.thread) == background => Some(call_name(number)),
                _ => None,
            }))
        };
        Ok(Counts {
            requests: count(seen.events.iter().filter_map(|event| match event.what {
                What::Request(opcode) => Some(request_name(opcode)),
                _ => None,
            })),
            calls: calls(false),
            background_calls: calls(true),
            lost: seen.lost,
        })
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
