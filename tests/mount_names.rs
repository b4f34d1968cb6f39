//! Names, directories, links and attributes, as programs rely on them. Each case runs on a native directory as well: a case that fails there is wrong itself.

#[macro_use]
mod common;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, OFlags, RenameFlags, mkdirat, mknodat, renameat_with};

use common::{Errno, Mount, make_file, names, read, refused, run, tree};

cases! {
    exclusive_creation_refuses_what_exists
    rename_noreplace_refuses_what_exists
    rename_exchange_swaps
    rename_over_leaves_the_open_victim_usable
    rename_into_itself_is_refused
    long_names_and_names_that_are_no_text
    a_directory_can_be_listed_while_it_is_emptied
    removal_errors
    probes_of_a_recorder
    numbers_of_known_inodes_are_not_given_away
    modes_follow_umask_and_setgid
    links_share_content_and_count
    special_files_and_symlinks
    extended_attributes_are_kept
    writing_drops_setuid
    times_are_kept
    a_directory_removed_while_open_is_empty
}

fn open(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

fn exclusive_creation_refuses_what_exists(dir: &Path) {
    File::create_new(dir.join("a")).unwrap();
    refused(File::create_new(dir.join("a")), Errno::EXIST);
    symlink("nowhere", dir.join("link")).unwrap();
    refused(File::create_new(dir.join("link")), Errno::EXIST);
    refused(fs::create_dir(dir.join("a")), Errno::EXIST);
    refused(symlink("x", dir.join("a")), Errno::EXIST);
    refused(fs::hard_link(dir.join("a"), dir.join("link")), Errno::EXIST);
}

fn rename_noreplace_refuses_what_exists(dir: &Path) {
    make_file(&dir.join("a"), 1);
    make_file(&dir.join("b"), 2);
    let rename = |to: &str| renameat_with(CWD, dir.join("a"), CWD, dir.join(to), RenameFlags::NOREPLACE);
    assert_eq!(rename("b"), Err(Errno::EXIST));
    assert_eq!(read(&dir.join("b")).len(), 2);
    rename("c").unwrap();
    assert_eq!(names(dir), ["b", "c"]);
}

fn rename_exchange_swaps(dir: &Path) {
    make_file(&dir.join("file"), 5);
    fs::create_dir(dir.join("directory")).unwrap();
    make_file(&dir.join("directory/inside"), 6);
    let exchange = |a: &str, b: &str| renameat_with(CWD, dir.join(a), CWD, dir.join(b), RenameFlags::EXCHANGE);
    exchange("file", "directory").unwrap();
    assert_eq!(read(&dir.join("file/inside")).len(), 6);
    assert_eq!(read(&dir.join("directory")).len(), 5);
    assert_eq!(exchange("file", "missing"), Err(Errno::NOENT));
}

fn rename_over_leaves_the_open_victim_usable(dir: &Path) {
    make_file(&dir.join("old"), 10_000);
    make_file(&dir.join("new"), 20_000);
    let old_content = read(&dir.join("old"));
    let victim = open(&dir.join("old"));
    let moved = open(&dir.join("new"));
    fs::rename(dir.join("new"), dir.join("old")).unwrap();
    assert_eq!(
        (victim.metadata().unwrap().nlink(), victim.metadata().unwrap().len()),
        (0, 10_000)
    );
    assert_eq!(
        (moved.metadata().unwrap().nlink(), moved.metadata().unwrap().len()),
        (1, 20_000)
    );
    let mut content = vec![0; 10_000];
    victim.read_exact_at(&mut content, 0).unwrap();
    assert!(content == old_content);
    moved.write_all_at(b"tail", 20_000).unwrap();
    assert_eq!(dir.join("old").metadata().unwrap().len(), 20_004);
    assert_eq!(names(dir), ["old"]);
}

fn rename_into_itself_is_refused(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).unwrap();
    make_file(&dir.join("f"), 1);
    refused(fs::rename(dir.join("a"), dir.join("a/b/c")), Errno::INVAL);
    refused(fs::rename(dir.join("a/b"), dir.join("f")), Errno::NOTDIR);
    refused(fs::rename(dir.join("f"), dir.join("a")), Errno::ISDIR);
    refused(fs::rename(dir.join("missing"), dir.join("x")), Errno::NOENT);
    fs::create_dir(dir.join("c")).unwrap();
    refused(fs::rename(dir.join("c"), dir.join("a")), Errno::NOTEMPTY);
    fs::rename(dir.join("c"), dir.join("a/b")).unwrap();
    assert_eq!(names(dir), ["a", "f"]);
}

