//! Directories are listed while names come and go. Each case runs on a native directory as well.

#[macro_use]
mod common;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, RawDir, SeekFrom, mknodat, seek};

use common::Mount;

cases! {
    positions_hold_while_names_come_and_go
    names_that_stay_are_listed_once_beside_changes
    a_listing_begins_anew_after_rewinding
}

#[track_caller]
fn make(dir: &Path, name: &str) {
    mknodat(CWD, dir.join(name), FileType::RegularFile, 0o600.into(), 0).unwrap();
}

/// Names from where the directory stands, each with the position behind it, as getdents(2) gives them.
#[track_caller]
fn list(directory: &File) -> Vec<(String, u64)> {
    let mut buffer = Vec::with_capacity(4_096);
    let mut names = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(name) = names.next() {
        let name = name.unwrap();
        let text = name.file_name().to_str().unwrap().to_owned();
        if text != "." && text != ".." {
            found.push((text, name.next_entry_cookie()));
        }
    }
    found
}

fn positions_hold_while_names_come_and_go(dir: &Path) {
    const NAMES: usize = 1_000;
    (0..NAMES).for_each(|n| make(dir, &format!("call-{n}")));
    let directory = File::open(dir).unwrap();
    let whole = list(&directory);
    assert_eq!(whole.len(), NAMES);
    // Half of the names go, and others come.
    let gone: HashSet<&String> = whole.iter().step_by(2).map(|(name, _)| name).collect();
    for name in &gone {
        fs::remove_file(dir.join(name)).unwrap();
    }
    (0..NAMES).for_each(|n| make(dir, &format!("late-{n}")));
    for at in [0, 1, 2, 777, NAMES - 2, NAMES - 1] {
        seek(&directory, SeekFrom::Start(whole[at].1)).unwrap();
        let after: Vec<String> = list(&directory).into_iter().map(|(name, _)| name).collect();
        let old: Vec<&String> = after.iter().filter(|name| name.starts_with("call-")).collect();
        let expected: Vec<&String> = whole[at + 1..].iter().map(|(name, _)| name).collect();
        let expected: Vec<&String> = expected.into_iter().filter(|name| !gone.contains(name)).collect();
        assert_eq!(old, expected, "behind position {at}");
    }
}

fn names_that_stay_are_listed_once_beside_changes(dir: &Path) {
    // A second opening lists again and again while names are made and removed.
    const STAYING: usize = 500;
    (0..STAYING).for_each(|n| make(dir, &format!("staying-{n}")));
    let directory = File::open(dir).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2 {
                (0..STAYING).for_each(|n| make(dir, &format!("passing-{round}-{n}")));
                (0..STAYING).for_each(|n| fs::remove_file(dir.join(format!("passing-{round}-{n}"))).unwrap());
            }
            is_done.store(true, Ordering::Release);
        });
        let mut rounds = 0;
        while !is_done.load(Ordering::Acquire) || rounds == 0 {
            seek(&directory, SeekFrom::Start(0)).unwrap();
            let mut seen: HashMap<String, u32> = HashMap::new();
            for (name, _) in list(&directory) {
                *seen.entry(name).or_default() += 1;
            }
            let staying = seen.iter().filter(|(name, _)| name.starts_with("staying-"));
            assert!(staying.clone().all(|(_, &times)| times == 1), "listed twice");
            assert_eq!(staying.count(), STAYING, "round {rounds}");
            rounds += 1;
        }
    });
    assert_eq!(common::names(dir).len(), STAYING);
}

fn a_listing_begins_anew_after_rewinding(dir: &Path) {
    make(dir, "first");
    let directory = File::open(dir).unwrap();
    assert_eq!(list(&directory).len(), 1);
    assert!(list(&directory).is_empty(), "at the end");
    make(dir, "second");
    seek(&directory, SeekFrom::Start(0)).unwrap();
    assert_eq!(list(&directory).len(), 2);
    fs::remove_file(dir.join("first")).unwrap();
    seek(&directory, SeekFrom::Start(0)).unwrap();
    assert_eq!(list(&directory).len(), 1);
}

#[test]
fn many_names_in_one_directory_are_counted_and_listed() {
    // tests/suites has this with 100,000.
    const NAMES: usize = 10_000;
    let mount = Mount::new();
    let dir = mount.dir("acme");
    std::thread::scope(|scope| {
        for part in 0..2 {
            let dir = &dir;
            scope.spawn(move || (part..NAMES).step_by(2).for_each(|n| make(dir, &format!("{n}"))));
        }
    });
    let second = File::open(&dir).unwrap();
    let seen: HashSet<String> = list(&second).into_iter().map(|(name, _)| name).collect();
    assert_eq!(seen.len(), NAMES);
    assert_eq!(mount.usage().total.files, NAMES as u64);
    assert!(dir.join("9999").metadata().unwrap().is_file());
    mount.finish();
}

#[test]
fn directories_that_are_held_open_and_not_read_cost_no_descriptor() {
    let mount = Mount::new();
    let dir = mount.dir("acme");
    let of_daemon = || fs::read_dir(format!("/proc/{}/fd", mount.pid())).unwrap().count();
    let before = of_daemon();
    let held: Vec<File> = (0..500).map(|_| File::open(&dir).unwrap()).collect();
    assert!(
        of_daemon() < before + 50,
        "{} for {} openings",
        of_daemon() - before,
        held.len()
    );
    held[0].sync_all().unwrap();
    fs::remove_dir(&dir).unwrap();
    held[1].sync_all().unwrap();
    drop(held);
    mount.finish();
}
