//! Keys: given in several ways and several at once, added, changed for another, destroyed.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::command::text;
use common::damage::{backing, record, tally};
use common::mount::tallyfs;
use common::{Errno, Mount, Setup, read, refused, wait};
use rustix::process::{Pid, Signal, kill_process};

/// A mount that was stopped, with a second key, which is current.
fn with_two_keys() -> (Mount, PathBuf, Vec<u8>) {
    let mut mount = Mount::new();
    let old = record(&mount, "acme/old.wav", 1, 50_000);
    mount.stop();
    tally(&["keys", "add", text(&mount.store())]).ends(0);
    let second = PathBuf::from(format!("{}.2", mount.key_file().display()));
    assert_eq!(second.metadata().unwrap().mode() & 0o7777, 0o400);
    (mount, second, old)
}

fn keys(mount: &Mount) -> serde_json::Value {
    tally(&["keys", "list", text(&mount.store()), "--json"]).ends(0).json()["keys"].take()
}

#[test]
fn a_new_key_seals_new_recordings_and_the_old_one_still_opens() {
    let (mut mount, _, old) = with_two_keys();
    mount.start();
    let new = record(&mount, "acme/new.wav", 2, 50_000);
    assert_eq!(read(&mount.path("acme/old.wav")), old);
    mount.remount();
    assert_eq!(read(&mount.path("acme/new.wav")), new);
    let keys = keys(&mount);
    let row = |id: usize| (&keys[id]["state"], &keys[id]["recordings"], &keys[id]["given"]);
    assert_eq!(row(0), (&"retired".into(), &1.into(), &true.into()), "{keys}");
    assert_eq!(row(1), (&"active".into(), &1.into(), &true.into()), "{keys}");
    mount.finish();
}

#[test]
fn recordings_under_a_missing_key_are_refused_by_its_number_and_others_are_read() {
    let (mut mount, second, _) = with_two_keys();
    let hidden = mount.key_file().with_extension("hidden");
    fs::rename(mount.key_file(), &hidden).unwrap();
    mount.start();
    let new = record(&mount, "acme/new.wav", 2, 50_000);
    assert_eq!(read(&mount.path("acme/new.wav")), new);
    refused(fs::read(mount.path("acme/old.wav")), Errno::NOKEY);
    assert!(
        mount.log().contains("key 1 is needed and was not given"),
        "{}",
        mount.log()
    );
    mount.stop();
    // The other way round nothing could be recorded.
    fs::rename(&hidden, mount.key_file()).unwrap();
    fs::rename(&second, &hidden).unwrap();
    let said = tally(&["mount", text(&mount.store()), text(&mount.point())]).ends(6);
    assert!(said.errors.contains("key 2"), "{}", said.errors);
}

