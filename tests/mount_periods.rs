//! Limits of a day and a month, soft limits and warnings, seen from a mount: what is refused, what is told, and what a
//! restart keeps.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};
use tallyfs::clock::{Clock, SystemClock};

use common::quota::{get, set};
use common::wait::until;
use common::{Errno, Mount, RULES, refused};

fn told(dir: &Path) -> Value {
    serde_json::from_str(&get(dir, "json")).expect("JSON")
}

/// A zone in which it is not about midnight, so that no test sees a day end.
fn quiet_zone() -> &'static str {
    let now_s = SystemClock::new().now().as_secs();
    if (2..21).contains(&(now_s / 3600 % 24)) {
        "UTC"
    } else {
        "Etc/GMT-6"
    }
}

/// A column of the tenant's row, as text.
fn saved(mount: &Mount, column: &str) -> String {
    let db = rusqlite::Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    let sql = format!(
        "SELECT CAST({column} AS TEXT) FROM terms JOIN directory USING (ino) WHERE name = CAST('acme' AS BLOB)"
    );
    db.query_row(&sql, [], |row| row.get(0)).unwrap_or_default()
}

/// The rules, with a zone for all and these limits for tenants.
fn config(tenant: &str) -> String {
    format!(
        "[mount]\ntime_zone = \"{}\"\n{RULES}[rules.limits.tenant]\n{tenant}\n",
        quiet_zone()
    )
}

#[test]
fn q53_a_day_that_is_full_stays_full_after_deletion_a_restart_and_a_kill() {
    let mut mount = Mount::with_config(config("day.max_bytes = 10000\nday.max_files = 3"));
    let acme = mount.dir("acme/sales");
    let file = File::create_new(acme.join("a")).expect("the first");
    assert_eq!(file.write_at(&[1; 12_000], 0).expect("cut short"), 10_000);
    refused(file.write_at(&[1], 10_000), Errno::DQUOT);
    drop(file);
    fs::remove_file(acme.join("a")).expect("a deletion");
    let check = |mount: &Mount, files: u64| {
        let tenant = mount.path("acme");
        assert_eq!(get(&tenant, "day.used_bytes"), "10000");
        assert_eq!(get(&tenant, "month.used_bytes"), "10000");
        assert_eq!(get(&tenant, "day.used_files"), files.to_string());
        let file = File::create_new(tenant.join("sales/next")).expect("a file");
        refused(file.write_at(&[1], 0), Errno::DQUOT);
        let last = &told(&tenant)["last_refusal"];
        assert_eq!(
            (&last["meter"], &last["reason"]),
            (&json!("day.bytes"), &json!("period"))
        );
        assert_eq!(last["resets_at"], told(&tenant)["period"]["day"]["ends"]);
        fs::remove_file(tenant.join("sales/next")).expect("it was no recording");
    };
    check(&mount, 1);
    mount.remount();
    check(&mount, 1);
    fs::write(mount.path("acme/sales/b"), "").expect("the second");
    until("the second file is saved", || {
        (saved(&mount, "day_files") == "2").then_some(())
    });
    mount.kill9();
    mount.remount();
    check(&mount, 2);
    fs::write(mount.path("acme/sales/c"), "").expect("the third");
    refused(File::create_new(mount.path("acme/sales/d")), Errno::DQUOT);
    mount.assert_usage_true();
}

#[test]
fn an_empty_file_that_is_removed_was_no_recording() {
    let mount = Mount::with_config(config("day.max_files = 100"));
    let acme = mount.dir("acme");
    // Closing is told to the daemon behind the caller's back.
    let counts = |files: u64| {
        until(&format!("{files} files count"), || {
            (get(&acme, "day.used_files") == files.to_string()).then_some(())
        });
    };
    for _ in 0..3 {
        fs::write(acme.join("empty"), "").expect("a file");
        fs::remove_file(acme.join("empty")).expect("its end");
        fs::write(acme.join("over"), "").expect("a file");
        fs::write(acme.join("new"), "").expect("a file");
        fs::rename(acme.join("new"), acme.join("over")).expect("the end of the other");
        counts(1);
        fs::remove_file(acme.join("over")).expect("its end");
        counts(0);
    }
    fs::write(acme.join("full"), "x").expect("a recording");
    fs::remove_file(acme.join("full")).expect("its end");
    fs::write(acme.join("last"), "").expect("a file");
    counts(2);
}

