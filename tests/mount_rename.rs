//! Renames and links between accounts: charged, credited, or refused with nothing changed.

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use common::scan::totals;
use common::{Errno, Mount, RULES, Totals, make_file, read, refused};

const LIMIT: u64 = 100_000;

/// Two limited tenants, `acme` and `globex`.
fn two_tenants(limits: &str) -> Mount {
    let exceptions = ["acme", "globex"].map(|tenant| format!("[[exceptions]]\npath = \"{tenant}\"\n{limits}\n"));
    let mount = Mount::with_config(format!("{RULES}{}", exceptions.concat()));
    mount.dir("acme");
    mount.dir("globex");
    mount
}

fn limited() -> Mount {
    two_tenants(&format!("max_bytes = {LIMIT}"))
}

fn exchange(left: &Path, right: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE)?)
}

#[track_caller]
fn assert_tenants(mount: &Mount, acme: Totals, globex: Totals) {
    assert_eq!((mount.tenant("acme"), mount.tenant("globex")), (acme, globex));
    mount.assert_usage_true();
}

#[test]
fn q13_a_file_renamed_into_a_limited_directory_is_charged_there() {
    let mount = limited();
    make_file(&mount.path("globex/call"), 60_000);
    fs::rename(mount.path("globex/call"), mount.path("acme/call")).unwrap();
    assert_tenants(&mount, totals(60_000, 1, 0), totals(0, 0, 0));
    make_file(&mount.path("outside"), 50_000);
    refused(
        fs::rename(mount.path("outside"), mount.path("acme/outside")),
        Errno::DQUOT,
    );
    assert!(mount.path("outside").exists() && !mount.path("acme/outside").exists());
    assert_tenants(&mount, totals(60_000, 1, 0), totals(0, 0, 0));
    fs::rename(mount.path("acme/call"), mount.path("call")).unwrap();
    fs::rename(mount.path("outside"), mount.path("acme/outside")).unwrap();
    assert_tenants(&mount, totals(50_000, 1, 0), totals(0, 0, 0));
    mount.finish();
}

#[test]
fn q13_an_open_file_is_charged_where_it_was_renamed_to() {
    let mount = limited();
    let file = fs::File::create_new(mount.path("globex/call")).unwrap();
    assert_eq!(common::write_until_refused(&file, 10_000).0, LIMIT);
    file.set_len(60_000).unwrap();
    fs::rename(mount.path("globex/call"), mount.path("acme/call")).unwrap();
    make_file(&mount.path("acme/other"), 30_000);
    // The handle is at 100,000; the next write would leave a hole that no longer fits.
    refused(io::Write::write(&mut &file, &[1; 100]), Errno::DQUOT);
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; 10_000], 60_000).unwrap();
    drop(file);
    assert_tenants(&mount, totals(LIMIT, 2, 0), totals(0, 0, 0));
    mount.finish();
}

#[test]
fn q14_a_tree_renamed_into_a_limited_directory_takes_its_content_along() {
    let mount = two_tenants("max_bytes = 100000\nmax_files = 5\nmax_dirs = 4");
    for (dir, len) in [("tree", 10_000), ("tree/a", 20_000), ("tree/a/b", 30_000)] {
        make_file(&mount.dir(&format!("globex/{dir}")).join("call"), len);
    }
    fs::rename(mount.path("globex/tree"), mount.path("acme/tree")).unwrap();
    assert_tenants(&mount, totals(60_000, 3, 3), totals(0, 0, 0));
    assert_eq!(read(&mount.path("acme/tree/a/b/call")).len(), 30_000);
    // Refused by each of the three meters in turn.
    make_file(&mount.dir("globex/bytes").join("call"), 40_001);
    refused(
        fs::rename(mount.path("globex/bytes"), mount.path("acme/bytes")),
        Errno::DQUOT,
    );
    fs::remove_dir_all(mount.path("globex/bytes")).unwrap();
    (1..=3).for_each(|n| make_file(&mount.dir("globex/files").join(n.to_string()), 0));
    refused(
        fs::rename(mount.path("globex/files"), mount.path("acme/files")),
        Errno::DQUOT,
    );
    fs::remove_dir_all(mount.path("globex/files")).unwrap();
    mount.dir("globex/dirs/below");
    refused(
        fs::rename(mount.path("globex/dirs"), mount.path("acme/dirs")),
        Errno::DQUOT,
    );
    assert_tenants(&mount, totals(60_000, 3, 3), totals(0, 0, 2));
    fs::rename(mount.path("acme/tree/a"), mount.path("globex/a")).unwrap();
    assert_tenants(&mount, totals(10_000, 1, 1), totals(50_000, 2, 4));
    mount.finish();
}

