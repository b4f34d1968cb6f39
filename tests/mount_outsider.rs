//! A user without rights gets at no recording and no key: not by the mount, the store, the daemon's process, a
//! descriptor, or a race. Only root can be several users, so these tests need root.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::user::{as_user, is_root, open_the_way_to};
use common::{Errno, Mount, Setup, make_file, refused, wait, wav};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with};

/// nobody, in most systems; any number without rights does.
const USER: u32 = 65_534;

/// A mount for everybody, with a recording that only root may read.
fn shared_mount() -> Mount {
    assert!(is_root(), "only root can be several users: run the tests as root");
    let mount = Setup::new().arguments(&["-o", "allow_other"]).mount();
    open_the_way_to(&mount.point());
    let private = mount.dir("acme").join("private.wav");
    make_file(&private, 100_000);
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    mount
}

#[test]
fn the_store_is_closed_to_others() {
    let mut mount = shared_mount();
    // So that the journal of the database and the dirty log are there too.
    mount.kill9();
    fs::set_permissions(mount.path("acme"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut kept = vec![mount.key_file(), mount.store()];
    for entry in fs::read_dir(mount.store()).unwrap() {
        let path = entry.unwrap().path();
        // The data directory shows the modes of the mount; the store above it is closed.
        if !path.ends_with("data") {
            kept.push(path);
        }
    }
    assert!(
        kept.len() >= 7,
        "key, store, database with its journal, ring, lock, log, version: {kept:?}"
    );
    for path in kept {
        let stat = path.symlink_metadata().unwrap();
        assert_eq!(stat.mode() & 0o077, 0, "{} is open to others", path.display());
        assert_eq!(stat.uid(), 0);
        as_user(USER, &[], || refused(File::open(&path), Errno::ACCESS));
    }
    let sealed = mount.store().join("data/acme/private.wav");
    as_user(USER, &[], || {
        refused(fs::read_dir(mount.store()), Errno::ACCESS);
        refused(File::open(sealed), Errno::ACCESS);
    });
}

#[test]
fn the_daemon_is_a_closed_process() {
    let mount = shared_mount();
    let held = File::open(mount.path("acme/private.wav")).unwrap();
    let process = PathBuf::from(format!("/proc/{}", mount.pid()));
    // Descriptors, memory, environment (a key may be in it), and the ways to its root and working directory.
    as_user(USER, &[], || {
        refused(fs::read_dir(process.join("fd")), Errno::ACCESS);
        refused(fs::read_dir(process.join("map_files")), Errno::ACCESS);
        for name in ["mem", "environ", "maps", "auxv", "pagemap", "syscall"] {
            let read = File::open(process.join(name)).and_then(|mut file| {
                let mut first = [0; 1];
                file.read(&mut first)
            });
            assert!(read.is_err(), "{name} of the daemon can be read");
        }
        for name in ["root", "cwd", "exe"] {
            refused(fs::read_link(process.join(name)), Errno::ACCESS);
        }
    });
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains("CoreDumping:\t0"), "{status}");
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    // The soft limit is often 0 without the daemon's doing.
    let limits: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(limits, ["0", "0"], "{core}");
    drop(held);
}

#[test]
fn an_ordinary_users_daemon_is_closed_to_that_user() {
    assert!(is_root(), "only root can be several users: run the tests as root");
    let mount = Setup::new().user(USER).mount();
    let process = PathBuf::from(format!("/proc/{}", mount.pid()));
    // A process that may be dumped or traced by its user belongs to that user.
    assert_eq!(process.join("mem").metadata().unwrap().uid(), 0);
    as_user(USER, &[], || {
        refused(fs::read_dir(process.join("fd")), Errno::ACCESS);
        refused(File::open(process.join("mem")), Errno::ACCESS);
        refused(File::open(process.join("environ")), Errno::ACCESS);
    });
}

#[test]
fn modes_hold_by_every_way_to_a_file() {
    let mount = shared_mount();
    let path = mount.path("acme/private.wav");
    as_user(USER, &[], || {
        refused(fs::read(&path), Errno::ACCESS);
        refused(File::options().write(true).open(&path), Errno::ACCESS);
        // EPERM or EACCES, as fs.protected_hardlinks has it.
        let linked = fs::hard_link(&path, mount.path("acme/mine")).unwrap_err();
        assert_eq!(linked.kind(), std::io::ErrorKind::PermissionDenied, "{linked}");
        refused(fs::rename(&path, mount.path("acme/mine")), Errno::ACCESS);
        // A descriptor that may only name the file is not a way round its mode.
        let named = open(&path, OFlags::PATH, Mode::empty()).unwrap();
        let again = format!("/proc/self/fd/{}", named.as_raw_fd());
        refused(File::open(&again), Errno::ACCESS);
        refused(File::options().write(true).open(&again), Errno::ACCESS);
        let mut value = [0; 16];
        refused(
            rustix::fs::getxattr(&path, c"user.note", &mut value[..]).map_err(std::io::Error::from),
            Errno::ACCESS,
        );
    });
}

#[test]
fn an_exchange_race_never_shows_the_other_file() {
    let mount = shared_mount();
    let (private, own) = (mount.path("acme/private.wav"), mount.path("acme/own.wav"));
    fs::write(&own, b"mine").unwrap();
    chown(&own, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(mount.path("acme"), fs::Permissions::from_mode(0o755)).unwrap();
    let done = AtomicBool::new(false);
    let (mut opened, mut denied) = (0, 0);
    std::thread::scope(|scope| {
        let over = wait::Over(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &private, CWD, &own, RenameFlags::EXCHANGE).unwrap();
            }
        });
        as_user(USER, &[], || {
            for n in 0..4_000 {
                let path = if n % 2 == 0 { &private } else { &own };
                match fs::read(path) {
                    Ok(content) => {
                        assert_eq!(content, b"mine", "round {n}");
                        opened += 1;
                    }
                    Err(error) => {
                        refused::<()>(Err(error), Errno::ACCESS);
                        denied += 1;
                    }
                }
            }
        });
        drop(over);
    });
    assert!(opened > 0 && denied > 0, "no race: opened {opened}, denied {denied}");
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

