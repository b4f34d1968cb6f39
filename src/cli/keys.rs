//! `tallyfs keys`: what keys a store has, and changing them.

use std::fmt::Write;
use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::{KeysArgs, KeysCommand};
use super::bar::Bar;
use super::exit::{Code, Failure};
use super::request::{self, Environment};
use super::subject;
use super::table::table;
use crate::clock::{Clock, SystemClock};
use crate::config::KeySource;
use crate::daemon::layout::{LayoutError, Store, StorePaths};
use crate::daemon::{key_file, key_ring, key_source, keys};
use crate::period::timestamp;
use crate::sealed::keyring::{KeyInfo, KeyState};

/// Runs one of them.
///
/// # Errors
/// There is no store, it is in use, a key is missing, or what was asked is refused.
pub fn run(command: &KeysCommand, environment: Environment) -> Result<Code, Failure> {
    match command {
        KeysCommand::List { args } => list(args, environment),
        KeysCommand::Add { args, out } => add(args, out.as_ref(), environment),
        KeysCommand::Rewrap { args } => rewrap(args, environment),
        KeysCommand::Destroy {
            args,
            id,
            yes_destroy,
            with_recordings,
        } => {
            let store = at_rest(args)?;
            refuse_if_needed(&store, *id, *with_recordings)?;
            confirm(*id, *yes_destroy)?;
            destroy(args, &store, *id)
        }
        KeysCommand::ExportRecovery { args, out } => export(args, out, environment),
    }
}

fn at_rest(args: &KeysArgs) -> Result<Store, Failure> {
    let paths = StorePaths::of_existing(&args.store)?;
    Store::open(&paths.root).map_err(|e| {
        let is_locked = matches!(e, LayoutError::Locked { .. });
        let mut failure = Failure::from(e);
        if is_locked {
            failure
                .text
                .push_str("; keys are changed while the store is not mounted: unmount it first");
        }
        failure
    })
}

fn now_s() -> u64 {
    SystemClock::new().now().as_secs()
}

fn list(args: &KeysArgs, environment: Environment) -> Result<Code, Failure> {
    let paths = StorePaths::of_existing(&args.store)?;
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
                "id": key.id, "state": key.state, "created_at": timestamp(key.created_s),
                "destroyed_at": key.destroyed_s.map(timestamp), "recordings": count(key), "given": key.is_given,
            })
        });
        let answer = json!({"store": paths.root, "keys": rows.collect::<Vec<_>>()});
        return super::print(&serde_json::to_string_pretty(&answer).expect("texts and numbers are JSON"));
    }
    let mut rows = vec![["KEY", "STATE", "CREATED", "RECORDINGS", "GIVEN"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        [
            key.id.to_string(),
            state_name(key.state).to_owned(),
            timestamp(key.created_s),
            count(key).to_string(),
            if key.is_given { "yes" } else { "no" }.to_owned(),
        ]
    }));
    super::print(&table(&rows))
}

fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Retired => "retired",
        KeyState::Destroyed => "destroyed",
    }
}

fn add(args: &KeysArgs, out: Option<&PathBuf>, environment: Environment) -> Result<Code, Failure> {
    let store = at_rest(args)?;
    let mut ring = subject::keys(store.paths(), &args.key, environment)?;
    let choice = request::choose_key(&args.key, &KeySource::default(), environment)?;
    let beside = || {
        let first = choice.file_to_make(store.paths())?;
        Some(key_file::numbered(&first, ring.next_id()))
    };
    let path = out.cloned().or_else(beside).ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "the present key comes from no file: say with --out where the new one goes",
        )
    })?;
    let id = keys::add(&store, &mut ring, &path, now_s()).map_err(|e| Failure::new(Code::Key, e))?;
    super::print(&format!(
        "{}: key {id} seals new recordings; it is in {}\nKeep a copy of it in a safe place. \
         Old recordings need the old keys until `tallyfs keys rewrap` is done.",
        store.paths().root.display(),
        path.display()
    ))
}

fn rewrap(args: &KeysArgs, environment: Environment) -> Result<Code, Failure> {
    let store = at_rest(args)?;
    let ring = Arc::new(subject::keys(store.paths(), &args.key, environment)?);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| Failure::new(Code::Failed, format!("cannot listen to signals: {e}")))?;
    }
    let failed = |e: io::Error| Failure::new(Code::Store, format!("{}: {e}", store.paths().data().display()));
    let before = keys::count(store.paths()).map_err(failed)?;
    let (bar, total) = (Bar::new(), before.values().sum::<u64>());
    let done = keys::rewrap(&store, &ring, now_s(), &mut |done| {
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
    let still: Vec<u32> = counts.keys().copied().filter(|&id| id != ring.current_id()).collect();
    let is_done = done.is_complete && still.is_empty() && done.left.is_empty();
    let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let text = if args.json {
        let left = done
            .left
            .iter()
            .map(|(name, why)| json!({"path": path(name), "reason": why}));
        let answer = json!({
            "store": store.paths().root, "complete": is_done, "changed": done.changed, "current": done.current,
            "left": left.collect::<Vec<_>>(), "keys_still_needed": still,
        });
        serde_json::to_string_pretty(&answer).expect("texts and numbers are JSON")
    } else {
        let mut text = String::new();
        for (name, why) in &done.left {
            let _ = writeln!(text, "{}: {why}", path(name)); // a String takes all
        }
        let end = match (done.is_complete, is_done) {
            (false, _) => "; stopped, run it again to go on",
            (true, false) => "; old keys are still needed",
            (true, true) => "; no recording needs an old key any more",
        };
        text + &format!(
            "{}: {} recordings brought under key {}, {} were there{end}",
            store.paths().root.display(),
            done.changed,
            ring.current_id(),
            done.current
        )
    };
    super::print(&text)?;
    Ok(if is_done { Code::Done } else { Code::Failed })
}

fn refuse_if_needed(store: &Store, id: u32, with_recordings: bool) -> Result<(), Failure> {
    let counts = keys::count(store.paths()).map_err(|e| Failure::new(Code::Store, e))?;
    match counts.get(&id) {
        Some(count) if !with_recordings => Err(Failure::new(
            Code::Key,
            format!(
                "{count} recordings are under key {id} and would be unreadable for ever: run `tallyfs keys rewrap` to keep \
                 them, or say --with-recordings"
            ),
        )),
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

fn destroy(args: &KeysArgs, store: &Store, id: u32) -> Result<Code, Failure> {
    let mut files = args.key.key_file.clone();
    let first = key_file::beside(&store.paths().root);
    files.extend([key_file::numbered(&first, id), first]);
    let who = format!("uid {}", rustix::process::getuid().as_raw());
    let removed = keys::destroy(store, &files, id, &who, now_s())?;
    let told = if removed.is_empty() {
        "no file of ours held it alone: remove it where it is kept".to_owned()
    } else {
        let names: Vec<String> = removed.iter().map(|path| path.display().to_string()).collect();
        format!("overwritten and removed: {}", names.join(", "))
    };
    super::print(&format!(
        "{}: key {id} is destroyed; {told}\nCopies of it elsewhere are not reached from here.",
        store.paths().root.display()
    ))
}

fn export(args: &KeysArgs, out: &PathBuf, environment: Environment) -> Result<Code, Failure> {
    let paths = StorePaths::of_existing(&args.store)?;
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
