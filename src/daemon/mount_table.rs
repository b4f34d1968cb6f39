//! What is mounted where, read from `/proc/self/mountinfo`.
//!
//! The table tells our own mount from a stranger's on the same path; nothing is unmounted on the
//! word of a path alone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type that our mounts show in the table.
pub const FS_TYPE: &str = "fuse.tallyfs";

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountEntry {
    /// The mount's number, unique among those that exist.
    pub id: u64,
    /// The mount that this one lies on.
    pub parent_id: u64,
    /// `major:minor` as the kernel writes it; each FUSE mount has its own.
    pub device: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// For example `ext4` or `fuse.tallyfs`.
    pub fs_type: String,
    /// What is mounted: for ours the path of the store.
    pub source: PathBuf,
}

impl MountEntry {
    /// One of ours, that shows `store`.
    pub fn is_of(&self, store: &Path) -> bool {
        self.fs_type == FS_TYPE && self.source == store
    }
}

/// The mounts of this process's namespace, oldest first.
#[derive(Clone, Debug)]
pub struct MountTable(Vec<MountEntry>);

impl MountTable {
    /// Reads the table.
    ///
    /// # Errors
    /// Those of reading `/proc/self/mountinfo`, as where `/proc` is not mounted.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    /// The table in `text`; lines of another form than proc(5) gives are left out.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|&byte| byte == b'\n');
        Self(lines.filter_map(parse_line).collect())
    }

    /// What a look-up of `mount_point` meets: the mount there that no other one covers.
    pub fn topmost(&self, mount_point: &Path) -> Option<&MountEntry> {
        let here: Vec<_> = self.0.iter().filter(|entry| entry.mount_point == mount_point).collect();
        let is_covered = |id| here.iter().any(|other| other.parent_id == id);
        here.iter().rev().find(|e| !is_covered(e.id)).copied()
    }

    /// The mount that `path` (absolute, without links) lies in.
    pub fn holding(&self, path: &Path) -> Option<&MountEntry> {
        path.ancestors().find_map(|dir| self.topmost(dir))
    }

    /// Every mount of ours that shows `store`.
    pub fn of_store<'a>(&'a self, store: &'a Path) -> impl Iterator<Item = &'a MountEntry> {
        self.0.iter().filter(move |entry| entry.is_of(store))
    }
}

/// proc(5): id, parent, major:minor, root, mount point, options, optional fields, `-`, type,
/// source, options of the super block.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let id = text()?.parse().ok()?;
    let parent_id = text()?.parse().ok()?;
    let device = text()?.to_owned();
    let mount_point = unescape(fields.nth(1)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountEntry {
        id,
        parent_id,
        device,
        mount_point,
        fs_type: String::from_utf8(rest.next()?.to_vec()).ok()?,
        source: unescape(rest.next()?),
    })
}

/// Space, tab, line feed, backslash and `#` stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .first_chunk::<3>()
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 27 0:50 / /srv/my\\040calls rw,nosuid shared:7 master:1 - fuse.tallyfs /var/lib/a\\134b\\043c rw,user_id=0
91 90 0:51 / /srv/my\\040calls rw - tmpfs tmpfs rw
nonsense
";

    #[test]
    fn escaped_paths_come_back_as_they_were() {
        let table = MountTable::parse(TABLE);
        let ours: Vec<_> = table.of_store(Path::new(r"/var/lib/a\b#c")).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(ours[0].mount_point, Path::new("/srv/my calls"));
        assert_eq!(ours[0].device, "0:50");
    }

    #[test]
    fn the_topmost_mount_is_the_one_that_nothing_covers() {
        let table = MountTable::parse(TABLE);
        let top = table.topmost(Path::new("/srv/my calls")).unwrap();
        assert_eq!(top.fs_type, "tmpfs");
        assert!(table.topmost(Path::new("/srv")).is_none());
    }

    #[test]
    fn a_path_lies_in_the_deepest_mount_above_it() {
        let table = MountTable::parse(TABLE);
        let holding = |path: &str| table.holding(Path::new(path)).unwrap().id;
        assert_eq!(holding("/srv/my calls/a/b"), 91);
        assert_eq!(holding("/srv/other"), 27);
        assert_eq!(holding("/proc/1"), 22);
    }

    #[test]
    fn the_real_table_has_proc() {
        let table = MountTable::read().unwrap();
        assert!(table.topmost(Path::new("/proc")).is_some());
    }
}
