//! What somebody plants in the backing tree leads the daemon nowhere: not out of the store, not into another's file.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::command::{succeeds, text};
use common::{Errno, Mount, names, read, refused, run, wait};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with, unlinkat};

/// A directory beside the store whose content nobody may see or change through the mount.
struct Outside {
    dir: PathBuf,
}

const SECRET: &[u8] = b"not a recording, and none of the daemon's business";

impl Outside {
    fn new(mount: &Mount) -> Self {
        let dir = mount.native("outside");
        fs::write(dir.join("secret"), SECRET).unwrap();
        fs::create_dir(dir.join("below")).unwrap();
        Self { dir }
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(names(&self.dir), ["below", "secret"]);
        assert!(names(&self.dir.join("below")).is_empty());
        assert_eq!(read(&self.dir.join("secret")), SECRET);
    }
}

fn data(mount: &Mount, relative: &str) -> PathBuf {
    mount.store().join("data").join(relative)
}

#[test]
fn planted_links_are_links_and_lead_nowhere() {
    let mut mount = Mount::new();
    mount.dir("acme");
    let outside = Outside::new(&mount);
    symlink(&outside.dir, data(&mount, "acme/absolute")).unwrap();
    symlink("../../../outside", data(&mount, "acme/upwards")).unwrap();
    symlink(outside.dir.join("secret"), data(&mount, "acme/call.wav")).unwrap();
    for round in ["planted while mounted", "there at a start"] {
        for name in ["absolute", "upwards", "call.wav"] {
            let kind = fs::symlink_metadata(mount.path("acme").join(name)).unwrap().file_type();
            assert!(kind.is_symlink(), "{name} {round}");
        }
        // "../../../outside" means what it means to the client: three levels above acme in its own tree.
        assert!(fs::read_dir(mount.path("acme/upwards")).is_err(), "{round}");
        // A scan counts three links, and nothing behind them.
        mount.kill();
        fs::remove_file(mount.store().join("tallyfs.db")).unwrap();
        mount.start();
        let usage = mount.usage();
        assert_eq!(usage.tenants["acme"].files, 3, "{round}");
        assert_eq!(usage.tenants["acme"].dirs, 0, "{round}");
    }
    run("rm", &["-r", text(&mount.path("acme"))]);
    outside.assert_untouched();
    mount.finish();
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let mount = Mount::new();
    let inside = mount.dir("acme/sales");
    let outside = Outside::new(&mount);
    let open = File::open(&inside).unwrap();
    fs::rename(data(&mount, "acme/sales"), data(&mount, "moved")).unwrap();
    symlink(&outside.dir, data(&mount, "acme/sales")).unwrap();
    // The kernel still knows the directory by its inode, and so does the daemon.
    let through = PathBuf::from(format!(
        "/proc/self/fd/{}/call.wav",
        std::os::fd::AsRawFd::as_raw_fd(&open)
    ));
    fs::write(&through, b"audio").unwrap();
    assert_eq!(names(&data(&mount, "moved")), ["call.wav"]);
    let _ = fs::write(mount.path("acme/sales/second.wav"), b"audio");
    let _ = fs::read(mount.path("acme/sales/secret")).map(|seen| assert_ne!(seen, SECRET));
    outside.assert_untouched();
}

#[test]
fn a_race_between_a_directory_and_a_link_is_never_won() {
    let mount = Mount::new();
    mount.dir("acme/sales");
    let outside = Outside::new(&mount);
    let (a, b) = (data(&mount, "acme/sales"), data(&mount, "acme/trap"));
    symlink(&outside.dir, &b).unwrap();
    let done = AtomicBool::new(false);
    let rounds = 1_000;
    std::thread::scope(|scope| {
        let over = wait::Over(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
            }
        });
        for n in 0..rounds {
            for name in ["sales", "trap"] {
                let dir = mount.path("acme").join(name);
                // Whether a name is a link or a directory just now is the client's to see; it may follow a link itself
                // with its own rights, so it asks not to.
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY;
                let Ok(dir) = rustix::fs::open(&dir, flags, Mode::empty()) else {
                    continue;
                };
                let wanted = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW;
                let _ = openat(&dir, format!("new-{n}"), wanted, Mode::from_raw_mode(0o644));
                let seen = openat(&dir, "secret", OFlags::RDONLY, Mode::empty());
                assert!(seen.is_err(), "round {n}: the secret was opened through the mount");
                let _ = mkdirat(&dir, "made", Mode::from_raw_mode(0o755));
                let _ = unlinkat(&dir, "secret", AtFlags::empty());
            }
        }
        drop(over);
    });
    outside.assert_untouched();
    let made = if a.symlink_metadata().unwrap().is_symlink() {
        &b
    } else {
        &a
    };
    assert!(names(made).len() > 100, "the race left the clients nothing to do");
}

#[test]
fn a_planted_hard_link_to_a_strange_file_is_damage_and_changes_nothing() {
    let mount = Mount::new();
    mount.dir("acme");
    let outside = Outside::new(&mount);
    fs::hard_link(outside.dir.join("secret"), data(&mount, "acme/call.wav")).unwrap();
    let path = mount.path("acme/call.wav");
    refused(fs::read(&path), Errno::IO);
    refused(File::options().write(true).open(&path), Errno::IO);
    refused(File::create(&path), Errno::IO);
    refused(File::options().append(true).open(&path), Errno::IO);
    refused(
        rustix::fs::open(&path, OFlags::RDWR | OFlags::TRUNC, Mode::empty()).map_err(std::io::Error::from),
        Errno::IO,
    );
    assert!(
        !succeeds("truncate", &["-s", "0", text(&path)]),
        "truncate(2) by path was allowed"
    );
    assert!(mount.log().contains("damaged"), "nobody was told");
    fs::remove_file(&path).unwrap();
    outside.assert_untouched();
}

#[test]
fn planted_devices_and_pipes_block_nobody() {
    let mut mount = Mount::new();
    mount.dir("acme");
    run("mkfifo", &[text(&data(&mount, "acme/call.wav"))]);
    run("mknod", &[text(&data(&mount, "acme/device")), "c", "1", "5"]);
    mount.kill();
    fs::remove_file(mount.store().join("tallyfs.db")).unwrap();
    mount.start();
    let pipe = fs::symlink_metadata(mount.path("acme/call.wav")).unwrap();
    assert!(pipe.file_type().is_fifo());
    // Mounted nodev: the device is a name and no more.
    refused(File::open(mount.path("acme/device")), Errno::ACCESS);
    fs::write(mount.path("acme/second.wav"), b"audio").unwrap();
    assert_eq!(mount.usage().tenants["acme"].files, 3);
    run("rm", &["-r", text(&mount.path("acme"))]);
    mount.finish();
}
