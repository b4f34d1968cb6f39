//! Ordinary tools on a mount do what they do on a native directory.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::command::text;
use common::scan::totals;
use common::{MIB, Mount, Setup, acme_limits, command, make_file, names, read, run, run_in, tree};

/// A mount with a native sample tree beside it.
fn sample() -> (Mount, PathBuf) {
    // Files of other owners are compared, so the kernel checks as on any file system.
    let mount = Setup::new().arguments(&["-o", "allow_other"]).mount();
    let native = mount.native("sample");
    tree::make_sample(&native);
    (mount, native)
}

/// Source directory with a slash and a dot, for tools that copy what is inside.
fn inside(dir: &Path) -> String {
    format!("{}/.", text(dir))
}

#[test]
fn cp_a_in_across_and_out() {
    let (mount, native) = sample();
    let (copied, again, out) = (mount.dir("in"), mount.dir("again"), mount.native("out"));
    for (from, to) in [(&native, &copied), (&copied, &again), (&again, &out)] {
        run("cp", &["-a", &inside(from), text(to)]);
        tree::assert_same(&native, to);
    }
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn rsync_in_and_out_and_again_finds_nothing_to_do() {
    let (mount, native) = sample();
    let (copied, out) = (mount.dir("in"), mount.native("out"));
    let rsync = |from: &Path, to: &Path| {
        let from = format!("{}/", text(from));
        run("rsync", &["-aHXi", "--delete", &from, text(to)])
    };
    rsync(&native, &copied);
    tree::assert_same(&native, &copied);
    rsync(&copied, &out);
    tree::assert_same(&native, &out);
    assert_eq!(
        rsync(&native, &copied).lines().find(|line| !line.starts_with(".d")),
        None,
        "a second run copies"
    );
    make_file(&native.join("acme/new"), 70_000);
    fs::remove_file(native.join("acme/sales/call 5 <+49:30>.wav")).unwrap();
    // rsync 3.5 takes directory times of one second for the same, on any file system; these are older.
    for dir in ["acme", "acme/sales"] {
        run("touch", &["-d", "2020-01-01 00:00:01.5 UTC", text(&native.join(dir))]);
    }
    rsync(&native, &copied);
    tree::assert_same(&native, &copied);
    mount.finish();
}

#[test]
fn tar_in_and_out() {
    let (mount, native) = sample();
    let (copied, out) = (mount.dir("in"), mount.native("out"));
    for (from, to) in [(&native, &copied), (&copied, &out)] {
        let script = "tar --xattrs -C \"$1\" -cf - . | tar --xattrs --xattrs-include='user.*' -C \"$2\" -xpf -";
        run("bash", &["-o", "pipefail", "-c", script, "bash", text(from), text(to)]);
        tree::assert_same(&native, to);
    }
    mount.finish();
}

#[test]
fn mv_inside_in_and_out() {
    let (mount, native) = sample();
    let (kept, point) = (mount.native("kept"), mount.dir("in"));
    run("cp", &["-a", &inside(&native), text(&kept)]);
    // Into the mount: a copy and a removal. Inside: a rename. Out again: a copy.
    run("mv", &[text(&native), text(&point.join("tree"))]);
    tree::assert_same(&kept, &point.join("tree"));
    assert!(!native.exists());
    let ino = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = ino(&point.join("tree/acme"));
    run("mv", &[text(&point.join("tree")), text(&mount.path("moved"))]);
    assert_eq!(ino(&mount.path("moved/acme")), before, "a rename, not a copy");
    run("mv", &[text(&mount.path("moved")), text(&native)]);
    tree::assert_same(&kept, &native);
    assert!(names(&point).is_empty());
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn listings_sums_and_finds_agree_with_the_source() {
    let (mount, native) = sample();
    let copied = mount.dir("in");
    run("cp", &["-a", &inside(&native), text(&copied)]);
    // Directory sizes and block counts are the file system's own affair.
    let scripts = [
        "ls -lR --time-style=full-iso . | awk '!/^d/ && !/^total/'",
        "find . -type f -printf '%P %s %m %u %g %T@ %n\\n' | sort",
        "find . -type f -print0 | sort -z | xargs -0 sha256sum",
        "find . -type f -size -45c | sort",
        "find . -name '*.wav' -mtime +30 | sort",
        "find . -type f -print0 | sort -z | xargs -0 wc -c",
        "find . -type f -print0 | sort -z | du --apparent-size -b --files0-from=- | awk '{print $1}'",
        "grep -rlaF RIFF . | sort",
    ];
    for script in scripts {
        let of = |dir: &Path| run_in(dir, "bash", &["-o", "pipefail", "-c", &format!("{script} || true")]);
        assert_eq!(of(&copied), of(&native), "{script}");
    }
    run(
        "diff",
        &["-r", "--no-dereference", "--exclude=fifo", text(&native), text(&copied)],
    );
    mount.finish();
}

#[test]
fn du_counts_blocks_that_are_there() {
    let mount = Mount::new();
    let dir = mount.dir("acme");
    make_file(&dir.join("call"), MIB);
    let kib: u64 = run("du", &["-sk", text(&dir)])
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1_000..1_300).contains(&kib), "{kib} KiB for 1 MiB");
    mount.finish();
}

