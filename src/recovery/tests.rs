//! Scan and replay on real directories.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, StatxFlags};
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::db::{DirRow, LinkRow, Snapshot, Totals};
use crate::id::Ino;
use crate::sealed::length::sealed_size;
use crate::units::Meters;

const UNCLEAN_SIZE: u64 = 1024 * 1024 + 4095;

/// The time of birth stands in for the generation: it tells an inode from its predecessor, too.
fn birth(fd: BorrowedFd<'_>) -> u32 {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).unwrap();
    stat.stx_btime.tv_nsec ^ (stat.stx_btime.tv_sec.cast_unsigned() as u32).rotate_left(16)
}

const PROBE: Probe<'static> = Probe {
    generation: &birth,
    limits: &limits_on,
    now: &|| Duration::ZERO,
};

/// A data directory, what was marked dirty in it, and the rows of the last write-back.
struct World {
    temp: TempDir,
    dirty: HashSet<Ino>,
    rows: Snapshot,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            temp: tempfile::tempdir().unwrap(),
            dirty: HashSet::new(),
            rows: Snapshot::default(),
        };
        world.write_back();
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn ino(&self, path: &str) -> Ino {
        Ino(fs::symlink_metadata(self.path(path)).unwrap().ino())
    }

    fn mkdir(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn file(&self, path: &str, plain_len: u64) {
        write_len(&self.path(path), sealed_size(plain_len));
    }

    fn mark(&mut self, paths: &[&str]) {
        for path in paths {
            self.dirty.insert(self.ino(path));
        }
    }

    fn scan(&self) -> Counted {
        let data = File::open(self.temp.path()).unwrap();
        scan(data.as_fd(), PROBE).unwrap()
    }

    fn write_back(&mut self) {
        let counted = self.scan();
        self.rows = snapshot(counted);
        self.dirty.clear();
    }

    fn try_replay(&self) -> Result<Counted, Error> {
        let data = File::open(self.temp.path()).unwrap();
        let dirty: Vec<Ino> = self.dirty.iter().copied().collect();
        let Snapshot { dirs, links } = self.rows.clone();
        replay(data.as_fd(), dirs, links, &dirty, PROBE)
    }

    /// Replays and checks that a scan finds the same.
    #[track_caller]
    fn replay_equals_scan(&self) -> Counted {
        let replayed = self.try_replay().unwrap();
        let scanned = self.scan();
        let differences = differences(replayed.clone(), &scanned);
        assert!(differences.is_empty(), "{differences:#?}");
        replayed
    }
}

fn write_len(path: &Path, size: u64) {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap()
        .set_len(size)
        .unwrap();
}

fn snapshot(counted: Counted) -> Snapshot {
    Snapshot {
        dirs: counted.dirs,
        links: counted.links,
    }
}

fn differences(replayed: Counted, scanned: &Counted) -> Vec<String> {
    let differences = compare(&snapshot(replayed), scanned);
    differences.iter().map(ToString::to_string).collect()
}

fn own(counted: &Counted, ino: Ino) -> Meters {
    counted.dirs.iter().find(|row| row.ino == ino).unwrap().own
}

#[test]
fn a_scan_counts_each_kind_of_entry_once() {
    let world = World::new();
    world.mkdir("a/b");
    world.file("a/one", 5000);
    world.file("a/empty", 0);
    symlink("/etc", world.path("a/link")).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, world.path("a/fifo"), FileType::Fifo, mode, 0).unwrap();
    world.file("a/two", 100);
    fs::hard_link(world.path("a/two"), world.path("a/two-again")).unwrap();
    fs::hard_link(world.path("a/two"), world.path("a/b/two")).unwrap();
    write_len(&world.path("a/cut"), 20_480);
    write_len(&world.path("a/open"), UNCLEAN_SIZE);

    let counted = world.scan();
    let (a, b) = (world.ino("a"), world.ino("a/b"));
    let expected = Meters {
        bytes: 5000,
        files: 6,
        dirs: 1,
    };
    assert_eq!(own(&counted, a), expected);
    assert_eq!(own(&counted, b), Meters::default());
    let two = world.ino("a/two");
    let link = |parent, names| LinkRow {
        ino: two,
        parent,
        names,
        bytes: 100,
    };
    let mut links = vec![link(a, 2), link(b, 1)];
    links.sort_by_key(|row| row.parent);
    assert_eq!(counted.links, links);
    let damaged = Damaged {
        path: "a/cut".into(),
        size: 20_480,
    };
    assert_eq!(counted.damaged, [damaged]);
    let unclean = Unclean {
        parent: a,
        name: b"open".into(),
        ino: world.ino("a/open"),
        nlink: 1,
    };
    assert_eq!(counted.unclean, [unclean]);
    let total = Totals::new(&counted.dirs, &counted.links).mount();
    assert_eq!(
        total,
        Meters {
            bytes: 5100,
            files: 7,
            dirs: 2
        }
    );
    assert_eq!(counted.stats.directories_read, 3);
}

