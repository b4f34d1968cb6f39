//! `mount.tallyfs` and `mount.fuse.tallyfs`: what mount(8) runs for a line of fstab and for a `.mount` unit.
//!
//! The same program, called by one of these names. Words and exit codes are those that mount(8) documents for helpers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser};

use super::background::{self, Began};
use super::logging;
use crate::daemon::options::{MountOptions, OptionError, quote, split};

/// Names under which the program is the helper.
const NAMES: [&str; 2] = ["mount.tallyfs", "mount.fuse.tallyfs"];

/// What mount(8) takes from a helper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Code {
    Done = 0,
    /// Wrong words or options.
    Usage = 1,
    /// Something of the system failed.
    System = 2,
    /// It was told to stop before the mount was there.
    Interrupted = 8,
    /// The daemon did not mount.
    Failed = 32,
}

/// Mount a store in the background; called by mount(8) for the types tallyfs and fuse.tallyfs.
#[derive(Parser, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "mount(8) has these switches")]
#[command(name = "mount.tallyfs", version, after_help = HELP)]
struct HelperArgs {
    /// Directory with the sealed recordings
    store: PathBuf,
    /// Directory where the recordings appear
    mount_point: PathBuf,
    /// Mount options, with commas between them: those of `tallyfs mount`, and those of fstab that are for others
    #[arg(short = 'o', value_name = "OPTIONS", action = ArgAction::Append)]
    options: Vec<String>,
    /// Check the words alone, and mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Taken, without effect: there is no /etc/mtab to write
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Pass over options that nobody knows
    #[arg(short = 's')]
    sloppy: bool,
    /// Say what is done
    #[arg(short = 'v')]
    verbose: bool,
    /// Taken, without effect: there is one type
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
    /// Refused: enter the namespace with nsenter(1) first
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
}

/// Text for `--help`.
const HELP: &str = "\
In /etc/fstab:
  /var/lib/tallyfs  /srv/recordings  tallyfs  config=/etc/tallyfs/calls.toml,_netdev,nofail  0 0

It ends when the mount answers. The daemon logs to the system's log from then on.
Exit codes: 0 mounted, 1 wrong words or options, 2 system error, 8 interrupted, 32 the daemon did not mount";

/// Whether the program was called as the helper.
pub fn is_called(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Its words, for the man page.
pub fn command() -> clap::Command {
    HelperArgs::command()
}

/// Mounts in the background.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let code = match HelperArgs::try_parse_from(words) {
        Ok(args) => mount(&args),
        Err(e) => {
            let _ = e.print();
            if e.use_stderr() { Code::Usage } else { Code::Done }
        }
    };
    ExitCode::from(code as u8)
}

fn mount(args: &HelperArgs) -> Code {
    let command = match daemon_words(args) {
        Ok(words) => words,
        Err(text) => {
            logging::say_failure(&text);
            return Code::Usage;
        }
    };
    if args.fake {
        return Code::Done;
    }
    match background::start(&command, args.verbose) {
        Ok(Began::Serving) => Code::Done,
        Ok(Began::Refused) => Code::Failed,
        Ok(Began::Interrupted) => Code::Interrupted,
        Err(e) => {
            logging::say_failure(&e);
            Code::System
        }
    }
}

/// The words for `tallyfs`. The daemon leaves the working directory, so every path is a full one.
fn daemon_words(args: &HelperArgs) -> Result<Vec<OsString>, String> {
    if args.namespace.is_some() {
        return Err("-N: no other namespace is entered here; run `nsenter --mount=NAMESPACE mount ...`".to_owned());
    }
    let mut options: Vec<String> = Vec::new();
    for option in args.options.iter().flat_map(|text| split(text)) {
        let quoted = quote(&option);
        match MountOptions::parse(&[&quoted]) {
            Err(OptionError::Unknown(_)) if args.sloppy => {}
            Err(e) => return Err(e.to_string()),
            Ok(_) => options.push(quoted),
        }
    }
    let read = MountOptions::parse(&options).map_err(|e| e.to_string())?;
    for (name, file) in [("config", &read.config_file), ("key_file", &read.key_file)] {
        if let Some(file) = file {
            let file = full(file)?;
            let file = file.to_str().expect("it came from text");
            options.push(format!("{name}={}", quote(file)));
        }
    }
    let mut words: Vec<OsString> = vec!["mount".into(), "--detached".into()];
    for option in options {
        words.extend(["-o".into(), option.into()]);
    }
    words.push("--".into());
    for path in [&args.store, &args.mount_point] {
        words.push(full(path)?.into());
    }
    Ok(words)
}

fn full(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("{}: {e}; name it by its full path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, String> {
        let args = HelperArgs::try_parse_from(line.split(' ')).unwrap();
        let text = |word: OsString| word.into_string().unwrap();
        Ok(daemon_words(&args)?.into_iter().map(text).collect())
    }

    #[test]
    fn the_name_decides() {
        for (name, is_helper) in [
            ("/sbin/mount.tallyfs", true),
            ("mount.fuse.tallyfs", true),
            ("/usr/bin/tallyfs", false),
            ("mount.tallyfs/", true),
            ("mount.fuse", false),
        ] {
            assert_eq!(is_called(Some(&name.into())), is_helper, "{name}");
        }
        assert!(!is_called(None));
    }

    #[test]
    fn options_of_mount_come_before_or_after_the_paths() {
        let expected = ["mount", "--detached", "-o", "ro", "-o", "_netdev", "--", "/s", "/m"];
        assert_eq!(words("mount.tallyfs /s /m -n -v -o ro,_netdev").unwrap(), expected);
        assert_eq!(
            words("mount.tallyfs -o ro -o _netdev -t fuse.tallyfs /s /m").unwrap(),
            expected
        );
    }

    #[test]
    fn an_unknown_option_is_named_and_passed_over_by_the_sloppy() {
        let said = words("mount.tallyfs /s /m -o rw,alow_other").unwrap_err();
        assert!(said.contains("`alow_other`"), "{said}");
        let taken = words("mount.tallyfs /s /m -s -o rw,alow_other").unwrap();
        assert!(!taken.iter().any(|word| word == "alow_other"), "{taken:?}");
        // What must not go unnoticed is refused all the same.
        assert!(words("mount.tallyfs /s /m -s -o allow_root").is_err());
    }

    #[test]
    fn files_are_named_in_full_with_their_commas() {
        let taken = words(r"mount.tallyfs s /m -o config=a\,b.toml,key-file=/k").unwrap();
        let here = std::path::absolute("a,b.toml").unwrap();
        let config = format!("config={}", quote(here.to_str().unwrap()));
        assert!(config.contains(r"a\,b.toml"));
        assert!(taken.contains(&config), "{taken:?}");
        assert!(taken.contains(&"key_file=/k".to_owned()), "{taken:?}");
        assert!(taken.contains(&std::path::absolute("s").unwrap().to_str().unwrap().to_owned()));
    }

    #[test]
    fn another_namespace_is_refused_with_what_to_do() {
        let said = words("mount.tallyfs /s /m -N 4711").unwrap_err();
        assert!(said.contains("nsenter"), "{said}");
    }
}
