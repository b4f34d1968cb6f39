//! A real disk that fills up or hangs: a small ext4 on a loop device, gone with the test.

use std::path::{Path, PathBuf};

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

    /// Makes every change of the disk hang until the guard is dropped.
    #[track_caller]
    pub fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["--freeze", text(&self.point)]);
        Frozen(self)
    }
}

/// A disk that hangs; dropping it lets everything go on.
pub struct Frozen<'a>(&'a SmallDisk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        succeeds("fsfreeze", &["--unfreeze", text(&self.0.point)]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !succeeds("umount", &[text(&self.point)]) {
            succeeds("umount", &["-l", text(&self.point)]);
        }
    }
}
