//! Many writers and creators at one limit: exactly the limit, and everything that was acknowledged is there.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use common::scan::totals;
use common::{Errno, Mount, acme_limits, command, load, names, read, refused, wav};

#[test]
fn q36_sixteen_processes_end_at_exactly_the_limit() {
    let limit = 5_000_000;
    let mount = Mount::with_config(acme_limits(&format!("max_bytes = {limit}")));
    let dir = mount.dir("acme/sales");
    let acknowledged = load::writers(&dir, 16, |n| 320 + 4_000 * n);
    for (n, acknowledged) in acknowledged.iter().enumerate() {
        let len = dir.join(format!("writer-{n}")).metadata().unwrap().len();
        assert_eq!(len, *acknowledged, "writer {n}: size and acknowledged bytes");
        assert_eq!(len % 4, 0, "writer {n} ends on a whole sample");
    }
    assert_eq!(acknowledged.iter().sum::<u64>(), limit);
    mount.assert_usage_true();
    assert_eq!(mount.finish().tenants["acme"], totals(limit, 16, 1));
}

#[test]
fn q36_odd_sizes_never_pass_the_limit() {
    let limit = 1_000_003;
    let mount = Mount::with_config(acme_limits(&format!("max_bytes = {limit}")));
    let dir = mount.dir("acme");
    let acknowledged = load::writers(&dir, 4, |n| 997 + 2 * n).iter().sum::<u64>();
    // A remainder of up to 3 bytes cannot be used by a writer whose file does not end on a multiple of 4.
    assert!((limit - 3..=limit).contains(&acknowledged), "{acknowledged} of {limit}");
    assert_eq!(mount.finish().tenants["acme"], totals(acknowledged, 4, 0));
}

#[test]
fn q37_sixteen_creators_make_exactly_the_limit() {
    let limit = 300;
    let mount = Mount::with_config(acme_limits(&format!("max_files = {limit}")));
    let dir = mount.dir("acme/sales");
    let made = load::creators(&dir, 16);
    assert_eq!(made.iter().sum::<u64>(), limit);
    assert_eq!(names(&dir).len() as u64, limit, "names in the directory");
    assert_eq!(mount.finish().tenants["acme"], totals(0, limit, 1));
}

/// Ten recorders write frames of 320 bytes in turn, behind a header, until each has been refused several times.
/// Each file's acknowledged length.
fn slow_recorders(dir: &Path) -> Vec<u64> {
    const RECORDERS: u64 = 10;
    let barrier = Barrier::new(usize::try_from(RECORDERS).unwrap());
    let someone_writes = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (barrier, someone_writes) = (&barrier, &someone_writes);
        let recorders: Vec<_> = (0..RECORDERS)
            .map(|n| scope.spawn(move || slow_recorder(&dir.join(format!("call-{n}")), n, barrier, someone_writes)))
            .collect();
        recorders
            .into_iter()
            .map(|recorder| recorder.join().expect("a recorder does not panic"))
            .collect()
    })
}

fn slow_recorder(path: &Path, seed: u64, barrier: &Barrier, someone_writes: &AtomicBool) -> u64 {
    let mut file = File::create_new(path).unwrap();
    let mut acknowledged = 0;
    let mut frame = [0; 320];
    loop {
        // One frame of each recorder per round, as calls have one every 20 ms.
        if barrier.wait().is_leader() {
            someone_writes.store(false, Ordering::SeqCst);
        }
        barrier.wait();
        wav::noise(seed, acknowledged, &mut frame);
        match file.write(&frame) {
            Ok(0) => panic!("write answered 0"),
            Ok(count) => {
                acknowledged += count as u64;
                someone_writes.store(true, Ordering::SeqCst);
            }
            Err(error) => refused::<()>(Err(error), Errno::DQUOT),
        }
        barrier.wait();
        if !someone_writes.load(Ordering::SeqCst) {
            return acknowledged;
        }
    }
}

#[track_caller]
fn assert_readable(dir: &Path, acknowledged: &[u64]) {
    for (n, acknowledged) in (0..).zip(acknowledged) {
        let content = read(&dir.join(format!("call-{n}")));
        let mut expected = vec![0; usize::try_from(*acknowledged).unwrap()];
        wav::noise(n, 0, &mut expected);
        assert!(
            content == expected,
            "call {n}: {} bytes of {acknowledged} acknowledged",
            content.len()
        );
    }
}

