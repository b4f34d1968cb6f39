//! `tallyfs scrub`: stopped and gone on with, beside a mount, and over a database that is a new one.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::command::text;
use common::damage::{backing, body, flip, record, tally};
use common::mount::tallyfs;
use common::{Errno, Mount, acme_limits, read, refused, run, wait};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_scrub_that_was_stopped_goes_on_where_it_was() {
    let mut mount = Mount::new();
    for name in ["a.wav", "b.wav", "c.wav", "d.wav"] {
        record(&mount, name, 1, 400_000);
    }
    mount.stop();
    let state = mount.store().join("scrub.state");
    let mut slow = Command::new(tallyfs())
        .args(["scrub", text(&mount.store()), "--rate", "400KiB", "--json"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("it says how far it has come", || state.exists().then_some(()));
    kill_process(Pid::from_child(&slow), Signal::INT).unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(1), "stopped is not done");
    flip(&backing(&mount, "a.wav"), body(9));
    flip(&backing(&mount, "d.wav"), body(9));
    let rest = tally(&["scrub", text(&mount.store()), "--json"]).ends(8).json();
    assert_eq!(
        (&rest["recordings"], &rest["finding_count"]),
        (&4.into(), &1.into()),
        "{rest}"
    );
    assert_eq!(rest["findings"][0]["path"], "d.wav");
    assert!(!state.exists(), "a scrub that is done begins anew");
    let anew = tally(&["scrub", text(&mount.store()), "--json"]).ends(8).json();
    assert_eq!(
        (&anew["recordings"], &anew["finding_count"]),
        (&4.into(), &2.into()),
        "{anew}"
    );
}

#[test]
fn a_file_that_is_being_written_is_passed_over() {
    let mount = Mount::new();
    record(&mount, "acme/done.wav", 1, 50_000);
    let open = fs::File::create(mount.path("acme/open.wav")).unwrap();
    std::io::Write::write_all(&mut &open, &[1; 9000]).unwrap();
    let answer = tally(&["scrub", text(&mount.path("acme")), "--json"]).ends(0).json();
    assert!(answer["passed_over"].as_u64() >= Some(1), "{answer}");
    drop(open);
    mount.finish();
}

#[test]
fn a_new_database_says_that_the_baseline_is_lost_until_the_store_is_accepted() {
    let mut mount = Mount::new();
    record(&mount, "call.wav", 1, 50_000);
    mount.stop();
    let store = mount.store();
    let scrub = |mount: &Mount| tally(&["scrub", text(&mount.store()), "--json"]).ends(0).json();
    let status = |more: &[&str]| tally(&[&["status", text(&store)], more].concat()).ends(0);
    assert!(scrub(&mount)["baseline_lost_at"].is_null());
    assert!(status(&["--json"]).json()["baseline_lost_at"].is_null() && !status(&[]).text.contains("baseline"));
    for name in ["tallyfs.db", "tallyfs.db-wal", "tallyfs.db-shm"] {
        let _ = fs::remove_file(mount.store().join(name));
    }
    mount.start();
    let said = status(&[]).text;
    assert!(
        said.contains("mounted at") && said.contains("baseline: the database is new or came"),
        "{said}"
    );
    mount.stop();
    let lost_at = &scrub(&mount)["baseline_lost_at"];
    assert!(lost_at.is_u64());
    assert_eq!(&status(&["--json"]).json()["baseline_lost_at"], lost_at);
    tally(&["fsck", text(&mount.store()), "--accept", "/"]).ends(0);
    let after = scrub(&mount);
    assert!(
        after["baseline_lost_at"].is_null() && after["without_row"] == 0,
        "{after}"
    );
    assert!(status(&["--json"]).json()["baseline_lost_at"].is_null() && !status(&[]).text.contains("baseline"));
}

#[test]
fn a_database_that_cannot_be_read_is_a_finding_and_not_silence() {
    let mut mount = Mount::new();
    record(&mount, "call.wav", 1, 50_000);
    mount.stop();
    for name in ["tallyfs.db-wal", "tallyfs.db-shm"] {
        let _ = fs::remove_file(mount.store().join(name));
    }
    fs::write(mount.store().join("tallyfs.db"), vec![1; 100_000]).unwrap();
    for command in ["scrub", "fsck"] {
        let answer = tally(&[command, text(&mount.store()), "--json"]).ends(8).json();
        assert_eq!(answer["finding_count"], 1, "{command}: {answer}");
        assert_eq!(answer["findings"][0]["kind"], "database", "{command}: {answer}");
    }
}

/// Rows name inodes, and a copy has others.
#[test]
fn a_store_that_was_moved_is_readable_and_asks_to_be_accepted() {
    let mut mount = Mount::new();
    let names = ["acme/a.wav", "acme/b.wav", "c.wav"];
    let recorded: Vec<Vec<u8>> = (1..)
        .zip(names)
        .map(|(seed, name)| record(&mount, name, seed, 50_000))
        .collect();
    mount.stop();
    let copy = mount.store().with_extension("copy");
    run("cp", &["-a", text(&mount.store()), text(&copy)]);
    fs::remove_dir_all(mount.store()).unwrap();
    fs::rename(&copy, mount.store()).unwrap();
    mount.start();
    for (name, content) in names.iter().zip(&recorded) {
        assert!(&read(&mount.path(name)) == content, "{name}");
    }
    mount.stop();
    let scrub = |code| tally(&["scrub", text(&mount.store()), "--json"]).ends(code).json();
    assert!(scrub(0)["baseline_lost_at"].is_u64());
    tally(&["fsck", text(&mount.store()), "--accept", "/"]).ends(0);
    let after = scrub(0);
    assert!(
        after["baseline_lost_at"].is_null() && after["without_row"] == 0,
        "{after}"
    );
    // The rows of the old numbers are gone: nothing looks like a copy of what is there.
    assert_eq!(after["finding_count"], 0, "{after}");
}

#[test]
fn a_refused_change_leaves_a_recording_as_well_known_as_before() {
    let mount = Mount::with_config(acme_limits("max_bytes = 60000"));
    record(&mount, "acme/call.wav", 1, 50_000);
    let mut mount = mount;
    mount.remount_with(acme_limits("max_bytes = 1000"));
    let file = fs::File::options()
        .append(true)
        .open(mount.path("acme/call.wav"))
        .unwrap();
    refused(std::io::Write::write(&mut &file, &[1; 5000]), Errno::DQUOT);
    refused(file.set_len(100_000), Errno::DQUOT);
    drop(file);
    mount.stop();
    let answer = tally(&["scrub", text(&mount.store()), "--json"]).ends(0).json();
    assert_eq!(answer["without_row"], 0, "{answer}");
}
