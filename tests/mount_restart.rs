//! The daemon dies and the mount lives: a keeper starts the next one, and nobody who uses the mount notices.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use common::wait::{Over, until};
use common::{Mount, Setup, acme_limits, names, read, refused};

fn kept(config: &str) -> Mount {
    mounted(Setup::new().config(config))
}

/// On a kernel before Linux 6.9, as far as the daemon can tell.
fn kept_without_resend(config: &str) -> Mount {
    mounted(Setup::new().config(config).environment("TALLYFS_WITHOUT_RESEND", "1"))
}

fn mounted(setup: Setup) -> Mount {
    let mount = setup.arguments(&["--supervise", "--give-up-after", "1000"]).mount();
    serving(&mount, 1);
    mount
}

/// Waits until so many daemons have served.
fn serving(mount: &Mount, lives: usize) {
    until("the daemon serves", || {
        (mount.log().matches("mounted /").count() >= lives).then_some(())
    });
}

/// Process number of the daemon, whose parent is the keeper.
fn daemon(mount: &Mount) -> Option<Pid> {
    let keeper = mount.pid();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

fn kill_daemon(mount: &Mount) {
    let daemon = until("a daemon", || daemon(mount));
    kill_process(daemon, Signal::KILL).expect("it can be killed");
}

fn keeper(mount: &Mount) -> Pid {
    Pid::from_raw(mount.pid().cast_signed()).expect("a number")
}

#[test]
fn what_is_open_goes_on_in_the_next_daemon() {
    let mount = kept(&acme_limits("max_files = 100"));
    mount.dir("acme/other");
    let mut call = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(mount.path("acme/call"))
        .expect("a recording");
    let header = File::create_new(mount.path("acme/header")).expect("a recording");
    let moved = File::create_new(mount.path("acme/moved")).expect("a recording");
    fs::rename(mount.path("acme/moved"), mount.path("acme/other/moved")).expect("a rename");
    let gone = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(mount.path("acme/gone"))
        .expect("a recording");
    gone.write_all_at(b"before", 0).expect("room");
    fs::remove_file(mount.path("acme/gone")).expect("a deletion");
    let replaced = File::create_new(mount.path("acme/replaced")).expect("a recording");
    replaced.write_all_at(b"old", 0).expect("room");
    fs::write(mount.path("acme/new"), "new").expect("a recording");
    fs::rename(mount.path("acme/new"), mount.path("acme/replaced")).expect("a rename");
    let reading = File::open(mount.path("acme/replaced")).expect("it is there");
    let mut expected = Vec::new();
    for life in 1..=3_u64 {
        kill_daemon(&mount);
        let frame = [life as u8; 5000];
        call.write_all(&frame).expect("the next daemon takes it");
        expected.extend_from_slice(&frame);
        header.write_all_at(&frame, 44).expect("the next daemon takes it");
        moved
            .write_all_at(&frame, life * 5000)
            .expect("the next daemon takes it");
        gone.write_all_at(b"behind", 6 * life)
            .expect("the next daemon takes it");
        serving(&mount, 1 + life as usize);
    }
    assert_eq!(read(&mount.path("acme/call")), expected);
    assert_eq!(header.metadata().expect("open").len(), 5044);
    let mut content = String::new();
    (&gone).read_to_string(&mut content).expect("it is open");
    assert_eq!(content, "beforebehindbehindbehind");
    assert_eq!(gone.metadata().expect("open").nlink(), 0);
    assert_eq!(replaced.metadata().expect("open").len(), 3);
    let mut content = String::new();
    (&reading).read_to_string(&mut content).expect("it is open");
    assert_eq!(content, "new");
    assert_eq!(mount.tenant("acme").files, 6, "with the two that have no name");
    drop((gone, replaced));
    until("deleted files are given back", || {
        (mount.tenant("acme").files == 4).then_some(())
    });
    assert!(!mount.log().contains("1 lost"), "{}", mount.log());
    drop((call, header, moved, reading));
    mount.assert_usage_true();
    mount.finish();
}

/// Operations between two kills, of each who works: fewer than make a round, so that a kill meets any of them.
const STEPS: u64 = 5;

/// Makes, moves, exchanges and removes names, and appends: none of it can simply be done twice. `steps` counts.
fn once(dir: &Path, over: &AtomicBool, steps: &AtomicU64) -> u64 {
    let step = || _ = steps.fetch_add(1, Ordering::Relaxed);
    let mut log = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(dir.join("log"))
        .expect("a file");
    let mut count = 0_u64;
    while !over.load(Ordering::Relaxed) {
        log.write_all(&count.to_le_bytes()).map(|()| step()).expect("an append");
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.join(format!("{name}{count}")));
        for (name, content) in [(&a, b"A"), (&b, b"B")] {
            let mut file = File::create_new(name).inspect(|_| step()).expect("a new name");
            file.write_all(content).map(|()| step()).expect("room");
        }
        let exchanged = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
        exchanged.map(|()| step()).expect("an exchange");
        assert_eq!((read(&a), read(&b)), (b"B".to_vec(), b"A".to_vec()), "exchanged once");
        fs::rename(&a, &c).map(|()| step()).expect("a rename");
        fs::hard_link(&c, &a).map(|()| step()).expect("a link");
        fs::remove_file(&a).map(|()| step()).expect("a deletion");
        fs::create_dir(&a).map(|()| step()).expect("a directory");
        fs::remove_dir(&a).map(|()| step()).expect("a deletion");
        fs::remove_file(&b).map(|()| step()).expect("a deletion");
        fs::remove_file(&c).map(|()| step()).expect("a deletion");
        count += 1;
    }
    let expected: Vec<u8> = (0..count).flat_map(u64::to_le_bytes).collect();
    assert_eq!(read(&dir.join("log")), expected, "each appended once, in order");
    count
}

