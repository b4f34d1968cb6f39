//! Keys of a mounted store: changed while recordings go on, over a kill, and a tenant with keys of its own.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use common::command::text;
use common::damage::{record, tally};
use common::http::{get, post};
use common::mount::tallyfs;
use common::wait::until;
use common::{Errno, Mount, RULES, read, refused};
use serde_json::{Value, json};

fn rotation(mount: &Mount) -> Value {
    get(mount, "/api/v1/keys").is(200).json()["rotation"].take()
}

/// Recordings under each key, by its number.
fn counts(mount: &Mount) -> Vec<(u64, u64)> {
    let told = tally(&["keys", "list", text(&mount.store()), "--json"]).ends(0).json();
    let keys = told["keys"].as_array().expect("a list");
    keys.iter()
        .map(|key| {
            let number = |name: &str| key[name].as_u64().expect("a number");
            (number("id"), number("recordings"))
        })
        .collect()
}

/// Counts rows of the database.
fn rows(mount: &Mount, query: &str) -> i64 {
    let db = rusqlite::Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    db.query_row(query, [], |row| row.get(0)).expect("a count")
}

fn begin(mount: &Mount, words: &[&str]) -> Child {
    Command::new(tallyfs())
        .args(words)
        .arg(mount.store())
        .stdout(Stdio::null())
        .spawn()
        .expect("tallyfs")
}

fn end(mut child: Child) -> ExitStatus {
    child.wait().expect("an end")
}

fn many(mount: &Mount, count: u64) -> Vec<(PathBuf, Vec<u8>)> {
    (0..count)
        .map(|i| {
            let name = format!("acme/{}/{i}.wav", i % 7);
            let content = record(mount, &name, i, 5_000);
            (mount.path(&name), content)
        })
        .collect()
}

#[test]
fn recordings_go_on_while_all_are_brought_under_a_new_key() {
    let mut mount = Mount::new();
    let mut all = many(&mount, 300);
    // Sealed, and hashed: hashing writes rows too, under the key of then.
    mount.remount();
    let hashed = "SELECT count(*) FROM sealed WHERE content_sha256 <> zeroblob(32)";
    until("all is hashed", || (rows(&mount, hashed) == 300).then_some(()));
    assert_eq!(rows(&mount, "SELECT count(*) FROM place WHERE key_id = 1"), 300);
    let path = mount.path("acme/live.wav");
    let mut live = File::create(&path).expect("a recording");
    let mut said = vec![1; 70_000];
    live.write_all(&said).expect("a write");
    let heard = File::open(&all[5].0).expect("a reader");
    let rotate = begin(&mount, &["keys", "rotate"]);
    let told = until("all but the one that is written", || {
        Some(rotation(&mount)).filter(|told| told["state"] == "waiting")
    });
    assert_eq!((&told["open"], &told["changed"]), (&json!(1), &json!(300)), "{told}");
    live.write_all(&vec![2; 30_000]).expect("a write");
    said.extend(vec![2; 30_000]);
    assert_eq!(read(&path), said, "read while it is written, under the old key");
    all.push((mount.path("acme/new.wav"), record(&mount, "acme/new.wav", 900, 9_000)));
    drop(live);
    all.push((path, said));
    assert!(end(rotate).success());
    assert_eq!(rotation(&mount)["state"], "done");
    assert_eq!(counts(&mount), [(1, 0), (2, 302)]);
    drop(heard);
    for table in ["sealed", "place"] {
        let old = format!("SELECT count(*) FROM {table} WHERE key_id = 1");
        assert_eq!(rows(&mount, &old), 0, "{table}");
    }
    tally(&["keys", "destroy", text(&mount.store()), "1", "--yes-destroy", "1"]).ends(0);
    assert!(!mount.key_file().exists());
    for (path, content) in &all {
        assert_eq!(&read(path), content, "{}", path.display());
    }
    // Rows of the database bear the new key's code, or these would be told.
    mount.stop();
    tally(&["fsck", text(&mount.store())]).ends(0);
    let scrub = tally(&["scrub", text(&mount.store())]).ends(0);
    assert!(scrub.text.contains("nothing wrong"), "{}", scrub.text);
    mount.start();
    for (path, content) in &all {
        assert_eq!(&read(path), content, "{}", path.display());
    }
    mount.finish();
}

#[test]
fn a_rotation_that_is_killed_goes_on_at_the_next_start() {
    let mut mount = Mount::new();
    let all = many(&mount, 1500);
    mount.remount();
    let rotate = begin(&mount, &["keys", "rotate"]);
    until("some are moved", || (counts(&mount).get(1)?.1 > 3).then_some(()));
    mount.kill();
    assert!(counts(&mount)[0].1 > 0, "killed too late to show anything");
    assert!(mount.store().join("rewrap").exists());
    mount.start();
    // Whoever waits is told by the next daemon.
    assert!(end(rotate).success());
    assert_eq!(rotation(&mount)["state"], "done");
    assert_eq!(counts(&mount), [(1, 0), (2, 1500)]);
    assert!(!mount.store().join("rewrap").exists());
    for (path, content) in &all {
        assert_eq!(&read(path), content, "{}", path.display());
    }
    mount.stop();
    tally(&["fsck", text(&mount.store())]).ends(0);
    mount.start();
    mount.finish();
}

