//! What a close has to bring about although the daemon is not asked at each: whoever waits for a recording, a mapping
//! or an error gets it.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use common::command::text;
use common::{Errno, Mount, Setup, make_file, read, wait, wav};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    wav::noise(seed, 0, &mut bytes);
    bytes
}

#[test]
fn the_daemon_is_asked_at_the_first_close_and_at_no_other() {
    let mount = Setup::new().environment("RUST_LOG", "fuser=debug").mount();
    let dir = mount.dir("acme");
    for name in 0..20 {
        make_file(&dir.join(name.to_string()), 5_000);
        read(&dir.join(name.to_string()));
    }
    let log = mount.log();
    let asked = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert!(
        asked(" RELEASE ") + asked(" CREATE ") >= 20,
        "the log tells of no request:\n{log}"
    );
    assert_eq!(asked(" FLUSH "), 1);
    mount.finish();
}

/// Whether the size of a recording in the store is that of a sealed one.
fn is_sealed(mount: &Mount, path: &str) -> bool {
    let size = fs::metadata(mount.store().join("data").join(path))
        .expect("it is there")
        .len();
    common::scan::plain_len(size).is_some()
}

#[test]
fn a_recording_is_sealed_after_the_close_of_its_last_descriptor_and_not_before() {
    let mount = Mount::with_config("[durability]\ncommit_interval_s = 1\n");
    let dir = mount.dir("acme");
    let first = File::create_new(dir.join("call.wav")).unwrap();
    first.write_all_at(&noise(1, 20_000), 0).unwrap();
    let copy = first.try_clone().unwrap();
    let second = File::options().write(true).open(dir.join("call.wav")).unwrap();
    let others: [OwnedFd; 3] = [first.into(), copy.into(), second.into()];
    for (round, descriptor) in others.into_iter().enumerate() {
        // One that was closed meanwhile is sealed, so the daemon was there and left the open one alone.
        let witness = format!("acme/witness-{round}.wav");
        make_file(&mount.path(&witness), 5_000);
        wait::until("a closed one is sealed", || is_sealed(&mount, &witness).then_some(()));
        assert!(!is_sealed(&mount, "acme/call.wav"), "sealed with {} open", 3 - round);
        drop(descriptor);
    }
    wait::until("it is sealed", || is_sealed(&mount, "acme/call.wav").then_some(()));
    assert!(read(&dir.join("call.wav")) == noise(1, 20_000));
    mount.finish();
}

#[test]
fn a_close_brings_the_changes_of_a_mapping_to_the_daemon() {
    let mut mount = Mount::new();
    let path = mount.dir("acme").join("mapped");
    make_file(&path, 20_000);
    let mut program = Command::new("python3")
        .args(["-c", include_str!("common/mapped_close.py"), text(&path)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(program.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "closed\n");
    // Nothing that the kernel still holds reaches the daemon any more.
    mount.kill();
    drop(program.stdin.take());
    program.wait().unwrap();
    mount.start();
    let mut expected = noise(20_000, 20_000);
    expected[5_000..5_006].copy_from_slice(b"mapped");
    assert!(read(&path) == expected, "the change went with the daemon");
    mount.finish();
}

#[test]
fn an_error_of_an_earlier_sync_is_told_to_whoever_syncs_after_the_close() {
    let config = "[durability]\ncommit_interval_s = 60\n";
    let mount = Setup::new().failing_disk(64).config(config).mount();
    let path = mount.dir("acme").join("call.wav");
    let content = noise(3, 4 << 20);
    let mut file = File::create_new(&path).unwrap();
    let refusing = mount.disk().refuse_writes();
    file.write_all(&content).unwrap();
    let failed = |synced: std::io::Result<()>| {
        // The disk has no room below the file system, which that can tell as either.
        let error = synced.expect_err("the disk takes nothing");
        let told = Errno::from_io_error(&error);
        assert!(matches!(told, Some(Errno::IO | Errno::NOSPC)), "{error}");
    };
    failed(file.sync_all());
    drop(file);
    // The kernel told its one error of these pages, and holds them for clean.
    let file = File::options().write(true).open(&path).unwrap();
    failed(file.sync_all());
    failed(file.sync_data());
    drop(refusing);
    file.sync_all().expect("all of it is written again");
    drop(file);
    assert!(read(&path) == content);
    drop(mount);
}

#[test]
fn a_stop_waits_for_open_files_says_which_are_left_and_loses_nothing() {
    let mut mount = Mount::new();
    mount.dir("acme");
    let mut open = File::create(mount.path("acme/open.wav")).expect("a recording");
    open.write_all(&[5; 9000]).expect("a write");
    mount.terminate();
    let status = mount.wait_for_end();
    assert!(status.success(), "{status}");
    let log = mount.log();
    assert!(log.contains("files are open; waiting"), "{log}");
    let told = log
        .lines()
        .find(|line| line.contains("errors from now on"))
        .expect("which");
    assert!(told.ends_with("data/acme/open.wav"), "{told}");
    drop(open);
    mount.start();
    assert_eq!(read(&mount.path("acme/open.wav")), [5; 9000]);
    mount.finish();
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_mount_namespace_that_kept_the_mount() {
    let mut mount = Mount::new();
    let call = mount.dir("acme").join("call.wav");
    fs::write(&call, [5; 9000]).expect("room");
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "1000"])
        .spawn()
        .expect("root may");
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let process = other.id().to_string();
    wait::until("it has its own", || {
        (namespace(&process) != namespace("self")).then_some(())
    });
    mount.terminate();
    let status = mount.wait_for_end();
    other.kill().expect("it runs");
    other.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(mount.log().contains("another mount namespace"), "{}", mount.log());
    mount.start();
    assert_eq!(read(&call), [5; 9000]);
    mount.finish();
}
