//! What a scrape tells is what was done on the mount: each request once, with its time, and what went wrong where it was
//! noticed.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use common::command::text;
use common::damage::{backing, body, flip, plain_range, record, tally};
use common::http::{exchange, get, unix};
use common::wait::until;
use common::{Errno, KIB, Mount, RULES, Setup, refused};

/// Figures of one scrape, by name and labels.
struct Scrape(BTreeMap<String, String>);

impl Scrape {
    fn of(mount: &Mount) -> Self {
        let body = get(mount, "/metrics").is(200).body;
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let figures = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a figure");
            (name.to_owned(), value.to_owned())
        });
        Self(figures.collect())
    }

    #[track_caller]
    fn figure<T: FromStr<Err: Debug>>(&self, name: &str) -> T {
        let text = self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0));
        text.parse().expect("a number")
    }

    #[track_caller]
    fn count(&self, name: &str) -> u64 {
        self.figure(name)
    }

    fn requests(&self, operation: &str) -> u64 {
        self.count(&format!(
            "tallyfs_request_duration_seconds_count{{operation=\"{operation}\"}}"
        ))
    }

    fn seconds(&self, operation: &str) -> f64 {
        self.figure(&format!(
            "tallyfs_request_duration_seconds_sum{{operation=\"{operation}\"}}"
        ))
    }

    /// Requests in each bucket and those before it.
    fn buckets(&self, operation: &str) -> Vec<(f64, u64)> {
        let prefix = format!("tallyfs_request_duration_seconds_bucket{{operation=\"{operation}\",le=\"");
        let mut buckets: Vec<(f64, u64)> = self
            .0
            .iter()
            .filter_map(|(name, count)| {
                let bound = name.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                Some((bound.parse().expect("a bound"), count.parse().expect("a count")))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

/// A scrape with at least these requests more than before. An answer reaches the client before its time is counted.
#[track_caller]
fn until_counted(mount: &Mount, before: &Scrape, expected: &[(&str, u64)]) -> Scrape {
    until("all requests are counted", || {
        let now = Scrape::of(mount);
        let all = expected
            .iter()
            .all(|(operation, count)| now.requests(operation) >= before.requests(operation) + count);
        all.then_some(now)
    })
}

#[test]
fn each_request_is_told_once_by_its_operation() {
    let mount = Mount::new();
    let acme = mount.dir("acme");
    let before = Scrape::of(&mount);
    let path = acme.join("call");
    let mut file = File::create_new(&path).expect("a new file");
    for _ in 0..7 {
        file.write_all(&[1; 320]).expect("a frame");
    }
    file.sync_all().expect("a sync");
    file.sync_data().expect("a sync");
    file.set_len(100).expect("a cut");
    drop(file);
    fs::rename(&path, acme.join("moved")).expect("another name");
    fs::create_dir(acme.join("sub")).expect("a directory");
    assert_eq!(fs::read(acme.join("moved")).expect("a reader").len(), 100);
    fs::remove_file(acme.join("moved")).expect("a deletion");
    fs::remove_dir(acme.join("sub")).expect("a deletion");
    // The kernel sends exactly one request for each of these.
    let exact = [
        ("create", 2),
        ("write", 7),
        ("fsync", 2),
        ("setattr", 1),
        ("rename", 1),
        ("unlink", 2),
        ("open", 1),
        ("read", 1),
        ("release", 2),
    ];
    let after = until_counted(&mount, &before, &exact);
    for (operation, count) in exact {
        let told = after.requests(operation) - before.requests(operation);
        assert_eq!(told, count, "{operation}");
        assert!(after.seconds(operation) > before.seconds(operation), "{operation}");
    }
    // As many look-ups as the kernel had no memory of, but some.
    assert!(after.requests("lookup") > before.requests("lookup"));
    assert_eq!(after.requests("readdir"), before.requests("readdir"));
    common::names(&acme);
    until_counted(&mount, &after, &[("readdir", 1)]);
    mount.finish();
}

#[test]
fn buckets_hold_every_request_and_agree_with_the_sum() {
    let mount = Mount::new();
    let path = mount.dir("acme").join("call");
    let before = Scrape::of(&mount);
    assert!(before.buckets("write").iter().all(|&(_, count)| count == 0));
    let mut file = File::create_new(&path).expect("a new file");
    for _ in 0..200 {
        file.write_all(&[1; 320]).expect("a frame");
    }
    let after = until_counted(&mount, &before, &[("write", 200)]);
    let buckets = after.buckets("write");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 200)));
    assert_eq!(buckets.len(), 26);
    let mut least_s = 0.0;
    for (at, &(bound_s, count)) in buckets.iter().enumerate() {
        let (below_s, below) = at.checked_sub(1).map_or((0.0, 0), |at| buckets[at]);
        assert!(below <= count, "{buckets:?}");
        assert!(at == 0 || bound_s >= 2.0 * below_s, "{buckets:?}");
        let inside = u32::try_from(count - below).expect("few");
        least_s += below_s * f64::from(inside);
    }
    // Each took longer than the bound below its bucket, and none of them nothing.
    let seconds = after.seconds("write");
    assert!(seconds >= least_s && seconds > 0.0, "{seconds} {least_s}");
    drop(file);
    mount.finish();
}

