//! Limits and usage of directories as extended attributes: who sets them, what they are worth at once, and what they
//! survive.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr, statvfs};

use common::user::{as_user, open_the_way_to};
use common::{Errno, KIB, MIB, Mount, RULES, Setup, acme_limits, refused, write_until_refused};

const MAX_BYTES: &str = "user.tallyfs.quota.max_bytes";
const MAX_FILES: &str = "user.tallyfs.quota.max_files";
/// Some user without rights, and a group that is nobody's.
const SOMEBODY: u32 = 12_345;
const ADMINISTRATORS: u32 = 23_456;

fn set(dir: &Path, name: &str, value: &str) -> std::io::Result<()> {
    Ok(setxattr(dir, name, value.as_bytes(), XattrFlags::empty())?)
}

fn get(dir: &Path, name: &str) -> std::io::Result<String> {
    let mut value = vec![0; 65_536];
    let bytes = getxattr(dir, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..bytes]).into_owned())
}

#[track_caller]
fn says(dir: &Path, name: &str, value: &str) {
    match get(dir, name) {
        Ok(found) => assert_eq!(found, value, "{name} of {}", dir.display()),
        Err(e) => panic!("{name} of {}: {e}", dir.display()),
    }
}

#[track_caller]
fn fill(dir: &Path, name: &str, errno: Errno) -> u64 {
    let file = File::create_new(dir.join(name)).expect("a new file");
    let (acknowledged, error) = write_until_refused(&file, 4096);
    refused::<()>(Err(error), errno);
    acknowledged
}

#[test]
fn q09_limits_survive_a_remount_a_kill_and_the_loss_of_the_database() {
    let mut mount = Mount::with_config(RULES);
    let acme = mount.dir("acme");
    mount.remount();
    set(&acme, MAX_BYTES, "100Ki").expect("root sets limits");
    // At once: nothing but the attribute itself and the log of dirty directories can know of it.
    mount.kill9();
    says(&acme, MAX_BYTES, "102400");
    mount.remount();
    says(&acme, MAX_BYTES, "102400");
    mount.stop();
    for entry in fs::read_dir(mount.store()).expect("the store") {
        let path = entry.expect("an entry").path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("tallyfs.db"))
        {
            fs::remove_file(path).expect("somebody deletes the database");
        }
    }
    mount.start();
    says(&acme, MAX_BYTES, "102400");
    assert_eq!(fill(&acme, "a", Errno::DQUOT), 100 * KIB);
    mount.assert_usage_true();
}

#[test]
fn q41_limits_on_an_existing_tree_are_exact_at_once() {
    let mount = Mount::with_config(RULES);
    let (acme, deep) = (mount.dir("acme"), mount.dir("acme/sales/bob/2026/11"));
    for name in ["a", "b", "c"] {
        fs::write(deep.join(name), vec![1; 10_000]).expect("a recording");
    }
    set(&acme, MAX_BYTES, "30001").expect("root sets limits");
    set(&acme, MAX_FILES, "4").expect("root sets limits");
    let file = File::create_new(deep.join("d")).expect("the fourth file");
    assert_eq!(file.write_at(&[2], 0).expect("the last byte"), 1);
    refused(file.write_at(&[2], 1), Errno::DQUOT);
    refused(File::create_new(deep.join("e")), Errno::DQUOT);
    says(&acme, "user.tallyfs.quota.used_bytes", "30001");
    says(&acme, "user.tallyfs.quota.used_files", "4");
    says(&acme, "user.tallyfs.quota.used_dirs", "4");
    // Below what is there: nothing is taken away, and growth is refused.
    set(&acme, MAX_BYTES, "10").expect("root sets limits");
    refused(file.write_at(&[2], 1), Errno::DQUOT);
    assert_eq!(fs::read(deep.join("a")).expect("still there").len(), 10_000);
    removexattr(&acme, MAX_BYTES).expect("root takes limits away");
    assert_eq!(file.write_at(&[2], 1).expect("no limit"), 1);
    drop(file);
    mount.assert_usage_true();
}

