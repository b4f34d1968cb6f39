//! `tallyfs mount --supervise`: the keeper of a mount, and the daemons that it starts.

use std::process::exit;

use super::args::MountArgs;
use super::exit::{Code, Failure};
use super::request::Environment;
use crate::daemon::keeper::{self, Supervised};
use crate::daemon::notify::Notifier;

/// Word that asks for a keeper; its daemons are started without it.
const SUPERVISE: &str = "--supervise";
/// Goes with it.
const GIVE_UP_AFTER: &str = "--give-up-after";

/// Keeps the mount until it is unmounted. The exit code is the last daemon's.
pub fn run(args: &MountArgs, environment: Environment) -> Result<Code, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::new(Code::Failed, format!("the path of this program is not known: {e}")))?;
    let words = std::env::args_os().skip(1);
    let supervised = Supervised {
        program,
        arguments: daemon_arguments(words),
        mount_point: args.mount_point.clone(),
        store: args.store.clone(),
        short_lives_max: args.give_up_after,
        notifier: Notifier::from_env(environment),
    };
    match keeper::run(&supervised)? {
        0 => Ok(Code::Done),
        // The daemon has said why.
        code => exit(i32::from(code)),
    }
}

fn daemon_arguments(words: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut kept = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some(SUPERVISE) => {}
            Some(GIVE_UP_AFTER) => {
                words.next();
            }
            Some(text) if text.starts_with("--give-up-after=") => {}
            _ => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_are_not_asked_for_a_keeper() {
        let words = [
            "mount",
            "--supervise",
            "/s",
            "--give-up-after",
            "3",
            "/m",
            "-o",
            "ro",
            "--give-up-after=4",
        ];
        let kept = daemon_arguments(words.iter().map(std::ffi::OsString::from));
        assert_eq!(kept, ["mount", "/s", "/m", "-o", "ro"]);
    }
}
