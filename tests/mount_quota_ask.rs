//! `tallyfs quota` as far as it asks the running daemon: lists, what needs attention, history, reset, dump and load.

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use common::command::{output, text};
use common::wait::until;
use common::{Mount, RULES, run};

fn tallyfs() -> &'static str {
    env!("CARGO_BIN_EXE_tallyfs")
}

fn json_of(arguments: &[&str]) -> Value {
    let told = run(tallyfs(), &[arguments, &["--json"]].concat());
    serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"))
}

fn paths(accounts: &Value) -> Vec<&str> {
    let all = accounts.as_array().expect("a list").iter();
    all.map(|account| account["path"].as_str().expect("a path")).collect()
}

/// Three tenants, one of them full.
fn three() -> Mount {
    let mount = Mount::with_config(format!(
        "{RULES}[rules.limits.tenant]\nmax_bytes = 10000\nday.max_files = 5\n"
    ));
    for (tenant, bytes) in [("acme", 10_000), ("globex", 100), ("we, \"us\"", 0)] {
        fs::write(mount.dir(tenant).join("call"), vec![1; bytes]).expect("a recording");
    }
    mount
}

#[test]
fn list_and_top_show_accounts_and_check_those_that_need_attention() {
    let mount = three();
    let (store, point) = (mount.store(), mount.point());
    let listed = json_of(&["quota", "list", text(&store)]);
    assert_eq!(paths(&listed), ["/", "/acme", "/globex", "/we, \"us\""]);
    assert_eq!(
        paths(&json_of(&["quota", "list", text(&point), "--level", "tenant"])).len(),
        3
    );
    let csv = run(tallyfs(), &["quota", "list", text(&store), "--csv"]);
    assert!(csv.contains("/acme,tenant,10000,10000,1,"), "{csv}");
    let top = run(tallyfs(), &["quota", "top", text(&store), "--times", "1"]);
    let first = top.lines().nth(1).expect("a row");
    assert!(first.starts_with("/acme") && first.ends_with("full"), "{top}");
    let check = output(tallyfs(), &["quota", "check", text(&store)], &point);
    let told = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{told}");
    let row = told.lines().nth(1).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["/acme", "full", "bytes"], "{told}");
    fs::remove_file(mount.path("acme/call")).expect("a deletion");
    let quiet = until("nothing needs attention", || {
        let check = output(tallyfs(), &["quota", "check", text(&store)], &point);
        check
            .status
            .success()
            .then(|| String::from_utf8_lossy(&check.stdout).into_owned())
    });
    assert!(quiet.contains("nothing needs attention"), "{quiet}");
}

#[test]
fn history_tells_days_and_reset_begins_them_anew() {
    let mount = three();
    let acme = mount.path("acme");
    let day = until("the day is saved", || {
        let days = json_of(&["quota", "history", text(&acme), "--days", "1"]);
        days.as_array()?.first().cloned()
    });
    assert_eq!(
        (&day["recordings_added"], &day["bytes_added"]),
        (&json!(1), &json!(10_000))
    );
    let table = run(tallyfs(), &["quota", "history", text(&acme)]);
    assert!(table.contains("9.7 KiB"), "{table}");
    let period = run(tallyfs(), &["quota", "reset", text(&acme)]);
    let period: Value = serde_json::from_str(&period).expect("JSON");
    assert_eq!(period["day"]["files"], 0);
    let told = json_of(&["quota", "get", text(&acme)]);
    assert_eq!(
        (&told["period"]["day"]["files"], &told["used"]["files"]),
        (&json!(0), &json!(1))
    );
}

#[test]
fn history_tells_the_peak_what_was_refused_and_when_it_will_be_full() {
    let mut mount = Mount::with_config(format!("{RULES}[rules.limits.tenant]\nmax_bytes = 10000\n"));
    let acme = mount.dir("acme");
    let days = || json_of(&["quota", "history", text(&acme), "--days", "9"]);
    let saved = |column: &str, value: u64| {
        until("the day is saved", || (days()[0][column] == value).then_some(()));
    };
    fs::write(acme.join("call"), vec![1; 9000]).expect("a recording");
    saved("total_size_bytes", 9000);
    assert!(fs::write(acme.join("more"), vec![1; 2000]).is_err());
    saved("denied", 1);
    for name in ["call", "more"] {
        fs::remove_file(acme.join(name)).expect("a deletion");
    }
    fs::write(acme.join("call"), vec![1; 4000]).expect("a recording");
    saved("total_size_bytes", 4000);
    let day = days()[0].clone();
    assert_eq!(
        (&day["peak_size_bytes"], &day["peak_files"]),
        (&json!(10_000), &json!(2)),
        "{day}"
    );
    // One day is no line.
    assert!(!run(tallyfs(), &["quota", "history", text(&acme)]).contains("grows"));
    mount.stop();
    let db = rusqlite::Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    let earlier = "INSERT INTO storage_usage_log (date, tenant, total_size_bytes, created_at, updated_at)
                   VALUES (date('now', '-3 days'), 'acme', 1000, 0, 0), (date('now', '-2 days'), 'acme', 2000, 0, 0),
                          (date('now', '-1 days'), 'acme', 3000, 0, 0)";
    db.execute(earlier, []).expect("three days");
    let in_six: String = db
        .query_row("SELECT date('now', '+6 days')", [], |row| row.get(0))
        .expect("a date");
    drop(db);
    mount.start();
    let table = run(tallyfs(), &["quota", "history", text(&acme)]);
    let told = format!("grows by 1000 B a day, and is full on {in_six}");
    assert!(table.trim_end().ends_with(&told), "{table}, expected {told}");
    mount.finish();
}

#[test]
fn q46_a_dump_is_loaded_into_another_store() {
    let mount = three();
    let (acme, root) = (mount.path("acme"), mount.point());
    run(
        tallyfs(),
        &[
            "quota",
            "set",
            text(&acme),
            "max_bytes=5GiB",
            "grace=36h",
            "day.max_files=none",
        ],
    );
    run(
        tallyfs(),
        &["quota", "set", text(&mount.path("we, \"us\"")), "max_files=7"],
    );
    run(tallyfs(), &["quota", "set", text(&root), "max_files=100"]);
    let dump = run(tallyfs(), &["quota", "dump", text(&mount.store())]);
    let other = three();
    let load = |dump: &str| {
        let mut child = Command::new(tallyfs())
            .args(["quota", "load", text(&other.store())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(dump.as_bytes())
            .expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let loaded = load(&dump);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    assert_eq!(run(tallyfs(), &["quota", "dump", text(&other.store())]), dump);
    let set = &json_of(&["quota", "get", text(&other.path("acme"))])["set"];
    assert_eq!(
        set,
        &json!({"max_bytes": 5_368_709_120_u64, "grace": 129_600, "day.max_files": "none"})
    );
    let nobody = load("[{\"path\": \"/nobody\", \"limits\": {\"max_files\": 1}}]");
    let told = String::from_utf8_lossy(&nobody.stderr);
    assert!(!nobody.status.success() && told.contains("/nobody"), "{told}");
    assert!(!load("no JSON").status.success());
}

#[test]
fn without_a_daemon_it_says_what_to_do() {
    let mut mount = three();
    mount.stop();
    let asked = output(tallyfs(), &["quota", "list", text(&mount.store())], &mount.store());
    let told = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && told.contains("mount the store"), "{told}");
}
