//! Damage done to sealed files behind the daemon's back, page by page.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::mount::{Mount, tallyfs};
use super::{command, wav};

pub const PAGE: u64 = 4096;
/// Plaintext bytes of block 0 and of every other block.
pub const BLOCK_0: u64 = 3808;
pub const BLOCK: u64 = 4048;

/// Where the body page of a block lies.
pub fn body(block: u64) -> u64 {
    20480 + PAGE * block
}

/// Plaintext bytes of a block, as a range.
pub fn plain_range(block: u64) -> std::ops::Range<usize> {
    let from = BLOCK_0 + BLOCK * (block - 1);
    from as usize..(from + BLOCK) as usize
}

/// The backing file of a path in the mount.
pub fn backing(mount: &Mount, path: &str) -> PathBuf {
    mount.store().join("data").join(path)
}

#[track_caller]
fn open(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Turns one bit over.
#[track_caller]
pub fn flip(path: &Path, offset: u64) {
    let file = open(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("inside the file");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).expect("writable");
}

/// One page of a file.
#[track_caller]
pub fn page(path: &Path, offset: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    let got = open(path).read_at(&mut page, offset).expect("readable");
    assert!(got > 0, "no page at {offset} of {}", path.display());
    page
}

/// Puts bytes in place.
#[track_caller]
pub fn put(path: &Path, offset: u64, bytes: &[u8]) {
    open(path).write_all_at(bytes, offset).expect("writable");
}

/// Sets the size.
#[track_caller]
pub fn resize(path: &Path, size: u64) {
    open(path).set_len(size).expect("resizable");
}

/// Size on disk.
#[track_caller]
pub fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("there").len()
}

/// A recording with a whole header and 16-bit noise.
#[track_caller]
pub fn record(mount: &Mount, path: &str, seed: u64, data_len: u32) -> Vec<u8> {
    let content = wav::file(seed, data_len);
    let path = mount.path(path);
    fs::create_dir_all(path.parent().expect("in the mount")).expect("directories");
    fs::write(&path, &content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    content
}

/// What a command answered.
pub struct Answer {
    pub code: i32,
    pub text: String,
    pub errors: String,
}

impl Answer {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}{}", self.text, self.errors))
    }

    /// Panics unless the command ended with `code`.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.text, self.errors);
        self
    }
}

/// Runs `tallyfs`.
#[track_caller]
pub fn tally(args: &[&str]) -> Answer {
    let output = command::output(tallyfs(), args, Path::new("/"));
    Answer {
        code: output.status.code().expect("an exit code"),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
