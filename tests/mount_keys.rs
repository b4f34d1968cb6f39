//! Keys: given in several ways and several at once, added, changed for another, destroyed; and where they are in memory.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
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
fn a_left_over_key_file_and_a_tenant_that_is_none_change_nothing() {
    let mut mount = Mount::new();
    let content = record(&mount, "acme/a.wav", 1, 5_000);
    mount.stop();
    for tenant in ["./acme", "acme/../acme", "", "/", "nobody", "acme/a.wav"] {
        tally(&["keys", "add", text(&mount.store()), "--tenant", tenant]).ends(2);
    }
    mount.start();
    let elsewhere = mount.native("keys").join("second.key");
    let said = tally(&["keys", "add", text(&mount.store()), "--out", text(&elsewhere)]).ends(0);
    assert!(said.errors.contains("has to be given"), "{}", said.errors);
    // What an `add` left that was stopped before the ring knew its key.
    let left = PathBuf::from(format!("{}.2", mount.key_file().display()));
    fs::write(&left, "ab".repeat(32)).unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o400)).unwrap();
    let (first, second) = (mount.key_file(), elsewhere);
    mount.remount_as(&["--key-file", text(&first), "--key-file", text(&second)]);
    assert!(mount.log().contains("is none of this store's keys"), "{}", mount.log());
    assert_eq!(read(&mount.path("acme/a.wav")), content);
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

/// Bytes that are looked through at once.
const CHUNK: usize = 1 << 20;

/// A mapping that holds what was looked for.
struct Holder {
    /// As `smaps` has it.
    line: String,
    flags: String,
}

impl Holder {
    fn is_protected(&self) -> bool {
        let has = |flag: &str| self.flags.split(' ').any(|had| had == flag);
        has("lo") && has("dd")
    }
}

/// Every mapping of a process that can be read and holds these bytes.
fn holders(pid: u32, wanted: &[u8]) -> Vec<Holder> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the mappings");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("the memory; is ptrace restricted?");
    let (mut found, mut line) = (Vec::new(), "");
    let mut looked_at = 0_u64;
    for row in smaps.lines() {
        let Some(flags) = row.strip_prefix("VmFlags:") else {
            if row.split(' ').next().is_some_and(|range| range.contains('-')) {
                line = row;
            }
            continue;
        };
        let mut words = line.split(' ');
        let (from, to) = words.next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        if words.next().is_some_and(|rights| rights.starts_with('r'))
            && holds(&memory, number(from), number(to), wanted)
        {
            found.push(Holder {
                line: line.to_owned(),
                flags: flags.trim().to_owned(),
            });
        }
        looked_at += 1;
    }
    assert!(looked_at > 20, "only {looked_at} mappings");
    found
}

fn holds(memory: &File, from: u64, to: u64, wanted: &[u8]) -> bool {
    let mut buffer = vec![0; CHUNK + wanted.len()];
    let mut at = from;
    while at < to {
        let len = buffer.len().min((to - at) as usize);
        // Not every mapping can be read: `vvar` for one.
        let Ok(got) = memory.read_at(&mut buffer[..len], at) else {
            return false;
        };
        if buffer[..got].windows(wanted.len()).any(|window| window == wanted) {
            return true;
        }
        at += CHUNK as u64;
    }
    false
}

#[test]
fn a_key_is_in_locked_memory_alone_and_gone_when_it_is_destroyed() {
    let mount = Mount::new();
    let hex = fs::read_to_string(mount.key_file()).expect("the key");
    let hex = hex.trim();
    let key: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex digits"))
        .collect();
    for n in 0..20 {
        record(&mount, &format!("acme/{n}.wav"), n, 20_000);
        fs::read(mount.path(&format!("acme/{n}.wav"))).expect("a recording");
    }
    let lines = |found: &[Holder]| -> Vec<String> {
        found
            .iter()
            .map(|holder| format!("{} {}", holder.line, holder.flags))
            .collect()
    };
    let found = holders(mount.pid(), &key);
    assert!(!found.is_empty(), "it has to be somewhere, or the search is wrong");
    assert!(found.iter().all(Holder::is_protected), "{:?}", lines(&found));
    let text_found = holders(mount.pid(), hex.as_bytes());
    assert!(text_found.is_empty(), "{:?}", lines(&text_found));
    tally(&["keys", "rotate", text(&mount.store())]).ends(0);
    tally(&["keys", "destroy", text(&mount.store()), "1", "--yes-destroy", "1"]).ends(0);
    let found = holders(mount.pid(), &key);
    assert!(found.is_empty(), "{:?}", lines(&found));
    mount.finish();
}
