//! Set-user-id, set-group-id and sticky bits, and programs that are being run. Each case runs on a native directory as well.

#[macro_use]
mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{FallocateFlags, copy_file_range, fallocate};

use common::user::{as_user, is_root, open_the_way_to};
use common::{Errno, make_file, refused, run_in};

cases! {
    every_change_by_others_drops_set_user_id
    root_keeps_set_user_id_when_it_writes
    set_group_id_without_execution_stays_with_members
    a_new_owner_drops_set_user_id
    set_group_id_directories_hand_their_group_down
    sticky_directories_keep_names_of_others
    a_running_program_cannot_be_changed
}

/// The owner of the files, who is not root.
const OWNER: u32 = 2_000;
/// Someone else.
const OTHER: u32 = 2_001;
/// A group of several users.
const TEAM: u32 = 3_000;

/// Makes a file of [`OWNER`] with this group and mode.
#[track_caller]
fn program(path: &Path, group: u32, mode: u32) {
    make_file(path, 10_000);
    chown(path, Some(OWNER), Some(group)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

type Change = fn(&File);

/// What changes a file that is open for reading and writing.
const CHANGES: [(&str, Change); 6] = [
    ("a write", |file| file.write_all_at(b"x", 5_000).unwrap()),
    ("growing", |file| file.set_len(20_000).unwrap()),
    ("cutting", |file| file.set_len(100).unwrap()),
    ("fallocate", |file| {
        fallocate(file, FallocateFlags::empty(), 0, 30_000).unwrap();
    }),
    ("punching", |file| {
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 5_000).unwrap();
    }),
    ("copy_file_range", |file| {
        let copied = copy_file_range(file, Some(&mut 0), file, Some(&mut 9_000), 100).unwrap();
        assert_eq!(copied, 100);
    }),
];

#[track_caller]
fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Every change to a new file with this mode, by this user; the mode afterwards.
#[track_caller]
fn expect_after_changes(dir: &Path, before: u32, after: u32, change_as: impl Fn(&(dyn Fn() + Sync))) {
    let path = dir.join("program");
    for (name, change) in CHANGES {
        program(&path, TEAM, before);
        change_as(&|| change(&read_write(&path)));
        assert_eq!(mode(&path), after, "after {name}");
        fs::remove_file(&path).unwrap();
    }
    program(&path, TEAM, before);
    change_as(&|| drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap()));
    assert_eq!(mode(&path), after, "after opening with truncation");
    program(&path, TEAM, before);
    change_as(&|| {
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"x")
            .unwrap();
    });
    assert_eq!(mode(&path), after, "after appending");
}

fn every_change_by_others_drops_set_user_id(dir: &Path) {
    if !is_root() {
        return;
    }
    open_the_way_to(dir);
    expect_after_changes(dir, 0o6777, 0o777, |change| as_user(OTHER, &[], change));
    expect_after_changes(dir, 0o6777, 0o777, |change| as_user(OWNER, &[TEAM], change));
}

fn root_keeps_set_user_id_when_it_writes(dir: &Path) {
    if is_root() {
        expect_after_changes(dir, 0o6777, 0o6777, |change| change());
    }
}

fn set_group_id_without_execution_stays_with_members(dir: &Path) {
    if !is_root() {
        return;
    }
    open_the_way_to(dir);
    expect_after_changes(dir, 0o2666, 0o2666, |change| as_user(OTHER, &[TEAM], change));
    expect_after_changes(dir, 0o2666, 0o666, |change| as_user(OTHER, &[], change));
}

fn a_new_owner_drops_set_user_id(dir: &Path) {
    if !is_root() {
        return;
    }
    open_the_way_to(dir);
    let path = dir.join("program");
    program(&path, OWNER, 0o6755);
    chown(&path, Some(OTHER), None).unwrap();
    assert_eq!(mode(&path), 0o755, "also when root gives it away");
    program(&path, OWNER, 0o6755);
    as_user(OWNER, &[TEAM], || chown(&path, None, Some(TEAM)).unwrap());
    assert_eq!((mode(&path), path.metadata().unwrap().gid()), (0o755, TEAM));
    as_user(OWNER, &[], || {
        refused(chown(&path, None, Some(TEAM + 1)), Errno::PERM);
        refused(chown(&path, Some(OTHER), None), Errno::PERM);
    });
}

fn set_group_id_directories_hand_their_group_down(dir: &Path) {
    if !is_root() {
        return;
    }
    open_the_way_to(dir);
    let shared = dir.join("shared");
    fs::create_dir(&shared).unwrap();
    chown(&shared, Some(OWNER), Some(TEAM)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2777)).unwrap();
    as_user(OTHER, &[], || {
        File::create(shared.join("file")).unwrap();
        fs::create_dir(shared.join("below")).unwrap();
        symlink("file", shared.join("link")).unwrap();
        fs::set_permissions(shared.join("file"), fs::Permissions::from_mode(0o2755)).unwrap();
    });
    for name in ["file", "below", "link"] {
        let found = shared.join(name).symlink_metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (OTHER, TEAM), "{name}");
    }
    assert_eq!(mode(&shared.join("below")) & 0o7000, 0o2000);
    assert_eq!(
        mode(&shared.join("file")),
        0o755,
        "only a member of the group marks a file"
    );
}

fn sticky_directories_keep_names_of_others(dir: &Path) {
    if !is_root() {
        return;
    }
    open_the_way_to(dir);
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let theirs = dir.join("theirs");
    program(&theirs, OWNER, 0o666);
    as_user(OTHER, &[], || {
        refused(fs::remove_file(&theirs), Errno::PERM);
        refused(fs::rename(&theirs, dir.join("taken")), Errno::PERM);
        File::create(dir.join("own")).unwrap();
        refused(fs::rename(dir.join("own"), &theirs), Errno::PERM);
        fs::rename(dir.join("own"), dir.join("mine")).unwrap();
        fs::remove_file(dir.join("mine")).unwrap();
    });
    as_user(OWNER, &[], || fs::remove_file(&theirs).unwrap());
}

fn a_running_program_cannot_be_changed(dir: &Path) {
    let path = dir.join("program");
    fs::copy(run_in(dir, "sh", &["-c", "command -v sleep"]).trim(), &path).unwrap();
    let size = path.metadata().unwrap().len();
    let mut running = std::process::Command::new(&path).arg("100").spawn().unwrap();
    let write = || OpenOptions::new().write(true).open(&path).map(drop);
    let empty = OpenOptions::new().write(true).truncate(true).open(&path).map(drop);
    let read_and_empty = rustix::fs::open(
        &path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC,
        rustix::fs::Mode::empty(),
    );
    let (written, length) = (write(), path.metadata().unwrap().len());
    running.kill().unwrap();
    running.wait().unwrap();
    refused(written, Errno::TXTBSY);
    refused(empty, Errno::TXTBSY);
    assert_eq!(read_and_empty.map(drop), Err(Errno::TXTBSY));
    assert_eq!(length, size, "and a refused opening empties nothing");
    write().unwrap();
}