#[test]
fn what_was_under_way_is_done_once() {
    let mount = kept("");
    once_while(&mount, || kill_daemon(&mount));
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn whoever_hands_over_leaves_nothing_under_way() {
    let mount = kept_without_resend("");
    once_while(&mount, || {
        kill_process(keeper(&mount), Signal::USR2).expect("the keeper runs");
    });
    let log = mount.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("requests got EIO")).collect();
    assert_eq!(told.len(), LIVES, "{log}");
    assert!(told.iter().all(|line| line.contains(" 0 requests got EIO")), "{log}");
    mount.assert_usage_true();
    mount.finish();
}

/// Processes after the first one.
const LIVES: usize = 10;

/// Has `end` end one daemon after the other, amid operations that cannot simply be done twice. None of them fails.
fn once_while(mount: &Mount, end: impl Fn()) {
    let over = AtomicBool::new(false);
    let works = ["one", "two"].map(|name| (mount.dir(name), AtomicU64::new(0)));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        let workers: Vec<_> = works
            .iter()
            .map(|(dir, steps)| scope.spawn(|| once(dir, &over, steps)))
            .collect();
        for life in 1..=LIVES {
            let is_due = |steps: &AtomicU64| steps.load(Ordering::Relaxed) >= life as u64 * STEPS;
            until("operations go on", || {
                assert!(workers.iter().all(|worker| !worker.is_finished()), "a failed operation");
                works.iter().all(|(_, steps)| is_due(steps)).then_some(())
            });
            end();
            serving(mount, 1 + life);
        }
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            assert!(worker.join().expect("no operation failed") > 0);
        }
    });
}

/// Has a lease on a file, which holds up whoever opens it, until its standard input ends.
const LEASE: &str = r#"
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"#;

/// Opens a recording, and waits until the daemon hangs at that. The opening ends by itself when the lease does.
fn hanging_open<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mount: &Mount,
) -> (Child, ScopedJoinHandle<'scope, io::Result<File>>) {
    let backing = mount.store().join("data/call");
    let mut lease = Command::new("python3")
        .args(["-c", LEASE])
        .arg(&backing)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut said = [0; 5];
    let out = lease.stdout.as_mut().expect("piped");
    out.read_exact(&mut said).expect("it has the lease");
    let path = mount.path("call");
    let opening = scope.spawn(move || File::open(path));
    until("the daemon hangs", || {
        let locks = fs::read_to_string("/proc/locks").expect("the kernel tells");
        let inode = format!(":{} ", backing.metadata().expect("it is there").ino());
        let mut lines = locks.lines();
        lines
            .any(|line| line.contains("BREAKING") && line.contains(&inode))
            .then_some(())
    });
    (lease, opening)
}

