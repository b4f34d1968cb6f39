//! Limits through a real mount: what is refused, with which errno, and what always works.

mod common;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, mknodat, statvfs};

use common::scan::totals;
use common::{Errno, KIB, MIB, Mount, RULES, Setup, acme_limits, make_file, read, refused, wav, write_until_refused};

#[test]
fn q02_hard_byte_limit_short_write_then_edquot() {
    let mount = Mount::with_config(acme_limits("max_bytes = \"1MiB\""));
    let path = mount.dir("acme/sales/bob").join("call.wav");
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&wav::header(0)).unwrap();
    let buffer = vec![1; 65_536];
    for _ in 0..15 {
        assert_eq!(file.write(&buffer).unwrap(), 65_536);
    }
    let left = MIB - 44 - 15 * 65_536;
    assert_eq!(file.write(&buffer).unwrap() as u64, left, "the bytes that fit");
    refused(file.write(&buffer), Errno::DQUOT);
    refused(file.write(&[1]), Errno::DQUOT);
    assert_eq!(file.metadata().unwrap().len(), MIB);
    mount.assert_usage_true();
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(MIB, 1, 2));
}

#[test]
fn a_short_write_ends_on_a_multiple_of_four() {
    for extra in 0..4 {
        let mount = Mount::with_config(acme_limits(&format!("max_bytes = {}", 100_000 + extra)));
        let file = File::create_new(mount.dir("acme").join("call.wav")).unwrap();
        let (acknowledged, error) = write_until_refused(&file, 320);
        assert_eq!(acknowledged, 100_000, "limit {}", 100_000 + extra);
        refused::<()>(Err(error), Errno::DQUOT);
        // What fits whole is taken whole, whatever its length.
        let rest = vec![2; usize::try_from(extra).unwrap()];
        if extra > 0 {
            assert_eq!((&file).write(&rest).unwrap() as u64, extra);
        }
        refused((&file).write(&[2]), Errno::DQUOT);
        drop(file);
        assert_eq!(mount.finish().tenants["acme"].bytes, 100_000 + extra);
    }
}

#[test]
fn a_write_past_a_hole_is_charged_from_the_old_end() {
    let mount = Mount::with_config(acme_limits("max_bytes = 100000"));
    let file = File::create_new(mount.dir("acme").join("sparse")).unwrap();
    assert_eq!(file.write_at(&[3; 10], 50_000).unwrap(), 10);
    assert_eq!(mount.tenant("acme").bytes, 50_010);
    refused(file.write_at(&[3; 10], 200_000), Errno::DQUOT);
    assert_eq!(file.metadata().unwrap().len(), 50_010);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(50_010, 1, 0));
}

#[test]
fn the_full_mount_answers_enospc_and_the_full_tenant_edquot() {
    let mount = Mount::with_config(format!(
        "[mount]\nmax_bytes = \"300KiB\"\n{}",
        acme_limits("max_bytes = \"100KiB\"")
    ));
    let tenant = File::create_new(mount.dir("acme").join("a")).unwrap();
    let (acknowledged, error) = write_until_refused(&tenant, 4_096);
    assert_eq!(acknowledged, 100 * KIB);
    refused::<()>(Err(error), Errno::DQUOT);
    let other = File::create_new(mount.dir("globex").join("b")).unwrap();
    let (acknowledged, error) = write_until_refused(&other, 4_096);
    assert_eq!(acknowledged, 200 * KIB);
    refused::<()>(Err(error), Errno::NOSPC);
    drop((tenant, other));
    assert_eq!(mount.finish().total, totals(300 * KIB, 2, 2));
}

#[test]
fn the_limit_of_the_command_line_is_the_mounts() {
    let mount = Setup::new().arguments(&["--limit", "256KiB"]).mount();
    let file = File::create_new(mount.path("a")).unwrap();
    let (acknowledged, error) = write_until_refused(&file, 10_000);
    assert_eq!(acknowledged, 256 * KIB);
    refused::<()>(Err(error), Errno::NOSPC);
    drop(file);
    assert_eq!(mount.finish().total, totals(256 * KIB, 1, 0));
}

#[test]
fn a_file_at_its_own_limit_answers_efbig() {
    let mount = Mount::with_config(acme_limits("max_file_size = 10000"));
    let dir = mount.dir("acme");
    for name in ["one", "two"] {
        let file = File::create_new(dir.join(name)).unwrap();
        let (acknowledged, error) = write_until_refused(&file, 320);
        assert_eq!(acknowledged, 10_000);
        refused::<()>(Err(error), Errno::FBIG);
        refused(file.set_len(10_001), Errno::FBIG);
        file.write_all_at(&[9; 44], 0).unwrap();
    }
    assert_eq!(mount.finish().tenants["acme"], totals(20_000, 2, 0));
}

