//! What is counted is what is there, whatever was done: by every way of writing, by many at once, at a limit, and while
//! limits change.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::statvfs;

use common::quota::{get, set};
use common::rng::{Rng, content};
use common::{Errno, KIB, MIB, Mount, RULES, acme_limits, read, refused, run, write_until_refused};

/// A refusal by a limit is an answer; anything else is not.
fn allowed<T>(answer: io::Result<T>) -> Option<T> {
    match answer {
        Ok(done) => Some(done),
        Err(e)
            if matches!(
                Errno::from_io_error(&e),
                Some(Errno::DQUOT | Errno::NOSPC | Errno::FBIG)
            ) =>
        {
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn q01_buffered_direct_and_mapped_writes_count_alike() {
    let mount = Mount::with_config(acme_limits("max_bytes = \"2MiB\""));
    let dir = mount.dir("acme");
    let bytes = 64 * KIB;
    let data = content(1, bytes as usize);
    let mut used = 0;
    let mut grown = |how: &str| {
        used += bytes;
        assert_eq!(mount.tenant("acme").bytes, used, "{how}");
        mount.assert_usage_true();
    };
    fs::write(dir.join("buffered"), &data).expect("a buffered write");
    grown("buffered");
    // Aligned in memory, too.
    let mut room = vec![0; data.len() + 4096];
    let start = room.as_ptr().align_offset(4096);
    room[start..start + data.len()].copy_from_slice(&data);
    let direct = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
        .open(dir.join("direct"))
        .expect("O_DIRECT");
    direct
        .write_all_at(&room[start..start + data.len()], 0)
        .expect("a direct write");
    grown("O_DIRECT");
    let script = "import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL)
data = open(sys.argv[2], 'rb').read()
os.ftruncate(fd, len(data))
mapped = mmap.mmap(fd, len(data))
mapped[:] = data
mapped.flush()";
    let (mapped, buffered) = (dir.join("mapped"), dir.join("buffered"));
    run(
        "python3",
        &["-c", script, &mapped.to_string_lossy(), &buffered.to_string_lossy()],
    );
    grown("mmap");
    for name in ["buffered", "direct", "mapped"] {
        assert_eq!(read(&dir.join(name)), data, "{name}");
    }
    drop(direct);
    mount.finish();
}

/// As fsx does: one file, random changes of all kinds, compared with memory after each.
fn exercise(mount: &Mount, limit: u64, seed: u64) -> u32 {
    let path = mount.path("acme").join("exercised");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .expect("a file");
    let (mut rng, mut model, mut refusals) = (Rng::new(seed), Vec::new(), 0);
    for step in 0..1500 {
        let offset = rng.below(limit + limit / 8);
        let size = rng.below(40_000);
        match rng.below(10) {
            0..=5 => {
                let data = content(step, size as usize);
                match allowed(file.write_at(&data, offset)) {
                    Some(taken) => {
                        let end = offset as usize + taken;
                        if taken > 0 && model.len() < end {
                            model.resize(end, 0);
                        }
                        model[end - taken..end].copy_from_slice(&data[..taken]);
                    }
                    None => refusals += 1,
                }
            }
            6 | 7 => match allowed(file.set_len(offset)) {
                Some(()) => model.resize(offset as usize, 0),
                None => refusals += 1,
            },
            8 => drop(allowed(file.sync_all())),
            _ => {
                let mut buffer = vec![0; size as usize];
                let count = file.read_at(&mut buffer, offset).expect("a read");
                let from = (offset as usize).min(model.len());
                let to = (from + size as usize).min(model.len());
                assert_eq!(buffer[..count], model[from..to], "step {step}");
            }
        }
        assert!(model.len() as u64 <= limit, "step {step}: over the limit");
        assert_eq!(
            file.metadata().expect("attributes").len(),
            model.len() as u64,
            "step {step}"
        );
    }
    assert!(read(&path) == model, "the content at the end");
    assert_eq!(mount.tenant("acme").bytes, model.len() as u64);
    refusals
}

#[test]
fn q05_a_file_that_is_changed_in_every_way_is_right_and_counted_right_with_limits_on() {
    for (limit, seed) in [(MIB, 5), (256 * KIB, 6)] {
        let mount = Mount::with_config(acme_limits(&format!("max_bytes = {limit}")));
        mount.dir("acme");
        let refusals = exercise(&mount, limit, seed);
        assert!(refusals > 20, "the limit was met: {refusals}");
        mount.assert_usage_true();
        mount.finish();
    }
}

/// As fsstress does: makes, grows, shrinks, moves, links and removes in a directory that several share.
fn stress(dir: &Path, seed: u64, steps: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let mut refusals = 0;
    let gone = |e: &io::Error| {
        matches!(
            e.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::CrossesDevices
                | io::ErrorKind::InvalidInput
        )
    };
    for step in 0..steps {
        let folder = dir.join(format!("d{}", rng.below(4)));
        let (a, b) = (
            folder.join(format!("f{}", rng.below(12))),
            dir.join(format!("d{}/f{}", rng.below(4), rng.below(12))),
        );
        let size = rng.below(20_000);
        let done = match rng.below(9) {
            0..=2 => File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&a)
                .and_then(|file| {
                    file.write_at(&content(step, size as usize), rng.below(30_000))
                        .map(drop)
                }),
            3 => File::options().write(true).open(&a).and_then(|file| file.set_len(size)),
            4 => fs::rename(&a, &b),
            5 => fs::hard_link(&a, &b),
            6 => fs::create_dir(&folder),
            7 if rng.one_in(8) => fs::remove_dir(&folder),
            _ => fs::remove_file(&a),
        };
        match done {
            Err(e) if gone(&e) => {}
            done => refusals += u64::from(allowed(done).is_none()),
        }
    }
    refusals
}

fn stressed(config: &str) -> u64 {
    let mount = Mount::with_config(config);
    let dir = mount.dir("acme");
    let refusals = thread::scope(|scope| {
        let stressors: Vec<_> = (1..=4)
            .map(|seed| {
                let dir = &dir;
                scope.spawn(move || stress(dir, seed, 1500))
            })
            .collect();
        stressors
            .into_iter()
            .map(|stressor| stressor.join().expect("it ends"))
            .sum()
    });
    let used = mount.assert_usage_true();
    let used = used.tenants["acme"];
    assert!(used.files > 0, "something is left");
    mount.finish();
    refusals
}

#[test]
fn q06_many_changes_at_once_are_counted_right() {
    assert_eq!(stressed(&acme_limits("max_bytes = \"1GiB\"")), 0);
}

#[test]
fn q07_many_changes_at_once_are_counted_right_at_low_limits() {
    let refusals = stressed(&acme_limits(
        "max_bytes = 200000\nmax_files = 20\nmax_dirs = 3\nmax_file_size = 25000",
    ));
    assert!(refusals > 100, "the limits were met: {refusals}");
}

#[test]
fn q08_limits_may_change_while_files_are_written_and_deleted() {
    let mount = Mount::with_config(RULES);
    let dir = mount.dir("acme");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 1..=3 {
            let (dir, ended) = (&dir, &ended);
            scope.spawn(move || {
                for round in 0.. {
                    stress(dir, seed + 10 * round, 100);
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for round in 0..60_u64 {
            set(&dir, "max_bytes", &(1 + round * 7919 % 300_000).to_string());
            set(&dir, "max_files", &(1 + round % 17).to_string());
            if round % 5 == 4 {
                set(&dir, "max_bytes", "0");
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    mount.assert_usage_true();
    // The last word holds.
    set(&dir, "max_files", "0");
    set(&dir, "max_bytes", &(mount.tenant("acme").bytes + 1000).to_string());
    let file = File::create(dir.join("last")).expect("a file");
    let replaced = mount.tenant("acme").bytes;
    let (taken, error) = write_until_refused(&file, 100);
    refused::<()>(Err(error), Errno::DQUOT);
    assert!(taken + replaced <= mount.tenant("acme").bytes);
    drop(file);
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn q11_who_owns_a_file_does_not_matter() {
    let mount = Mount::with_config(acme_limits("max_bytes = 10000"));
    let call = mount.dir("acme").join("call");
    fs::write(&call, [1; 6000]).expect("a recording");
    let before = mount.usage();
    chown(&call, Some(1234), Some(4321)).expect("root gives it away");
    assert_eq!(mount.usage(), before);
    refused(
        fs::write(mount.path("acme/other"), [1; 6000]).map(|()| 6000),
        Errno::DQUOT,
    );
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn q12_limits_of_a_template_are_each_accounts_own() {
    let mount = Mount::with_config(format!(
        "{RULES}[rules.limits.tenant]\nmax_bytes = 10000\nsoft_bytes = 5000\n"
    ));
    let [acme, globex] = ["acme", "globex"].map(|tenant| mount.dir(tenant));
    fs::write(acme.join("call"), [1; 6000]).expect("over the soft limit");
    set(&acme, "max_bytes", "7000");
    assert_eq!([get(&acme, "max_bytes"), get(&globex, "max_bytes")], ["7000", "10000"]);
    refused(fs::write(acme.join("more"), [1; 2000]), Errno::DQUOT);
    let (taken, _) = write_until_refused(&File::create(globex.join("call")).expect("a file"), 500);
    assert_eq!(taken, 10_000, "the other's use and limit are nothing to it");
    let told = |dir: &Path| -> serde_json::Value { serde_json::from_str(&get(dir, "json")).expect("JSON") };
    assert_ne!(told(&acme), told(&globex));
    mount.finish();
}

#[test]
fn q20_every_figure_is_in_the_unit_that_it_says() {
    let mount = Mount::with_config(acme_limits("max_bytes = \"1MiB\"\nmax_files = 100\nmax_dirs = 10"));
    let dir = mount.dir("acme/sales");
    fs::write(dir.join("odd"), [1; 5001]).expect("a recording");
    let file = File::create(dir.join("sparse")).expect("a recording");
    file.write_at(&[1], 99_999).expect("behind a hole");
    drop(file);
    fs::hard_link(dir.join("odd"), dir.join("again")).expect("a link");
    let acme = mount.path("acme");
    let figures = ["used_bytes", "used_files", "used_dirs", "max_bytes"].map(|name| get(&acme, name));
    // What `wc -c` adds up to; each inode once; the directories below.
    assert_eq!(figures, ["105001", "2", "1", "1048576"]);
    let told: serde_json::Value = serde_json::from_str(&run(
        common::mount::tallyfs(),
        &["quota", "get", "--json", &acme.to_string_lossy()],
    ))
    .expect("JSON");
    assert!(told.to_string().contains("105001"), "{told}");
    let df = statvfs(&acme).expect("statfs");
    assert_eq!(df.f_frsize, 4096);
    assert_eq!(df.f_blocks, 256, "1 MiB in blocks of 4 KiB");
    assert_eq!(df.f_bfree, (MIB - 105_001) / 4096, "whole blocks that still fit");
    assert_eq!([df.f_files, df.f_ffree], [100, 98]);
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn q25_small_files_past_a_soft_limit_are_not_refused_early() {
    let mount = Mount::with_config(acme_limits(
        "soft_bytes = 1000\nsoft_files = 5\ngrace = \"7d\"\nmax_files = 200\nmax_bytes = 20000",
    ));
    let dir = mount.dir("acme");
    for number in 0..200 {
        fs::write(dir.join(number.to_string()), [1; 100]).unwrap_or_else(|e| panic!("file {number}: {e}"));
    }
    refused(File::create(dir.join("one too many")), Errno::DQUOT);
    refused(
        OpenOptions::new()
            .append(true)
            .open(dir.join("7"))
            .and_then(|mut file| file.write(&[1])),
        Errno::DQUOT,
    );
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn q47_the_smallest_limits_are_used_to_the_last_byte() {
    let limits = (0..6)
        .map(|power| 1 << (power * 3))
        .flat_map(|near: u64| [near, near + 3, near + 4]);
    for limit in limits.chain([4047, 4048, 4049, 4096]) {
        let mount = Mount::with_config(acme_limits(&format!("max_bytes = {limit}")));
        let dir = mount.dir("acme");
        let file = File::create_new(dir.join("whole")).expect("a file");
        assert_eq!(
            (&file).write(&vec![1; limit as usize]).expect("all of it fits"),
            limit as usize
        );
        refused((&file).write(&[1]), Errno::DQUOT);
        file.set_len(0).expect("shrinking");
        drop(file);
        for number in 0..limit.min(70) {
            fs::write(dir.join(number.to_string()), [1]).unwrap_or_else(|e| panic!("{limit}: byte {number}: {e}"));
        }
        assert_eq!(mount.finish().tenants["acme"].bytes, limit.min(70));
    }
}

#[test]
fn a_call_without_room_for_a_recording_is_refused_at_its_start() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 1000000\nreserve_per_recording_bytes = 400000"));
    let dir = mount.dir("acme/sales");
    let calls: Vec<File> = ["a", "b"]
        .map(|name| File::create_new(dir.join(name)).expect("there is room for two"))
        .into();
    refused(File::create_new(dir.join("c")), Errno::DQUOT);
    refused(fs::metadata(dir.join("c")), Errno::NOENT);
    assert_eq!(
        statvfs(&dir).expect("statfs").f_bavail,
        200_000 / 4096,
        "what is kept is not free"
    );
    for call in &calls {
        (&*call).write_all(&vec![1; 400_000]).expect("what was promised");
    }
    drop(calls);
    refused(File::create_new(dir.join("c")), Errno::DQUOT);
    // Existing ones are written as far as there is room, and what is not used is given back at the last close.
    fs::remove_file(dir.join("a")).expect("a deletion");
    let short = File::create_new(dir.join("short")).expect("room again");
    (&short).write_all(&[1; 1000]).expect("a short call");
    refused(File::create_new(dir.join("c")), Errno::DQUOT);
    let again = short.try_clone().expect("a second descriptor");
    drop(short);
    drop(again);
    let next = common::wait::until("the kernel tells of the close", || File::create_new(dir.join("d")).ok());
    mount.assert_usage_true();
    drop(next);
    assert_eq!(get(&mount.path("acme"), "reserve_per_recording_bytes"), "400000");
    set(&mount.path("acme"), "reserve_per_recording_bytes", "1000");
    let many: Vec<File> = (0..100)
        .map(|number| File::create_new(dir.join(format!("small {number}"))).expect("there is room"))
        .collect();
    // A kill forgets what was kept, and nothing else.
    mount.kill9();
    drop(many);
    mount.assert_usage_true();
    mount.finish();
}