/// A sealed recording, which no start has to open.
fn put_away(mount: &mut Mount) {
    fs::write(mount.path("call"), "audio").expect("room");
    mount.stop();
    mount.start();
    serving(mount, 2);
}

#[test]
fn who_waits_for_a_dead_daemon_gets_an_error_where_the_kernel_sends_nothing_again() {
    let mut mount = kept_without_resend("");
    put_away(&mut mount);
    std::thread::scope(|scope| {
        let (mut lease, opening) = hanging_open(scope, &mount);
        kill_daemon(&mount);
        serving(&mount, 3);
        until("it does not wait on", || opening.is_finished().then_some(()));
        let error = opening.join().expect("no panic").expect_err("nobody did it");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
        assert!(mount.log().contains(" 1 requests got EIO"), "{}", mount.log());
        drop(lease.stdin.take());
        lease.wait().expect("it ends");
    });
    assert_eq!(read(&mount.path("call")), b"audio");
    mount.finish();
}

#[test]
fn who_waits_for_a_dead_daemon_is_served_by_the_next_one() {
    let mut mount = kept("");
    put_away(&mut mount);
    std::thread::scope(|scope| {
        let (mut lease, opening) = hanging_open(scope, &mount);
        kill_daemon(&mount);
        serving(&mount, 3);
        drop(lease.stdin.take());
        lease.wait().expect("it ends");
        let mut content = String::new();
        let mut file = opening.join().expect("no panic").expect("it is asked again");
        file.read_to_string(&mut content).expect("it is open");
        assert_eq!(content, "audio");
    });
    mount.finish();
}

#[test]
fn what_the_kernel_takes_for_absent_it_asks_for_again_where_it_may_have_been_told_an_error_for_a_success() {
    let mount = kept_without_resend("");
    let link = || fs::symlink_metadata(mount.path("link"));
    link().expect_err("it is not there");
    // As a daemon does that dies before it answers.
    let backing = mount.store().join("data/link");
    symlink("nowhere", &backing).expect("a new name");
    until("it is seen", || link().ok());
    fs::remove_file(&backing).expect("it is there");
    mount.finish();
}

/// Makes, moves, reads and removes a recording again and again, and puts up with EIO.
fn with_errors(dir: &Path, over: &AtomicBool) {
    let is_done = |done: io::Result<()>| {
        if let Err(error) = &done {
            assert_eq!(Errno::from_io_error(error), Some(Errno::IO), "{error}");
        }
        done.is_ok()
    };
    let mut count = 0_u64;
    while !over.load(Ordering::Relaxed) {
        count += 1;
        let [old, new] = ["old", "new"].map(|name| dir.join(format!("{name}{count}")));
        let content = count.to_le_bytes();
        let is_whole = is_done(fs::write(&old, content)) && is_done(fs::rename(&old, &new));
        if is_whole && is_done(File::open(&new).map(|_| ())) {
            let mut found = Vec::new();
            if is_done(File::open(&new).and_then(|mut file| file.read_to_end(&mut found).map(|_| ()))) {
                assert_eq!(found, content);
            }
            // Done or not, if it failed.
            is_done(fs::remove_file(&new));
        }
    }
}

#[test]
fn without_a_resend_kills_cost_errors_and_nobody_hangs() {
    let mut mount = kept_without_resend("");
    let over = AtomicBool::new(false);
    let dirs = ["one", "two"].map(|name| mount.dir(name));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        let workers: Vec<_> = dirs.iter().map(|dir| scope.spawn(|| with_errors(dir, &over))).collect();
        for life in 1..=LIVES {
            kill_daemon(&mount);
            serving(&mount, 1 + life);
        }
        over.store(true, Ordering::Relaxed);
        let ends = || workers.iter().all(ScopedJoinHandle::is_finished).then_some(());
        until("nobody hangs", ends);
        for worker in workers {
            worker.join().expect("no error but EIO");
        }
    });
    // What was done all the same the kernel comes to know a little later.
    for (name, dir) in ["one", "two"].iter().zip(&dirs) {
        let backing = names(&mount.store().join("data").join(name));
        let found = || names(dir).into_iter().filter(|name| dir.join(name).exists());
        until("the mount shows what is there", || {
            found().eq(backing.iter().cloned()).then_some(())
        });
    }
    // A close that was under way is lost, and with it what the file takes until the mount ends.
    mount.stop();
    mount.start();
    mount.assert_usage_true();
    mount.finish();
}

