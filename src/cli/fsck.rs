//! `tallyfs fsck`: checks a store at rest and mends what can be mended.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::args::FsckArgs;
use super::exit::{Code, Failure};
use super::report::Report;
use super::request::Environment;
use super::subject;
use crate::clock::{Clock, SystemClock};
use crate::daemon::accept;
use crate::daemon::layout::{LayoutError, Store, StorePaths};
use crate::daemon::repair;
use crate::mend::{self, Checked, Kind, Repair};

#[derive(Serialize)]
struct Answer<'a> {
    store: &'a Path,
    recordings: u64,
    bytes: u64,
    #[serde(flatten)]
    report: Report<'a>,
}

/// Runs the command.
///
/// # Errors
/// There is no store, it is in use, there is no key, or it cannot be looked at.
pub fn run(args: &FsckArgs, environment: Environment) -> Result<Code, Failure> {
    let paths = StorePaths::of_existing(&args.store)?;
    let store = Store::open(&paths.root).map_err(in_use)?;
    let ring = subject::keys(&paths, &args.key, environment)?;
    if let Some(path) = &args.accept {
        let below = subject::place("--accept", path)?;
        let now_s = SystemClock::new().now().as_secs();
        let count = accept::accept(&store, &Arc::new(ring), below.as_os_str().as_bytes(), now_s)?;
        return super::print(&format!(
            "{}: took {count} recordings as they are",
            paths.root.display()
        ));
    }
    let data =
        File::open(paths.data()).map_err(|e| Failure::new(Code::Store, format!("{}: {e}", paths.data().display())))?;
    let below = match &args.subtree {
        Some(path) => subject::place("--subtree", path)?,
        None => PathBuf::new(),
    };
    let subject = mend::Subject {
        root: &paths.root,
        data: data.as_fd(),
        ring: Arc::new(ring),
        below: below.as_os_str().as_bytes(),
    };
    let repair = if args.repair { Repair::Yes } else { Repair::No };
    let mut checked = mend::fsck(&subject, repair).map_err(|e| {
        let text = format!("{}: {e}", paths.data().join(&below).display());
        Failure::new(Code::Store, text)
    })?;
    if args.repair && needs_file_system(&checked) {
        let ring = subject::keys(&paths, &args.key, environment)?;
        reopen(&store, ring, &mut checked)?;
    }
    let report = Report::new(&checked.findings, &checked.notes);
    let code = report.code();
    let text = if args.json {
        let answer = Answer {
            store: &paths.root,
            recordings: checked.recordings,
            bytes: checked.bytes,
            report,
        };
        serde_json::to_string_pretty(&answer).expect("texts and numbers are JSON")
    } else {
        let sums = format!("{} recordings, {}", checked.recordings, report.summary());
        format!("{}{}: {sums}", report.text(), paths.root.display())
    };
    super::print(&text)?;
    Ok(code)
}

fn in_use(error: LayoutError) -> Failure {
    let is_locked = matches!(error, LayoutError::Locked { .. });
    let mut failure = Failure::from(error);
    if is_locked {
        failure
            .text
            .push_str("; fsck needs the store for itself, `tallyfs scrub` looks for damage beside a mount");
    }
    failure
}

fn needs_file_system(checked: &Checked) -> bool {
    let books = [Kind::Usage, Kind::Database, Kind::Size];
    !checked.to_reopen.is_empty() || books.iter().any(|kind| checked.findings.counts().contains_key(kind))
}

/// What only a file system can mend; usage is counted anew on the way.
fn reopen(store: &Store, ring: crate::sealed::keyring::KeyRing, checked: &mut Checked) -> Result<(), Failure> {
    for done in repair::repair(store, ring, &checked.to_reopen)? {
        match done.outcome {
            Ok(()) => {
                checked.findings.mend(&done.path, Kind::Unclean);
                checked.findings.mend(&done.path, Kind::WavHeader);
            }
            Err(e) => checked.notes.push(format!(
                "{}: cannot be mended: {e}",
                String::from_utf8_lossy(&done.path)
            )),
        }
    }
    checked.findings.mend(b"tallyfs.db", Kind::Usage);
    checked.findings.mend(b"tallyfs.db", Kind::Database);
    Ok(())
}
