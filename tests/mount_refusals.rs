//! What `tallyfs` refuses before anything is mounted: exit code, one line, and what to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `tallyfs` in `dir` without an environment; exit code and standard error.
#[track_caller]
fn refused(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tallyfs"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

/// A directory with an empty mount point `mnt`.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("mnt")).unwrap();
    dir
}

#[track_caller]
fn expect(dir: &Path, arguments: &[&str], code: i32, part: &str) {
    let (got, text) = refused(dir, arguments);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(part), "{arguments:?}: {text}");
    assert_eq!(got, code, "{arguments:?}: {text}");
}

#[test]
fn a_missing_mount_point_is_named_with_mkdir() {
    let dir = place();
    let words = ["mount", "store", "missing"];
    expect(dir.path(), &words, 7, "mkdir -p missing");
}

#[test]
fn a_store_inside_its_mount_point_is_refused() {
    let dir = place();
    expect(dir.path(), &["mount", "mnt/store", "mnt"], 7, "in one another");
}

#[test]
fn a_directory_of_someone_else_is_left_as_it_is() {
    let dir = place();
    fs::create_dir(dir.path().join("home")).unwrap();
    fs::write(dir.path().join("home/letter"), "mine").unwrap();
    expect(dir.path(), &["mount", "home", "mnt"], 4, "letter");
    let left: Vec<_> = fs::read_dir(dir.path().join("home")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing was added");
}

#[test]
fn a_key_that_others_can_read_is_refused_before_mounting() {
    let dir = place();
    fs::write(dir.path().join("store.key"), "ab".repeat(32)).unwrap();
    let chmod = Command::new("chmod")
        .args(["0644", "store.key"])
        .current_dir(dir.path())
        .status();
    assert!(chmod.unwrap().success());
    expect(dir.path(), &["mount", "store", "mnt"], 6, "chmod 0400");
}

#[test]
fn options_and_configuration_end_with_their_own_code() {
    let dir = place();
    let mount = |more: &[&'static str]| [&["mount", "store", "mnt"], more].concat();
    expect(dir.path(), &mount(&["-o", "allow_otter"]), 3, "known are");
    expect(dir.path(), &mount(&["--config", "none"]), 3, "none: cannot read");
    fs::write(dir.path().join("bad.toml"), "\nmaxbytes = 1\n").unwrap();
    expect(dir.path(), &["check-config", "bad.toml"], 3, "");
    let (_, text) = refused(dir.path(), &["check-config", "bad.toml"]);
    assert!(text.starts_with("tallyfs: bad.toml:2: "), "{text}");
    assert!(!dir.path().join("store").exists(), "no store was begun");
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    let dir = place();
    assert_eq!(refused(dir.path(), &["mount"]).0, 2);
    assert_eq!(refused(dir.path(), &["mound", "store", "mnt"]).0, 2);
    let words = ["mount", "store", "mnt", "--limit", "much"];
    assert_eq!(refused(dir.path(), &words).0, 2);
}

#[test]
fn status_and_usage_want_a_store() {
    let dir = place();
    expect(dir.path(), &["status", "mnt"], 4, "no store here");
    expect(dir.path(), &["usage", "mnt"], 4, "neither a store");
    expect(dir.path(), &["usage", "none"], 4, "none");
}
