//! A real disk that fills up, hangs or fails: a small ext4 on a loop device, gone with the test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::command::{run, succeeds, text};

/// A mounted file system of its own; needs root.
pub struct SmallDisk {
    point: PathBuf,
    /// Where the image lies, when that is a file system of its own too.
    memory: Option<PathBuf>,
}

impl SmallDisk {
    /// Makes a file system of `mib` MiB and mounts it at `dir`/disk.
    #[track_caller]
    pub fn new(dir: &Path, mib: u64) -> Self {
        Self {
            point: make(dir, dir, mib, &[]),
            memory: None,
        }
    }

    /// The same with its image in memory, so that [`SmallDisk::refuse_writes`] works. Without a journal, which
    /// would make the disk read-only for good after the first failure.
    #[track_caller]
    pub fn in_memory(dir: &Path, mib: u64) -> Self {
        let memory = dir.join("memory");
        std::fs::create_dir(&memory).expect("a mount point");
        let size = format!("size={mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&memory)]);
        Self {
            point: make(dir, &memory, mib, &["-O", "^has_journal"]),
            memory: Some(memory),
        }
    }

    /// Makes every write to a place of the disk that was not written before fail, once it leaves the page cache,
    /// until the guard is dropped.
    #[track_caller]
    pub fn refuse_writes(&self) -> Refusing {
        let path = self.memory.as_ref().expect("a disk in memory").join("filler");
        let mut file = std::fs::File::create(&path).expect("a filler");
        for chunk in [1 << 20, 4096] {
            while file.write_all(&vec![1; chunk]).is_ok() {}
        }
        Refusing(path)
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Makes every change of the disk hang until the guard is dropped, or the test is killed.
    #[track_caller]
    pub fn freeze(&self) -> Frozen {
        // Started before: a child of the test closes the test's files when it starts, which asks the hanging daemon.
        let mut helper = Command::new("sh")
            .args(["-c", FREEZE, "sh", text(&self.point)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut said = String::new();
        let output = helper.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut said).expect("a line");
        assert_eq!(said, "frozen\n", "fsfreeze does not work here");
        Frozen(helper)
    }
}

/// Makes an ext4 in `images` and mounts it at `dir`/disk.
#[track_caller]
fn make(dir: &Path, images: &Path, mib: u64, features: &[&str]) -> PathBuf {
    let (image, point) = (images.join("disk.img"), dir.join("disk"));
    let file = std::fs::File::create(&image).expect("an image");
    file.set_len(mib << 20).expect("its size");
    let options = [&["-q", "-m", "0", "-b", "4096"], features, &[text(&image)]].concat();
    run("mkfs.ext4", &options);
    std::fs::create_dir(&point).expect("a mount point");
    run("mount", &["-o", "loop", text(&image), text(&point)]);
    point
}

/// A disk that refuses writes; dropping it ends that.
pub struct Refusing(PathBuf);

impl Drop for Refusing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Freezes a disk until its input ends.
const FREEZE: &str = r#"fsfreeze --freeze "$1" && echo frozen; cat >/dev/null; fsfreeze --unfreeze "$1""#;

/// A disk that hangs; dropping it lets everything go on.
pub struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        for point in [Some(&self.point), self.memory.as_ref()].into_iter().flatten() {
            if !succeeds("umount", &[text(point)]) {
                succeeds("umount", &["-l", text(point)]);
            }
        }
    }
}
