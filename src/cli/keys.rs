//! `tallyfs keys`: what keys a store has, and changing them.

use std::fmt::Write;
use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::{KeysArgs, KeysCommand, NewKeyArgs};
use super::bar::Bar;
use super::client::Client;
use super::exit::{Code, Failure};
use super::keys_mounted::MountedKeys;
use super::request::{self, Environment};
use super::subject::{self, Subject};
use super::table::table;
use crate::clock::{Clock, SystemClock};
use crate::config::KeySource;
use crate::daemon::layout::{LayoutError, Store, StorePaths};
use crate::daemon::{key_file, key_ring, key_source, keys, rotation};
use crate::period::timestamp;
use crate::sealed::keyring::{KeyInfo, KeyState};

/// Runs one of them.
///
/// # Errors
/// There is no store, it is in use by another command, a key is missing, or what was asked is refused.
pub fn run(command: &KeysCommand, environment: Environment) -> Result<Code, Failure> {
    match command {
        KeysCommand::List { args } => list(args, environment),
        KeysCommand::Add { args, new } => match reach(args)? {
            Reach::AtRest(store) => super::print(&add(args, &store, new, environment)?),
            Reach::Mounted(daemon) => super::print(&daemon.add(new)?),
        },
        KeysCommand::Rewrap { args } => match reach(args)? {
            Reach::AtRest(store) => rewrap(args, &store, environment),
            Reach::Mounted(daemon) => daemon.rewrap(args.json),
        },
        KeysCommand::Rotate { args, new } => match reach(args)? {
            Reach::AtRest(store) => {
                eprintln!("{}", add(args, &store, new, environment)?);
                rewrap(args, &store, environment)
            }
            Reach::Mounted(daemon) => {
                eprintln!("{}", daemon.add(new)?);
                daemon.rewrap(args.json)
            }
        },
        KeysCommand::Destroy {
            args,
            id,
            yes_destroy,
            with_recordings,
        } => {
            let reach = reach(args)?;
            let paths = match &reach {
                Reach::AtRest(store) => store.paths(),
                Reach::Mounted(daemon) => daemon.paths(),
            };
            refuse_if_needed(paths, *id, *with_recordings)?;
            confirm(*id, *yes_destroy)?;
            destroy(args, &reach, *id, *with_recordings)
        }
        KeysCommand::ExportRecovery { args, out } => export(args, out, environment),
    }
}

/// Who changes keys: this program, or the daemon that has the store mounted.
enum Reach {
    AtRest(Store),
    Mounted(MountedKeys),
}

fn reach(args: &KeysArgs) -> Result<Reach, Failure> {
    let Subject { paths, .. } = subject::find(&args.store)?;
    match Store::open(&paths.root) {
        Ok(store) => Ok(Reach::AtRest(store)),
        Err(LayoutError::Locked { .. }) => {
            let client = Client::of(&args.store, args.socket.as_deref())?;
            Ok(Reach::Mounted(MountedKeys::new(client, paths)))
        }
        Err(e) => Err(e.into()),
    }
}

fn now_s() -> u64 {
    SystemClock::new().now().as_secs()
}

fn list(args: &KeysArgs, environment: Environment) -> Result<Code, Failure> {
    let Subject { paths, .. } = subject::find(&args.store)?;
    // What the ring tells is told without any key too.
    let given = subject::keys(&paths, &args.key, environment);
    let keys = match &given {
        Ok(ring) => ring.list(),
        Err(e) => {
            log::warn!("{}", e.text);
            key_ring::load(&paths.keyring())
                .map_err(|e| Failure::new(Code::Key, e))?
                .list()
        }
    };
    let counts =
        keys::count(&paths).map_err(|e| Failure::new(Code::Store, format!("{}: {e}", paths.data().display())))?;
    let count = |key: &KeyInfo| counts.get(&key.id).copied().unwrap_or(0);
    if args.json {
        let rows = keys.iter().map(|key| {
            json!({
                "id": key.id, "state": key.state, "tenant": key.tenant, "created_at": timestamp(key.created_s),
                "destroyed_at": key.destroyed_s.map(timestamp), "recordings": count(key), "given": key.is_given,
            })
        });
        let answer = json!({"store": paths.root, "keys": rows.collect::<Vec<_>>()});
        return super::print(&serde_json::to_string_pretty(&answer).expect("texts and numbers are JSON"));
    }
    let mut rows = vec![["KEY", "STATE", "TENANT", "CREATED", "RECORDINGS", "GIVEN"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        [
            key.id.to_string(),
            key.state.name().to_owned(),
            key.tenant.clone().unwrap_or_default(),
            timestamp(key.created_s),
            count(key).to_string(),
            if key.is_given { "yes" } else { "no" }.to_owned(),
        ]
    }));
    super::print(&table(&rows))
}