#[test]
fn refusals_are_told_by_meter_and_reason() {
    let mount = Mount::with_config(format!(
        "{RULES}[rules.limits.tenant]\nmax_bytes = 1000\nday.max_files = 2\n"
    ));
    let acme = mount.dir("acme");
    refused(fs::write(acme.join("a"), vec![1; 2000]), Errno::DQUOT);
    fs::write(acme.join("b"), "").expect("a recording");
    refused(File::create_new(acme.join("c")), Errno::DQUOT);
    let told = Scrape::of(&mount);
    let refusals = |meter: &str, reason: &str| {
        told.count(&format!(
            "tallyfs_refusals_total{{meter=\"{meter}\",reason=\"{reason}\"}}"
        ))
    };
    assert_eq!((refusals("bytes", "hard"), refusals("bytes", "period")), (1, 0));
    assert_eq!((refusals("day.files", "period"), refusals("day.files", "hard")), (1, 0));
    let share = |meter: &str| {
        told.figure::<f64>(&format!(
            "tallyfs_account_used_ratio{{path=\"/acme\",meter=\"{meter}\"}}"
        ))
    };
    assert_eq!(
        [share("bytes"), share("day.files")].map(f64::to_bits),
        [1.0_f64.to_bits(); 2]
    );
    mount.finish();
}

#[test]
fn damage_is_counted_by_its_cause_when_it_is_met_with() {
    let mut mount = Mount::with_config("[durability]\ncommit_interval_s = 1\n");
    record(&mount, "acme/call.wav", 1, 60_000);
    // The hasher would meet with it too.
    until("it is hashed", || {
        let answer = tally(&["scrub", text(&mount.store()), "--json"]).json();
        (answer["without_hash"] == 0 && answer["passed_over"] == 0).then_some(())
    });
    mount.stop();
    flip(&backing(&mount, "acme/call.wav"), body(5) + 77);
    mount.start();
    let damage = |cause: &str| Scrape::of(&mount).count(&format!("tallyfs_damage_total{{cause=\"{cause}\"}}"));
    let causes = ["authentication", "structure", "size", "old_copy", "lost"];
    assert_eq!(causes.map(damage), [0; 5]);
    let file = File::open(mount.path("acme/call.wav")).expect("its head is whole");
    let mut buffer = [0; 512];
    refused(file.read_at(&mut buffer, plain_range(5).start as u64 + 1000), Errno::IO);
    let [met, others @ ..] = causes.map(damage);
    assert!(met > 0);
    assert_eq!(others, [0; 4]);
    // The page is part of what is written there, too.
    let writer = File::options()
        .write(true)
        .open(mount.path("acme/call.wav"))
        .expect("a writer");
    refused(writer.write_at(b"x", plain_range(5).start as u64 + 1000), Errno::IO);
    assert!(damage("authentication") > met);
    drop((file, writer));
    mount.finish();
}

#[test]
fn a_size_that_no_recording_has_is_damage_too() {
    let mut mount = Mount::new();
    record(&mount, "acme/call.wav", 1, 60_000);
    mount.stop();
    let path = backing(&mount, "acme/call.wav");
    let size = common::damage::size(&path);
    common::damage::resize(&path, size - 4096);
    mount.start();
    refused(File::open(mount.path("acme/call.wav")), Errno::IO);
    let told = Scrape::of(&mount);
    assert!(told.count("tallyfs_damage_total{cause=\"size\"}") > 0);
    assert_eq!(told.count("tallyfs_damage_total{cause=\"authentication\"}"), 0);
}