fn long_names_and_names_that_are_no_text(dir: &Path) {
    let longest = "n".repeat(255);
    make_file(&dir.join(&longest), 10);
    refused(File::create(dir.join("n".repeat(256))), Errno::NAMETOOLONG);
    let odd = OsStr::from_bytes(b"\xff\x80 \n\t\\*?");
    make_file(&dir.join(odd), 20);
    fs::create_dir(dir.join("8000")).unwrap();
    let mut expected = vec![odd.to_owned(), longest.clone().into(), "8000".into()];
    expected.sort();
    assert_eq!(names(dir), expected);
    fs::rename(dir.join(odd), dir.join("plain")).unwrap();
    assert_eq!(read(&dir.join("plain")).len(), 20);
    fs::remove_file(dir.join(longest)).unwrap();
}

fn a_directory_can_be_listed_while_it_is_emptied(dir: &Path) {
    const FILES: usize = 2_000;
    (0..FILES).for_each(|n| drop(File::create_new(dir.join(format!("call-{n:05}.wav"))).unwrap()));
    let mut seen = std::collections::HashSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        assert!(seen.insert(entry.file_name()), "listed twice");
        fs::remove_file(entry.path()).unwrap();
    }
    assert_eq!(seen.len(), FILES);
    assert!(names(dir).is_empty());
}

fn removal_errors(dir: &Path) {
    fs::create_dir_all(dir.join("full/inside")).unwrap();
    make_file(&dir.join("file"), 1);
    refused(fs::remove_dir(dir.join("full")), Errno::NOTEMPTY);
    refused(fs::remove_dir(dir.join("file")), Errno::NOTDIR);
    refused(fs::remove_file(dir.join("full")), Errno::ISDIR);
    refused(fs::remove_file(dir.join("missing")), Errno::NOENT);
    refused(fs::remove_dir(dir.join("missing")), Errno::NOENT);
    refused(fs::read_dir(dir.join("file")).map(drop), Errno::NOTDIR);
    refused(fs::metadata(dir.join("file/below")), Errno::NOTDIR);
}

fn probes_of_a_recorder(dir: &Path) {
    let path = dir.join("call.wav");
    let directory = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
            .open(path)
    };
    refused(directory(&path), Errno::NOENT);
    refused(dir.join("8000/call.wav").metadata(), Errno::NOENT);
    refused(
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("8000/call.wav")),
        Errno::NOENT,
    );
    refused(path.metadata(), Errno::NOENT);
    // A name that was just reported missing must be there once it is made.
    drop(open(&path));
    assert_eq!(path.metadata().unwrap().len(), 0);
    refused(directory(&path), Errno::NOTDIR);
    fs::remove_file(&path).unwrap();
    refused(path.metadata(), Errno::NOENT);
    directory(dir).unwrap();
}

fn modes_follow_umask_and_setgid(dir: &Path) {
    let out = run(
        "sh",
        &[
            "-c",
            "cd \"$1\" && umask 027 && mkdir d && : >f && stat -c %a d f",
            "sh",
            common::command::text(dir),
        ],
    );
    assert_eq!(out, "750\n640\n");
    let group = dir.join("group");
    fs::create_dir(&group).unwrap();
    fs::set_permissions(&group, fs::Permissions::from_mode(0o2775)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&group, None, Some(2_345)).unwrap();
        fs::set_permissions(&group, fs::Permissions::from_mode(0o2775)).unwrap();
        File::create(group.join("file")).unwrap();
        assert_eq!(group.join("file").metadata().unwrap().gid(), 2_345);
    }
    fs::create_dir(group.join("below")).unwrap();
    assert_eq!(group.join("below").metadata().unwrap().mode() & 0o2000, 0o2000);
}