#[test]
fn a_tenant_has_a_key_of_its_own_and_is_erased_with_it() {
    let mut mount = Mount::with_config(RULES);
    let old = record(&mount, "acme/old.wav", 1, 50_000);
    let others = record(&mount, "other/a.wav", 2, 50_000);
    let add = tally(&["keys", "add", text(&mount.store()), "--tenant", "nobody"]).ends(2);
    assert!(add.errors.contains("nobody"), "{}", add.errors);
    // In memory since before there was a key for its tenant.
    let heard = File::open(mount.path("acme/old.wav")).expect("a reader");
    let empty = File::create(mount.path("acme/empty.wav")).expect("a recording");
    tally(&["keys", "rotate", text(&mount.store()), "--tenant", "acme"]).ends(0);
    drop(heard);
    (&empty).write_all(&[7; 5000]).expect("a write");
    drop(empty);
    let new = record(&mount, "acme/new.wav", 3, 50_000);
    record(&mount, "other/b.wav", 4, 50_000);
    mount.remount();
    assert_eq!(counts(&mount), [(1, 2), (2, 3)], "those of before are under it too");
    fs::remove_file(mount.path("acme/empty.wav")).expect("a deletion");
    // A recording stays with whose key it is under: moving it there is a copy.
    refused(
        fs::rename(mount.path("acme/new.wav"), mount.path("other/new.wav")),
        Errno::XDEV,
    );
    refused(fs::rename(mount.path("acme"), mount.path("beta")), Errno::XDEV);
    refused(
        fs::hard_link(mount.path("acme/new.wav"), mount.path("other/new.wav")),
        Errno::XDEV,
    );
    fs::rename(mount.path("acme/new.wav"), mount.path("acme/moved.wav")).expect("within the tenant");
    let moved = Command::new("mv")
        .args([mount.path("acme/moved.wav"), mount.path("other/")])
        .status();
    assert!(moved.expect("mv").success());
    assert_eq!(counts(&mount), [(1, 3), (2, 1)]);
    assert_eq!(read(&mount.path("acme/old.wav")), old);
    let destroy = |more: &[&str]| tally(&[&["keys", "destroy", text(&mount.store()), "2"], more].concat());
    destroy(&["--yes-destroy", "2"]).ends(6);
    destroy(&["--with-recordings", "--yes-destroy", "2"]).ends(0);
    refused(fs::read(mount.path("acme/old.wav")), Errno::KEYREVOKED);
    assert_eq!(read(&mount.path("other/moved.wav")), new);
    assert_eq!(read(&mount.path("other/a.wav")), others);
    // Its next recordings are under the store's key; what is given up stands in nobody's way.
    record(&mount, "acme/after.wav", 5, 5_000);
    tally(&["keys", "rewrap", text(&mount.store())]).ends(0);
    assert_eq!(counts(&mount), [(1, 4), (2, 1)]);
    mount.remount();
    refused(fs::read(mount.path("acme/old.wav")), Errno::KEYREVOKED);
    mount.finish();
}

#[test]
fn what_is_no_key_and_who_may_not_are_refused_and_nothing_changes() {
    let mount = Mount::new();
    record(&mount, "a.wav", 1, 5_000);
    let wrong = mount.native("keys").join("wrong.key");
    fs::write(&wrong, "not a key").expect("a file");
    for (file, text) in [
        (text(&wrong), "0400"),
        ("/nowhere/key", "nowhere"),
        (text(&mount.key_file()), "already"),
    ] {
        let answer = post(&mount, "/api/v1/keys", &json!({ "file": file })).is(409).json();
        assert!(
            answer["detail"].as_str().is_some_and(|detail| detail.contains(text)),
            "{answer}"
        );
    }
    post(&mount, "/api/v1/keys/destroy", &json!({"id": 1, "confirm": 2})).is(400);
    post(&mount, "/api/v1/keys/destroy", &json!({"id": 1, "confirm": 1})).is(409);
    post(&mount, "/api/v1/keys/destroy", &json!({"id": 9, "confirm": 9})).is(409);
    assert_eq!(counts(&mount), [(1, 1)]);
    tally(&["keys", "add", text(&mount.store())]).ends(0);
    let needed = post(&mount, "/api/v1/keys/destroy", &json!({"id": 1, "confirm": 1}))
        .is(409)
        .json();
    assert!(
        needed["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("1 recordings")),
        "{needed}"
    );
    assert_eq!(counts(&mount), [(1, 1), (2, 0)]);
    let told = get(&mount, "/api/v1/keys").is(200).json();
    assert_eq!(told["rotation"]["state"], "none");
    assert_eq!(told["next_file"], format!("{}.3", mount.key_file().display()));
    mount.finish();
}