#[test]
fn q42_values_have_bounds_and_suffixes() {
    let mount = Mount::with_config(RULES);
    let acme = mount.dir("acme");
    for (value, bytes) in [
        ("1", "1"),
        ("5Gi", "5368709120"),
        ("5G", "5368709120"),
        ("5GB", "5000000000"),
        ("1.5KiB\n", "1536"),
        ("18446744073709551614", "18446744073709551614"),
    ] {
        set(&acme, MAX_BYTES, value).unwrap_or_else(|e| panic!("{value}: {e}"));
        says(&acme, MAX_BYTES, bytes);
        says(&acme, "ceph.quota.max_bytes", bytes);
    }
    for value in ["", "-1", "5X", "1.3", "16Ei", "18446744073709551616", "five", "\u{ff}"] {
        refused(set(&acme, MAX_BYTES, value), Errno::INVAL);
        says(&acme, MAX_BYTES, "18446744073709551614");
    }
    refused(set(&acme, MAX_FILES, "1Ki"), Errno::INVAL);
    for unlimited in ["0", "none"] {
        set(&acme, MAX_BYTES, "7").expect("root sets limits");
        set(&acme, MAX_BYTES, unlimited).expect("root sets limits");
        refused(get(&acme, MAX_BYTES), Errno::NODATA);
    }
    set(&acme, "ceph.quota.max_files", "12").expect("root sets limits");
    says(&acme, MAX_FILES, "12");
    says(&acme, "ceph.dir.rfiles", "0");
    for name in ["used_bytes", "json", "binding", "no_such"] {
        refused(set(&acme, &format!("user.tallyfs.quota.{name}"), "1"), Errno::OPNOTSUPP);
    }
    refused(get(&acme, "user.tallyfs.limits"), Errno::NODATA);
    refused(set(&acme, "user.tallyfs.limits", "max_bytes=1"), Errno::OPNOTSUPP);
    let call = acme.join("call");
    fs::write(&call, "x").expect("a recording");
    refused(set(&call, MAX_BYTES, "1"), Errno::NOTDIR);
    refused(get(&call, "user.tallyfs.quota.used_bytes"), Errno::NODATA);
    let removed = removexattr(&acme, "user.tallyfs.quota.max_dirs");
    refused(removed.map_err(Into::into), Errno::NODATA);
    let create = setxattr(&acme, MAX_FILES, b"3", XattrFlags::CREATE);
    refused(create.map_err(Into::into), Errno::EXIST);
    let replace = setxattr(&acme, "user.tallyfs.quota.max_dirs", b"3", XattrFlags::REPLACE);
    refused(replace.map_err(Into::into), Errno::NODATA);
}

#[test]
fn q43_a_change_is_seen_at_once_everywhere() {
    let mount = Mount::with_config(acme_limits("max_bytes = \"1MiB\""));
    let (acme, bob) = (mount.dir("acme"), mount.dir("acme/sales/bob"));
    let total = |dir: &Path| statvfs(dir).map(|told| told.f_blocks * told.f_frsize).expect("df");
    says(&acme, MAX_BYTES, "1048576");
    assert_eq!([total(&acme), total(&bob)], [MIB; 2], "the rule's");
    for (value, bytes) in [("2Mi", 2 * MIB), ("512Ki", MIB / 2)] {
        set(&acme, MAX_BYTES, value).expect("root sets limits");
        assert_eq!([total(&acme), total(&bob)], [bytes; 2], "{value}");
        says(&acme, MAX_BYTES, &bytes.to_string());
    }
    says(&bob, "user.tallyfs.quota.binding", "/acme");
    removexattr(&acme, MAX_BYTES).expect("root takes limits away");
    assert_eq!([total(&acme), total(&bob)], [MIB; 2], "the rule's again");
    says(&acme, MAX_BYTES, "1048576");
}

#[test]
fn q44_administrators_set_limits_and_nobody_else() {
    let setup = Setup::new().config(format!("[access]\nadministrators = \"{ADMINISTRATORS}\"\n{RULES}"));
    let mount = setup.arguments(&["-o", "allow_other"]).mount();
    let acme = mount.dir("acme");
    open_the_way_to(&acme);
    fs::set_permissions(&acme, fs::Permissions::from_mode(0o777)).expect("its owner opens it");
    set(&acme, MAX_BYTES, "10Ki").expect("root sets limits");
    let outsider = || {
        (
            set(&acme, MAX_BYTES, "0"),
            removexattr(&acme, MAX_BYTES),
            set(&acme, "ceph.quota.max_bytes", "0"),
            get(&acme, MAX_BYTES),
        )
    };
    let (set_it, removed, set_alias, got) = as_user(SOMEBODY, &[SOMEBODY], outsider);
    refused(set_it, Errno::PERM);
    refused(removed.map_err(Into::into), Errno::PERM);
    refused(set_alias, Errno::PERM);
    assert_eq!(got.expect("anyone reads"), "10240");
    as_user(SOMEBODY, &[ADMINISTRATORS], || set(&acme, MAX_BYTES, "20Ki")).expect("a member sets limits");
    says(&acme, MAX_BYTES, "20480");
}

