//! Times, sizes and blocks as stat(2) shows them. Each case runs on a native directory as well.

#[macro_use]
mod common;

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, StatxFlags, Timespec, Timestamps, statx, utimensat};

use common::{KIB, Mount, make_file, read};

cases! {
    times_keep_every_nanosecond
    links_and_directories_have_times_of_their_own
    one_time_is_set_and_the_other_left
    reading_moves_the_access_time_as_relatime_does
    every_truncation_is_a_modification
    names_change_the_times_of_their_directory
    statx_and_stat_agree
    blocks_follow_the_content
}

/// Long ago, so that whatever touches a file moves its times.
const PAST: Duration = Duration::from_nanos(1_000_000_000_123_456_789);

#[track_caller]
fn set_past(path: &Path) {
    let times = FileTimes::new()
        .set_accessed(UNIX_EPOCH + PAST)
        .set_modified(UNIX_EPOCH + PAST);
    File::open(path).unwrap().set_times(times).unwrap();
}

#[track_caller]
fn modified(path: &Path) -> SystemTime {
    path.symlink_metadata().unwrap().modified().unwrap()
}

#[track_caller]
fn accessed(path: &Path) -> SystemTime {
    path.symlink_metadata().unwrap().accessed().unwrap()
}

fn at(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    }
}

#[track_caller]
fn set(path: &Path, last_access: Timespec, last_modification: Timespec) {
    let times = Timestamps {
        last_access,
        last_modification,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn times_keep_every_nanosecond(dir: &Path) {
    let path = dir.join("call");
    make_file(&path, 5_000);
    // Before 1970, around it, around 2038, and far ahead.
    for (seconds, nanoseconds) in [
        (-1, 999_999_999),
        (-2_000_000_000, 1),
        (0, 0),
        (0, 1),
        (2_147_483_647, 999_999_999),
        (2_147_483_648, 7),
        (10_000_000_000, 123_456_789),
    ] {
        set(&path, at(seconds, nanoseconds), at(seconds - 1, nanoseconds));
        let found = path.metadata().unwrap();
        assert_eq!((found.atime(), found.atime_nsec()), (seconds, nanoseconds));
        assert_eq!((found.mtime(), found.mtime_nsec()), (seconds - 1, nanoseconds));
    }
}

fn links_and_directories_have_times_of_their_own(dir: &Path) {
    make_file(&dir.join("call"), 10);
    symlink("call", dir.join("link")).unwrap();
    fs::create_dir(dir.join("below")).unwrap();
    let before = modified(&dir.join("call"));
    for name in ["link", "below"] {
        set(&dir.join(name), at(5, 6), at(7, 8));
        assert_eq!(modified(&dir.join(name)), UNIX_EPOCH + Duration::new(7, 8), "{name}");
    }
    assert_eq!(modified(&dir.join("call")), before, "the link was not followed");
}

fn one_time_is_set_and_the_other_left(dir: &Path) {
    let path = dir.join("call");
    make_file(&path, 10);
    set_past(&path);
    let (omit, now) = (at(0, rustix::fs::UTIME_OMIT), at(0, rustix::fs::UTIME_NOW));
    set(&path, at(1, 2), omit);
    assert_eq!(
        (accessed(&path), modified(&path)),
        (UNIX_EPOCH + Duration::new(1, 2), UNIX_EPOCH + PAST)
    );
    set(&path, omit, now);
    assert_eq!(accessed(&path), UNIX_EPOCH + Duration::new(1, 2));
    assert!(modified(&path) > UNIX_EPOCH + PAST);
}

fn reading_moves_the_access_time_as_relatime_does(dir: &Path) {
    let path = dir.join("call");
    make_file(&path, 20_000);
    set_past(&path);
    assert_eq!(read(&path).len(), 20_000);
    let first = accessed(&path);
    assert!(first > UNIX_EPOCH + PAST, "not read since it was written");
    read(&path);
    assert_eq!(accessed(&path), first, "once a day is enough");
    assert_eq!(modified(&path), UNIX_EPOCH + PAST);
    fs::create_dir(dir.join("below")).unwrap();
    set_past(&dir.join("below"));
    assert!(common::names(&dir.join("below")).is_empty());
    assert!(
        accessed(&dir.join("below")) > UNIX_EPOCH + PAST,
        "listing reads a directory"
    );
}

fn every_truncation_is_a_modification(dir: &Path) {
    let path = dir.join("call");
    make_file(&path, 10_000);
    let write = || OpenOptions::new().write(true).open(&path).unwrap();
    for length in [20_000, 5_000, 5_000, 0, 0] {
        set_past(&path);
        let changed = path.metadata().unwrap().ctime_nsec();
        write().set_len(length).unwrap();
        assert!(modified(&path) > UNIX_EPOCH + PAST, "to {length}");
        assert_ne!(path.metadata().unwrap().ctime_nsec(), changed, "to {length}");
    }
    for length in [3_000, 0] {
        write().set_len(length).unwrap();
        set_past(&path);
        drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
        assert!(
            modified(&path) > UNIX_EPOCH + PAST,
            "opened with truncation from {length}"
        );
    }
    set_past(&path);
    drop(write());
    drop(OpenOptions::new().append(true).open(&path).unwrap());
    let mut nothing = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut nothing).unwrap();
    assert_eq!(modified(&path), UNIX_EPOCH + PAST, "opening and reading is none");
}

fn names_change_the_times_of_their_directory(dir: &Path) {
    let changes: [(&str, &dyn Fn()); 6] = [
        ("create", &|| make_file(&dir.join("a"), 1)),
        ("link", &|| fs::hard_link(dir.join("a"), dir.join("b")).unwrap()),
        ("rename", &|| fs::rename(dir.join("b"), dir.join("c")).unwrap()),
        ("symlink", &|| symlink("a", dir.join("s")).unwrap()),
        ("mkdir", &|| fs::create_dir(dir.join("d")).unwrap()),
        ("unlink", &|| fs::remove_file(dir.join("a")).unwrap()),
    ];
    for (name, change) in changes {
        set_past(dir);
        assert_eq!(modified(dir), UNIX_EPOCH + PAST);
        change();
        assert!(modified(dir) > UNIX_EPOCH + PAST, "{name}");
    }
    assert_eq!(dir.join("c").metadata().unwrap().nlink(), 1);
    assert_eq!(dir.metadata().unwrap().nlink(), 3, "one for each directory in it");
}

fn statx_and_stat_agree(dir: &Path) {
    let path = dir.join("call");
    make_file(&path, 123_457);
    set(&path, at(1, 2), at(3, 4));
    let plain = path.metadata().unwrap();
    let wide = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).unwrap();
    assert!(StatxFlags::from_bits_retain(wide.stx_mask).contains(StatxFlags::BASIC_STATS));
    assert_eq!((wide.stx_size, wide.stx_ino), (123_457, plain.ino()));
    assert_eq!(u64::from(wide.stx_nlink), plain.nlink());
    assert_eq!(u32::from(wide.stx_mode), plain.mode());
    assert_eq!((wide.stx_uid, wide.stx_gid), (plain.uid(), plain.gid()));
    assert_eq!(
        (wide.stx_blocks, u64::from(wide.stx_blksize)),
        (plain.blocks(), plain.blksize())
    );
    assert_eq!((wide.stx_atime.tv_sec, wide.stx_atime.tv_nsec), (1, 2));
    assert_eq!((wide.stx_mtime.tv_sec, wide.stx_mtime.tv_nsec), (3, 4));
    assert_eq!(wide.stx_ctime.tv_sec, plain.ctime());
    assert_eq!(plain.blksize(), 4_096);
    let forced = statx(
        CWD,
        &path,
        AtFlags::STATX_FORCE_SYNC,
        StatxFlags::SIZE | StatxFlags::BLOCKS,
    )
    .unwrap();
    assert_eq!((forced.stx_size, forced.stx_blocks), (wide.stx_size, wide.stx_blocks));
}

