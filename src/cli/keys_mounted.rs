//! Keys of a mounted store, by way of its daemon: recordings go on meanwhile.

use std::fmt::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::json;

use super::args::NewKeyArgs;
use super::bar::Bar;
use super::client::Client;
use super::exit::{Code, Failure};
use super::keys::{Summary, told_new};
use crate::daemon::layout::StorePaths;
use crate::daemon::{key_file, key_ring, keys};

/// Between two looks at how far the daemon is.
const LOOK_PACE: Duration = Duration::from_millis(200);

/// Looks in vain before a daemon counts as gone: ten seconds.
const TRIES: u32 = 50;

/// The daemon, and where its store is.
pub struct MountedKeys {
    client: Client,
    paths: StorePaths,
}

#[derive(Deserialize)]
struct Told {
    keys: Vec<Key>,
    next_file: Option<PathBuf>,
    rotation: Rotation,
}

#[derive(Deserialize)]
struct Key {
    id: u32,
    state: String,
}

#[derive(Deserialize)]
struct Rotation {
    state: String,
    looked_at: u64,
    changed: u64,
    open: u64,
    left_count: u64,
    left: Vec<Left>,
}

#[derive(Deserialize)]
struct Left {
    path: String,
    reason: String,
}

#[derive(Deserialize)]
struct Adopted {
    id: u32,
}

#[derive(Deserialize)]
struct Stats {
    total_files: u64,
}

impl MountedKeys {
    /// The store that a daemon has mounted.
    pub fn new(client: Client, paths: StorePaths) -> Self {
        Self { client, paths }
    }

    /// Of the store.
    pub fn paths(&self) -> &StorePaths {
        &self.paths
    }

    /// A new key, made by whoever asks and taken in by the daemon.
    pub fn add(&self, new: &NewKeyArgs) -> Result<String, Failure> {
        let next = self.look()?.next_file;
        let path = new.out.clone().or_else(|| next.clone()).ok_or_else(|| {
            Failure::new(
                Code::Usage,
                "the present key comes from no file: say with --out where the new one goes",
            )
        })?;
        let path =
            std::path::absolute(&path).map_err(|e| Failure::new(Code::Usage, format!("{}: {e}", path.display())))?;
        drop(key_file::make(&path).map_err(|e| Failure::new(Code::Key, e))?);
        let asked = json!({"file": path, "tenant": new.tenant});
        let adopted = self.client.ask(Method::POST, "/api/v1/keys", Some(&asked));
        let Adopted { id } = match adopted {
            Ok(told) => read(told)?,
            Err(failure) if failure.code == Code::Usage => {
                // It was not looked at, so nothing is under it.
                let _ = keys::wipe(&path);
                return Err(failure);
            }
            Err(mut failure) => {
                let _ = write!(
                    failure.text,
                    "; {} stays: `tallyfs keys list` tells whether the daemon took it all the same, and only if it did not, remove it",
                    path.display()
                );
                return Err(failure);
            }
        };
        if next.as_ref() != Some(&path) {
            eprintln!(
                "tallyfs: the next start of the daemon has to be given {}: name it where the present key is named, now",
                path.display()
            );
        }
        Ok(told_new(&self.paths, id, &path))
    }

    /// Waits until the daemon has brought all recordings along; who does not wait does not stop it.
    pub fn rewrap(&self, is_json: bool) -> Result<Code, Failure> {
        self.client.ask(Method::POST, "/api/v1/keys/rewrap", None)?;
        let stats: Stats = read(self.client.ask(Method::GET, "/api/v1/usage/stats", None)?)?;
        let bar = Bar::new();
        let told = loop {
            let told = self.look_again()?;
            let Rotation {
                looked_at, open, state, ..
            } = &told.rotation;
            let total = stats.total_files.max(*looked_at);
            bar.show(*looked_at, total, || match open {
                0 => format!("{looked_at} of {total}   "),
                open => format!("{looked_at} of {total}, waiting for {open} that are being written   "),
            });
            // `none`: it was done, and the daemon is another one.
            if state == "done" || state == "none" {
                break told;
            }
            thread::park_timeout(LOOK_PACE);
        };
        bar.end();
        // Counted on the disk, not believed.
        let counts = keys::count(&self.paths)
            .map_err(|e| Failure::new(Code::Store, format!("{}: {e}", self.paths.data().display())))?;
        let is_old = |id: u32| !told.keys.iter().any(|key| key.id == id && key.state != "retired");
        let left = told.rotation.left.into_iter();
        let summary = Summary {
            is_complete: true,
            changed: told.rotation.changed,
            current: stats.total_files.saturating_sub(told.rotation.changed),
            left_count: told.rotation.left_count,
            left: left.map(|left| (left.path, left.reason)).collect(),
            still: counts.into_keys().filter(|&id| is_old(id)).collect(),
        };
        summary.tell(&self.paths, is_json)
    }

    /// The daemon forgets the key, and its files go; those are given back.
    pub fn destroy(&self, id: u32, with_recordings: bool, files: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(Code::Key, e);
        let ring = key_ring::load(&self.paths.keyring()).map_err(|e| failed(&e))?;
        let asked = json!({"id": id, "confirm": id, "with_recordings": with_recordings});
        self.client.ask(Method::POST, "/api/v1/keys/destroy", Some(&asked))?;
        let ours = keys::files_of(files, &ring, id);
        for path in &ours {
            keys::wipe(path).map_err(|e| failed(&e))?;
        }
        Ok(ours.into_iter().cloned().collect())
    }

    /// A daemon that died may be followed by another one, which goes on.
    fn look_again(&self) -> Result<Told, Failure> {
        let mut tries = 0;
        loop {
            match self.look() {
                Err(failure) if tries == TRIES => return Err(failure),
                Err(_) => tries += 1,
                told => return told,
            }
            thread::park_timeout(LOOK_PACE);
        }
    }

    fn look(&self) -> Result<Told, Failure> {
        read(self.client.ask(Method::GET, "/api/v1/keys", None)?)
    }
}

fn read<T: serde::de::DeserializeOwned>(told: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(told).map_err(|e| Failure::new(Code::Failed, format!("what the daemon said: {e}")))
}
