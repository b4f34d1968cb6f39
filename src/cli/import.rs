//! `tallyfs import`: seals an existing tree of recordings into a store, with a bar on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::ImportArgs;
use super::bar::Bar;
use super::exit::{Code, Failure};
use super::request::{self, Environment};
use super::subject;
use crate::clock::{Clock, SystemClock};
use crate::daemon::DaemonError;
use crate::daemon::import::{
    self, ImportError, ImportRequest, Imported, Kind, Remark, Shown, SourceFate, Tally, Watch,
};
use crate::daemon::layout::LayoutError;
use crate::daemon::options::MountOptions;
use crate::units::format_bytes;

/// Between two pictures of the bar.
const BAR_PACE: Duration = Duration::from_millis(100);
/// Between two lines where there is no terminal.
const LINE_PACE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Answer<'a> {
    tree: &'a Path,
    store: &'a Path,
    complete: bool,
    #[serde(flatten)]
    tally: Tally,
    failures: u64,
    counts: &'a BTreeMap<Kind, u64>,
    remarks: &'a [Remark],
}

/// Runs the command.
///
/// # Errors
/// Nothing can be imported: the tree, the store or the key cannot be used, or a daemon has the store.
pub fn run(args: ImportArgs, environment: Environment) -> Result<Code, Failure> {
    let (config, key) = request::settings(&args.settings, &MountOptions::default(), environment)?;
    let to = args
        .to
        .as_ref()
        .map_or(Ok(PathBuf::new()), |to| subject::place("--to", to))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| Failure::new(Code::Failed, format!("cannot listen to signals: {e}")))?;
    }
    let shower = Shower::new();
    let watch = Watch {
        stop: &stop,
        show: &|shown| shower.show(shown),
    };
    let request = ImportRequest {
        tree: args.dir.clone(),
        store: args.store,
        to: to.as_os_str().as_bytes().to_vec(),
        fate: if args.remove_source {
            SourceFate::Goes
        } else {
            SourceFate::Stays
        },
        config,
        key,
    };
    let imported = import::import(request, &watch).map_err(|e| failure(&args.dir, e))?;
    shower.end();
    let text = if args.json {
        json(&args.dir, &imported)
    } else {
        text(&args.dir, &imported, stop.load(Ordering::Acquire))
    };
    super::print(&text)?;
    Ok(if imported.complete && imported.remarks.failure_count() == 0 {
        Code::Done
    } else {
        Code::Failed
    })
}

/// A store that is mounted can be copied into.
fn failure(dir: &Path, error: ImportError) -> Failure {
    let mount_point = match &error {
        ImportError::Store(DaemonError::Layout(LayoutError::Locked { holder, .. })) => Some(holder.mount_point.clone()),
        _ => None,
    };
    let mut failure = Failure::from(error);
    if let Some(mount_point) = mount_point {
        let point = mount_point.map_or_else(|| "MOUNTPOINT".to_owned(), |path| path.display().to_string());
        let advice = format!(
            ", or copy into the mount: cp -a {}/. {point}/",
            dir.display().to_string().trim_end_matches('/')
        );
        failure.text.push_str(&advice);
    }
    failure
}

/// Shows how far it has come: a bar on a terminal, a line now and then elsewhere.
struct Shower {
    clock: SystemClock,
    bar: Bar,
    next: Mutex<Duration>,
    last: Mutex<Shown>,
}

impl Shower {
    fn new() -> Self {
        let bar = Bar::new();
        // The first line of a log is not worth it before some time has passed.
        let next = if bar.is_shown() { Duration::ZERO } else { LINE_PACE };
        Self {
            clock: SystemClock::new(),
            bar,
            next: Mutex::new(next),
            last: Mutex::default(),
        }
    }

    /// Called by many threads, for each piece: whoever comes while another draws goes on.
    fn show(&self, shown: &Shown) {
        let Some(mut next) = self.next.try_lock() else { return };
        let now = self.clock.monotonic();
        *self.last.lock() = *shown;
        if now < *next {
            return;
        }
        *next = now + if self.bar.is_shown() { BAR_PACE } else { LINE_PACE };
        self.draw(shown);
    }

    fn draw(&self, shown: &Shown) {
        if self.bar.is_shown() {
            self.bar
                .show(shown.done_bytes, shown.bytes.max(shown.done_bytes), || line(shown));
        } else {
            eprintln!("{}", line(shown));
        }
    }

    fn end(&self) {
        if self.bar.is_shown() {
            self.draw(&self.last.lock());
            self.bar.end();
        }
    }
}

fn line(shown: &Shown) -> String {
    format!(
        "{} of {} files, {} of {}",
        shown.done_count,
        shown.count,
        format_bytes(shown.done_bytes),
        format_bytes(shown.bytes)
    )
}

fn json(dir: &Path, imported: &Imported) -> String {
    let answer = Answer {
        tree: dir,
        store: &imported.store,
        complete: imported.complete,
        tally: imported.tally,
        failures: imported.remarks.failure_count(),
        counts: imported.remarks.counts(),
        remarks: imported.remarks.list(),
    };
    serde_json::to_string_pretty(&answer).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}"))
}

/// One line for each remark, then the sums.
fn text(dir: &Path, imported: &Imported, is_stopped: bool) -> String {
    let Imported {
        store,
        tally,
        remarks,
        complete,
    } = imported;
    let mut text = String::new();
    for remark in remarks.list() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {}", remark.path, remark.detail);
    }
    let more = remarks.count() - remarks.list().len() as u64;
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    if remarks.counts().contains_key(&Kind::Limit) {
        text.push_str("note: raise the limit (--limit, --config, `tallyfs quota set`) and run the import again\n");
    }
    if tally.owners_not_kept > 0 {
        let _ = writeln!(
            text,
            "note: {} files and directories belong to you now; root keeps owners",
            tally.owners_not_kept
        );
    }
    let _ = write!(
        text,
        "{} -> {}: {} files, {} copied and verified",
        dir.display(),
        store.display(),
        tally.files,
        format_bytes(tally.bytes)
    );
    let rest = [
        (tally.symlinks, "symbolic links"),
        (tally.hard_links, "further names"),
        (tally.directories, "directories"),
        (tally.already_there, "there already"),
        (tally.removed, "removed from the source"),
        (remarks.count() - remarks.failure_count(), "left out"),
        (remarks.failure_count(), "failed"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    if is_stopped {
        text.push_str("; stopped, run it again to go on");
    } else if !complete {
        text.push_str("; not finished");
    }
    text
}
