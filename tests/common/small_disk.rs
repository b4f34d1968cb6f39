//! A real disk that fills up or hangs: a small ext4 on a loop device, gone with the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::command::{run, succeeds, text};

/// A mounted file system of its own; needs root.
pub struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    /// Makes a file system of `mib` MiB and mounts it at `dir`/disk.
    #[track_caller]
    pub fn new(dir: &Path, mib: u64) -> Self {
        let (image, point) = (dir.join("disk.img"), dir.join("disk"));
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(mib << 20).expect("its size");
        run("mkfs.ext4", &["-q", "-m", "0", "-b", "4096", text(&image)]);
        std::fs::create_dir(&point).expect("a mount point");
        run("mount", &["-o", "loop", text(&image), text(&point)]);
        Self { point }
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
        if !succeeds("umount", &[text(&self.point)]) {
            succeeds("umount", &["-l", text(&self.point)]);
        }
    }
}
