//! `tallyfs scrub`: reads everything, at a rate, with a bar on a terminal, and goes on where an earlier
//! run was stopped.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::ScrubArgs;
use super::bar::Bar;
use super::exit::{Code, Failure};
use super::report::{BASELINE_LOST, Report};
use super::request::Environment;
use super::subject;
use crate::clock::{Clock, SystemClock};
use crate::daemon::layout::StorePaths;
use crate::mend::{self, Pace, Progress};
use crate::units::format_bytes;

/// Between two saves of how far it has come.
const SAVE_PACE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Answer<'a> {
    store: &'a Path,
    complete: bool,
    recordings: u64,
    bytes: u64,
    passed_over: u64,
    without_hash: u64,
    without_row: u64,
    baseline_lost_at: Option<u64>,
    #[serde(flatten)]
    report: Report<'a>,
}

/// Runs the command.
///
/// # Errors
/// There is no store or no key, or it cannot be read.
pub fn run(args: &ScrubArgs, environment: Environment) -> Result<Code, Failure> {
    let found = subject::find(&args.path)?;
    let ring = Arc::new(subject::keys(&found.paths, &args.key, environment)?);
    let paths = &found.paths;
    let failed = |e: &dyn std::fmt::Display| Failure::new(Code::Store, format!("{}: {e}", paths.data().display()));
    let data = File::open(paths.data()).map_err(|e| failed(&e))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| Failure::new(Code::Failed, format!("cannot listen to signals: {e}")))?;
    }
    let state = paths.root.join("scrub.state");
    let mut progress = begin(&state, &found.below, args.from_start);
    let clock = SystemClock::new();
    let subject = mend::Subject {
        root: &paths.root,
        data: data.as_fd(),
        ring,
        below: &found.below,
    };
    let pace = Pace {
        bytes_per_s: args.rate.filter(|&rate| rate > 0),
        clock: &clock,
        is_mounted: paths.holder()?.is_some(),
    };
    let (bar, total) = (Bar::new(), recordings(paths));
    let mut saved = Duration::ZERO;
    mend::scrub(&subject, &pace, &mut progress, &mut |progress| {
        show(&bar, total, progress);
        let is_stopped = stop.load(Ordering::Acquire);
        if is_stopped || clock.monotonic() >= saved + SAVE_PACE {
            saved = clock.monotonic();
            save(&state, progress);
        }
        if is_stopped {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .map_err(|e| failed(&e))?;
    bar.end();
    let complete = !stop.load(Ordering::Acquire);
    if complete {
        // What is there no more needs no removing.
        let _ = fs::remove_file(&state);
    }
    answer(args, &subject, &progress, complete)
}

fn answer(args: &ScrubArgs, subject: &mend::Subject<'_>, progress: &Progress, complete: bool) -> Result<Code, Failure> {
    let mut notes = Vec::new();
    let lost = mend::baseline_lost(subject);
    if lost.is_some() {
        notes.push(BASELINE_LOST.to_owned());
    }
    if progress.without_hash > 0 {
        notes.push(format!("{} recordings have no hash yet", progress.without_hash));
    }
    if progress.without_row > 0 {
        notes.push(format!("{} recordings are not in the database", progress.without_row));
    }
    if progress.passed_over > 0 {
        notes.push(format!(
            "{} recordings are being written and were passed over",
            progress.passed_over
        ));
    }
    let report = Report::new(&progress.findings, &notes);
    let code = if complete { report.code() } else { Code::Failed };
    let text = if args.json {
        let answer = Answer {
            store: subject.root,
            complete,
            recordings: progress.recordings,
            bytes: progress.bytes,
            passed_over: progress.passed_over,
            without_hash: progress.without_hash,
            without_row: progress.without_row,
            baseline_lost_at: lost,
            report,
        };
        serde_json::to_string_pretty(&answer).expect("texts and numbers are JSON")
    } else {
        let end = if complete {
            ""
        } else {
            "; stopped, run it again to go on"
        };
        format!(
            "{}{}: {} recordings, {} read, {}{end}",
            report.text(),
            subject.root.display(),
            progress.recordings,
            format_bytes(progress.bytes),
            report.summary()
        )
    };
    super::print(&text)?;
    Ok(code)
}

/// Where an earlier run of the same part was stopped, or the beginning.
fn begin(state: &Path, below: &[u8], from_start: bool) -> Progress {
    let fresh = || Progress {
        below: below.to_vec(),
        ..Progress::default()
    };
    if from_start {
        return fresh();
    }
    let earlier = fs::read(state)
        .ok()
        .and_then(|text| serde_json::from_slice::<Progress>(&text).ok());
    match earlier {
        Some(earlier) if earlier.below == below => {
            let after = earlier.after.as_deref().unwrap_or_default();
            log::info!("going on after {:?}", String::from_utf8_lossy(after));
            earlier
        }
        _ => fresh(),
    }
}

/// Whole or not at all; without it the next run begins anew.
fn save(state: &Path, progress: &Progress) {
    let new: PathBuf = state.with_extension("state.new");
    let text = serde_json::to_vec(progress).expect("texts and numbers are JSON");
    if let Err(e) = fs::write(&new, text).and_then(|()| fs::rename(&new, state)) {
        log::warn!(
            "{}: {e}; should this run be stopped, the next one begins anew",
            state.display()
        );
    }
}

/// Recordings in the store, as far as its database tells.
fn recordings(paths: &StorePaths) -> u64 {
    crate::db::open_read_only(&paths.database())
        .and_then(|reader| reader.snapshot())
        .map_or(0, |rows| crate::db::Totals::new(&rows.dirs, &rows.links).mount().files)
}

fn show(bar: &Bar, total: u64, progress: &Progress) {
    let done = progress.recordings + progress.passed_over;
    let total = total.max(done);
    bar.show(done, total, || {
        format!(
            "{done} of {}, {}, {} findings",
            total.max(1),
            format_bytes(progress.bytes),
            progress.findings.count()
        )
    });
}