fn blocks_follow_the_content(dir: &Path) {
    let path = dir.join("call");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let disk_bytes = || {
        file.sync_all().unwrap();
        file.metadata().unwrap().blocks() * 512
    };
    // What a page and the head of a sealed file add, and what the disk rounds up to.
    let about = |bytes: u64| bytes..=bytes + bytes / 64 + 32 * KIB;
    file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    assert!(about(1 << 20).contains(&disk_bytes()), "{}", disk_bytes());
    file.set_len(1 << 30).unwrap();
    assert!(
        about(1 << 20).contains(&disk_bytes()),
        "a hole at the end: {}",
        disk_bytes()
    );
    file.write_all_at(&vec![7; 1 << 19], 1 << 29).unwrap();
    assert!(
        about(3 << 19).contains(&disk_bytes()),
        "a hole in the middle: {}",
        disk_bytes()
    );
    file.set_len(1_000).unwrap();
    assert!(about(0).contains(&disk_bytes()), "cut: {}", disk_bytes());
}

#[test]
fn noatime_and_read_only_mounts_leave_access_times() {
    for option in ["noatime", "ro"] {
        let mut mount = Mount::new();
        make_file(&mount.dir("acme").join("call"), 20_000);
        set_past(&mount.path("acme/call"));
        set_past(&mount.path("acme"));
        mount.remount_as(&["-o", option]);
        assert_eq!(read(&mount.path("acme/call")).len(), 20_000);
        assert_eq!(common::names(&mount.path("acme")), ["call"]);
        for name in ["acme", "acme/call"] {
            assert_eq!(accessed(&mount.path(name)), UNIX_EPOCH + PAST, "{name} with {option}");
        }
        mount.finish();
    }
}