#[test]
fn q15_a_rename_into_a_full_account_changes_nothing() {
    let mount = limited();
    make_file(&mount.path("acme/full"), LIMIT);
    make_file(&mount.dir("globex/tree").join("call"), 4);
    let (source, target) = (mount.path("globex/tree"), mount.path("acme/tree"));
    refused(fs::rename(&source, &target), Errno::DQUOT);
    refused(fs::rename(source.join("call"), mount.path("acme/call")), Errno::DQUOT);
    assert!(!target.exists() && !mount.path("acme/call").exists());
    assert_eq!(read(&source.join("call")).len(), 4);
    assert_tenants(&mount, totals(LIMIT, 1, 0), totals(4, 1, 1));
    mount.finish();
}

#[test]
fn q16_a_rename_below_a_full_parent_is_allowed() {
    let mount = limited();
    make_file(&mount.dir("acme/sales/bob").join("call"), LIMIT);
    mount.dir("acme/support");
    fs::rename(mount.path("acme/sales/bob"), mount.path("acme/support/bob")).unwrap();
    fs::rename(mount.path("acme/support/bob/call"), mount.path("acme/call")).unwrap();
    assert_tenants(&mount, totals(LIMIT, 1, 3), totals(0, 0, 0));
    mount.finish();
}

#[test]
fn q17_a_rename_over_a_target_is_charged_by_the_difference() {
    let mount = limited();
    make_file(&mount.path("acme/target"), 60_000);
    make_file(&mount.path("acme/rest"), 40_000);
    make_file(&mount.path("globex/smaller"), 40_000);
    make_file(&mount.path("globex/larger"), 50_001);
    fs::rename(mount.path("globex/smaller"), mount.path("acme/target")).unwrap();
    assert_tenants(&mount, totals(80_000, 2, 0), totals(50_001, 1, 0));
    make_file(&mount.path("acme/filler"), 10_000);
    refused(
        fs::rename(mount.path("globex/larger"), mount.path("acme/target")),
        Errno::DQUOT,
    );
    assert_eq!(
        read(&mount.path("acme/target")).len(),
        40_000,
        "a refused rename leaves the target"
    );
    assert_eq!(read(&mount.path("globex/larger")).len(), 50_001);
    fs::rename(mount.path("acme/filler"), mount.path("acme/rest")).unwrap();
    assert_tenants(&mount, totals(50_000, 2, 0), totals(50_001, 1, 0));
    mount.finish();
}

#[test]
fn q17_a_rename_over_at_the_file_limit_is_net_zero() {
    let mount = two_tenants("max_files = 1");
    make_file(&mount.path("acme/old"), 10);
    make_file(&mount.path("globex/new"), 20);
    refused(
        fs::rename(mount.path("globex/new"), mount.path("acme/beside")),
        Errno::DQUOT,
    );
    fs::rename(mount.path("globex/new"), mount.path("acme/old")).unwrap();
    assert_tenants(&mount, totals(20, 1, 0), totals(0, 0, 0));
    mount.finish();
}