#[test]
fn rewrapping_brings_everything_under_the_new_key_and_goes_on_after_a_kill() {
    let mut mount = Mount::new();
    let contents: Vec<_> = (0..300)
        .map(|i| record(&mount, &format!("acme/{i}.wav"), i, 5_000))
        .collect();
    mount.stop();
    tally(&["keys", "add", text(&mount.store())]).ends(0);
    let modified = || backing(&mount, "acme/7.wav").metadata().unwrap().mtime_nsec();
    let before = modified();
    let mut killed = Command::new(tallyfs())
        .args(["keys", "rewrap", text(&mount.store())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let moved = || keys(&mount)[1]["recordings"].as_u64().unwrap();
    wait::until("some are moved", || (moved() > 3).then_some(()));
    kill_process(Pid::from_child(&killed), Signal::KILL).unwrap();
    killed.wait().unwrap();
    let at_kill = moved();
    assert!(at_kill < 300, "killed too late to show anything");
    let rest = tally(&["keys", "rewrap", text(&mount.store()), "--json"])
        .ends(0)
        .json();
    assert_eq!(rest["complete"], true, "{rest}");
    assert!(rest["changed"].as_u64().unwrap() < 300, "it began anew: {rest}");
    assert_eq!(modified(), before, "the recording did not change");
    assert_eq!(keys(&mount)[0]["recordings"], 0);
    // Nothing needs the old key, the rows of the database neither.
    tally(&["keys", "destroy", text(&mount.store()), "1", "--yes-destroy", "1"]).ends(0);
    assert!(!mount.key_file().exists(), "its file is gone");
    tally(&["fsck", text(&mount.store())]).ends(0);
    mount.start();
    for (i, content) in contents.iter().enumerate() {
        assert_eq!(&read(&mount.path(&format!("acme/{i}.wav"))), content, "{i}");
    }
    mount.finish();
}

#[test]
fn destroying_is_asked_twice_and_makes_recordings_unreadable_for_ever() {
    let (mut mount, _, _) = with_two_keys();
    let (store, key) = (mount.store(), fs::read(mount.key_file()).unwrap());
    let destroy = |more: &[&str]| tally(&[&["keys", "destroy", text(&store), "1"], more].concat());
    assert!(
        destroy(&["--yes-destroy", "1"])
            .ends(6)
            .errors
            .contains("1 recordings are under key 1")
    );
    destroy(&["--with-recordings"]).ends(2);
    destroy(&["--with-recordings", "--yes-destroy", "2"]).ends(2);
    tally(&[
        "keys",
        "destroy",
        text(&store),
        "2",
        "--with-recordings",
        "--yes-destroy",
        "2",
    ])
    .ends(6);
    assert_eq!(fs::read(mount.key_file()).unwrap(), key, "nothing was done");
    destroy(&["--with-recordings", "--yes-destroy", "1"]).ends(0);
    assert!(!mount.key_file().exists());
    let row = &keys(&mount)[0];
    assert!(row["state"] == "destroyed" && row["destroyed_at"].is_string(), "{row}");
    // A copy of it does not help.
    fs::write(mount.key_file(), &key).unwrap();
    let copy = mount.native("keys").join("copy.key");
    fs::write(&copy, &key).unwrap();
    for path in [&mount.key_file(), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    let point = mount.point();
    let alone = ["mount", text(&store), text(&point), "--key-file", text(&copy)];
    let said = tally(&alone).ends(6);
    assert!(said.errors.contains("key 1 was destroyed"), "{}", said.errors);
    mount.start();
    assert!(
        mount.log().contains("key 1 was destroyed and is not used"),
        "{}",
        mount.log()
    );
    refused(fs::read(mount.path("acme/old.wav")), Errno::KEYREVOKED);
    mount.stop();
    destroy(&["--with-recordings", "--yes-destroy", "1"]).ends(0);
    assert!(!mount.key_file().exists());
    mount.start();
    refused(fs::read(mount.path("acme/old.wav")), Errno::KEYREVOKED);
    assert!(mount.log().contains("key 1 was destroyed"), "{}", mount.log());
    mount.stop();
}

#[test]
fn one_recovery_copy_opens_everything_and_is_written_once() {
    let (mut mount, second, old) = with_two_keys();
    let copy = mount.native("safe").join("recovery.key");
    let export = || tally(&["keys", "export-recovery", text(&mount.store()), "--out", text(&copy)]);
    let said = export().ends(0);
    assert!(said.errors.contains("can read every recording"), "{}", said.errors);
    assert_eq!(copy.metadata().unwrap().mode() & 0o7777, 0o400);
    export().ends(2);
    mount.start();
    fs::remove_file(mount.key_file()).unwrap();
    fs::remove_file(second).unwrap();
    mount.remount_as(&["--key-file", text(&copy)]);
    assert_eq!(read(&mount.path("acme/old.wav")), old);
    mount.finish();
}

#[test]
fn a_command_and_a_credential_give_the_key() {
    let mut mount = Mount::new();
    let content = record(&mount, "a.wav", 1, 5_000);
    let dir = mount.native("credentials");
    let credential = dir.join("tallyfs.key");
    fs::rename(mount.key_file(), &credential).unwrap();
    mount.remount_as(&["--key-command", &format!("/bin/cat {}", text(&credential))]);
    assert_eq!(read(&mount.path("a.wav")), content);
    mount.stop();
    let list = Command::new(tallyfs())
        .args(["keys", "list", text(&mount.store())])
        .env("CREDENTIALS_DIRECTORY", &dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(said.contains("active") && said.trim_end().ends_with("yes"), "{said}");
    let mounted = Setup::new().environment("CREDENTIALS_DIRECTORY", text(&dir)).mount();
    assert!(!mounted.key_file().exists(), "the credential is its key");
    mounted.finish();
}
