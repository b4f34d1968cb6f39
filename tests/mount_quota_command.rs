//! `tallyfs quota` on a mount: what it sets counts, what it prints is what the file system says.

mod common;

use std::fs::{self, File};
use std::path::Path;

use serde_json::{Value, json};

use common::command::{self, text};
use common::mount::tallyfs;
use common::user::{as_user, open_the_way_to};
use common::{Errno, Mount, RULES, Setup, refused, run};

fn fails(program: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command::output(program, arguments, Path::new("/"));
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&run(tallyfs(), arguments)).expect("JSON")
}

#[test]
fn limits_are_set_shown_and_taken_back() {
    let mount = Mount::with_config(format!("{RULES}[rules.limits.tenant]\nmax_files = 3\n"));
    let acme = mount.dir("acme");
    let dir = text(&acme);
    run(
        tallyfs(),
        &["quota", "set", dir, "max_bytes=4KiB", "max_files=2", "max_dirs=none"],
    );
    fs::write(acme.join("a"), vec![1; 4096]).expect("a recording that fits");
    fs::write(acme.join("b"), "").expect("the last file");
    refused(File::create_new(acme.join("c")), Errno::DQUOT);
    let told = run(tallyfs(), &["quota", "get", dir]);
    for line in ["size", "files", "last refusal: "] {
        assert!(told.contains(line), "{told}");
    }
    assert!(told.contains("by /acme, files: used 2, limit 2, wanted 1"), "{told}");
    let told = json_of(&["quota", "get", dir, "--json"]);
    assert_eq!(told["used"], json!({"bytes": 4096, "files": 2, "dirs": 0}));
    assert_eq!(
        told["set"],
        json!({"max_bytes": 4096, "max_files": 2, "max_dirs": "none"})
    );
    run(
        tallyfs(),
        &["quota", "set", dir, "max_files=default", "max_file_size=default"],
    );
    let told = json_of(&["quota", "get", dir, "--json"]);
    assert_eq!(
        (&told["limits"]["max_files"], &told["set"]["max_files"]),
        (&json!(3), &Value::Null)
    );
    File::create_new(acme.join("c")).expect("the rule's third file");
    mount.assert_usage_true();
}

#[test]
fn reports_go_as_deep_as_they_are_asked_to() {
    let mount = Mount::with_config(RULES);
    for (dir, bytes) in [("acme/sales", 3000), ("globex", 1000), ("we, \"us\"", 0)] {
        fs::write(mount.dir(dir).join("call"), vec![1; bytes]).expect("a recording");
    }
    let point = mount.point();
    run(
        tallyfs(),
        &["quota", "set", text(&mount.path("acme")), "max_bytes=3000"],
    );
    let paths = |arguments: &[&str]| -> Vec<String> {
        let told = json_of(&[&["quota", "report", text(&point), "--json"], arguments].concat());
        let accounts = told.as_array().expect("a list").iter();
        accounts
            .map(|account| account["path"].as_str().expect("a path").to_owned())
            .collect()
    };
    let top = ["/", "/acme", "/globex", "/we, \"us\""];
    assert_eq!(paths(&[]), top);
    assert_eq!(paths(&["--depth", "0"]), top[..1]);
    assert_eq!(
        paths(&["--depth", "2"]),
        ["/", "/acme", "/acme/sales", "/globex", "/we, \"us\""]
    );
    let table = run(tallyfs(), &["quota", "report", text(&point)]);
    let acme = table.lines().find(|line| line.starts_with("/acme")).expect("a row");
    let words: Vec<&str> = acme.split_whitespace().collect();
    assert_eq!(
        words,
        ["/acme", "2.9", "KiB", "2.9", "KiB", "100%", "1", "-", "-", "full"],
        "{table}"
    );
    let csv = run(tallyfs(), &["quota", "report", text(&point), "--csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "path,level,used_bytes,max_bytes,used_files,max_files,used_dirs,max_dirs,max_file_size"
    );
    assert_eq!(lines[2], "/acme,tenant,3000,3000,1,,1,,");
    assert_eq!(lines[4], "\"/we, \"\"us\"\"\",tenant,0,,1,,0,,");
}

#[test]
fn what_cannot_be_set_is_said_and_nothing_is_changed() {
    let setup = Setup::new().config(RULES);
    let mount = setup.arguments(&["-o", "allow_other"]).mount();
    let acme = mount.dir("acme");
    open_the_way_to(&acme);
    let dir = text(&acme);
    for (words, part) in [
        (&["max_bytes"][..], "LIMIT=VALUE"),
        (&["max_byte=5"], "max_bytes, max_files"),
        (&["max_files=7", "max_bytes=much"], "not a byte count"),
        (&["max_files=1Ki"], "whole number"),
    ] {
        let (code, said) = fails(tallyfs().as_ref(), &[&["quota", "set", dir], words].concat());
        assert!(code == Some(2) && said.contains(part), "{words:?}: {code:?} {said}");
    }
    assert_eq!(
        json_of(&["quota", "get", dir, "--json"])["set"]["max_files"],
        Value::Null
    );
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (code, said) = fails(tallyfs().as_ref(), &["quota", "get", text(elsewhere.path())]);
    assert!(code == Some(4) && said.contains("not a directory in a mount"), "{said}");
    // A program that anyone can reach.
    let program = elsewhere.path().join("tallyfs");
    fs::copy(tallyfs(), &program).expect("a copy");
    open_the_way_to(elsewhere.path());
    for (mode, part) in [(0o777, "access.administrators"), (0o755, "its mode")] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&acme, open).expect("its owner chooses the mode");
        let (code, said) = as_user(12_345, &[], || fails(&program, &["quota", "set", dir, "max_bytes=0"]));
        assert!(code == Some(1) && said.contains(part), "{mode:o}: {said}");
    }
}