fn links_share_content_and_count(dir: &Path) {
    make_file(&dir.join("a"), 1_000);
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    let meta = |name: &str| dir.join(name).metadata().unwrap();
    assert_eq!((meta("a").ino(), meta("a").nlink()), (meta("b").ino(), 2));
    OpenOptions::new()
        .append(true)
        .open(dir.join("b"))
        .unwrap()
        .write_all(b"more")
        .unwrap();
    assert_eq!(meta("a").len(), 1_004);
    fs::remove_file(dir.join("a")).unwrap();
    assert_eq!((meta("b").nlink(), meta("b").len()), (1, 1_004));
    assert!(fs::hard_link(dir, dir.join("directory")).is_err());
    assert_eq!(names(dir), ["b"]);
}

fn special_files_and_symlinks(dir: &Path) {
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    mknodat(CWD, dir.join("regular"), FileType::RegularFile, 0o600.into(), 0).unwrap();
    let target = format!("../{}", "x".repeat(1_000));
    symlink(&target, dir.join("link")).unwrap();
    assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new(&target));
    assert_eq!(dir.join("link").symlink_metadata().unwrap().len(), target.len() as u64);
    fs::write(dir.join("regular"), b"content").unwrap();
    symlink("regular", dir.join("good")).unwrap();
    assert_eq!(read(&dir.join("good")), b"content");
    refused(fs::read_link(dir.join("regular")), Errno::INVAL);
    mkdirat(CWD, dir.join("d"), 0o700.into()).unwrap();
    symlink("d", dir.join("to d")).unwrap();
    make_file(&dir.join("to d/file"), 3);
    assert_eq!(names(&dir.join("d")), ["file"]);
}

fn extended_attributes_are_kept(dir: &Path) {
    use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
    let path = dir.join("file");
    make_file(&path, 10);
    let mut buffer = [0_u8; 4_096];
    assert_eq!(getxattr(&path, "user.call.id", &mut buffer), Err(Errno::NODATA));
    setxattr(&path, "user.call.id", b"4711", XattrFlags::CREATE).unwrap();
    assert_eq!(
        setxattr(&path, "user.call.id", b"1", XattrFlags::CREATE),
        Err(Errno::EXIST)
    );
    assert_eq!(
        setxattr(&path, "user.other", b"1", XattrFlags::REPLACE),
        Err(Errno::NODATA)
    );
    // getfattr asks for the length first, as cp and rsync do; rustix never does.
    let shown = run(
        "getfattr",
        &["--only-values", "--name=user.call.id", common::command::text(&path)],
    );
    assert_eq!(shown, "4711");
    setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    let len = getxattr(&path, "user.call.id", &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"4711");
    assert_eq!(getxattr(&path, "user.call.id", &mut [0_u8; 2]), Err(Errno::RANGE));
    assert_eq!(
        listxattr(&path, &mut buffer).unwrap(),
        "user.call.id\0user.empty\0".len()
    );
    removexattr(&path, "user.call.id").unwrap();
    assert_eq!(removexattr(&path, "user.call.id"), Err(Errno::NODATA));
    setxattr(dir, "user.directory", b"yes", XattrFlags::empty()).unwrap();
    let len = getxattr(dir, "user.directory", &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"yes");
}

fn writing_drops_setuid(dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Root keeps the bits by right; an ordinary writer loses them.
    let path = dir.join("program");
    make_file(&path, 10);
    std::os::unix::fs::chown(&path, Some(1_000), Some(1_000)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(&path, Some(1_001), Some(1_000)).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755, "a new owner");
}