fn add(args: &KeysArgs, store: &Store, new: &NewKeyArgs, environment: Environment) -> Result<String, Failure> {
    let ring = subject::keys(store.paths(), &args.key, environment)?;
    let choice = request::choose_key(&args.key, &KeySource::default(), environment)?;
    let beside = || {
        let first = choice.file_to_make(store.paths())?;
        Some(key_file::numbered(&first, ring.next_id()))
    };
    let path = new.out.clone().or_else(beside).ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "the present key comes from no file: say with --out where the new one goes",
        )
    })?;
    let tenant = new.tenant.as_deref().map(|tenant| tenant.trim_matches('/').to_owned());
    if let Some(tenant) = &tenant {
        let place = subject::place("--tenant", Path::new(tenant))?;
        // The ring compares texts.
        let is_plain = !tenant.is_empty() && place.as_os_str() == tenant.as_str();
        if !is_plain || !store.paths().data().join(&place).is_dir() {
            let text = format!("--tenant {tenant}: there is no such directory in the store");
            return Err(Failure::new(Code::Usage, text));
        }
    }
    let id =
        keys::add(store.paths(), &ring, &path, tenant.as_deref(), now_s()).map_err(|e| Failure::new(Code::Key, e))?;
    Ok(told_new(store.paths(), id, &path))
}

/// What whoever made a key has to know.
pub(super) fn told_new(paths: &StorePaths, id: u32, path: &Path) -> String {
    format!(
        "{}: key {id} seals new recordings; it is in {}\nKeep a copy of it in a safe place. \
         Old recordings need the old keys until `tallyfs keys rewrap` is done.",
        paths.root.display(),
        path.display()
    )
}

fn rewrap(args: &KeysArgs, store: &Store, environment: Environment) -> Result<Code, Failure> {
    let ring = Arc::new(subject::keys(store.paths(), &args.key, environment)?);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| Failure::new(Code::Failed, format!("cannot listen to signals: {e}")))?;
    }
    let failed = |e: io::Error| Failure::new(Code::Store, format!("{}: {e}", store.paths().data().display()));
    let before = keys::count(store.paths()).map_err(failed)?;
    let (bar, total) = (Bar::new(), before.values().sum::<u64>());
    let done = keys::rewrap(store, &ring, now_s(), &mut |done| {
        bar.show(done, total.max(done), || format!("{done} of {}", total.max(done)));
        if stop.load(Ordering::Acquire) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    bar.end();
    // Counted on the disk, not believed.
    let counts = keys::count(store.paths()).map_err(failed)?;
    let still: Vec<u32> = counts.keys().copied().filter(|&id| is_old(&ring.list(), id)).collect();
    if done.is_complete {
        rotation::unmark(store.paths()).map_err(failed)?;
    }
    let left = done.left.into_iter();
    let summary = Summary {
        is_complete: done.is_complete,
        changed: done.changed,
        current: done.current,
        left_count: left.len() as u64,
        left: left
            .map(|(path, why)| (String::from_utf8_lossy(&path).into_owned(), why))
            .collect(),
        still,
    };
    summary.tell(store.paths(), args.json)
}

/// Recordings are to leave this key: it is retired, or nobody knows it.
fn is_old(keys: &[KeyInfo], id: u32) -> bool {
    let state = keys.iter().find(|key| key.id == id).map(|key| key.state);
    !matches!(state, Some(KeyState::Active | KeyState::Destroyed))
}

/// What became of a rewrap.
pub(super) struct Summary {
    /// Every file was looked at.
    pub is_complete: bool,
    pub changed: u64,
    pub current: u64,
    pub left_count: u64,
    /// Path and reason.
    pub left: Vec<(String, String)>,
    /// Old keys that heads on the disk name.
    pub still: Vec<u32>,
}

impl Summary {
    /// Prints it; a recording that still needs an old key makes it a failure.
    pub(super) fn tell(&self, paths: &StorePaths, is_json: bool) -> Result<Code, Failure> {
        let is_done = self.is_complete && self.still.is_empty() && self.left_count == 0;
        let text = if is_json {
            let left = self.left.iter().map(|(path, why)| json!({"path": path, "reason": why}));
            let answer = json!({
                "store": paths.root, "complete": self.is_complete, "changed": self.changed, "current": self.current,
                "left": left.collect::<Vec<_>>(), "left_count": self.left_count, "keys_still_needed": self.still,
            });
            serde_json::to_string_pretty(&answer).expect("texts and numbers are JSON")
        } else {
            let mut text = String::new();
            for (name, why) in &self.left {
                let _ = writeln!(text, "{name}: {why}"); // a String takes all
            }
            let end = match (self.is_complete, is_done) {
                (false, _) => "; stopped, run it again to go on",
                (true, false) => "; old keys are still needed",
                (true, true) => "; no recording needs an old key any more",
            };
            text + &format!(
                "{}: {} recordings brought under the current key, {} were there{end}",
                paths.root.display(),
                self.changed,
                self.current
            )
        };
        super::print(&text)?;
        Ok(if is_done { Code::Done } else { Code::Failed })
    }
}

fn refuse_if_needed(paths: &StorePaths, id: u32, with_recordings: bool) -> Result<(), Failure> {
    let counts = keys::count(paths).map_err(|e| Failure::new(Code::Store, e))?;
    match counts.get(&id) {
        Some(count) if !with_recordings => Err(Failure::new(Code::Key, keys::still_needed(*count, id))),
        _ => Ok(()),
    }
}

/// The second question.
fn confirm(id: u32, yes_destroy: Option<u32>) -> Result<(), Failure> {
    let answer = match yes_destroy {
        Some(answer) => answer.to_string(),
        None if io::stdin().is_terminal() => {
            eprint!("Key {id} will be gone for ever, and every recording under it. Type {id} to destroy it: ");
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line);
            read.map_err(|e| Failure::new(Code::Failed, format!("standard input: {e}")))?;
            line
        }
        None => String::new(),
    };
    if answer.trim() == id.to_string() {
        return Ok(());
    }
    let text = format!("key {id} was not destroyed: type its number again, or say --yes-destroy {id}");
    Err(Failure::new(Code::Usage, text))
}

