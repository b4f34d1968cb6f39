//! A disk that hangs: whoever syncs to it waits, and requests for other files are answered.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use common::wait::DEADLINE;
use common::{Mount, Setup, make_file, wait};

/// Threads of the daemon that answer requests.
const THREADS: usize = 4;
/// More than they are, and fewer than the gate and half of them carry.
const SYNCS: usize = THREADS + 4;

/// A file whose next fsync has something to write: with holes the head goes first.
fn with_unsynced_hole(path: &Path) -> File {
    let file = File::create_new(path).expect("a new file");
    for offset in [0, 100_000] {
        file.write_all_at(&[7; 10_000], offset).expect("a write");
    }
    file
}

/// Whether a thread of this process waits in a system call of the kernel.
fn waits_in(thread: u32, call: i64) -> bool {
    let told = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    told.split(' ').next() == Some(&call.to_string())
}

/// Does `work` in a thread of its own, which may hang, but not longer than the deadline.
#[track_caller]
fn answers<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (say, said) = mpsc::channel();
    thread::spawn(move || say.send(work()));
    said.recv_timeout(DEADLINE)
        .unwrap_or_else(|_| panic!("no answer while others wait for the disk: {what}"))
}

/// Hangs an fsync for each file, asks for everything else meanwhile, and lets the disk go on.
fn others_are_answered(mount: &Mount, files: &[File]) {
    let (other, dir) = (mount.path("acme/other.wav"), mount.path("acme"));
    let cached = mount.path("acme/cached.wav");
    let before = common::read(&cached);
    thread::scope(|scope| {
        // Dropped before the threads are waited for, also when an answer does not come.
        let frozen = mount.disk().freeze();
        let (say, ids) = mpsc::channel();
        let syncs: Vec<_> = files
            .iter()
            .map(|file| {
                let say = say.clone();
                scope.spawn(move || {
                    say.send(rustix::thread::gettid().as_raw_pid().cast_unsigned())
                        .expect("it is heard");
                    file.sync_all()
                })
            })
            .collect();
        for id in ids.iter().take(files.len()) {
            wait::until("an fsync is under way", || waits_in(id, libc::SYS_fsync).then_some(()));
        }
        let absent = mount.path("acme/absent.wav");
        assert!(answers("a look-up", move || absent.metadata()).is_err());
        assert_eq!(answers("a read", move || common::read(&other)).len(), 160_044);
        assert_eq!(answers("a cached read", move || common::read(&cached)), before);
        let names = answers("a listing", move || fs::read_dir(dir).map(Iterator::count));
        assert_eq!(names.expect("a directory"), 2);
        assert!(syncs.iter().all(|sync| !sync.is_finished()), "the disk did not hang");
        drop(frozen);
        for sync in syncs {
            sync.join().expect("no panic").expect("the disk is well again");
        }
    });
}

#[test]
fn fsyncs_that_hang_stall_nobody_else() {
    let config = format!("[service]\nthreads = {THREADS}\n[durability]\ncommit_interval_s = 60\n");
    let mount = Setup::new().small_disk(48).config(config).mount();
    mount.dir("acme");
    mount.dir("busy");
    make_file(&mount.path("acme/other.wav"), 160_044);
    make_file(&mount.path("acme/cached.wav"), 160_044);
    let files: Vec<_> = (0..SYNCS)
        .map(|number| with_unsynced_hole(&mount.path(&format!("busy/{number}.wav"))))
        .collect();
    others_are_answered(&mount, &files);
    drop(files);
    mount.assert_usage_true();
    mount.finish();
}
