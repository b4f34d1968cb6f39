//! `.quota` and `.stats/YYYY-MM.json` in a tenant's directory: found by name, always current, nobody's to change.

mod common;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};

use common::wait::until;
use common::{Errno, Mount, RULES, names, read, refused, run};

fn json_in(path: &Path) -> Value {
    let text = read(path);
    let size = fs::metadata(path).expect("attributes").size();
    assert_eq!(size, text.len() as u64, "the size is that of what is shown");
    serde_json::from_slice(&text).expect("JSON")
}

fn mount() -> Mount {
    Mount::with_config(format!("{RULES}[rules.limits.tenant]\nmax_bytes = 10000\n"))
}

/// The only month there is in a store that was made just now.
fn month(tenant: &Path) -> OsString {
    let months = names(&tenant.join(".stats"));
    assert!(matches!(months.len(), 1 | 2), "{months:?}");
    months.into_iter().next_back().expect("a month")
}

#[test]
fn quota_shows_what_is_used_at_the_moment_in_which_it_is_opened() {
    let mount = mount();
    let acme = mount.dir("acme");
    let shown = |figure: &str| json_in(&acme.join(".quota"))[figure].clone();
    assert_eq!([shown("current_usage_bytes"), shown("object_count")], [0, 0]);
    for count in 1..=3_u64 {
        fs::write(acme.join(format!("call-{count}")), vec![1; 1000]).expect("a recording");
        assert_eq!(
            [
                shown("max_size_bytes"),
                shown("current_usage_bytes"),
                shown("object_count")
            ],
            [10_000, count * 1000, count]
        );
    }
    let opened = File::open(acme.join(".quota")).expect("opens");
    fs::remove_file(acme.join("call-1")).expect("a deletion");
    let before: Value = serde_json::from_reader(&opened).expect("JSON");
    assert_eq!(before["object_count"], 3, "one text, however it is read");
    assert_eq!(shown("object_count"), 2);
    assert!(shown("last_updated").as_str().expect("a time").ends_with('Z'));
    // Another tenant's are its own; a directory that is no tenant's has none.
    assert_eq!(json_in(&mount.dir("globex").join(".quota"))["object_count"], 0);
    let campaign = mount.dir("acme/sales");
    for dir in [campaign.as_path(), &mount.point()] {
        refused(fs::metadata(dir.join(".quota")), Errno::NOENT);
    }
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn statistics_count_what_is_done_in_a_month_also_over_a_restart() {
    let mut mount = mount();
    let acme = mount.dir("acme");
    let file = acme.join(".stats").join(month(&acme));
    for call in ["a", "b"] {
        fs::write(acme.join(call), b"x").expect("a recording");
    }
    drop(read(&acme.join("a")));
    fs::remove_file(acme.join("b")).expect("a deletion");
    let counts = |shown: &Value| json!([shown["get_count"], shown["put_count"], shown["delete_count"]]);
    let shown = json_in(&file);
    assert_eq!(counts(&shown), json!([1, 2, 1]), "{shown}");
    assert_eq!(shown["multipart_count"], 0);
    // Saved or not, they are counted once.
    let database = mount.store().join("tallyfs.db");
    until("they are saved", || {
        let db = rusqlite::Connection::open(&database).ok()?;
        let sql = "SELECT creates FROM operation_log WHERE tenant = 'acme'";
        (db.query_row(sql, [], |row| row.get::<_, i64>(0)).ok()? == 2).then_some(())
    });
    assert_eq!(counts(&json_in(&file)), json!([1, 2, 1]));
    mount.remount();
    assert_eq!(counts(&json_in(&file)), json!([1, 2, 1]));
    let db = rusqlite::Connection::open(&database).expect("the database");
    let older = "INSERT INTO operation_log (month, tenant, reads, writes, creates, deletes, lists, stats, denied)
                 VALUES ('2025-09', 'acme', 50000, 0, 10000, 2000, 5000, 3000, 7)";
    db.execute(older, []).expect("a month of last year");
    assert_eq!(names(&acme.join(".stats"))[0], "2025-09.json");
    let shown = json_in(&acme.join(".stats/2025-09.json"));
    assert_eq!(counts(&shown), json!([50_000, 10_000, 2000]));
    assert_eq!([&shown["list_count"], &shown["head_count"]], [5000, 3000]);
    for absent in ["2025-08.json", "2025-09", "x"] {
        refused(fs::metadata(acme.join(".stats").join(absent)), Errno::NOENT);
    }
    mount.finish();
}

#[test]
fn figures_are_in_no_listing_and_ordinary_tools_read_them() {
    let mount = mount();
    let acme = mount.dir("acme");
    fs::write(acme.join("call"), b"x").expect("a recording");
    drop(read(&acme.join(".quota")));
    assert_eq!(names(&acme), ["call"]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let copy = elsewhere.path().join("copy");
    run(
        "cp",
        &["-a", &acme.join(".quota").to_string_lossy(), &copy.to_string_lossy()],
    );
    let copied: Value = serde_json::from_slice(&read(&copy)).expect("JSON");
    assert_eq!(copied["object_count"], 1);
    // Within the mount, too: the copy is a file like others.
    fs::copy(acme.join(".quota"), acme.join("kept.json")).expect("a copy");
    assert_eq!(json_in(&acme.join("kept.json"))["object_count"], 1);
    let listed = run("ls", &["-la", &acme.join(".stats").to_string_lossy()]);
    assert!(listed.contains(".json"), "{listed}");
    // Nothing of it is in the way of an empty directory's end.
    for name in ["call", "kept.json"] {
        fs::remove_file(acme.join(name)).expect("a deletion");
    }
    fs::remove_dir(&acme).expect("the tenant goes");
    refused(fs::metadata(acme.join(".quota")), Errno::NOENT);
    mount.finish();
}

#[test]
fn nobody_changes_a_figure_or_takes_its_name() {
    let mount = mount();
    let acme = mount.dir("acme");
    let (quota, statistics) = (acme.join(".quota"), acme.join(".stats"));
    let call = acme.join("call");
    fs::write(&call, b"x").expect("a recording");
    let write = |path: &Path| OpenOptions::new().write(true).open(path);
    refused(write(&quota), Errno::PERM);
    refused(fs::write(&quota, b"x"), Errno::PERM);
    refused(fs::remove_file(&quota), Errno::PERM);
    refused(fs::remove_dir(&statistics), Errno::PERM);
    refused(fs::rename(&quota, acme.join("mine")), Errno::PERM);
    refused(fs::rename(&call, &quota), Errno::PERM);
    refused(fs::set_permissions(&quota, Permissions::from_mode(0o600)), Errno::PERM);
    refused(fs::hard_link(&quota, acme.join("mine")), Errno::PERM);
    refused(fs::hard_link(&call, &quota), Errno::EXIST);
    refused(File::create_new(&quota), Errno::EXIST);
    refused(fs::create_dir(&statistics), Errno::EXIST);
    refused(std::os::unix::fs::symlink("x", &quota), Errno::EXIST);
    refused(File::create(statistics.join("2020-01.json")), Errno::PERM);
    refused(fs::create_dir(statistics.join("x")), Errno::PERM);
    refused(write(&statistics.join(month(&acme))), Errno::PERM);
    assert_eq!(read(&call), b"x");
    // Elsewhere the names are as good as any.
    let campaign = mount.dir("acme/sales");
    fs::write(campaign.join(".quota"), b"x").expect("no tenant's directory");
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn a_file_of_that_name_from_before_is_shown_and_can_go() -> io::Result<()> {
    let mut mount = mount();
    let sales = mount.dir("acme/sales");
    fs::write(sales.join(".quota"), b"of before")?;
    mount.stop();
    let data = mount.store().join("data");
    fs::rename(data.join("acme/sales/.quota"), data.join("acme/.quota"))?;
    fs::remove_file(mount.store().join("tallyfs.db"))?;
    mount.start();
    let quota = mount.path("acme/.quota");
    assert_eq!(read(&quota), b"of before");
    assert_eq!(names(&mount.path("acme")), [".quota", "sales"]);
    fs::write(&quota, b"it is a file like others")?;
    fs::remove_file(&quota)?;
    assert_eq!(json_in(&quota)["object_count"], 0);
    mount.assert_usage_true();
    mount.finish();
    Ok(())
}
