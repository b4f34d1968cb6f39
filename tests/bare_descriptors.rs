//! Recordings that are closed faster than the committer seals them do not use up the daemon's descriptors. One test: it changes a limit
//! of the whole process.

mod common;

use std::ffi::OsStr;
use std::fs;

use common::bare::{Bare, ROOT};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tallyfs::fs::{NewMode, OpenMode, ROOT_NODE};

#[test]
fn who_closes_faster_than_is_sealed_helps_to_seal() {
    let limit = Rlimit {
        current: Some(5_000),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let bare = Bare::new();
    let how = OpenMode {
        writes: true,
        ..OpenMode::default()
    };
    // No tick of the committer comes.
    for number in 0..6_000 {
        let name = format!("call-{number}.wav");
        let made = bare
            .fs()
            .create(ROOT_NODE, OsStr::new(&name), NewMode::exactly(0o600), how, ROOT);
        let fh = made.unwrap_or_else(|e| panic!("{name}: errno {}", e.0)).1.fh;
        assert_eq!(bare.write(fh, 0, b"audio"), Ok(5), "{name}");
        assert!(bare.fs().release(fh).is_ok(), "{name}");
    }
    let open = fs::read_dir("/proc/self/fd").expect("this process").count();
    assert!(open < 1_000, "{open} descriptors");
    let sealed = |number: u32| fs::metadata(bare.data().join(format!("call-{number}.wav"))).map(|file| file.len());
    let sealed_count = (0..6_000)
        .filter(|&number| sealed(number).ok() == Some(20_480 + 5))
        .count();
    assert!(sealed_count > 5_000, "{sealed_count} are sealed");
}