#[test]
fn q04_file_and_directory_limits_are_exact() {
    let mount = Mount::with_config(acme_limits("max_files = 4\nmax_dirs = 2"));
    let acme = mount.dir("acme");
    File::create_new(acme.join("1 regular")).unwrap();
    symlink("1 regular", acme.join("2 symlink")).unwrap();
    mknodat(CWD, acme.join("3 fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::create_dir(acme.join("dir 1")).unwrap();
    fs::create_dir(acme.join("dir 1/dir 2")).unwrap();
    File::create_new(acme.join("dir 1/dir 2/4 regular")).unwrap();
    let full = totals(0, 4, 2);
    assert_eq!(mount.tenant("acme"), full);

    refused(File::create_new(acme.join("5")), Errno::DQUOT);
    refused(symlink("x", acme.join("5")), Errno::DQUOT);
    let fifo = mknodat(CWD, acme.join("5"), FileType::Fifo, 0o600.into(), 0);
    assert_eq!(fifo, Err(Errno::DQUOT));
    let regular = mknodat(CWD, acme.join("5"), FileType::RegularFile, 0o600.into(), 0);
    assert_eq!(regular, Err(Errno::DQUOT));
    refused(fs::create_dir(acme.join("5")), Errno::DQUOT);
    assert!(
        fs::symlink_metadata(acme.join("5")).is_err(),
        "a refused name must not appear"
    );
    assert_eq!(mount.tenant("acme"), full);

    // What is there, or cannot be there, is said before any limit.
    refused(fs::create_dir(acme.join("dir 1")), Errno::EXIST);
    refused(File::create_new(acme.join("1 regular")), Errno::EXIST);
    refused(fs::create_dir(acme.join("no/parent")), Errno::NOENT);
    refused(File::create_new(acme.join("no/parent")), Errno::NOENT);
    File::create(acme.join("1 regular")).unwrap();

    fs::remove_file(acme.join("2 symlink")).unwrap();
    File::create_new(acme.join("5")).unwrap();
    refused(File::create_new(acme.join("6")), Errno::DQUOT);
    fs::remove_file(acme.join("dir 1/dir 2/4 regular")).unwrap();
    fs::remove_dir(acme.join("dir 1/dir 2")).unwrap();
    fs::create_dir(acme.join("dir 3")).unwrap();
    refused(fs::create_dir(acme.join("dir 4")), Errno::DQUOT);
    assert_eq!(mount.finish().tenants["acme"], totals(0, 3, 2));
}

#[test]
fn the_full_mount_answers_enospc_to_files_and_directories() {
    let mount = Mount::with_config(format!("[mount]\nmax_files = 2\nmax_dirs = 1\n{RULES}"));
    let dir = mount.dir("acme");
    make_file(&dir.join("1"), 10);
    make_file(&mount.path("2"), 10);
    refused(File::create_new(mount.path("3")), Errno::NOSPC);
    refused(fs::create_dir(mount.path("globex")), Errno::NOSPC);
    refused(fs::create_dir(mount.path("acme")), Errno::EXIST);
    assert_eq!(mount.finish().total, totals(20, 2, 1));
}

/// Everything that neither grows a file nor makes a name.
#[track_caller]
fn what_always_works(dir: &Path, file: &Path) {
    let len = file.metadata().unwrap().len();
    let open = OpenOptions::new().read(true).write(true).open(file).unwrap();
    open.write_all_at(&wav::header(7), 0).unwrap();
    open.write_all_at(&[8; 5_000], len - 5_000).unwrap();
    open.set_len(len).unwrap();
    open.sync_all().unwrap();
    open.set_permissions(Permissions::from_mode(0o600)).unwrap();
    open.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    drop(open);
    assert_eq!(read(file)[..44], wav::header(7));
    assert_eq!(file.metadata().unwrap().len(), len);
    refused(fs::create_dir(dir), Errno::EXIST);
    fs::rename(file, dir.join("renamed")).unwrap();
    fs::rename(dir.join("renamed"), file).unwrap();
    File::open(file).unwrap();
    File::options().write(true).open(file).unwrap();
}

#[test]
fn q33_at_the_limit_everything_but_growth_works() {
    let mount = Mount::with_config(acme_limits("max_bytes = 300000\nmax_files = 2"));
    let dir = mount.dir("acme/sales");
    let path = dir.join("call.wav");
    make_file(&path, 200_000);
    make_file(&dir.join("other"), 100_000);
    what_always_works(&dir, &path);
    refused(
        OpenOptions::new().append(true).open(&path).unwrap().write(&[0; 4]),
        Errno::DQUOT,
    );
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(150_000).unwrap();
    assert_eq!(mount.tenant("acme").bytes, 250_000);
    file.write_all_at(&vec![5; 50_000], 150_000).unwrap();
    refused(file.write_at(&[5; 4], 200_000), Errno::DQUOT);
    drop(file);
    fs::remove_file(dir.join("other")).unwrap();
    assert_eq!(mount.finish().tenants["acme"], totals(200_000, 1, 1));
}

#[test]
fn q34_a_limit_lowered_under_usage_refuses_growth_and_nothing_else() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 300000"));
    let dir = mount.dir("acme/sales");
    let path = dir.join("call.wav");
    make_file(&path, 200_000);
    make_file(&dir.join("other"), 100_000);
    mount.remount_with(acme_limits("max_bytes = 120000\nmax_files = 1\nmax_dirs = 1"));
    what_always_works(&dir, &path);
    refused(
        OpenOptions::new().append(true).open(&path).unwrap().write(&[0; 4]),
        Errno::DQUOT,
    );
    refused(File::create_new(dir.join("new")), Errno::DQUOT);
    refused(fs::create_dir(dir.join("new")), Errno::DQUOT);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // Still over the limit after shrinking: shrinking works, growing again does not.
    file.set_len(50_000).unwrap();
    refused(file.write_at(&[5; 4], 50_000), Errno::DQUOT);
    drop(file);
    fs::remove_file(dir.join("other")).unwrap();
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    let (acknowledged, _) = write_until_refused(&file, 64_000);
    assert_eq!(acknowledged, 70_000);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(120_000, 1, 1));
}