fn destroy(args: &KeysArgs, reach: &Reach, id: u32, with_recordings: bool) -> Result<Code, Failure> {
    let of = |paths: &StorePaths| {
        let mut files = args.key.key_file.clone();
        let beside = key_file::beside(&paths.root);
        for first in files.first().into_iter().chain([&beside]).cloned().collect::<Vec<_>>() {
            files.push(key_file::numbered(&first, id));
            files.push(first);
        }
        files.sort();
        files.dedup();
        files
    };
    let (paths, removed) = match reach {
        Reach::AtRest(store) => {
            let who = format!("uid {}", rustix::process::getuid().as_raw());
            (
                store.paths(),
                keys::destroy(store, &of(store.paths()), id, &who, now_s())?,
            )
        }
        Reach::Mounted(daemon) => (
            daemon.paths(),
            daemon.destroy(id, with_recordings, &of(daemon.paths()))?,
        ),
    };
    let told = if removed.is_empty() {
        "no file of ours held it alone: remove it where it is kept".to_owned()
    } else {
        let names: Vec<String> = removed.iter().map(|path| path.display().to_string()).collect();
        format!("overwritten and removed: {}", names.join(", "))
    };
    super::print(&format!(
        "{}: key {id} is destroyed; {told}\nCopies of it elsewhere are not reached from here.",
        paths.root.display()
    ))
}

fn export(args: &KeysArgs, out: &PathBuf, environment: Environment) -> Result<Code, Failure> {
    let Subject { paths, .. } = subject::find(&args.store)?;
    // They have to be the store's before they count as a copy of them.
    subject::keys(&paths, &args.key, environment)?;
    if fs::symlink_metadata(out).is_ok() {
        let text = format!("{}: is there already; name a file that is not", out.display());
        return Err(Failure::new(Code::Usage, text));
    }
    let choice = request::choose_key(&args.key, &KeySource::default(), environment)?;
    let given = key_source::take(&paths, choice).map_err(|e| Failure::new(Code::Key, e))?;
    keys::export(&given, out).map_err(|e| Failure::new(Code::Failed, format!("{}: {e}", out.display())))?;
    eprintln!(
        "tallyfs: whoever reads {} can read every recording: keep it off this machine",
        out.display()
    );
    super::print(&format!("{}: {} keys written", out.display(), given.len()))
}