#[test]
fn q18_exchange_charges_both_ways() {
    let mount = limited();
    make_file(&mount.path("acme/left"), 30_000);
    make_file(&mount.dir("globex/right/deep").join("call"), 80_000);
    exchange(&mount.path("acme/left"), &mount.path("globex/right")).unwrap();
    assert_tenants(&mount, totals(80_000, 1, 2), totals(30_000, 1, 0));
    assert_eq!(read(&mount.path("acme/left/deep/call")).len(), 80_000);
    make_file(&mount.path("acme/filler"), 20_000);
    make_file(&mount.path("globex/larger"), 40_000);
    refused(
        exchange(&mount.path("acme/filler"), &mount.path("globex/larger")),
        Errno::DQUOT,
    );
    assert_eq!(read(&mount.path("acme/filler")).len(), 20_000);
    // Full on one side, but the sum stays.
    make_file(&mount.path("globex/twenty"), 20_000);
    exchange(&mount.path("acme/filler"), &mount.path("globex/twenty")).unwrap();
    assert_tenants(&mount, totals(100_000, 2, 2), totals(90_000, 3, 0));
    mount.finish();
}

#[test]
fn q19_hard_links_are_free_inside_and_exdev_across() {
    let mount = limited();
    make_file(&mount.dir("acme/sales").join("call"), LIMIT);
    fs::hard_link(mount.path("acme/sales/call"), mount.path("acme/link")).unwrap();
    assert_tenants(&mount, totals(LIMIT, 1, 1), totals(0, 0, 0));
    refused(
        fs::hard_link(mount.path("acme/link"), mount.path("globex/link")),
        Errno::XDEV,
    );
    refused(fs::hard_link(mount.path("acme/link"), mount.path("link")), Errno::XDEV);
    assert!(!mount.path("globex/link").exists());
    fs::remove_file(mount.path("acme/sales/call")).unwrap();
    assert_eq!(mount.path("acme/link").metadata().unwrap().nlink(), 1);
    assert_tenants(&mount, totals(LIMIT, 1, 1), totals(0, 0, 0));
    fs::remove_file(mount.path("acme/link")).unwrap();
    assert_tenants(&mount, totals(0, 0, 1), totals(0, 0, 0));
    mount.finish();
}

#[test]
fn a_moved_directory_takes_its_links_out_of_the_accounts_they_shared() {
    let mut mount = Mount::with_config(RULES);
    make_file(&mount.dir("acme/sales/x").join("call"), 10_000);
    mount.dir("acme/sales/y");
    mount.dir("acme/support");
    fs::hard_link(mount.path("acme/sales/x/call"), mount.path("acme/sales/y/call")).unwrap();
    mount.assert_usage_true();
    fs::rename(mount.path("acme/sales/x"), mount.path("acme/support/x")).unwrap();
    mount.assert_usage_true();
    mount.remount();
    mount.assert_usage_true();
    exchange(&mount.path("acme/support/x"), &mount.path("acme/sales")).unwrap();
    mount.assert_usage_true();
    fs::remove_file(mount.path("acme/sales/call")).unwrap();
    mount.remount();
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn linked_files_are_counted_once_wherever_their_links_go() {
    let mut mount = Mount::with_config(RULES);
    make_file(&mount.dir("acme/sales/bob").join("call"), 10_000);
    mount.dir("acme/support");
    mount.dir("globex");
    fs::hard_link(mount.path("acme/sales/bob/call"), mount.path("acme/sales/link")).unwrap();
    fs::hard_link(mount.path("acme/sales/bob/call"), mount.path("acme/support/link")).unwrap();
    mount.assert_usage_true();
    fs::rename(mount.path("acme/sales/link"), mount.path("acme/support/second")).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(mount.path("acme/support/second"))
        .unwrap()
        .set_len(25_000)
        .unwrap();
    mount.assert_usage_true();
    mount.remount();
    mount.assert_usage_true();
    fs::remove_file(mount.path("acme/sales/bob/call")).unwrap();
    fs::rename(mount.path("acme/support"), mount.path("globex/support")).unwrap();
    assert_eq!(mount.assert_usage_true().tenants["globex"], totals(25_000, 1, 1));
    mount.finish();
}