#[test]
fn recovered_lengths_are_added_where_the_file_is_charged() {
    let world = World::new();
    world.mkdir("a");
    world.mkdir("b");
    write_len(&world.path("a/single"), UNCLEAN_SIZE);
    write_len(&world.path("a/double"), UNCLEAN_SIZE);
    fs::hard_link(world.path("a/double"), world.path("b/double")).unwrap();
    let mut counted = world.scan();
    assert_eq!(counted.unclean.len(), 2);
    for file in counted.unclean.clone() {
        counted.add_recovered(&file, if file.nlink == 1 { 7 } else { 1000 });
    }
    assert_eq!(own(&counted, world.ino("a")).bytes, 7);
    assert!(counted.links.iter().all(|row| row.bytes == 1000));
    let totals = Totals::new(&counted.dirs, &counted.links);
    assert_eq!((totals.mount().bytes, totals.mount().files), (1007, 2));
}

#[test]
fn a_directory_of_many_files_is_shared_out_and_summed() {
    let world = World::new();
    world.mkdir("a/b");
    for n in 0..5000 {
        File::create(world.path(&format!("a/{n}"))).unwrap();
    }
    world.file("a/4999", 3);
    let counted = world.scan();
    let expected = Meters {
        bytes: 3,
        files: 5000,
        dirs: 1,
    };
    assert_eq!(own(&counted, world.ino("a")), expected);
    assert_eq!(counted.stats.files_read, 5000);
}

