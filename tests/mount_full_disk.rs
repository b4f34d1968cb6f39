//! A disk that is really full under recordings: the writer gets ENOSPC, nothing is torn, what was
//! acknowledged is there, deleting makes room, and recording goes on.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use common::wav::noise;
use common::{Errno, Mount, Setup, wait};

const CHUNK: usize = 16_000;

/// A recording that goes on.
struct Recording {
    path: PathBuf,
    file: Option<File>,
    seed: u64,
    acknowledged: u64,
}

impl Recording {
    fn new(dir: &Path, seed: u64) -> Self {
        let path = dir.join(format!("{seed}.wav"));
        Self {
            file: Some(File::create_new(&path).expect("a new recording")),
            path,
            seed,
            acknowledged: 0,
        }
    }

    /// One more chunk; what the disk did not take is not counted.
    fn go_on(&mut self) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        noise(self.seed, self.acknowledged, &mut chunk);
        let written = self.file.as_mut().expect("open").write(&chunk)?;
        assert!(written > 0, "write answered 0");
        self.acknowledged += written as u64;
        Ok(())
    }

    #[track_caller]
    fn assert_whole(&self) {
        let found = common::read(&self.path);
        let mut expected = vec![0; self.acknowledged as usize];
        noise(self.seed, 0, &mut expected);
        assert_eq!(found.len() as u64, self.acknowledged, "{}", self.path.display());
        assert!(found == expected, "{}: other bytes", self.path.display());
    }
}

/// Records in turns until every recording was refused.
#[track_caller]
fn fill(recordings: &mut [Recording]) {
    let mut refused = 0;
    while refused < 3 * recordings.len() {
        for recording in recordings.iter_mut() {
            match recording.go_on() {
                Ok(()) => refused = 0,
                Err(e) => {
                    assert_eq!(Errno::from_io_error(&e), Some(Errno::NOSPC), "{e}");
                    refused += 1;
                }
            }
        }
    }
}

fn full_mount() -> (Mount, Vec<Recording>) {
    let mount = Setup::new().small_disk(48).mount();
    let dir = mount.dir("acme/sales");
    let mut recordings: Vec<_> = (0..6).map(|seed| Recording::new(&dir, seed)).collect();
    fill(&mut recordings);
    let total: u64 = recordings.iter().map(|recording| recording.acknowledged).sum();
    assert!(total > 20 << 20, "{total} bytes were taken before the disk was full");
    (mount, recordings)
}

/// Files without the size of a sealed one.
fn unsealed(mount: &Mount) -> usize {
    let dir = mount.store().join("data/acme/sales");
    let sizes = fs::read_dir(dir)
        .expect("the store")
        .map(|entry| entry.and_then(|e| e.metadata()).map_or(0, |m| m.len()));
    sizes.filter(|&size| common::scan::plain_len(size).is_none()).count()
}

/// Room again: the ones that go on do, all get sealed, and the figures are true.
fn recover(mount: Mount, mut recordings: Vec<Recording>) {
    let gone = recordings.remove(0);
    drop(gone.file);
    fs::remove_file(&gone.path).expect("deleting is always allowed");
    for recording in &mut recordings {
        if recording.file.is_some() {
            // The committer frees what the deleted one held within moments.
            wait::until("room for a recording", || recording.go_on().ok());
        }
        recording.file = None;
        recording.assert_whole();
    }
    wait::until("every recording is sealed", || (unsealed(&mount) == 0).then_some(()));
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn a_full_disk_tells_the_writer_and_tears_nothing() {
    let (mount, mut recordings) = full_mount();
    for recording in &recordings {
        recording.assert_whole();
    }
    // Some hang up while it is full.
    for recording in &mut recordings[3..] {
        recording.file = None;
        recording.assert_whole();
    }
    recover(mount, recordings);
}

#[test]
fn a_daemon_killed_on_a_full_disk_comes_back_with_everything() {
    let (mut mount, mut recordings) = full_mount();
    mount.kill();
    for recording in &mut recordings {
        recording.file = None;
    }
    mount.start();
    for recording in &recordings {
        recording.assert_whole();
    }
    recover(mount, recordings);
}