#[test]
fn a_sync_that_the_disk_failed_is_counted() {
    let config = "[durability]\ncommit_interval_s = 60\n";
    let mount = Setup::new().failing_disk(64).config(config).mount();
    let mut file = File::create_new(mount.dir("acme").join("call.wav")).expect("a new file");
    file.write_all(&[7; 4096]).expect("a page");
    file.sync_all().expect("a sync");
    let failed = || Scrape::of(&mount).count("tallyfs_failed_syncs_total");
    assert_eq!(failed(), 0);
    let refusing = mount.disk().refuse_writes();
    file.write_all(&vec![7; 4 << 20]).expect("the page cache takes it");
    assert!(file.sync_all().is_err(), "the disk takes nothing");
    assert_eq!(failed(), 1);
    drop(refusing);
    file.sync_all().expect("all of it is written again");
    assert_eq!(failed(), 1);
    drop(file);
    drop(mount);
}

#[test]
fn open_files_and_what_waits_for_seal_and_hash_go_up_and_down() {
    let mount = Mount::with_config("[durability]\ncommit_interval_s = 1\n");
    let path = mount.dir("acme").join("call");
    let of = |told: &Scrape| {
        [
            "tallyfs_open_files{mode=\"write\"}",
            "tallyfs_open_files{mode=\"read\"}",
            "tallyfs_unsealed_recordings",
        ]
        .map(|name| told.count(name))
    };
    let is = |expected: [u64; 3]| {
        until("figures of what is open", || {
            (of(&Scrape::of(&mount)) == expected).then_some(())
        });
    };
    is([0, 0, 0]);
    let mut writer = File::create_new(&path).expect("a new file");
    writer.write_all(&vec![1; KIB as usize]).expect("a recording");
    is([1, 0, 1]);
    let mut reader = File::open(&path).expect("a reader");
    reader.read_exact(&mut [0]).expect("content");
    is([1, 1, 1]);
    drop(writer);
    drop(reader);
    is([0, 0, 0]);
    until("its hash is in its head", || {
        let told = Scrape::of(&mount);
        let waiting = ["tallyfs_recordings_to_hash", "tallyfs_recordings_hashed"].map(|name| told.count(name));
        (waiting == [0, 0]).then_some(())
    });
    mount.finish();
}

#[test]
fn the_start_tells_how_it_knew_what_was_there() {
    let mut mount = Mount::new();
    let kind = |mount: &Mount| {
        let told = Scrape::of(mount);
        let mut kinds = told
            .0
            .keys()
            .filter(|name| name.starts_with("tallyfs_recovery_duration_seconds"));
        let kind = kinds.next().expect("a kind").clone();
        assert_eq!(kinds.next(), None);
        let recovered = told.count("tallyfs_recovered_recordings{outcome=\"whole\"}");
        assert!(told.figure::<f64>("process_start_time_seconds") > 1.5e9);
        (kind, recovered)
    };
    let told = |kind: &str, count| (format!("tallyfs_recovery_duration_seconds{{kind=\"{kind}\"}}"), count);
    assert_eq!(kind(&mount), told("scan", 0));
    let mut file = File::create_new(mount.dir("acme").join("call")).expect("a new file");
    file.write_all(&[1; 5000]).expect("a recording");
    mount.kill9();
    drop(file);
    assert_eq!(kind(&mount), told("replay", 1));
    mount.remount();
    assert_eq!(kind(&mount), told("clean", 0));
    mount.finish();
}

#[test]
fn the_form_is_the_one_that_was_asked_for() {
    let mount = Mount::new();
    let plain = get(&mount, "/metrics").is(200);
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        plain.body.contains("# TYPE tallyfs_refusals_total counter\n"),
        "{}",
        plain.body
    );
    assert!(!plain.body.contains("# EOF"));
    let asked = [(
        "Accept",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3",
    )];
    let open = exchange(unix(&mount), "GET", "/metrics", &asked, "").is(200);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(kind));
    assert!(open.body.contains("# TYPE tallyfs_refusals counter\n"), "{}", open.body);
    assert!(open.body.contains("# UNIT tallyfs_request_duration_seconds seconds\n"));
    assert!(open.body.ends_with("# EOF\n"));
    mount.finish();
}
