//! Date directories: the first mkdir of a day finds its directory made, so FreeSWITCH loses no recording to its own race.

mod common;

#[path = "../examples/record_calls/audio.rs"]
mod audio;
#[path = "../examples/record_calls/dates.rs"]
mod dates;
#[path = "../examples/record_calls/recording.rs"]
mod recording;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Barrier;

use common::{Errno, Mount, refused, wait};
use dates::Day;
use recording::{Call, Outcome, Progress, record};

fn dated(layout: &str) -> Mount {
    Mount::with_config(format!("[[rules]]\npath = \"{layout}\"\ndate_directories = true\n"))
}

fn today(layout: &str) -> String {
    Day::today().format(layout)
}

/// What mkdir answers to another call: a caller that was told ENOENT is left alone on its way down.
fn mkdir_of_another_call(path: &Path) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| fs::create_dir(path))
            .join()
            .expect("mkdir does not panic")
    })
}

/// Asks mkdir for today's path until it exists without anybody having made it: that may take seconds in a new tenant.
#[track_caller]
fn wait_until_dated(tenant: &Path, layout: &str) {
    wait::until("today's directory exists by itself", || {
        let made = mkdir_of_another_call(&tenant.join(today(layout)));
        let error = made.expect_err("its parents are missing, or it exists");
        match error.kind() {
            ErrorKind::AlreadyExists => Some(()),
            ErrorKind::NotFound => None,
            _ => panic!("{error}"),
        }
    });
}

#[test]
fn the_first_mkdir_of_the_day_answers_eexist_for_a_known_tenant() {
    let mount = dated("{tenant}/%Y/%m/%d");
    let tenant = mount.dir("acme");
    wait_until_dated(&tenant, "%Y/%m/%d");
    fs::write(tenant.join(today("%Y/%m/%d")).join("call.wav"), b"audio").unwrap();
    refused(fs::create_dir(tenant.join("1999/12/31")), Errno::NOENT);
    refused(fs::create_dir(tenant.join("other/12/31")), Errno::NOENT);
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn a_fixed_part_and_month_names_belong_to_the_layout() {
    let mount = dated("{tenant}/archive/%Y/%b/%d");
    let tenant = mount.dir("acme.example.com");
    wait_until_dated(&tenant, "archive/%Y/%b/%d");
    refused(fs::create_dir(tenant.join(today("%Y/%b/%d"))), Errno::NOENT);
    mount.finish();
}

#[test]
fn one_directory_per_day_is_a_layout_too() {
    let mount = dated("{tenant}/%Y-%m-%d");
    wait_until_dated(&mount.dir("acme"), "%Y-%m-%d");
    mount.finish();
}

#[test]
fn a_brand_new_tenant_can_be_walked_down() {
    let mount = dated("{tenant}/%Y/%m/%d");
    // A caller that got ENOENT is on its way down; EEXIST there would lose its recording.
    for n in 0..20 {
        let dir = mount.path(&format!("tenant {n}/{}", today("%Y/%m/%d")));
        recording::make_directories(&dir).unwrap();
    }
    mount.finish();
}

#[test]
fn switched_off_there_are_no_date_directories() {
    let mut mount = Mount::with_config("[[rules]]\npath = \"{tenant}/%Y/%m/%d\"\ndate_directories = false\n");
    mount.dir("acme");
    mount.remount();
    refused(fs::create_dir(mount.path("acme").join(today("%Y/%m/%d"))), Errno::NOENT);
    mount.finish();
}

#[test]
fn an_empty_directory_of_today_can_be_removed_and_comes_back() {
    let mount = dated("{tenant}/%Y/%m/%d");
    let tenant = mount.dir("acme");
    wait_until_dated(&tenant, "%Y/%m/%d");
    let _ = fs::remove_dir(tenant.join(today("%Y/%m/%d")));
    wait_until_dated(&tenant, "%Y/%m/%d");
    mount.finish();
}

/// `calls` recordings that start at the same instant.
fn burst(tenant: &Path, calls: u64) -> Vec<(Call, Outcome)> {
    let barrier = Barrier::new(usize::try_from(calls).unwrap());
    let dir = tenant.join(today("%Y/%m/%d"));
    let one = |n: u64| {
        let call = Call {
            path: dir.join(format!("call-{n}.wav")),
            seed: n,
            audio_bytes: 70_000,
            frame_bytes: 65_536,
            real_time: false,
        };
        barrier.wait();
        let outcome = record(&call, &Progress::default());
        (call, outcome)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let callers: Vec<_> = (0..calls).map(|n| scope.spawn(move || one(n))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("a call does not panic"))
            .collect()
    })
}

/// Every recording of the burst started, was written and reads back.
#[track_caller]
fn assert_recorded(burst: Vec<(Call, Outcome)>) {
    for (call, outcome) in burst {
        assert_eq!(outcome.failed_start, None, "{}", call.path.display());
        assert!(
            outcome.closed && outcome.acknowledged_len == 70_044 && outcome.wrong_size.is_none(),
            "{outcome:?}"
        );
        let content = common::read(&call.path);
        assert_eq!(content[..44], audio::header(Some(70_044)));
        assert_eq!(audio::first_difference(call.seed, 0, &content), None);
    }
}

#[test]
fn a_burst_into_a_known_tenants_new_day_loses_no_recording() {
    let mut mount = dated("{tenant}/%Y/%m/%d");
    let tenants = ["acme", "globex", "initech"].map(|tenant| mount.dir(tenant));
    mount.remount();
    // One tenant shows that new ones are known by now; the bursts are the first to touch the others' day.
    wait_until_dated(&tenants[0], "%Y/%m/%d");
    for tenant in &tenants {
        assert_recorded(burst(tenant, 50));
    }
    let usage = mount.finish();
    assert_eq!((usage.total.files, usage.total.bytes), (150, 150 * 70_044));
}

#[test]
fn a_burst_into_a_brand_new_tenant_loses_no_recording() {
    let mount = dated("{tenant}/%Y/%m/%d");
    for n in 0..5 {
        assert_recorded(burst(&mount.path(&format!("new {n}")), 20));
    }
    assert_eq!(mount.finish().total.files, 100);
}
