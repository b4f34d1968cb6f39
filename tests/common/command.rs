//! Running other programs, never longer than they may take.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Seconds after which a command counts as hung.
const TIME_LIMIT_S: &str = "180";

/// Runs a program under a time limit and gives back what came out, whatever its exit code.
#[track_caller]
pub fn output(program: impl AsRef<std::ffi::OsStr>, args: &[&str], dir: &Path) -> Output {
    let program = program.as_ref();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", TIME_LIMIT_S]).arg(program).args(args);
    command.current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}

/// Standard output of a program that must succeed.
#[track_caller]
pub fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    run_in(Path::new("/"), program, args)
}

/// Like [`run`], with a working directory.
#[track_caller]
pub fn run_in(dir: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let output = output(&program, args, dir);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{} {args:?}: {}\n{}{}",
        program.as_ref().display(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Whether a program ends with exit code 0.
pub fn succeeds(program: &str, args: &[&str]) -> bool {
    output(program, args, Path::new("/")).status.success()
}

/// Whether a program is there to be run.
pub fn exists(program: &str) -> bool {
    succeeds("sh", &["-c", &format!("command -v {program}")])
}

/// A path as an argument; test paths are plain text.
#[track_caller]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
