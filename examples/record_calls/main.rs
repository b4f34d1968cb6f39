//! Records calls into a directory as FreeSWITCH does, reads everything back and says what was lost.
//!
//! `cargo run --release --example record_calls -- /mnt/rec --calls 200 --seconds 10 --burst`
//! ends with exit code 1 if a recording could not start, if an acknowledged byte cannot be read, or if a size was ever wrong.
//! Refusals by a limit (EDQUOT, ENOSPC, EFBIG) are counted apart: they are the file system's right, losses are not.
#![allow(clippy::disallowed_methods, reason = "a program of its own, with its own arguments")]

mod audio;
mod dates;
mod ledger;
mod recording;
mod report;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::Duration;

use clap::Parser;

use recording::{Call, Outcome, Progress};
use report::Report;

/// Recordings with FreeSWITCH's system calls, checked byte by byte.
#[derive(Parser, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "command-line switches")]
#[command(name = "record_calls")]
struct Args {
    /// Directory that gets the tenant's directory, normally a mount point
    dir: PathBuf,
    /// Recordings at the same time
    #[arg(long, default_value_t = 10)]
    calls: u64,
    /// Length of each recording in seconds of 8 kHz mono audio
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of one write: 65536 as FreeSWITCH buffers by default, 320 without its buffering
    #[arg(long, default_value_t = 65_536)]
    frame: usize,
    /// First directory of the path
    #[arg(long, default_value = "acme")]
    tenant: String,
    /// Date directories below the tenant; %Y %m %d %b %H are known
    #[arg(long, default_value = "%Y/%m/%d")]
    layout: String,
    /// Day for the layout as YYYY-MM-DD; each call asks the clock (UTC) without it
    #[arg(long)]
    date: Option<dates::Day>,
    /// How often all calls are made, each time with new names
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Number of the first round, so that a later run does not meet the names of an earlier one
    #[arg(long, default_value_t = 1)]
    first_round: u64,
    /// Write at the pace of a call
    #[arg(long)]
    real_time: bool,
    /// All calls of a round start at the same instant
    #[arg(long)]
    burst: bool,
    /// Write nothing; check what earlier runs noted in the ledger
    #[arg(long, requires = "ledger")]
    verify_only: bool,
    /// File outside the mount that keeps what was acknowledged, for --verify-only
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) => {
            report.print(args.json);
            ExitCode::from(u8::from(report.lost_anything()))
        }
        Err(error) => {
            eprintln!("record_calls: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> std::io::Result<Report> {
    let mut report = Report::default();
    if args.verify_only {
        let path = args.ledger.as_deref().expect("clap requires the ledger");
        for entry in ledger::read(path)? {
            report.add_verified(&entry, &verify::whole(&entry));
        }
        return Ok(report);
    }
    let mut entries = Vec::new();
    for round in args.first_round..args.first_round + args.rounds {
        for (entry, outcome) in record_round(args, round, &mut report) {
            report.add_outcome(&entry, &outcome);
            entries.push(entry);
        }
        if report.was_interrupted() {
            break;
        }
    }
    if let Some(path) = &args.ledger {
        ledger::append(path, &entries)?;
    }
    // Where the mount went away there is nothing to read; --verify-only does it when it is back.
    if !report.was_interrupted() {
        for entry in &entries {
            report.add_verified(entry, &verify::whole(entry));
        }
    }
    Ok(report)
}

/// A call as the reader sees it: known once it has begun, with its progress.
#[derive(Default)]
pub struct Live {
    call: OnceLock<Call>,
    progress: Progress,
}

/// One thread per call, and one that reads the files while they grow.
fn record_round(args: &Args, round: u64, report: &mut Report) -> Vec<(ledger::Entry, Outcome)> {
    let live: Vec<_> = (0..args.calls).map(|_| Live::default()).collect();
    let barrier = Barrier::new(live.len());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (barrier, stop, live) = (&barrier, &stop, &live);
        let reader = scope.spawn(move || verify::sample_while_written(live, stop));
        let callers: Vec<_> = (0..)
            .zip(live)
            .map(|(number, live)| {
                let work = move || one_call(args, round, number, live, barrier);
                std::thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn_scoped(scope, work)
                    .expect("a thread for each call")
            })
            .collect();
        let done = callers
            .into_iter()
            .map(|caller| caller.join().expect("a call does not panic"))
            .collect();
        stop.store(true, Ordering::Release);
        report.sampled.add(&reader.join().expect("the reader does not panic"));
        done
    })
}

fn one_call(args: &Args, round: u64, number: u64, live: &Live, barrier: &Barrier) -> (ledger::Entry, Outcome) {
    if args.burst {
        barrier.wait();
    } else if args.real_time {
        // Spread over one frame, as calls are.
        let frame_us = args.frame as u64 * 1_000_000 / audio::BYTES_PER_SECOND;
        std::thread::sleep(Duration::from_micros(frame_us * number / args.calls));
    }
    // Asked here, not before: a call that starts after midnight belongs to the new day.
    let call = live.call.get_or_init(|| call(args, round, number));
    let outcome = recording::record(call, &live.progress);
    (ledger::Entry::new(call, &outcome), outcome)
}

/// The call's place and audio follow from its round and number.
fn call(args: &Args, round: u64, number: u64) -> Call {
    let day = args.date.unwrap_or_else(dates::Day::today);
    let seed = audio::mix(round, number);
    let name = format!("{round:08x}-{number:04x}-4a11-8000-{:012x}.wav", seed >> 16);
    Call {
        path: args.dir.join(&args.tenant).join(day.format(&args.layout)).join(name),
        seed,
        audio_bytes: args.seconds * audio::BYTES_PER_SECOND,
        frame_bytes: args.frame.max(1),
        real_time: args.real_time,
    }
}