fn times_are_kept(dir: &Path) {
    let path = dir.join("file");
    let file = open(&path);
    file.write_all_at(&[1; 10_000], 0).unwrap();
    let past = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_123_456_789);
    file.set_modified(past).unwrap();
    assert_eq!(path.metadata().unwrap().modified().unwrap(), past);
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    drop(file);
    assert_eq!(
        path.metadata().unwrap().modified().unwrap(),
        past,
        "closing is no modification"
    );
    fs::rename(&path, dir.join("renamed")).unwrap();
    let path = dir.join("renamed");
    assert_eq!(path.metadata().unwrap().modified().unwrap(), past);
    let before = dir.metadata().unwrap().modified().unwrap();
    open(&path).write_all_at(&[2; 4], 0).unwrap();
    assert!(path.metadata().unwrap().modified().unwrap() > past, "writing is");
    assert_eq!(
        dir.metadata().unwrap().modified().unwrap(),
        before,
        "and not of the directory"
    );
}

fn a_directory_removed_while_open_is_empty(dir: &Path) {
    let path = dir.join("short-lived");
    fs::create_dir(&path).unwrap();
    let handle = File::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    assert_eq!(handle.metadata().unwrap().nlink(), 0);
    let inside = rustix::fs::openat(&handle, "file", OFlags::CREATE | OFlags::WRONLY, 0o600.into());
    assert_eq!(inside.map(drop), Err(Errno::NOENT));
    assert!(names(dir).is_empty());
}

#[test]
fn q49_o_tmpfile_works_or_says_that_it_does_not() {
    let mount = Mount::new();
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::TMPFILE.bits().cast_signed())
        .open(mount.point());
    match opened {
        Err(error) => refused::<()>(Err(error), Errno::OPNOTSUPP),
        Ok(file) => {
            file.write_all_at(&[1; 100], 0).unwrap();
            drop(file);
        }
    }
    mount.finish();
}

#[test]
fn everything_is_the_same_after_a_remount_and_after_a_kill() {
    let mut mount = Mount::new();
    tree::make_sample(&mount.dir("sample"));
    let before = tree::describe(&mount.path("sample"));
    mount.remount();
    assert!(tree::describe(&mount.path("sample")) == before, "after a remount");
    mount.kill9();
    assert!(tree::describe(&mount.path("sample")) == before, "after a kill");
    mount.assert_usage_true();
    mount.finish();
}

/// The kernel takes an inode for bad whose number it meets again as another's, and answers EIO to who is about to open it.
fn numbers_of_known_inodes_are_not_given_away(dir: &Path) {
    let known = |path: &Path| {
        let named = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW, rustix::fs::Mode::empty()).unwrap();
        let number = rustix::fs::fstat(&named).unwrap().st_ino;
        (named, number)
    };
    let mut kept = Vec::new();
    for round in 0..5 {
        let (unlinked, replaced, removed) = (dir.join("unlinked"), dir.join("replaced"), dir.join("removed"));
        fs::write(&unlinked, b"audio").unwrap();
        fs::write(&replaced, b"audio").unwrap();
        fs::create_dir(&removed).unwrap();
        kept.extend([&unlinked, &replaced, &removed].map(|path| known(path)));
        fs::write(dir.join("over"), b"other").unwrap();
        fs::remove_file(&unlinked).unwrap();
        fs::rename(dir.join("over"), &replaced).unwrap();
        fs::remove_dir(&removed).unwrap();
        for (n, new) in ["new a", "new b", "new c"].into_iter().enumerate() {
            let path = dir.join(format!("{new} {round}"));
            fs::write(&path, b"audio").unwrap();
            let number = path.metadata().unwrap().ino();
            assert!(
                kept.iter().all(|(_, known)| *known != number),
                "round {round}, file {n}: {number} is the number of an inode that somebody holds"
            );
        }
    }
    for (named, number) in &kept {
        assert_eq!(rustix::fs::fstat(named).unwrap().st_ino, *number);
    }
}
