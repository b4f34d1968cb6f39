//! The daemon that is measured: the product's own `daemon::run` in a process of its own, so that what it
//! allocates and the processor time that it takes are not the client's.
//!
//! It tells its allocations whenever a line comes in on standard input, and stops when that is closed: a
//! measuring program that died leaves no mount. Counting costs a few nanoseconds for each allocation.

use std::alloc::System;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Signal, getpid, kill_process};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use tallyfs::config::Config;
use tallyfs::daemon::MountRequest;
use tallyfs::daemon::key_source::KeyChoice;
use tallyfs::daemon::notify::Notifier;
use tallyfs::daemon::options::MountOptions;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What this process has allocated so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Allocations {
    /// Calls of the allocator for memory, enlargements included.
    pub count: u64,
    /// Bytes of new allocations.
    pub bytes: u64,
    /// Bytes that are held now.
    pub held_bytes: u64,
}

impl Allocations {
    pub fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let grown = stats.bytes_allocated.saturating_add_signed(stats.bytes_reallocated);
        Self {
            count: (stats.allocations + stats.reallocations) as u64,
            bytes: stats.bytes_allocated as u64,
            held_bytes: grown.saturating_sub(stats.bytes_deallocated) as u64,
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            count: self.count - before.count,
            bytes: self.bytes - before.bytes,
            held_bytes: self.held_bytes.saturating_sub(before.held_bytes),
        }
    }
}

/// As an operator has it who lets the daemon make the directories of a day.
const RULES: &str = r#"
[[rules]]
path = "{tenant}/{campaign}/%Y/%m/%d"
date_directories = true
"#;

/// Mounts and serves until a signal, or until standard input is closed.
pub fn serve(store: &Path, point: &Path) -> ExitCode {
    let answers = std::thread::Builder::new().name("answers".to_owned()).spawn(answer);
    if let Err(error) = answers {
        eprintln!("measure: {error}");
        return ExitCode::FAILURE;
    }
    let config = match Config::parse("measure", RULES) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("measure: {error}");
            return ExitCode::FAILURE;
        }
    };
    let request = MountRequest {
        credentials: None,
        store: store.to_owned(),
        mount_point: point.to_owned(),
        options: MountOptions::default(),
        config,
        key: KeyChoice::Beside,
        notifier: Notifier::default(),
        inheritance: None,
        is_kept: false,
        reread: None,
    };
    match tallyfs::daemon::run(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer() {
    for line in std::io::stdin().lock().lines() {
        let now = Allocations::now();
        if line.is_err() || writeln!(std::io::stdout(), "{} {}", now.count, now.bytes).is_err() {
            break;
        }
    }
    // A stop that is under way is not disturbed by a second one.
    let _ = kill_process(getpid(), Signal::TERM);
}
