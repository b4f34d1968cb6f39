//! Usage figures as the database has them, read beside a running daemon or from a store at rest.
//!
//! A running daemon saves changes within a second or so. To give figures of this moment, the reader
//! waits until the database has reached the epoch of the dirty log that is the newest one now.

use std::thread;
use std::time::Duration;

use super::exit::{Code, Failure};
use crate::clock::{Clock, SystemClock};
use crate::daemon::layout::StorePaths;
use crate::db::{self, Reader, Totals};
use crate::id::Ino;
use crate::store::dirty_log::{is_kept, newest_marked_epoch};
use crate::units::Meters;

/// How long a daemon may take to save, before its figures count as not exact.
const SAVING_MAX: Duration = Duration::from_secs(5);

/// Room that a write of the database needs, roughly.
const ROOM_MIN: u64 = 1 << 20;

/// Between two looks at the database.
const LOOK_PACE: Duration = Duration::from_millis(20);

/// What lies below a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount {
    pub meters: Meters,
    /// Backing bytes of the sealed files.
    pub physical_bytes: u64,
}

/// What the database says, at one instant.
pub struct Stored {
    /// Of the directory that was asked for, or of everything; `None` when it is not there yet.
    pub total: Option<Amount>,
    /// Directories at the top, by name.
    pub tenants: Vec<(String, Amount)>,
    /// Every change that was finished when we were asked is in the figures.
    pub is_exact: bool,
}

impl Stored {
    /// Reads the figures of a directory, or of all.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read(paths: &StorePaths, directory: Option<Ino>) -> Result<Self, Failure> {
        let reader = db::open_read_only(&paths.database()).map_err(failed)?;
        let is_exact = match paths.holder()? {
            Some(_) => wait_until_saved(paths, &reader)?,
            None => reader.last_run().map_err(failed)?.clean,
        };
        let rows = reader.snapshot().map_err(failed)?;
        let totals = Totals::new(&rows.dirs, &rows.links);
        let physical_dirs = reader.physical_dirs().map_err(failed)?;
        let physical = Totals::new(&physical_dirs, &[]);
        let amount = |ino, meters| Amount {
            meters,
            physical_bytes: physical.of(ino).unwrap_or_default().bytes,
        };
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let tenants = totals
            .tenants()
            .into_iter()
            .map(|(row, meters)| (name(&row.name), amount(row.ino, meters)));
        Ok(Self {
            total: match directory {
                Some(ino) => totals.of(ino).map(|meters| amount(ino, meters)),
                None => Some(Amount {
                    meters: totals.mount(),
                    physical_bytes: physical.mount().bytes,
                }),
            },
            tenants: tenants.collect(),
            is_exact,
        })
    }
}

/// What is wrong with the database of a store, and what to do; `None` while all is well.
///
/// # Errors
/// When it cannot be found out whether a daemon runs.
pub fn database_trouble(paths: &StorePaths) -> Result<Option<String>, Failure> {
    let path = paths.database();
    let is_held = paths.holder()?.is_some();
    if !path.exists() {
        let who = if is_held { "the daemon" } else { "the next mount" };
        return Ok(Some(format!(
            "{}: the database is missing; {who} makes it anew, with all figures",
            path.display()
        )));
    }
    let reader = match db::open_read_only(&path) {
        Ok(reader) => reader,
        Err(e) if e.is_damage() => {
            let who = if is_held { "the daemon" } else { "the next mount" };
            return Ok(Some(format!(
                "{e}; {who} sets it aside and makes a new one with all figures"
            )));
        }
        Err(e) => return Ok(Some(e.to_string())),
    };
    if !is_held || wait_until_saved(paths, &reader).unwrap_or(false) {
        return Ok(None);
    }
    let why = match db::check_writable(&path) {
        Err(e) => e.to_string(),
        Ok(()) if is_full(paths) => db::Error::DiskFull { path }.to_string(),
        Ok(()) if is_kept(&paths.root).is_ok_and(|kept| !kept) => {
            return Ok(Some(format!(
                "{}: the disk was full for a while, so nobody outside can tell how fresh the figures are; mount again to end this",
                paths.root.display()
            )));
        }
        Ok(()) => format!("{}: the log of the daemon says why", path.display()),
    };
    let behind = "figures have not been saved for some seconds; recordings go on, and all is saved when it is over";
    Ok(Some(format!("{why} ({behind})")))
}

/// When the rows of sealed recordings were lost, in seconds since 1970; `None` also while the database
/// cannot be read, of which [`database_trouble`] tells.
pub fn baseline_lost_at(paths: &StorePaths) -> Option<u64> {
    let reader = db::open_read_only(&paths.database()).ok()?;
    reader.last_run().ok()?.baseline_lost_s
}

/// So little room that the database cannot grow by its next write.
fn is_full(paths: &StorePaths) -> bool {
    rustix::fs::statvfs(&paths.root).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_MIN)
}

/// Waits for what is dirty now; what becomes dirty meanwhile does not matter. False when the daemon
/// does not get it saved.
fn wait_until_saved(paths: &StorePaths, reader: &Reader) -> Result<bool, Failure> {
    let clock = SystemClock::new();
    let unreadable = |e| Failure::new(Code::Store, format!("{}: {e}", paths.root.display()));
    if !is_kept(&paths.root).map_err(unreadable)? {
        return Ok(false);
    }
    let marked = newest_marked_epoch(&paths.root).map_err(unreadable)?;
    let Some(epoch) = marked else { return Ok(true) };
    loop {
        if reader.last_run().map_err(failed)?.log_epoch >= epoch {
            return Ok(true);
        }
        if clock.monotonic() >= SAVING_MAX {
            return Ok(false);
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process has no event for us to wait for"
)]
fn pause() {
    thread::sleep(LOOK_PACE);
}

fn failed(error: db::Error) -> Failure {
    Failure::new(Code::Store, error)
}