#[test]
fn q45_limits_go_with_their_directory() {
    let mut mount = Mount::with_config(RULES);
    let acme = mount.dir("acme");
    set(&acme, MAX_BYTES, "10Ki").expect("root sets limits");
    let moved = mount.path("globex");
    fs::rename(&acme, &moved).expect("a rename");
    says(&moved, MAX_BYTES, "10240");
    assert_eq!(fill(&moved, "call", Errno::DQUOT), 10 * KIB);
    mount.remount();
    says(&moved, MAX_BYTES, "10240");
    fs::remove_dir_all(&moved).expect("it goes");
    for name in ["globex", "acme"] {
        let again = mount.dir(name);
        refused(get(&again, MAX_BYTES), Errno::NODATA);
        fs::write(again.join("call"), vec![1; 20_480]).expect("no limit");
    }
    mount.remount();
    refused(get(&moved, MAX_BYTES), Errno::NODATA);
    mount.assert_usage_true();
}

#[test]
fn lists_do_not_show_limits_and_copies_do_not_take_them_along() {
    let mount = Mount::with_config(RULES);
    let acme = mount.dir("acme");
    set(&acme, "user.comment", "ours").expect("an ordinary attribute");
    set(&acme, MAX_BYTES, "10Ki").expect("root sets limits");
    let mut names = vec![0; 4096];
    let bytes = listxattr(&acme, &mut names).expect("a list");
    assert_eq!(&names[..bytes], b"user.comment\0");
    let copied = Command::new("cp").arg("-a").arg(&acme).arg(mount.path("copy")).status();
    assert!(copied.expect("cp runs").success());
    says(&mount.path("copy"), "user.comment", "ours");
    refused(get(&mount.path("copy"), MAX_BYTES), Errno::NODATA);
}

#[test]
fn the_last_refusal_tells_who_refused_what() {
    let mount = Mount::with_config(acme_limits("max_files = 1"));
    let bob = mount.dir("acme/sales/bob");
    refused(get(&bob, "user.tallyfs.quota.last_refusal"), Errno::NODATA);
    fs::write(bob.join("a"), "x").expect("the one file");
    refused(File::create_new(bob.join("b")), Errno::DQUOT);
    let told = get(&bob, "user.tallyfs.quota.last_refusal").expect("a refusal");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["path"], "/acme");
    assert_eq!(told["meter"], "files");
    assert_eq!(
        [&told["used"], &told["limit"], &told["wanted"]].map(serde_json::Value::as_u64),
        [Some(1); 3]
    );
    assert!(told["at"].as_u64().is_some_and(|at| at > 1_700_000_000), "{told}");
    let all = get(&mount.path("acme"), "user.tallyfs.quota.json").expect("all of it");
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all["last_refusal"], told);
    assert_eq!((&all["level"], &all["is_tenant"]), (&"tenant".into(), &true.into()));
    assert_eq!(all["used"], serde_json::json!({"bytes": 1, "files": 1, "dirs": 2}));
    assert_eq!(all["limits"]["max_files"], 1);
    assert_eq!(all["available"]["files"]["remaining"], 0);
    refused(
        get(&mount.dir("globex"), "user.tallyfs.quota.last_refusal"),
        Errno::NODATA,
    );
}

#[test]
fn a_directory_that_is_put_into_the_store_brings_its_limits() {
    let mut mount = Mount::with_config(RULES);
    let backing = mount.store().join("data/restored");
    for live in [true, false] {
        if !live {
            fs::remove_dir(mount.path("restored")).expect("it goes");
            mount.stop();
        }
        fs::create_dir(&backing).expect("somebody restores a backup");
        setxattr(&backing, "user.tallyfs.limits", b"max_bytes=10KiB", XattrFlags::empty()).expect("with attributes");
        if !live {
            fs::remove_file(mount.store().join("tallyfs.db")).expect("without the database");
            mount.start();
        }
        says(&mount.path("restored"), MAX_BYTES, "10240");
    }
}

#[test]
fn limits_that_cannot_be_read_are_named_and_can_be_set_anew() {
    let mut mount = Mount::with_config(RULES);
    let acme = mount.dir("acme");
    mount.stop();
    let backing = mount.store().join("data/acme");
    setxattr(&backing, "user.tallyfs.limits", b"max_bytes=lots", XattrFlags::empty()).expect("somebody breaks it");
    fs::remove_file(mount.store().join("tallyfs.db")).expect("without the database");
    mount.start();
    assert!(mount.log().contains("'lots' is not a byte count"), "{}", mount.log());
    refused(get(&acme, MAX_BYTES), Errno::NODATA);
    set(&acme, MAX_BYTES, "5Ki").expect("root sets limits");
    mount.remount();
    says(&acme, MAX_BYTES, "5120");
}