#[test]
fn rm_r_leaves_nothing() {
    let (mount, native) = sample();
    let copied = mount.dir("in");
    run("cp", &["-a", &inside(&native), text(&copied)]);
    run("rm", &["-r", text(&copied)]);
    assert!(names(&mount.point()).is_empty());
    assert_eq!(mount.finish().total, totals(0, 0, 0));
}

#[test]
fn chown_and_chmod_of_a_whole_tree_touch_no_data() {
    let (mount, native) = sample();
    let copied = mount.dir("in");
    run("cp", &["-a", &inside(&native), text(&copied)]);
    let usage = mount.usage();
    let script = "cd \"$1\" && find . -type f -printf '%P %s %T@\\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum";
    let shown = || run("bash", &["-c", script, "bash", text(&copied)]);
    let before = shown();
    if rustix::process::geteuid().is_root() {
        run("chown", &["-R", "3000:3000", text(&copied)]);
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&copied.join("acme/sales").metadata().unwrap()),
            3_000
        );
    }
    run("chmod", &["-R", "u+rwX,g-w", text(&copied)]);
    assert_eq!(shown(), before);
    assert_eq!(mount.usage(), usage, "Q11: a new owner moves no charge");
    mount.finish();
}

#[test]
fn cp_into_a_full_directory_says_disk_quota_exceeded() {
    let mount = Mount::with_config(acme_limits("max_bytes = 100000"));
    let dir = mount.dir("acme");
    let source = mount.native("sample").join("large");
    make_file(&source, 150_000);
    let output = command::output("cp", &[text(&source), text(&dir.join("copy"))], Path::new("/"));
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("Disk quota exceeded"), "{errors}");
    assert_eq!(read(&dir.join("copy")), &read(&source)[..100_000]);
    mount.finish();
}

#[test]
fn df_shows_the_limit_of_a_directory() {
    let mount = Mount::with_config(acme_limits("max_bytes = \"10MiB\"\nmax_files = 50"));
    let dir = mount.dir("acme/sales");
    make_file(&dir.join("call"), 4 * MIB);
    let df = |columns: &str| {
        let shown = run("df", &["--block-size=1", &format!("--output={columns}"), text(&dir)]);
        shown
            .lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .map(|n| n.parse::<u64>().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(df("size,used,avail"), [10 * MIB, 4 * MIB, 6 * MIB]);
    assert_eq!(df("itotal,iused,iavail"), [50, 1, 49]);
    assert!(run("df", &["--output=fstype", text(&dir)]).contains("fuse.tallyfs"));
    mount.finish();
}

#[test]
fn sox_reads_and_writes_recordings() {
    let mount = Mount::new();
    let dir = mount.dir("acme");
    let (tone, copy) = (dir.join("tone.wav"), mount.native("out").join("copy.wav"));
    run(
        "sox",
        &[
            "-n",
            "-r",
            "8000",
            "-b",
            "16",
            "-c",
            "1",
            text(&tone),
            "synth",
            "3",
            "sine",
            "440",
        ],
    );
    assert_eq!(common::wav::playable_bytes(&read(&tone)), 48_000);
    run("sox", &[text(&tone), text(&copy)]);
    run("sox", &[text(&tone), "-r", "16000", text(&dir.join("other.wav"))]);
    let statistics = |path: &Path| run("sox", &["--i", "-s", text(path)]);
    assert_eq!(statistics(&tone), statistics(&copy));
    run("cp", &["--sparse=never", text(&copy), text(&dir.join("copied.wav"))]);
    assert!(read(&dir.join("copied.wav")) == read(&copy));
    mount.finish();
}