#[test]
fn no_secret_is_logged_at_the_finest_level() {
    let key: String = (0..32_u8).map(|n| hex(&[n * 7 + 11])).collect();
    let mut mount = Setup::new()
        .environment("RUST_LOG", "trace")
        .environment("ENCRYPTION_KEY", key.clone())
        .config(common::acme_limits("max_bytes = 50000"))
        .mount();
    let recording = wav::file(7, 30_000);
    let dir = mount.dir("acme");
    fs::write(dir.join("call.wav"), &recording).unwrap();
    common::write_until_refused(&File::create_new(dir.join("second")).unwrap(), 4_000);
    assert!(common::read(&dir.join("call.wav")) == recording);
    mount.kill9();
    mount.stop();
    // A recording that is damaged is spoken of at length.
    let sealed = mount.store().join("data/acme/call.wav");
    let mut content = common::read(&sealed);
    content[4096 * 6 + 100] ^= 1;
    fs::write(&sealed, &content).unwrap();
    mount.start();
    refused(fs::read(dir.join("call.wav")), Errno::IO);
    mount.stop();
    let log = mount.log();
    assert!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "the log is not at its finest:\n{log}"
    );
    assert!(log.contains("damaged"), "{log}");
    let raw: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap())
        .collect();
    let listed = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let audio = &recording[2_000..2_012];
    for (what, needle) in [
        ("the key", hex(&raw[..8])),
        ("the key", hex(&raw[24..])),
        ("the key as a list", listed(&raw[..4])),
        ("audio in hex", hex(audio)),
        ("audio as a list", listed(&audio[..6])),
    ] {
        assert!(!log.to_lowercase().contains(&needle), "{what} is in the log");
    }
}
