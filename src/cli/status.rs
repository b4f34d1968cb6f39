//! `tallyfs status`: whether a store is in use, by whom, and where it is mounted.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::{Code, Failure};
use super::figures::{baseline_lost_at, database_trouble};
use super::report::BASELINE_LOST;
use crate::daemon::key_ring;
use crate::daemon::layout::StorePaths;
use crate::daemon::mount_table::MountTable;

/// What `status` says.
#[derive(Serialize, Debug)]
pub struct Status {
    store: PathBuf,
    state: State,
    /// Of the daemon that holds the store.
    pid: Option<u32>,
    /// Where the store is mounted, or where the daemon is about to mount it.
    mount_points: Vec<PathBuf>,
    /// The key that the store needs.
    key_id: Option<u32>,
    /// What is wrong with the database, and what to do.
    database: Option<String>,
    /// When the rows of sealed recordings were lost, in seconds since 1970; old copies of recordings that
    /// were sealed before go unnoticed.
    baseline_lost_at: Option<u64>,
}

/// How a store is used.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
enum State {
    /// A daemon holds it and it is mounted.
    Mounted,
    /// A daemon holds it and it is not mounted: starting, or sealing at the end.
    Busy,
    /// Nobody holds it.
    Stopped,
    /// Nobody holds it, and a mount of it is left over from a daemon that was killed.
    Dead,
}

impl Status {
    /// Looks at the store at `path`.
    ///
    /// # Errors
    /// When there is no store, or it cannot be read.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let paths = StorePaths::of_existing(path)?;
        let holder = paths.holder()?;
        let table = MountTable::read().map_err(|e| Failure::new(Code::Failed, format!("/proc/self/mountinfo: {e}")))?;
        let mut mount_points: Vec<_> = table
            .of_store(&paths.root)
            .map(|entry| entry.mount_point.clone())
            .collect();
        let state = match (holder.is_some(), mount_points.is_empty()) {
            (true, false) => State::Mounted,
            (true, true) => State::Busy,
            (false, false) => State::Dead,
            (false, true) => State::Stopped,
        };
        let pid = holder.as_ref().and_then(|note| note.pid);
        if mount_points.is_empty() {
            mount_points.extend(holder.and_then(|note| note.mount_point));
        }
        // The ring is a help here; a damaged one stops a mount, not this command.
        let key_id = fs::exists(paths.keyring())
            .is_ok_and(|there| there)
            .then(|| key_ring::load(&paths.keyring()).ok())
            .flatten()
            .map(|ring| ring.current_id());
        // A store that was never mounted has no database yet.
        let (database, baseline_lost_at) = if key_id.is_some() {
            (database_trouble(&paths)?, baseline_lost_at(&paths))
        } else {
            (None, None)
        };
        Ok(Self {
            store: paths.root,
            state,
            pid,
            mount_points,
            key_id,
            database,
            baseline_lost_at,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let pid = match self.pid {
            Some(pid) => format!(" by pid {pid}"),
            None => String::new(),
        };
        let points: Vec<_> = self
            .mount_points
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let points = points.join(", ");
        let store = self.store.display();
        let state = match self.state {
            State::Mounted => format!("{store}: mounted at {points}{pid}"),
            // An import names no mount point.
            State::Busy if points.is_empty() => format!("{store}: in use{pid}, not mounted"),
            State::Busy => format!("{store}: starting or stopping{pid}, mount point {points}"),
            State::Stopped => format!("{store}: not mounted"),
            State::Dead => format!(
                "{store}: the daemon died; {points} answers with errors until \
                 `tallyfs mount` runs again"
            ),
        };
        let database = self.database.as_ref().map(|trouble| format!("database: {trouble}"));
        let baseline = self.baseline_lost_at.map(|_| format!("baseline: {BASELINE_LOST}"));
        let lines: Vec<_> = [Some(state), database, baseline].into_iter().flatten().collect();
        lines.join("\n")
    }

    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("paths and numbers are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::layout::Store;

    #[test]
    fn a_store_is_held_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        assert_eq!(Status::of(&path).unwrap_err().code, Code::Store);
        let mut store = Store::open(&path).unwrap();
        store.finish_first_use().unwrap();
        store.note_holder(Some(Path::new("/srv/calls"))).unwrap();
        let held = Status::of(&path).unwrap();
        assert_eq!(held.state, State::Busy);
        assert!(held.text().contains("/srv/calls"), "{}", held.text());
        assert!(held.json().contains("\"state\": \"busy\""));
        drop(store);
        let left = Status::of(&path).unwrap();
        assert_eq!(left.state, State::Stopped);
        assert_eq!(left.pid, None);
    }
}
