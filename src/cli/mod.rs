//! The command line: arguments in, text and an exit code out.
//!
//! Only this module prints, and only it reads the environment.
#![expect(clippy::disallowed_methods, reason = "arguments and environment are read here")]

mod alerts;
mod args;
mod bar;
mod client;
mod exit;
mod figures;
mod fsck;
mod import;
mod keys;
mod quota;
mod quota_ask;
mod report;
mod request;
mod salvage;
mod scrub;
mod status;
mod subject;
mod table;
mod token;
mod usage;
mod variables;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::{Code, Failure};

/// Runs `tallyfs` with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(e) => {
            // Help that nobody reads any more is no failure.
            let _ = e.print();
            let code = if e.use_stderr() { Code::Usage } else { Code::Done };
            return ExitCode::from(code as u8);
        }
    };
    start_log();
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("tallyfs: {}", failure.text);
            failure.code
        }
    };
    ExitCode::from(code as u8)
}

fn start_log() {
    let filter = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(filter)
        .target(env_logger::Target::Stderr)
        .init();
}

fn run(command: Command) -> Result<Code, Failure> {
    match command {
        Command::Mount(args) => {
            let request = request::build(args, &environment)?;
            crate::daemon::run(request)?;
            Ok(Code::Done)
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