#[test]
fn q55_root_is_limited_like_everyone() {
    let mount = Mount::with_config(acme_limits("max_bytes = 10000\nmax_files = 1"));
    let file = File::create_new(mount.dir("acme").join("by whoever runs this")).unwrap();
    let (acknowledged, error) = write_until_refused(&file, 4_000);
    assert_eq!(acknowledged, 10_000);
    refused::<()>(Err(error), Errno::DQUOT);
    refused(File::create_new(mount.path("acme/second")), Errno::DQUOT);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(10_000, 1, 0));
}

#[test]
fn q35_three_children_of_five_fill_a_parent_of_fifteen() {
    let unit = 50_000;
    let child = |n| format!("[[exceptions]]\npath = \"acme/child{n}\"\nmax_bytes = {unit}\n");
    let children = [1, 2, 3].map(child).concat();
    let config = acme_limits(&format!("max_bytes = {}", 3 * unit)) + &children;
    let mount = Mount::with_config(config);
    for child in 1..=3 {
        let file = File::create_new(mount.dir(&format!("acme/child{child}")).join("call")).unwrap();
        assert_eq!(write_until_refused(&file, 9_999).0, unit, "child {child}");
    }
    let file = File::create_new(mount.dir("acme/child4").join("call")).unwrap();
    refused((&file).write(&[1; 4]), Errno::DQUOT);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(3 * unit, 4, 4));
}

#[test]
fn limits_of_a_level_hold_for_every_account_of_that_level() {
    let config = format!(
        "{RULES}[rules.limits.tenant]\nmax_bytes = 30000\n[rules.limits.agent]\nmax_bytes = 10000\nmax_files = 1\n"
    );
    let mount = Mount::with_config(config);
    for tenant in ["acme", "globex"] {
        for agent in ["bob", "eve"] {
            let dir = mount.dir(&format!("{tenant}/sales/{agent}"));
            let file = File::create_new(dir.join("call")).unwrap();
            assert_eq!(write_until_refused(&file, 4_000).0, 10_000);
            refused(File::create_new(dir.join("second")), Errno::DQUOT);
        }
        let file = File::create_new(mount.path(tenant).join("sales/directly")).unwrap();
        assert_eq!(write_until_refused(&file, 4_000).0, 10_000, "the tenant's limit");
    }
    let usage = mount.finish();
    assert_eq!(usage.tenants["acme"], totals(30_000, 3, 3));
    assert_eq!(usage.tenants["globex"], totals(30_000, 3, 3));
}

#[test]
fn q21_df_of_a_limited_directory_shows_its_limit() {
    let mount = Mount::with_config(acme_limits("max_bytes = \"64MiB\"\nmax_files = 1000"));
    let dir = mount.dir("acme/sales");
    make_file(&dir.join("call"), 3 * MIB);
    let inside = statvfs(&dir).unwrap();
    assert_eq!(inside.f_blocks * inside.f_frsize, 64 * MIB);
    assert_eq!(inside.f_bavail * inside.f_frsize, 61 * MIB);
    assert_eq!(inside.f_bfree * inside.f_frsize, 61 * MIB);
    assert_eq!((inside.f_files, inside.f_ffree), (1_000, 999));
    // A change is seen at once.
    make_file(&dir.join("second"), MIB);
    let after = statvfs(&dir).unwrap();
    assert_eq!(after.f_bavail * after.f_frsize, 60 * MIB);
    assert_eq!(after.f_ffree, 998);
    let outside = statvfs(mount.point()).unwrap();
    assert!(
        outside.f_blocks * outside.f_frsize > 64 * MIB,
        "the mount has the disk's size"
    );
    mount.finish();
}

#[test]
fn usage_is_the_same_after_a_remount() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 100000"));
    let dir = mount.dir("acme/sales/bob");
    let mut file = File::create_new(dir.join("call")).unwrap();
    file.write_all(&vec![1; 60_000]).unwrap();
    file.rewind().unwrap();
    drop(file);
    let before = mount.assert_usage_true();
    mount.remount();
    assert_eq!(mount.assert_usage_true(), before);
    let file = OpenOptions::new().append(true).open(dir.join("call")).unwrap();
    assert_eq!(write_until_refused(&file, 7_000).0, 40_000);
    drop(file);
    assert_eq!(mount.finish().tenants["acme"], totals(100_000, 1, 2));
}
