//! An ordinary user mounts for itself through fusermount3: its tools work, nobody else gets in.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use common::command::{self, text};
use common::{Mount, Setup, make_file, run};

/// nobody, in most systems; any number without rights does.
const USER: u32 = 65_534;

/// A mount of a user without rights. Started by root it changes over; started by such a user it is that user.
fn mount_as_user() -> Mount {
    if rustix::process::geteuid().is_root() {
        Setup::new().user(USER).mount()
    } else {
        Mount::new()
    }
}

/// Runs a shell line where the mount of `daemon` can be seen, as `user`.
fn shell_as(user: u32, daemon: Option<&Mount>, line: &str, argument: &Path) -> std::process::Output {
    let arguments = ["sh", "-c", line, "sh", text(argument)];
    if !rustix::process::geteuid().is_root() {
        return command::output(arguments[0], &arguments[1..], Path::new("/"));
    }
    let namespace = daemon.map(|mount| format!("--mount=/proc/{}/ns/mnt", mount.pid()));
    let id = user.to_string();
    let mut words: Vec<&str> = namespace.iter().map(String::as_str).collect();
    words.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    words.extend(arguments);
    let program = if daemon.is_some() { "nsenter" } else { words.remove(0) };
    command::output(program, &words, Path::new("/"))
}

#[test]
fn a_user_without_rights_mounts_and_copies() {
    let mount = mount_as_user();
    let native = mount.native("sample");
    make_file(&native.join("call.wav"), 160_044);
    fs::create_dir(native.join("below")).unwrap();
    make_file(&native.join("below/second.wav"), 5_000);
    run("chmod", &["-R", "a+rX", text(&native)]);
    let line = "cp -r \"$1/sample\" \"$1/mnt/copied\" && diff -r \"$1/sample\" \"$1/mnt/copied\" && ls -l \"$1/mnt\" \
                && mv \"$1/mnt/copied/below\" \"$1/mnt/moved\" && rm \"$1/mnt/copied/call.wav\" && df \"$1/mnt\" && ls -R \"$1/mnt\"";
    let root = mount.point().parent().expect("a mount point lies somewhere").to_owned();
    let output = shell_as(USER, Some(&mount), line, &root);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let backing = mount.store().join("data/moved/second.wav").metadata().unwrap();
    let expected = if rustix::process::geteuid().is_root() {
        USER
    } else {
        rustix::process::geteuid().as_raw()
    };
    assert_eq!(backing.uid(), expected);
    assert_eq!(
        mount.store().metadata().unwrap().permissions().mode() & 0o077,
        0,
        "others cannot look into the store"
    );
}

#[test]
fn another_user_is_denied() {
    let mount = mount_as_user();
    let root = mount.point().parent().expect("a mount point lies somewhere").to_owned();
    let line = "echo secret >\"$1/mnt/file\" && chmod 777 \"$1/mnt\" && cat \"$1/mnt/file\"";
    let made = shell_as(USER, Some(&mount), line, &root);
    assert_eq!(made.stdout, b"secret\n", "{}", String::from_utf8_lossy(&made.stderr));
    if rustix::process::geteuid().is_root() {
        // Not even root gets into the mount of another user.
        for other in [USER - 1, 0] {
            let denied = shell_as(other, Some(&mount), "LC_ALL=C cat \"$1/mnt/file\"", &root);
            assert_eq!(denied.stdout, b"", "user {other}");
            let said = String::from_utf8_lossy(&denied.stderr);
            assert!(said.contains("Permission denied"), "user {other}: {said}");
        }
    }
    mount.finish();
}

#[test]
fn permissions_hold_between_users_of_a_shared_mount() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be two users.
        return;
    }
    let mount = Setup::new().arguments(&["-o", "allow_other"]).mount();
    run(
        "chmod",
        &["755", text(mount.point().parent().expect("it lies somewhere"))],
    );
    make_file(&mount.path("private"), 1_000);
    make_file(&mount.path("public"), 1_000);
    fs::set_permissions(mount.path("private"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(mount.path("public"), fs::Permissions::from_mode(0o644)).unwrap();
    let tenant = mount.dir("acme");
    chown(&tenant, Some(USER), Some(USER)).unwrap();
    let ok = |line: &str| shell_as(USER, None, line, &mount.point()).status.success();
    assert!(ok("cat \"$1/public\" >/dev/null"));
    assert!(!ok("cat \"$1/private\" >/dev/null"));
    assert!(!ok("echo x >>\"$1/public\""));
    assert!(!ok("rm -f \"$1/public\""));
    assert!(!ok("mkdir \"$1/globex\""));
    assert!(ok(
        "mkdir -p \"$1/acme/2026\" && echo audio >\"$1/acme/2026/call\" && mv \"$1/acme/2026/call\" \"$1/acme/moved\""
    ));
    let meta = mount.path("acme/moved").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.len()), (USER, USER, 6));
    mount.finish();
}

/// A recorder in the namespace of the daemon that writes, says so, and keeps its file open until it gets a line.
fn open_recording(mount: &Mount, path: &Path) -> std::process::Child {
    let mut recorder = Command::new("nsenter")
        .arg(format!("--mount=/proc/{}/ns/mnt", mount.pid()))
        .args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args([
            "sh",
            "-c",
            "exec 3>\"$1\" && printf open >&3 && echo written && read line",
            "sh",
        ])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a recorder");
    let mut said = String::new();
    let output = recorder.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut said).expect("a line");
    assert_eq!(said, "written\n");
    recorder
}

#[test]
fn a_stop_whose_unmount_fails_ends_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        // Only root can put another program in the place of fusermount3.
        return;
    }
    let mut mount = mount_as_user();
    let root = mount.point().parent().expect("a mount point lies somewhere").to_owned();
    let closed = "printf closed >\"$1/mnt/closed\"";
    assert!(shell_as(USER, Some(&mount), closed, &root).status.success());
    let mut recorder = open_recording(&mount, &mount.path("open"));
    let helper = root.join("refuses");
    fs::write(&helper, "#!/bin/sh\necho cannot open /etc/mtab >&2\nexit 1\n").unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let namespace = format!("--mount=/proc/{}/ns/mnt", mount.pid());
    let bind = ["mount", "--bind", text(&helper), "/usr/bin/fusermount3"];
    run("nsenter", &[&[namespace.as_str()], &bind[..]].concat());

    mount.terminate();
    let status = mount.wait_for_end();
    assert!(!status.success(), "it says that the mount was left: {status}");
    let log = mount.log();
    assert!(log.contains("cannot open /etc/mtab"), "{log}");
    assert!(log.contains("fusermount3 -uz"), "what to do: {log}");
    let input = recorder.stdin.as_mut().expect("piped");
    input.write_all(b"\n").expect("it waits for a line");
    recorder.wait().expect("it ends");

    // The namespace of the old mount went with its last user.
    mount.start();
    let shown = shell_as(USER, Some(&mount), "cat \"$1/mnt/closed\" \"$1/mnt/open\"", &root);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "closedopen", "{}", mount.log());
    mount.finish();
}
