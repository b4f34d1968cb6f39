//! The command line: arguments in, text and an exit code out.
//!
//! Only this module prints, and only it reads the environment.
#![expect(clippy::disallowed_methods, reason = "arguments and environment are read here")]

mod alerts;
mod args;
mod background;
mod bar;
mod client;
mod exit;
mod figures;
mod fsck;
mod import;
mod keys;
mod keys_mounted;
mod logging;
mod mount_helper;
mod quota;
mod quota_ask;
mod report;
mod request;
mod salvage;
mod scrub;
mod status;
mod subject;
mod supervise;
mod table;
mod token;
mod usage;
mod variables;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::daemon::mount_point::{Cleared, clear_dead};
use crate::daemon::{DaemonError, MountRequest};
use args::{Cli, Command};
use exit::{Code, Failure};

/// The commands as clap knows them, `tallyfs` and `mount.tallyfs`: for man pages and completions.
pub fn commands() -> [clap::Command; 2] {
    [Cli::command(), mount_helper::command()]
}

/// Runs `tallyfs` with the arguments of this process.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if mount_helper::is_called(words.first()) {
        return mount_helper::run(words);
    }
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(e) => {
            // Help that nobody reads any more is no failure.
            let _ = e.print();
            let code = if e.use_stderr() { Code::Usage } else { Code::Done };
            return ExitCode::from(code as u8);
        }
    };
    logging::start(match &cli.command {
        Command::Mount(args) if args.detached => logging::Place::Background,
        _ => logging::Place::Foreground,
    });
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            logging::say_failure(&failure.text);
            failure.code
        }
    };
    ExitCode::from(code as u8)
}

/// A daemon in the background belongs to no terminal, and holds no directory that somebody may want to unmount.
fn detach() -> Result<(), Failure> {
    let failed = |e| Failure::new(Code::Failed, format!("cannot go into the background: {e}"));
    rustix::process::setsid().map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

fn run(command: Command) -> Result<Code, Failure> {
    match command {
        Command::Mount(args) => {
            if args.detached {
                detach()?;
            }
            if args.supervise {
                return supervise::run(&args, &environment);
            }
            let reread = request::reread(&args, environment);
            let request = request::build(args, &environment)?;
            crate::daemon::run(MountRequest { reread, ..request })?;
            Ok(Code::Done)
        }
        Command::Unmount { mount_point, .. } => {
            let cleared = clear_dead(&mount_point).map_err(DaemonError::from)?;
            print(match cleared {
                Cleared::Detached => "a dead mount was taken away",
                Cleared::Nothing => "no mount of tallyfs there",
            })
        }
        Command::Import(args) => import::run(args, &environment),
        Command::Fsck(args) => fsck::run(&args, &environment),
        Command::Scrub(args) => scrub::run(&args, &environment),
        Command::Salvage(args) => salvage::run(&args, &environment),
        Command::Status(args) => {
            let status = status::Status::of(&args.store)?;
            print(&if args.json { status.json() } else { status.text() })
        }
        Command::Usage(args) => {
            let usage = usage::read(&args.path)?;
            print(&if args.json { usage.json() } else { usage.text() })
        }
        Command::Quota(command) => quota::run(&command),
        Command::Alerts(command) => alerts::run(&command),
        Command::Keys(command) => keys::run(&command, &environment),
        Command::Token { name, scopes, tenant } => token::run(&name, &scopes, tenant),
        Command::Answers { point } => match rustix::fs::statfs(&point) {
            Ok(_) => Ok(Code::Done),
            Err(e) => Err(Failure::new(Code::Failed, format!("{}: {e}", point.display()))),
        },
        Command::CheckConfig { file } => print(&request::read_config(&file)?.to_toml()),
    }
}

fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Writes `text` to standard output, with a line feed at its end.
fn print(text: &str) -> Result<Code, Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        // Who reads has what it wanted, as `head` does.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Code::Done),
        Err(e) => Err(Failure::new(Code::Failed, format!("standard output: {e}"))),
        Ok(()) => Ok(Code::Done),
    }
}