#[test]
fn a_tree_deeper_than_a_path_can_be_long_is_counted() {
    let world = World::new();
    let name = "d".repeat(200);
    let mut at = rustix::fs::openat(CWD, world.temp.path(), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..50 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let counted = world.scan();
    assert_eq!(counted.dirs.len(), 51);
    let total = Totals::new(&counted.dirs, &counted.links).mount();
    assert_eq!(total.dirs, 50);
}

#[test]
fn only_dirty_directories_are_read() {
    let mut world = World::new();
    world.mkdir("a/b");
    world.mkdir("c/d");
    world.write_back();
    world.mark(&["a/b"]);
    world.file("a/b/new", 9);
    // Not marked, so not seen: this is what the speed rests on.
    world.file("c/d/unseen", 9);
    let counted = world.try_replay().unwrap();
    assert_eq!(counted.stats.directories_read, 1);
    assert_eq!(own(&counted, world.ino("a/b")).bytes, 9);
    assert_eq!(own(&counted, world.ino("c/d")).bytes, 0);
}

#[test]
fn a_dirty_directory_is_found_where_its_parents_were_moved_to() {
    let mut world = World::new();
    world.mkdir("a/b/c/d");
    world.mkdir("x/y");
    world.write_back();
    world.mark(&["a/b/c/d", "a", "a/b", "x/y"]);
    world.file("a/b/c/d/new", 11);
    fs::rename(world.path("a/b"), world.path("x/y/moved")).unwrap();
    fs::rename(world.path("x/y/moved/c"), world.path("x/y/c2")).unwrap();
    let counted = world.replay_equals_scan();
    assert_eq!(own(&counted, world.ino("x/y/c2/d")).bytes, 11);
}

#[test]
fn an_inode_number_used_again_is_a_new_directory() {
    let mut world = World::new();
    world.mkdir("a/old/deep");
    world.file("a/old/file", 5);
    world.write_back();
    // As if the row belonged to an earlier inode of this number.
    let old = world.ino("a/old");
    for row in world.rows.dirs.iter_mut().filter(|row| row.ino == old) {
        row.generation ^= 1;
        row.own.bytes = 77;
    }
    world.mark(&["a"]);
    world.replay_equals_scan();
}

#[test]
fn what_is_gone_is_dropped_with_all_below() {
    let mut world = World::new();
    world.mkdir("a/b/c");
    world.file("a/b/c/one", 5);
    fs::hard_link(world.path("a/b/c/one"), world.path("a/b/two")).unwrap();
    world.write_back();
    world.mark(&["a", "a/b", "a/b/c"]);
    fs::remove_dir_all(world.path("a/b")).unwrap();
    let counted = world.replay_equals_scan();
    assert_eq!((counted.dirs.len(), counted.links.len()), (2, 0));
}

#[test]
fn a_longer_file_with_links_in_two_directories_is_seen_through_what_it_is_charged_to() {
    let mut world = World::new();
    world.mkdir("t/a");
    world.mkdir("t/b");
    world.file("t/a/one", 5);
    fs::hard_link(world.path("t/a/one"), world.path("t/b/two")).unwrap();
    world.write_back();
    world.mark(&["t"]);
    world.file("t/b/two", 6000);
    let counted = world.replay_equals_scan();
    assert!(counted.links.iter().all(|row| row.bytes == 6000));
}

#[test]
fn rows_that_do_not_fit_the_disk_ask_for_a_scan() {
    let mut world = World::new();
    world.mkdir("a/b");
    world.mkdir("c");
    world.write_back();
    world.mark(&["a/b"]);
    fs::rename(world.path("a"), world.path("z")).unwrap();
    assert!(world.try_replay().unwrap_err().asks_for_scan());
    fs::rename(world.path("z"), world.path("a")).unwrap();
    world.replay_equals_scan();
    world.rows.dirs.retain(|row| !row.name.is_empty());
    assert!(world.try_replay().unwrap_err().asks_for_scan());
    world.rows.dirs.clear();
    assert!(world.try_replay().unwrap_err().asks_for_scan());
}

#[test]
fn rows_in_a_circle_end_and_ask_for_a_scan() {
    let mut world = World::new();
    world.mkdir("a/b");
    world.mkdir("c");
    world.write_back();
    let (root, a, b) = (world.ino(""), world.ino("a"), world.ino("a/b"));
    // A row of the root below one of its own descendants.
    let row = world.rows.dirs.iter().find(|row| row.ino == a).unwrap().clone();
    world.rows.dirs.push(DirRow {
        ino: Ino(u64::MAX),
        parent: b,
        ..row.clone()
    });
    world.rows.dirs.push(DirRow {
        ino: a,
        parent: Ino(u64::MAX),
        ..row
    });
    world.dirty.insert(root);
    assert!(world.try_replay().unwrap_err().asks_for_scan());
}

#[derive(Clone, Debug)]
enum Op {
    Mkdir { dir: usize, name: u8 },
    Create { dir: usize, name: u8, size: u64 },
    Resize { file: usize, size: u64 },
    Unlink { file: usize },
    Rmdir { dir: usize },
    Link { file: usize, dir: usize, name: u8 },
    Rename { entry: usize, dir: usize, name: u8 },
    WriteBack,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = || {
        prop_oneof![
            4 => (0_u64..20_000).prop_map(sealed_size),
            1 => Just(UNCLEAN_SIZE),
            1 => Just(20_480_u64),
        ]
    };
    let (index, name) = (0_usize..1000, 0_u8..8);
    let op = prop_oneof![
        4 => (index.clone(), name.clone()).prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        4 => (index.clone(), name.clone(), size())
            .prop_map(|(dir, name, size)| Op::Create { dir, name, size }),
        2 => (index.clone(), size()).prop_map(|(file, size)| Op::Resize { file, size }),
        2 => index.clone().prop_map(|file| Op::Unlink { file }),
        2 => index.clone().prop_map(|dir| Op::Rmdir { dir }),
        3 => (index.clone(), index.clone(), name.clone())
            .prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        5 => (index.clone(), index.clone(), name)
            .prop_map(|(entry, dir, name)| Op::Rename { entry, dir, name }),
        1 => Just(Op::WriteBack),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What the tree holds, by path; the root is the first directory.
struct Tree {
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl World {
    fn tree(&self) -> Tree {
        let mut tree = Tree {
            dirs: vec![self.temp.path().to_path_buf()],
            files: Vec::new(),
        };
        let mut next = 0;
        while next < tree.dirs.len() {
            let mut entries: Vec<_> = fs::read_dir(&tree.dirs[next]).unwrap().map(Result::unwrap).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let list = if entry.file_type().unwrap().is_dir() {
                    &mut tree.dirs
                } else {
                    &mut tree.files
                };
                list.push(entry.path());
            }
            next += 1;
        }
        tree
    }

    fn mark_path(&mut self, dir: &Path) {
        self.dirty.insert(Ino(fs::metadata(dir).unwrap().ino()));
    }

    /// Parents of all links of a file.
    fn holders(tree: &Tree, file: &Path) -> Vec<PathBuf> {
        let ino = fs::metadata(file).unwrap().ino();
        let same = tree
            .files
            .iter()
            .filter(|path| fs::metadata(path).unwrap().ino() == ino);
        same.map(|path| path.parent().unwrap().to_path_buf()).collect()
    }

    /// The directory that pays for the file.
    fn mark_charged(&mut self, tree: &Tree, file: &Path) {
        let holders = Self::holders(tree, file);
        let is_above_all = |dir: &&Path| holders.iter().all(|holder| holder.starts_with(dir));
        let charged = holders[0].ancestors().find(is_above_all).unwrap();
        self.mark_path(charged);
    }

    /// Marks as an unlink does, also for the victim of a rename.
    fn mark_unlink(&mut self, tree: &Tree, file: &Path) {
        self.mark_charged(tree, file);
        for holder in Self::holders(tree, file) {
            self.mark_path(&holder);
        }
    }

    fn apply(&mut self, op: &Op) {
        let tree = self.tree();
        let dir = |n: usize| tree.dirs[n % tree.dirs.len()].clone();
        let file = |n: usize| tree.files.get(n % tree.files.len().max(1)).cloned();
        match *op {
            Op::Mkdir { dir: n, name } => {
                self.mark_path(&dir(n));
                // EEXIST changes nothing; the mark does no harm.
                let _ = fs::create_dir(dir(n).join(format!("n{name}")));
            }
            Op::Create { dir: n, name, size } => {
                let path = dir(n).join(format!("n{name}"));
                if !path.exists() {
                    self.mark_path(&dir(n));
                    write_len(&path, size);
                }
            }
            Op::Resize { file: n, size } => {
                if let Some(path) = file(n) {
                    self.mark_charged(&tree, &path);
                    write_len(&path, size);
                }
            }
            Op::Unlink { file: n } => {
                if let Some(path) = file(n) {
                    self.mark_unlink(&tree, &path);
                    fs::remove_file(path).unwrap();
                }
            }
            Op::Rmdir { dir: n } => {
                if dir(n) != self.temp.path() {
                    self.mark_path(dir(n).parent().unwrap());
                    let _ = fs::remove_dir(dir(n));
                }
            }
            Op::Link { file: n, dir: m, name } => {
                let to = dir(m).join(format!("n{name}"));
                if let Some(path) = file(n).filter(|_| !to.exists()) {
                    self.mark_unlink(&tree, &path);
                    self.mark_path(&dir(m));
                    fs::hard_link(&path, &to).unwrap();
                    self.mark_charged(&self.tree(), &path);
                }
            }
            Op::Rename { entry, dir: m, name } => {
                let all: Vec<_> = tree.dirs[1..].iter().chain(&tree.files).collect();
                if !all.is_empty() {
                    self.rename(&tree, all[entry % all.len()], &dir(m).join(format!("n{name}")));
                }
            }
            Op::WriteBack => self.write_back(),
        }
    }

    fn rename(&mut self, tree: &Tree, from: &Path, to: &Path) {
        if to.starts_with(from) {
            return;
        }
        self.mark_path(from.parent().unwrap());
        self.mark_path(to.parent().unwrap());
        if tree.files.iter().any(|file| file == to) {
            self.mark_unlink(tree, to);
        }
        // A file over a directory, or over one that is not empty, changes nothing.
        let _ = fs::rename(from, to);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_finds_what_a_scan_finds(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        let replayed = world.try_replay();
        let scanned = world.scan();
        let differences = differences(replayed.unwrap(), &scanned);
        prop_assert!(differences.is_empty(), "{:#?}", differences);
    }
}

#[test]
#[ignore = "a measurement: makes a million files; run with --release --nocapture"]
fn scan_rate() {
    let world = World::new();
    for dir in 0..1000 {
        let path = format!("t{}/d{dir}", dir % 20);
        world.mkdir(&path);
        for n in 0..1000 {
            File::create(world.path(&format!("{path}/{n}"))).unwrap();
        }
    }
    let clock = SystemClock::new();
    let now = || clock.monotonic();
    let data = File::open(world.temp.path()).unwrap();
    for _ in 0..3 {
        let probe = Probe {
            generation: &birth,
            limits: &limits_on,
            now: &now,
        };
        let stats = scan(data.as_fd(), probe).unwrap().stats;
        let rate = u128::from(stats.files_read) * 1000 / stats.elapsed.as_millis().max(1);
        println!("{} files in {:?}: {rate} files/s", stats.files_read, stats.elapsed);
        assert_eq!(stats.files_read, 1_000_000);
    }
}