#[test]
fn a_limit_that_is_set_counts_what_the_month_has_used_already() {
    let mount = Mount::with_config(config(""));
    let acme = mount.dir("acme");
    fs::write(acme.join("a"), vec![1; 5000]).expect("a recording");
    set(&acme, "month.max_bytes", "5001");
    let file = File::create_new(acme.join("b")).expect("a file");
    assert_eq!(file.write_at(&[1], 0).expect("the last byte"), 1);
    refused(file.write_at(&[1], 1), Errno::DQUOT);
    file.write_at(&[2], 0).expect("what is there may be written over");
    fs::rename(acme.join("a"), acme.join("c")).expect("a rename counts nothing");
    set(&acme, "month.max_bytes", "none");
    file.write_at(&[1], 1).expect("no limit");
}

#[test]
fn q03_a_soft_limit_refuses_after_its_grace_and_until_usage_is_below() {
    let mut mount = Mount::with_config(config("soft_bytes = 10000\ngrace = \"2s\""));
    let acme = mount.dir("acme");
    fs::write(acme.join("a"), vec![1; 10_000]).expect("within the limit");
    let small = File::create_new(acme.join("b")).expect("a file");
    for at in 0..100 {
        // Q25: many small writes past it are not refused early.
        assert_eq!(small.write_at(&[1; 8], at * 8).expect("within the grace"), 8);
    }
    until("the passing is told", || {
        (mount.log().contains("'acme': the soft limit of bytes is passed")).then_some(())
    });
    assert!(told(&acme)["grace_ends"]["bytes"].as_i64().expect("a time") > 0);
    mount.remount();
    let small = File::options().write(true).open(acme.join("b")).expect("a file");
    let mut end = 800;
    let refusal = until("the grace is over", || {
        let refusal = small.write_at(&[1; 4], end).err();
        end += if refusal.is_none() { 4 } else { 0 };
        refusal
    });
    refused::<()>(Err(refusal), Errno::DQUOT);
    assert_eq!(told(&acme)["last_refusal"]["reason"], "grace_over");
    small.write_at(&[2; 8], 0).expect("what is there may be written over");
    fs::remove_file(acme.join("a")).expect("a deletion");
    small.write_at(&[1], end).expect("below it again");
    until("the return is told", || {
        (mount.log().contains("'acme': below the soft limit of bytes again")).then_some(())
    });
}

#[test]
fn q54_one_warning_per_crossing_also_over_a_restart() {
    let mut mount = Mount::with_config(config("max_bytes = 10000\nwarn_percent = [50, 80]"));
    let acme = mount.dir("acme");
    let warnings = |mount: &Mount, percent: u32| {
        let line = format!("'acme': {percent} % of the limit of bytes is reached");
        mount.log().matches(&line).count()
    };
    fs::write(acme.join("a"), vec![1; 6000]).expect("a recording");
    until("half is told", || (warnings(&mount, 50) == 1).then_some(()));
    mount.remount();
    fs::write(acme.join("b"), vec![1; 2500]).expect("a recording");
    until("80 % are told", || (warnings(&mount, 80) == 1).then_some(()));
    assert_eq!(warnings(&mount, 50), 1, "not again after a restart");
    until("that is saved", || {
        (saved(&mount, "warned") == "bytes=80").then_some(())
    });
    fs::remove_file(acme.join("b")).expect("a deletion");
    until("the fall is noticed", || {
        (saved(&mount, "warned") == "bytes=50").then_some(())
    });
    fs::write(acme.join("b"), vec![1; 2500]).expect("a recording");
    until("80 % are told again", || (warnings(&mount, 80) == 2).then_some(()));
    assert_eq!(warnings(&mount, 50), 1);
}
