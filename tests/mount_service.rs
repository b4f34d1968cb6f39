//! What a service manager is told by a daemon that it started.

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use common::command::{self, text};
use common::mount::{is_mounted, tallyfs};
use common::{Mount, Setup};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Who listens at `NOTIFY_SOCKET`.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        let patience = Some(Duration::from_secs(30));
        socket.set_read_timeout(patience).expect("a time limit");
        Self { dir, socket }
    }

    fn setup(&self) -> Setup {
        Setup::new().environment("NOTIFY_SOCKET", text(&self.dir.path().join("notify")))
    }

    /// The next message that is none of the status.
    #[track_caller]
    fn told(&self) -> String {
        loop {
            let mut bytes = [0; 1024];
            let length = self.socket.recv(&mut bytes).expect("the daemon says something");
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if !message.starts_with("STATUS=") && !message.starts_with("FDSTORE") {
                return message;
            }
        }
    }
}

/// `READY=1` with the number of the process.
fn ready(mount: &Mount) -> String {
    format!("READY=1\nMAINPID={}", mount.pid())
}

#[test]
fn a_manager_is_told_of_start_and_stop() {
    let manager = Manager::new();
    let mount = manager.setup().mount();
    assert_eq!(manager.told(), ready(&mount));
    mount.finish();
    let last = manager.told();
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
}

#[test]
fn an_umount_by_hand_is_told_as_the_end() {
    let manager = Manager::new();
    let mut mount = manager.setup().mount();
    assert_eq!(manager.told(), ready(&mount));
    common::run("umount", &[text(&mount.point())]);
    assert!(mount.wait_for_end().success());
    let last = manager.told();
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
}

#[test]
fn a_watchdog_is_pinged_while_the_mount_answers() {
    let manager = Manager::new();
    let mount = manager.setup().environment("WATCHDOG_USEC", "200000").mount();
    assert_eq!(manager.told(), ready(&mount));
    for _ in 0..3 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    // Covered by another mount, the daemon is as alive as before.
    let point = mount.point();
    common::run("mount", &["-t", "tmpfs", "tmpfs", text(&point)]);
    let pings: Vec<_> = (0..3).map(|_| manager.told()).collect();
    common::run("umount", &[text(Path::new(&point))]);
    assert_eq!(pings, ["WATCHDOG=1"; 3]);
    mount.finish();
}

/// `tallyfs unmount --dead`: exit code and what was said.
fn unmount_dead(point: &Path) -> (Option<i32>, String) {
    let output = command::output(tallyfs(), &["unmount", "--dead", text(point)], Path::new("/"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn only_a_dead_mount_of_ours_is_cleaned_up() {
    let mut mount = Mount::new();
    let point = mount.point();
    let (code, said) = unmount_dead(&point);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("not dead"), "{said}");
    mount.dir("acme");

    let daemon = Pid::from_raw(mount.pid().cast_signed()).unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
    assert!(!mount.wait_for_end().success());
    assert!(is_mounted(&point));
    let dead = fs::read_dir(&point).unwrap_err();
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    let (code, said) = unmount_dead(&point);
    assert_eq!(code, Some(0), "{said}");
    assert!(!is_mounted(&point), "{said}");
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);

    // A mount of somebody else is not ours to touch.
    common::run("mount", &["-t", "tmpfs", "tmpfs", text(&point)]);
    let (code, said) = unmount_dead(&point);
    fs::write(point.join("theirs"), "").unwrap();
    common::run("umount", &[text(&point)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no mount of tallyfs"), "{said}");
    mount.start();
    assert!(mount.path("acme").is_dir());
    mount.finish();
}
