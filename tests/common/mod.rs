//! What the tests through a real mount share: the mount itself, an independent scan, commands, tree comparison, WAV files.
//!
//! Nothing here skips: a machine that cannot mount fails the tests. Nothing here has global state: tests run side by side, as
//! threads or as processes.

// Each test program uses its own part of this module.
#![allow(dead_code, unused_imports, unused_macros)]

/// Every case, a function of a directory, twice: on a native directory and through a mount.
macro_rules! cases {
    ($($case:ident)*) => {
        mod native {
            $(#[test] fn $case() { super::$case(tempfile::tempdir().expect("a directory").path()); })*
        }
        mod mounted {
            $(#[test] fn $case() {
                let mount = $crate::common::Mount::new();
                super::$case(&mount.dir("acme/sales"));
                mount.assert_usage_true();
                mount.finish();
            })*
        }
    };
}

pub mod bare;
pub mod command;
pub mod damage;
pub mod env;
pub mod http;
pub mod http_receiver;
pub mod load;
pub mod mount;
pub mod quota;
pub mod rng;
pub mod scan;
pub mod small_disk;
pub mod tree;
pub mod user;
pub mod wait;
pub mod wav;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

pub use bare::Bare;
pub use command::{run, run_in, succeeds};
pub use mount::{Mount, Setup};
pub use rustix::io::Errno;
pub use scan::{Totals, Usage};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// The configuration most quota tests use: tenant, campaign and agent, and `limits` of one tenant called `acme`.
pub fn acme_limits(limits: &str) -> String {
    format!("{RULES}\n[[exceptions]]\npath = \"acme\"\n{limits}\n")
}

/// Path rules alone.
pub const RULES: &str = "[[rules]]\npath = \"{tenant}/{campaign}/{agent}\"\n";

/// Panics unless `answer` is exactly this error.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: io::Result<T>, errno: Errno) {
    match answer {
        Ok(value) => panic!("was allowed ({value:?}), should answer {errno:?}"),
        Err(error) => assert_eq!(
            Errno::from_io_error(&error),
            Some(errno),
            "{error}, should be {errno:?}"
        ),
    }
}

/// Writes until the first refusal; the acknowledged bytes and the refusal.
#[track_caller]
pub fn write_until_refused(mut file: &File, chunk: usize) -> (u64, io::Error) {
    let buffer = vec![b'r'; chunk];
    let mut acknowledged = 0;
    loop {
        match file.write(&buffer) {
            Ok(0) => panic!("write answered 0 after {acknowledged} bytes"),
            Ok(count) => acknowledged += count as u64,
            Err(error) => return (acknowledged, error),
        }
        assert!(acknowledged < 1 << 32, "no limit stopped the writer");
    }
}

/// Makes a file of `len` bytes with content that depends on its length.
#[track_caller]
pub fn make_file(path: &Path, len: u64) {
    let mut content = vec![0; usize::try_from(len).expect("small files only")];
    wav::noise(len, 0, &mut content);
    std::fs::write(path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// All of a file.
#[track_caller]
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names in a directory, sorted.
#[track_caller]
pub fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry can be read").file_name()).collect();
    names.sort();
    names
}
