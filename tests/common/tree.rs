//! Two directory trees, compared in everything that ordinary tools keep.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Timespec, Timestamps, XattrFlags, utimensat};

use super::make_file;

/// What a name in a tree stands for.
#[derive(PartialEq, Eq, Debug)]
pub struct Node {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    len: u64,
    links: u64,
    /// The first name, in order, of the same inode.
    same_as: PathBuf,
    /// Content of a file, target of a symlink.
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All names below `top` with what they stand for.
#[track_caller]
pub fn describe(top: &Path) -> BTreeMap<PathBuf, Node> {
    let mut paths = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() && !path.is_symlink() {
                waiting.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    let mut first_names = BTreeMap::new();
    let relative = |path: &Path| path.strip_prefix(top).expect("found below it").to_owned();
    paths
        .into_iter()
        .map(|path| {
            let ino = fs::symlink_metadata(&path).expect("listed names exist").ino();
            let same_as = first_names.entry(ino).or_insert_with(|| relative(&path)).clone();
            (relative(&path), node(&path, same_as))
        })
        .collect()
}

#[track_caller]
fn node(path: &Path, same_as: PathBuf) -> Node {
    let meta = fs::symlink_metadata(path).expect("listed names exist");
    let kind = meta.file_type();
    let (kind, content) = match () {
        () if kind.is_dir() => ("directory", Vec::new()),
        () if kind.is_symlink() => (
            "symlink",
            fs::read_link(path)
                .expect("a symlink has a target")
                .into_os_string()
                .into_vec(),
        ),
        () if kind.is_file() => ("file", super::read(path)),
        () if kind.is_fifo() => ("fifo", Vec::new()),
        () => ("other", Vec::new()),
    };
    Node {
        kind,
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        // The size of a directory is the file system's own affair, and so are its links.
        len: if kind == "directory" { 0 } else { meta.len() },
        links: if kind == "directory" { 0 } else { meta.nlink() },
        same_as,
        content,
        xattrs: xattrs(path),
    }
}

#[track_caller]
fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    list[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("listed attributes can be read");
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Panics with the names that differ.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (left_nodes, right_nodes) = (describe(left), describe(right));
    for (name, node) in &left_nodes {
        let Some(other) = right_nodes.get(name) else {
            panic!("{} is missing in {}", name.display(), right.display());
        };
        let brief = |node: &Node| {
            let Node {
                kind,
                mode,
                owner,
                mtime,
                len,
                links,
                same_as,
                xattrs,
                ..
            } = node;
            format!(
                "{kind} {mode:o} {owner:?} {mtime:?} {len} {links} {} {xattrs:?}",
                same_as.display()
            )
        };
        assert!(
            node == other,
            "{} differs:\n{}\n{}\ncontent equal: {}",
            name.display(),
            brief(node),
            brief(other),
            node.content == other.content
        );
    }
    for name in right_nodes.keys() {
        assert!(
            left_nodes.contains_key(name),
            "{} is in {} alone",
            name.display(),
            right.display()
        );
    }
}

/// Lengths at the edges of the sealed format and of pages.
pub const LENGTHS: [u64; 14] = [
    0, 1, 43, 44, 3_807, 3_808, 3_809, 4_096, 7_855, 7_856, 7_857, 65_536, 160_044, 1_048_579,
];

/// Fills `top` with the kinds of things that tools have to carry over.
#[track_caller]
pub fn make_sample(top: &Path) {
    let modes = [0o644, 0o600, 0o755, 0o444, 0o2755, 0o4711, 0o400];
    for dir in [
        "acme",
        "acme/sales",
        "acme/sales/agent 7",
        "acme/empty",
        "globex@example.com",
        "globex@example.com/archive",
    ] {
        fs::create_dir_all(top.join(dir)).expect("a directory");
    }
    for (n, len) in (0_u32..).zip(LENGTHS) {
        let path = top.join("acme/sales").join(format!("call {n} <+49:30>.wav"));
        make_file(&path, len);
        rustix::fs::lsetxattr(&path, "user.call", format!("value {n}").as_bytes(), XattrFlags::empty())
            .expect("an attribute");
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(1_000 + n), Some(2_000)).expect("root gives files away");
        }
        let mode = modes[n as usize % modes.len()];
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let odd = OsString::from_vec(b"not utf-8 \xff\xfe\n.wav".to_vec());
    make_file(&top.join("acme").join(odd), 5_000);
    fs::hard_link(
        top.join("acme/sales/call 12 <+49:30>.wav"),
        top.join("acme/sales/agent 7/linked.wav"),
    )
    .expect("a link");
    symlink("sales/call 3 <+49:30>.wav", top.join("acme/symlink.wav")).expect("a symlink");
    symlink("/nowhere/at all", top.join("globex@example.com/dangling")).expect("a symlink");
    symlink("../acme", top.join("globex@example.com/to a directory")).expect("a symlink");
    let fifo = top.join("globex@example.com/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o640.into()).expect("a fifo");
    fs::set_permissions(top.join("acme/empty"), fs::Permissions::from_mode(0o1770)).expect("a mode");
    set_times(top);
}

/// Gives every name a time of its own in the past, directories after what is in them.
#[track_caller]
fn set_times(top: &Path) {
    let mut paths: Vec<_> = describe(top).into_keys().collect();
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for (n, path) in (0_i64..).zip(paths) {
        let time = Timespec {
            tv_sec: 1_600_000_000 + 86_400 * n,
            tv_nsec: 123_456_789,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(rustix::fs::CWD, top.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).expect("times can be set");
    }
}
