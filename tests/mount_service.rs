//! What a service manager is told by a daemon that it started.

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use common::command::text;
use common::{Mount, Setup};
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
            if !message.starts_with("STATUS=") {
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
