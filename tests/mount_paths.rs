//! The longest paths, and trees that are deeper than any path. Each case runs on a native directory as well.

#[macro_use]
mod common;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};

use common::{Errno, Mount, make_file, read, refused};

cases! {
    a_path_of_4095_bytes_works_and_one_more_is_refused
}

/// Bytes of the longest path; with its end mark that is `PATH_MAX`.
const LONGEST: usize = 4_095;

fn a_path_of_4095_bytes_works_and_one_more_is_refused(dir: &Path) {
    let mut deep = dir.to_owned();
    // Room is left for one more name of 1 to 255 bytes.
    while LONGEST - deep.as_os_str().len() > 256 {
        let rest = LONGEST - deep.as_os_str().len() - 1;
        deep.push("d".repeat(rest.min(255).min(rest - 3)));
        fs::create_dir(&deep).unwrap();
    }
    let fill = |len: usize| -> PathBuf { deep.join("f".repeat(len - deep.as_os_str().len() - 1)) };
    let longest = fill(LONGEST);
    assert_eq!(longest.as_os_str().as_bytes().len(), LONGEST);
    make_file(&longest, 5_000);
    assert_eq!(read(&longest).len(), 5_000);
    refused(File::create(fill(LONGEST + 1)), Errno::NAMETOOLONG);
    let shorter = fill(LONGEST - 1);
    fs::rename(&longest, &shorter).unwrap();
    fs::hard_link(&shorter, &longest).unwrap();
    refused(fs::rename(&shorter, fill(LONGEST + 1)), Errno::NAMETOOLONG);
    assert_eq!(longest.metadata().unwrap().nlink(), 2);
    fs::remove_file(&longest).unwrap();
    assert_eq!(common::names(&deep).len(), 1);
    fs::remove_dir_all(dir.join(shorter.strip_prefix(dir).unwrap().iter().next().unwrap())).unwrap();
}

/// A directory `depth` names of 200 bytes below `dir`.
#[track_caller]
fn descend(dir: &Path, depth: usize, make: bool) -> OwnedFd {
    let name = "n".repeat(200);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, dir, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        if make {
            mkdirat(&at, &name, 0o755.into()).unwrap();
        }
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    at
}

/// Kills the daemon, and the next one finds no database.
fn kill_and_count(mount: &mut Mount) {
    mount.kill();
    fs::remove_file(mount.store().join("tallyfs.db")).unwrap();
    mount.start();
    assert!(mount.log().contains("counted everything"));
}

#[test]
fn trees_deeper_than_any_path_are_kept_counted_and_recovered() {
    const DEPTH: usize = 50;
    let mut mount = Mount::new();
    let dir = mount.dir("acme");
    let bottom = descend(&dir, DEPTH, true);
    let file = openat(&bottom, "call", OFlags::CREATE | OFlags::WRONLY, 0o600.into()).unwrap();
    rustix::io::write(&file, b"audio").unwrap();
    renameat(&bottom, "call", &bottom, "renamed").unwrap();
    drop((file, bottom));
    let used = mount.usage();
    assert_eq!((used.total.bytes, used.total.files), (5, 1));
    // By the rows, by the directories that changed since, and by counting everything.
    for restart in [Mount::remount, Mount::kill9, kill_and_count] {
        let bottom = descend(&mount.path("acme"), DEPTH, false);
        let file = openat(&bottom, "renamed", OFlags::WRONLY, Mode::empty()).unwrap();
        rustix::io::write(&file, b"other").unwrap();
        drop((file, bottom));
        restart(&mut mount);
        assert_eq!(mount.usage(), used);
        let bottom = descend(&mount.path("acme"), DEPTH, false);
        assert_eq!(statat(&bottom, "renamed", AtFlags::empty()).unwrap().st_size, 5);
    }
    unlinkat(descend(&mount.path("acme"), DEPTH, false), "renamed", AtFlags::empty()).unwrap();
    common::run("rm", &["-r", common::command::text(&mount.path("acme"))]);
    assert_eq!(mount.usage().total.files, 0);
    mount.finish();
}