/// Resident bytes of the anonymous mappings of a process that are as large as the buffer of a request.
fn resident_in_buffers(process: Pid) -> u64 {
    let told = fs::read_to_string(format!("/proc/{}/smaps", process.as_raw_pid())).expect("it runs");
    let kib = |line: &str, name: &str| {
        let rest = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
        rest.parse::<u64>().ok()
    };
    let (mut resident, mut is_buffer) = (0, false);
    for line in told.lines() {
        if let Some(size) = kib(line, "Size:") {
            is_buffer = size >= 16 << 10;
        } else if let Some(rss) = kib(line, "Rss:").filter(|_| is_buffer) {
            resident += rss << 10;
        }
    }
    resident
}

#[test]
fn a_request_is_read_into_memory_that_is_there_so_that_a_kill_amid_it_is_no_error() {
    let mount = kept("[service]\nthreads = 6\n");
    let daemon = until("a daemon", || daemon(&mount));
    until("every thread has a buffer", || {
        (resident_in_buffers(daemon) >= 6 << 20).then_some(())
    });
    mount.finish();
}

#[test]
fn a_daemon_that_does_not_start_any_more_is_given_up() {
    let mut mount = Setup::new().arguments(&["--supervise", "--give-up-after", "3"]).mount();
    serving(&mount, 1);
    let call = File::create_new(mount.path("call")).expect("a recording");
    fs::rename(mount.key_file(), mount.key_file().with_extension("away")).expect("a rename");
    kill_daemon(&mount);
    let status = mount.wait_for_end();
    assert_eq!(status.code(), Some(7), "{}", mount.log());
    assert!(mount.log().contains("given up after 3"), "{}", mount.log());
    assert!(!common::mount::is_mounted(&mount.point()), "the mount is taken away");
    let error = call.write_at(b"x", 0).expect_err("nobody serves it");
    assert!(
        matches!(Errno::from_io_error(&error), Some(Errno::NOTCONN | Errno::CONNABORTED)),
        "{error}"
    );
    fs::rename(mount.key_file().with_extension("away"), mount.key_file()).expect("a rename");
    mount.start();
}

#[test]
fn sigusr2_hands_the_mount_over_with_the_counters_of_the_day() {
    let mount = kept(&acme_limits("day.max_files = 5"));
    mount.dir("acme");
    let mut call = File::create_new(mount.path("acme/0")).expect("a recording");
    for number in 1..=3 {
        fs::write(mount.path(&format!("acme/{number}")), "x").expect("a recording");
    }
    let first = daemon(&mount);
    kill_process(keeper(&mount), Signal::USR2).expect("the keeper runs");
    until("the next daemon", || daemon(&mount).filter(|now| Some(*now) != first));
    serving(&mount, 2);
    call.write_all(b"more").expect("the next daemon takes it");
    fs::write(mount.path("acme/4"), "x").expect("a recording");
    refused(fs::write(mount.path("acme/5"), "x"), Errno::DQUOT);
    assert!(mount.log().contains("hands the mount over"), "{}", mount.log());
    drop(call);
    mount.finish();
}

#[test]
fn without_a_keeper_sigusr2_changes_nothing() {
    let mount = Mount::new();
    let log = || mount.log();
    until("it serves", || log().contains("mounted /").then_some(()));
    kill_process(keeper(&mount), Signal::USR2).expect("the daemon runs");
    until("it says so", || log().contains("--supervise").then_some(()));
    fs::write(mount.path("call"), "x").expect("it serves");
    mount.finish();
}

#[test]
fn an_unmount_ends_the_keeper() {
    let mut mount = kept("");
    // The daemon asks it once whether it answers.
    until("nobody uses it", || unmount(mount.point(), UnmountFlags::empty()).ok());
    let status = mount.wait_for_end();
    assert!(status.success(), "{status}\n{}", mount.log());
}