#[test]
fn q38_every_acknowledged_byte_is_readable_after_a_remount() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 400000"));
    let dir = mount.dir("acme/sales");
    let acknowledged = slow_recorders(&dir);
    assert_readable(&dir, &acknowledged);
    mount.remount();
    assert_readable(&dir, &acknowledged);
    mount.kill9();
    assert_readable(&dir, &acknowledged);
    mount.finish();
}

#[test]
fn q39_slow_recorders_lose_nothing_and_use_the_whole_limit() {
    for limit in [500_000, 500_003] {
        let mount = Mount::with_config(acme_limits(&format!("max_bytes = {limit}")));
        let dir = mount.dir("acme/sales");
        let acknowledged = slow_recorders(&dir);
        assert_readable(&dir, &acknowledged);
        let used = acknowledged.iter().sum::<u64>();
        assert!((limit - 3..=limit).contains(&used), "{used} of {limit} used");
        assert_eq!(mount.finish().tenants["acme"], totals(used, 10, 1));
    }
}

#[test]
fn q40_a_recording_cut_by_the_limit_plays() {
    let mount = Mount::with_config(acme_limits("max_bytes = 100001"));
    let path = mount.dir("acme").join("call.wav");
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&wav::header(0)).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut refusals = 0;
    // A recorder tries on for the rest of the call.
    while refusals < 3 {
        let at = file.metadata().unwrap().len();
        wav::noise(7, at, &mut buffer);
        refusals += u32::from(file.write(&buffer).is_err());
    }
    let len = file.metadata().unwrap().len();
    assert_eq!(len, 100_000);
    file.write_all_at(&wav::header(u32::try_from(len - 44).unwrap()), 0)
        .unwrap();
    drop(file);
    let content = read(&path);
    assert_eq!(wav::playable_bytes(&content), len - 44);
    assert!(content == wav::file(7, u32::try_from(len - 44).unwrap()));
    if command::exists("sox") {
        let shown = common::run("sox", &["--i", "-s", command::text(&path)]);
        assert_eq!(shown.trim(), ((len - 44) / 2).to_string(), "samples that sox finds");
    }
    mount.finish();
}

#[test]
fn q10_writing_deleting_and_renaming_at_the_limit_keeps_usage_true() {
    const WORKERS: u64 = 8;
    let mount = Mount::with_config(acme_limits("max_bytes = 2000000\nmax_files = 60\nmax_dirs = 12"));
    let dirs = ["acme/sales", "acme/support", "globex"].map(|dir| mount.dir(dir));
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let dirs = &dirs;
            scope.spawn(move || {
                for step in 0..400 {
                    random_step(dirs, wav::scramble(worker, step));
                }
            });
        }
    });
    let usage = mount.assert_usage_true();
    let acme = usage.tenants["acme"];
    assert!(
        acme.bytes <= 2_000_000 && acme.files <= 60 && acme.dirs <= 12,
        "{acme:?}"
    );
    assert_eq!(mount.finish(), usage);
}

/// One operation on a few shared names; refusals and lost races are part of it, anything else is a failure.
fn random_step(dirs: &[std::path::PathBuf; 3], random: u64) {
    let place = |random: u64| dirs[(random % 3) as usize].join(format!("name {}", random / 3 % 25));
    let path = place(random >> 8);
    let other = place(random >> 24);
    let len = (random >> 40) % 150_000;
    let opened = || File::options().write(true).create(true).truncate(false).open(&path);
    let answer = match random % 10 {
        0..=3 => opened().and_then(|mut file| file.write(&vec![1; usize::try_from(len).unwrap()]).map(drop)),
        4 => opened().and_then(|file| file.set_len(len)),
        5 => fs::rename(&path, &other),
        6 => fs::remove_file(&path),
        7 => fs::create_dir(&path),
        8 => fs::remove_dir(&path),
        _ => rename_exchange(&path, &other),
    };
    let Err(error) = answer else { return };
    let expected = [
        Errno::DQUOT,
        Errno::NOENT,
        Errno::EXIST,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::NOTEMPTY,
        Errno::PERM,
    ];
    let errno = Errno::from_io_error(&error).expect("a system error");
    assert!(expected.contains(&errno), "{error} from operation {}", random % 10);
}

fn rename_exchange(left: &Path, right: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE)?)
}
