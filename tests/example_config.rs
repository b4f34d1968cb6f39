//! The example configuration is taken as it is, and with every setting in it switched on.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The effective form of a configuration, which must be accepted.
#[track_caller]
fn effective(path: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tallyfs"))
        .arg("check-config")
        .arg(path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tallyfs.toml");
    fs::read_to_string(path).unwrap()
}

/// Takes the `#` away where no space follows it.
fn switched_on(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| !c.is_whitespace()) => rest,
        _ => line,
    });
    lines.fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn the_example_says_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let (example_path, empty) = (dir.path().join("e.toml"), dir.path().join("empty.toml"));
    fs::write(&example_path, example()).unwrap();
    fs::write(&empty, "").unwrap();
    assert_eq!(effective(&example_path), effective(&empty));
}

#[test]
fn every_setting_of_the_example_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.toml");
    let mut text = switched_on(&example());
    if !cfg!(feature = "aws-lc") {
        text = text.replace("\"https://alerts.", "\"http://alerts.");
    }
    fs::write(&path, &text).unwrap();
    let taken = effective(&path);
    // `day.max_files` is written as a table of its own.
    let is_taken = |line: &str| {
        let key = line.split(" = ").next().unwrap();
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        taken.contains(&format!("\n{name} = ")) && taken.contains(&format!("{table}]"))
    };
    for line in text.lines().filter(|line| line.contains(" = ")) {
        assert!(line.starts_with('#') || is_taken(line), "{line} is not in\n{taken}");
    }
}
