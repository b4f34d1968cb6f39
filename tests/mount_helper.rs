//! `mount.tallyfs`, as mount(8) calls it: back when the mount answers, with mount's exit codes when it does not.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use common::command::{self, text};
use common::mount::{is_mounted, tallyfs};
use common::{make_file, read, run, wait};

/// Exit codes of mount(8).
const USAGE: Option<i32> = Some(1);
const MOUNT_FAILED: Option<i32> = Some(32);

/// A store, a mount point and links by which the program is the helper. What is mounted goes in the end.
struct Place {
    root: PathBuf,
    // Dropped last.
    _dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("it is there");
        for name in ["mount.tallyfs", "mount.fuse.tallyfs"] {
            symlink(tallyfs(), root.join(name)).expect("a link");
        }
        fs::create_dir(root.join("mnt")).expect("a mount point");
        Self { root, _dir: dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs a helper with these words after store and mount point.
    fn helper(&self, name: &str, words: &[&str]) -> Output {
        let (store, point) = (self.path("store"), self.path("mnt"));
        let words = [&[text(&store), text(&point)], words].concat();
        command::output(self.path(name), &words, &self.root)
    }

    #[track_caller]
    fn mount(&self, name: &str, words: &[&str]) -> String {
        let output = self.helper(name, words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(is_mounted(&self.path("mnt")), "not mounted on return: {said}");
        said
    }

    /// It must refuse with this code, and leave nothing mounted. What it said.
    #[track_caller]
    fn refused(&self, words: &[&str], code: Option<i32>) -> String {
        let output = self.helper("mount.tallyfs", words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), code, "{said}");
        assert!(!is_mounted(&self.path("mnt")), "mounted although it refused: {said}");
        said
    }

    fn status(&self) -> String {
        run(tallyfs(), &["status", text(&self.path("store")), "--json"])
    }

    #[track_caller]
    fn unmount(&self) {
        run("umount", &[text(&self.path("mnt"))]);
        wait::until("the daemon ends", || {
            self.status().contains("\"stopped\"").then_some(())
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while is_mounted(&self.path("mnt")) && unmount(self.path("mnt"), UnmountFlags::DETACH).is_ok() {}
        let is_busy = || self.path("store").is_dir() && self.status().contains("\"busy\"");
        let _ = wait::poll(|| (!is_busy()).then_some(()));
    }
}

#[test]
fn both_names_mount_in_the_background_and_return_when_it_answers() {
    let place = Place::new();
    for name in ["mount.tallyfs", "mount.fuse.tallyfs"] {
        let options = "rw,nofail,_netdev,noauto,users,exec,x-systemd.requires=/srv,comment=calls";
        place.mount(name, &["-n", "-o", options, "-t", "fuse.tallyfs"]);
        let file = place.path("mnt").join(name);
        make_file(&file, 5_000);
        assert_eq!(read(&file).len(), 5_000);
        place.unmount();
    }
}

#[test]
fn the_daemon_is_in_a_session_of_its_own_and_holds_nothing() {
    let place = Place::new();
    place.mount("mount.tallyfs", &[]);
    let status: serde_json::Value = serde_json::from_str(&place.status()).unwrap();
    let pid = status["pid"].as_u64().expect("a daemon holds the store");
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    // Behind the name in brackets: state, parent, group, session, terminal.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"), "{stat}");
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    for fd in ["0", "1"] {
        assert_eq!(fs::read_link(proc.join("fd").join(fd)).unwrap(), Path::new("/dev/null"));
    }
    place.unmount();
}

#[test]
fn files_that_options_name_count_from_where_mount_was_called() {
    let place = Place::new();
    fs::write(place.path("a,b.toml"), "[mount]\nmax_bytes = \"64KiB\"\n").unwrap();
    place.mount("mount.tallyfs", &["-o", r"config=a\,b.toml,key-file=other.key"]);
    assert!(place.path("other.key").is_file());
    assert!(!place.path("store.key").exists());
    let full = fs::write(place.path("mnt/call"), vec![1; 70_000]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "the limit of the whole mount");
    place.unmount();
}

#[test]
fn an_unknown_option_is_named() {
    let place = Place::new();
    let said = place.refused(&["-o", "rw,nosuchoption"], USAGE);
    assert!(said.contains("`nosuchoption`"), "{said}");
    assert!(!place.path("store").exists(), "nothing was made");
    place.mount("mount.tallyfs", &["-s", "-o", "rw,nosuchoption"]);
    place.unmount();
}

#[test]
fn what_the_daemon_says_is_shown_when_it_does_not_mount() {
    let place = Place::new();
    fs::write(place.path("mnt/in-the-clear"), "").unwrap();
    let said = place.refused(&[], MOUNT_FAILED);
    assert!(said.contains("not empty"), "{said}");
    fs::remove_file(place.path("mnt/in-the-clear")).unwrap();

    fs::write(place.path("t.toml"), "[mount]\nmax_byts = 5\n").unwrap();
    let said = place.refused(&["-o", "config=t.toml"], MOUNT_FAILED);
    assert!(said.contains("t.toml:2"), "{said}");

    place.mount("mount.tallyfs", &[]);
    let again = place.helper("mount.tallyfs", &[]);
    assert_eq!(again.status.code(), MOUNT_FAILED);
    place.unmount();
}

#[test]
fn a_fake_mount_checks_the_words_alone() {
    let place = Place::new();
    let output = place.helper("mount.tallyfs", &["-f", "-o", "ro"]);
    assert!(output.status.success());
    assert!(!is_mounted(&place.path("mnt")));
    assert!(!place.path("store").exists());
    place.refused(&["-f", "-o", "nosuchoption"], USAGE);
    place.refused(&["-N", "1"], USAGE);
}
