//! How many requests and system calls one operation costs, as far as it must never become more unnoticed: counted by
//! the kernel for the threads that answer, so that no figure depends on the machine.
//!
//! A read of such a thread is a request that it took in; a write is its reply or goes to the store.

mod common;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Mount, wait};

const TIMES: u64 = 500;

/// What the threads that answer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Calls {
    /// read(2): one for each request, also pread(2).
    reads: u64,
    /// writev(2) for each reply, and pwrite(2) of any form.
    writes: u64,
}

/// Once all of them have begun, and have taken a name.
#[track_caller]
fn calls(mount: &Mount) -> Calls {
    wait::until("the threads that answer have begun", || calls_of_all(mount))
}

/// `None` while some of the threads have not begun, or one has just ended.
fn calls_of_all(mount: &Mount) -> Option<Calls> {
    let mut sum = Calls { reads: 0, writes: 0 };
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", mount.pid())).expect("the daemon runs") {
        let task = task.ok()?.path();
        let file = |name: &str| fs::read_to_string(task.join(name)).ok();
        if !file("comm")?.starts_with("fuser-") {
            continue;
        }
        threads += 1;
        let io = file("io")?;
        let figure = |key: &str| -> u64 {
            let line = io.lines().find_map(|line| line.strip_prefix(key));
            line.expect("a kernel that counts").trim().parse().expect("a number")
        };
        sum.reads += figure("syscr:");
        sum.writes += figure("syscw:");
    }
    (threads >= 4).then_some(sum)
}

/// What `work` cost, when it is done `TIMES` times.
#[track_caller]
fn cost(mount: &Mount, mut work: impl FnMut(u64)) -> Calls {
    let before = calls(mount);
    (0..TIMES).for_each(&mut work);
    let after = calls(mount);
    Calls {
        reads: after.reads - before.reads,
        writes: after.writes - before.writes,
    }
}

/// For each operation so many reads, and at most so many writes, of which one is the reply. Somebody else on the machine
/// may look at the mount, so a few more are none; a request or call more for each operation is `TIMES` of them.
#[track_caller]
fn assert_each(cost: Calls, reads: u64, writes_at_most: u64) {
    let strangers = TIMES / 10;
    assert!(
        (reads * TIMES..reads * TIMES + strangers).contains(&cost.reads)
            && (reads * TIMES..writes_at_most * TIMES + strangers).contains(&cost.writes),
        "{TIMES} operations: {cost:?}, expected of each {reads} reads and at most {writes_at_most} writes"
    );
}

fn append_cost(bytes: usize) -> Calls {
    let mount = Mount::new();
    let mut file = File::create_new(mount.dir("acme/sales").join("call.wav")).expect("a new recording");
    let data = vec![0x5A; bytes];
    // An odd beginning, as every recording has: the header.
    file.write_all(&[1; 44]).expect("the header is written");
    cost(&mount, |_| file.write_all(&data).expect("an append"))
}

#[test]
fn an_append_of_one_frame_is_one_request_one_write_and_one_reply() {
    assert_each(append_cost(320), 1, 2);
}

#[test]
fn an_append_of_64_kib_is_one_request_and_at_most_two_writes() {
    assert_each(append_cost(64 << 10), 1, 3);
}

#[test]
fn a_header_rewritten_in_place_is_one_request_one_write_and_one_reply() {
    let mount = Mount::new();
    let mut file = File::create_new(mount.dir("acme").join("call.wav")).expect("a new recording");
    file.write_all(&[1; 10_000]).expect("audio");
    let each = cost(&mount, |number| {
        file.write_all_at(&[number as u8; 44], 0).expect("the header");
    });
    assert_each(each, 1, 2);
}

#[test]
fn mkdir_of_what_is_there_is_one_request_and_writes_nothing() {
    let mount = Mount::new();
    let day = mount.dir("acme/2026/11/21");
    let each = cost(&mount, |_| {
        let kind = fs::create_dir(&day).map_err(|e| e.kind());
        assert_eq!(kind, Err(io::ErrorKind::AlreadyExists));
    });
    assert_each(each, 1, 1);
}

#[test]
fn what_is_absent_or_was_looked_at_is_remembered_by_the_kernel() {
    let mount = Mount::new();
    let dir = mount.dir("acme");
    let file = dir.join("call.wav");
    fs::write(&file, "audio").expect("a recording");
    let look = |path: &Path| path.metadata().map(|found| found.len()).ok();
    let absent = dir.join("8000");
    assert_eq!((look(&file), look(&absent)), (Some(5), None));
    let each = cost(&mount, |_| {
        assert_eq!((look(&file), look(&absent)), (Some(5), None));
    });
    assert_each(each, 0, 0);
}

/// Lists a directory until the kernel answers from what it has: it asks whether it may, and for no names.
#[track_caller]
fn list_until_remembered(mount: &Mount, dir: &Path, names: usize) {
    let list = || fs::read_dir(dir).expect("a directory").count();
    wait::until("a listing that asks for no names", || {
        let before = calls(mount);
        assert_eq!(list(), names);
        // Opening, attributes and closing.
        (calls(mount).reads - before.reads <= 3).then_some(())
    });
}

#[test]
fn what_was_listed_is_remembered_until_it_changes() {
    let mount = Mount::new();
    let dir = mount.dir("acme/2026/11/21");
    let names = 2_000;
    for number in 0..names {
        fs::write(dir.join(format!("call-{number}")), []).expect("a recording");
    }
    list_until_remembered(&mount, &dir, names);
    fs::remove_file(dir.join("call-7")).expect("the client removes one");
    list_until_remembered(&mount, &dir, names - 1);
    // Behind the back of kernel and daemon, as the daemon does with date directories.
    let backing = mount.store().join("data/acme/2026/11/21");
    fs::create_dir(backing.join("planted")).expect("somebody with access to the store");
    list_until_remembered(&mount, &dir, names);
    assert!(
        fs::read_dir(&dir)
            .expect("a directory")
            .any(|name| name.expect("a name").file_name() == "planted")
    );
}

#[test]
fn q48_an_append_costs_no_more_with_limits_on_all_levels_and_99_percent_full() {
    let limits = ["tenant", "campaign", "agent"].map(|level| format!("[rules.limits.{level}]\nmax_bytes = 20000000\n"));
    let mount = Mount::with_config(format!("{}{}", common::RULES, limits.concat()));
    let dir = mount.dir("acme/sales/bob");
    fs::write(dir.join("others"), vec![1; 19_800_000]).expect("99 %");
    let mut file = File::create_new(dir.join("call.wav")).expect("a new recording");
    file.write_all(&[1; 44]).expect("the header is written");
    assert_each(cost(&mount, |_| file.write_all(&[0x5A; 320]).expect("an append")), 1, 2);
}
