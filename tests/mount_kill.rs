//! The daemon killed under load: every acknowledged change is there afterwards, and usage is what a scan finds.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Mount, RULES, acme_limits, read, wait, wav};

const RECORDERS: u64 = 3;
const FRAMES: [usize; 3] = [320, 4_096, 65_536];
const MAX_RECORDED_BYTES: u64 = 4 << 20;

/// What a tree must hold: content of files, None for directories.
type Model = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A recorder that appends until the mount goes away or the test does.
#[derive(Default)]
struct Recorder {
    acknowledged: AtomicU64,
    gone: AtomicBool,
}

/// Ends the recorders when a check panics; they would write on for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Recorder {
    fn record(&self, path: &Path, seed: u64, frame_bytes: usize, stop: &AtomicBool) {
        let mut frame = vec![0; frame_bytes];
        let mut at = 0;
        let mut opened = File::create_new(path);
        while let Ok(file) = opened.as_mut() {
            // A long call has been seen often enough; from there on its header is rewritten.
            let offset = if at < MAX_RECORDED_BYTES { at } else { 0 };
            wav::noise(seed, offset, &mut frame);
            let Ok(count) = file.write_at(&frame, offset) else {
                break;
            };
            at = at.max(offset + count as u64);
            self.acknowledged.store(at, Ordering::SeqCst);
            if stop.load(Ordering::SeqCst) {
                break;
            }
        }
        self.gone.store(true, Ordering::SeqCst);
    }

    #[track_caller]
    fn check(&self, path: &Path, seed: u64, frame_bytes: usize) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let content = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && acknowledged == 0 => return,
            content => content.unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        };
        let len = content.len() as u64;
        let possible = acknowledged..=acknowledged + frame_bytes as u64;
        assert!(
            possible.contains(&len),
            "{}: {len} bytes, {acknowledged} acknowledged",
            path.display()
        );
        let mut expected = vec![0; content.len()];
        wav::noise(seed, 0, &mut expected);
        assert!(content == expected, "{}: wrong bytes", path.display());
    }
}

/// One random change of the tree, and of the model once it is acknowledged.
fn change(top: &Path, model: &mut Model, random: u64) {
    let dirs: Vec<_> = model
        .iter()
        .filter(|(_, node)| node.is_none())
        .map(|(path, _)| path.clone())
        .collect();
    let files: Vec<_> = model
        .iter()
        .filter(|(_, node)| node.is_some())
        .map(|(path, _)| path.clone())
        .collect();
    let pick = |from: &[PathBuf], random: u64| from.get(random as usize % from.len().max(1)).cloned();
    let dir = pick(&dirs, random >> 8).expect("the top directory stays");
    let new = dir.join(format!("n{}", (random >> 16) % 1_000));
    let len = usize::try_from((random >> 40) % 20_000).expect("small");
    let mut bytes = vec![0; len];
    wav::noise(random, 0, &mut bytes);
    match (random % 9, pick(&files, random >> 24)) {
        (0 | 1, _) if !model.contains_key(&new) => {
            fs::write(top.join(&new), &bytes).expect("a new file");
            model.insert(new, Some(bytes));
        }
        (2, _) if !model.contains_key(&new) => {
            fs::create_dir(top.join(&new)).expect("a new directory");
            model.insert(new, None);
        }
        (3 | 4, Some(file)) => overwrite(top, model, &file, random, &bytes),
        (5, Some(file)) => {
            let open = File::options()
                .write(true)
                .open(top.join(&file))
                .expect("a file of the model");
            open.set_len(len as u64).expect("truncate");
            model
                .get_mut(&file)
                .and_then(Option::as_mut)
                .expect("a file")
                .resize(len, 0);
        }
        (6, Some(file)) => {
            fs::remove_file(top.join(&file)).expect("unlink");
            model.remove(&file);
        }
        (7, Some(file)) if model.get(&new).is_none_or(Option::is_some) => {
            fs::rename(top.join(&file), top.join(&new)).expect("rename a file");
            let node = model.remove(&file).expect("a file of the model");
            model.insert(new, node);
        }
        (8, _) if dir.components().count() > 1 => rename_directory(top, model, &dir, random),
        _ => {}
    }
}

