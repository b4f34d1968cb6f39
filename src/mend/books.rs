//! The database against the disk: whether usage, as it is recorded, is what a count of everything finds.

use std::time::Duration;

use super::finding::Kind;
use super::fsck::{Checked, Subject};
use crate::clock::{Clock, SystemClock};
use crate::db;
use crate::recovery::{self, Probe};
use crate::sys::FileHandle;

/// Compares the whole store. After a daemon that was killed there is nothing to compare: the next start
/// counts again.
pub(super) fn compare(subject: &Subject<'_>, done: &mut Checked) {
    let path = subject.root.join("tallyfs.db");
    let opened = db::open_read_only(&path).and_then(|reader| Ok((reader.last_run()?, reader.snapshot()?)));
    let (last, recorded) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            let detail = format!("{e}; the next mount counts everything");
            done.findings.add(b"tallyfs.db", Kind::Database, detail);
            return;
        }
    };
    if !last.clean {
        done.notes
            .push("the last daemon did not stop in order; the next mount counts again what it changed".to_owned());
        return;
    }
    let clock = SystemClock::new();
    let now = || -> Duration { clock.monotonic() };
    let probe = Probe {
        generation: &|fd| FileHandle::of(fd).map_or(0, |handle| handle.generation()),
        limits: &recovery::limits_on,
        now: &now,
    };
    match recovery::scan(subject.data, probe) {
        Ok(counted) => {
            for difference in recovery::compare(&recorded, &counted) {
                done.findings.add(b"tallyfs.db", Kind::Usage, difference.to_string());
            }
        }
        Err(e) => done.findings.add(b"data", Kind::Unreadable, e.to_string()),
    }
}