fn overwrite(top: &Path, model: &mut Model, file: &Path, random: u64, bytes: &[u8]) {
    let content = model
        .get_mut(file)
        .and_then(Option::as_mut)
        .expect("a file of the model");
    let at = usize::try_from((random >> 33) % (content.len() as u64 + 1)).expect("small");
    let open = File::options()
        .write(true)
        .open(top.join(file))
        .expect("a file of the model");
    open.write_all_at(bytes, at as u64).expect("a write");
    content.resize(content.len().max(at + bytes.len()), 0);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Moves a directory with all that is in it to the top or below another tenant.
fn rename_directory(top: &Path, model: &mut Model, dir: &Path, random: u64) {
    let parent = ["acme", "globex"][(random >> 50) as usize % 2];
    let target = Path::new(parent).join(format!("moved {}", random >> 20));
    fs::rename(top.join(dir), top.join(&target)).expect("rename a directory");
    let moved: Vec<_> = model.keys().filter(|path| path.starts_with(dir)).cloned().collect();
    for path in moved {
        let node = model.remove(&path).expect("just listed");
        let rest = path.strip_prefix(dir).expect("starts with it");
        // join of nothing would add a slash.
        let new = if rest.as_os_str().is_empty() {
            target.clone()
        } else {
            target.join(rest)
        };
        model.insert(new, node);
    }
}

#[track_caller]
fn assert_model(top: &Path, model: &Model) {
    let mut found = Model::new();
    let mut waiting: Vec<PathBuf> = vec!["acme".into(), "globex".into()];
    while let Some(path) = waiting.pop() {
        if top.join(&path).is_dir() {
            waiting.extend(common::names(&top.join(&path)).into_iter().map(|name| path.join(name)));
            found.insert(path, None);
        } else {
            let content = read(&top.join(&path));
            found.insert(path, Some(content));
        }
    }
    let (missing, extra) = (
        model.keys().find(|k| !found.contains_key(*k)),
        found.keys().find(|k| !model.contains_key(*k)),
    );
    assert_eq!((missing, extra), (None, None), "names missing and names too many");
    let wrong = model.iter().find(|(path, node)| found[*path] != **node);
    assert_eq!(wrong.map(|(path, _)| path), None, "a file with other content");
}

/// Kills the daemon `rounds` times between random changes while recorders write, and checks everything after each kill.
fn kill_rounds(mut mount: Mount, rounds: u64, changes: u64) {
    let top = mount.point();
    let mut model = Model::new();
    for tenant in ["acme", "globex"] {
        mount.dir(tenant);
        model.insert(tenant.into(), None);
    }
    for round in 0..rounds {
        let dir = mount.dir(&format!("recorders/round {round}"));
        let recorders: Vec<_> = (0..RECORDERS).map(|_| Recorder::default()).collect();
        let path = |n: usize| dir.join(format!("call-{n}"));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let _guard = StopOnDrop(stop);
            for (n, recorder) in recorders.iter().enumerate() {
                let path = path(n);
                scope.spawn(move || recorder.record(&path, round, FRAMES[n], stop));
            }
            (0..changes).for_each(|step| change(&top, &mut model, wav::scramble(round, step)));
            wait::until("every recorder has written", || {
                recorders
                    .iter()
                    .all(|r| r.acknowledged.load(Ordering::SeqCst) > 0)
                    .then_some(())
            });
            mount.kill();
            wait::until("every recorder has noticed", || {
                recorders.iter().all(|r| r.gone.load(Ordering::SeqCst)).then_some(())
            });
        });
        mount.start();
        mount.assert_usage_true();
        assert_model(&top, &model);
        for (n, recorder) in recorders.iter().enumerate() {
            recorder.check(&path(n), round, FRAMES[n]);
        }
        fs::remove_dir_all(&dir).expect("room for the next round");
    }
    mount.finish();
}

#[test]
fn q23_q56_a_killed_daemon_loses_no_acknowledged_change() {
    kill_rounds(Mount::with_config(RULES), 5, 150);
}

#[test]
fn q56_a_kill_right_after_few_changes_is_recovered_too() {
    kill_rounds(Mount::with_config(RULES), 5, 3);
}

#[test]
fn a_kill_before_any_write_back_is_recovered() {
    // Nothing reaches the database on its own before the kill.
    kill_rounds(
        Mount::with_config(format!("{RULES}[durability]\ncommit_interval_s = 3600\n")),
        3,
        60,
    );
}

#[test]
fn limits_hold_exactly_after_a_kill() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 1000000\nmax_files = 3"));
    let dir = mount.dir("acme");
    let first = File::create_new(dir.join("1")).expect("a file");
    first.write_all_at(&vec![1; 600_000], 0).expect("it fits");
    mount.kill9();
    drop(first);
    let second = File::create_new(dir.join("2")).expect("a file");
    assert_eq!(common::write_until_refused(&second, 7_777).0, 400_000);
    File::create_new(dir.join("3")).expect("a file");
    common::refused(File::create_new(dir.join("4")), common::Errno::DQUOT);
    drop(second);
    mount.finish();
}

#[test]
fn a_kill_right_after_a_clean_start_changes_nothing() {
    let mut mount = Mount::with_config(RULES);
    common::make_file(&mount.dir("acme/sales").join("call"), 123_456);
    let before = mount.assert_usage_true();
    mount.remount();
    for _ in 0..3 {
        mount.kill9();
        assert_eq!(mount.assert_usage_true(), before);
    }
    mount.finish();
}

#[test]
fn a_lost_database_is_rebuilt_by_a_scan() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 200000"));
    common::make_file(&mount.dir("acme/sales").join("call"), 123_456);
    let before = mount.assert_usage_true();
    for damage in [
        &b""[..],
        b"this is no database, this is a text long enough to be read as a header of one",
    ] {
        mount.stop();
        for name in ["tallyfs.db-wal", "tallyfs.db-shm"] {
            let _ = fs::remove_file(mount.store().join(name));
        }
        let database = mount.store().join("tallyfs.db");
        fs::remove_file(&database).expect("the database is there");
        if !damage.is_empty() {
            fs::write(&database, damage).expect("a damaged database");
        }
        mount.start();
        assert_eq!(mount.assert_usage_true(), before);
        assert_eq!(read(&mount.path("acme/sales/call")).len(), 123_456);
    }
    mount.finish();
}
