//! `tallyfs import`: a tree comes along whole, also after a kill in the midst of it, under the limits that hold, and the
//! original stays unless it is to go.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use common::command::{run, text};
use common::damage::{Answer, tally};
use common::mount::tallyfs;
use common::user::{is_root, open_the_way_to};
use common::{Mount, RULES, Setup, acme_limits, make_file, read, scan, tree, wait};

/// How imports name files that are not whole yet.
const HALF: &str = ".tallyfs-import-";

/// A store that was mounted once and is at rest, and an empty directory beside it.
fn at_rest(setup: Setup) -> (Mount, PathBuf) {
    let mut mount = setup.mount();
    mount.stop();
    let source = mount.native("old");
    (mount, source)
}

#[track_caller]
fn import(source: &Path, mount: &Mount, more: &[&str]) -> Answer {
    tally(&[&["import", text(source), text(&mount.store()), "--json"], more].concat())
}

/// The configuration that [`Setup::config`] wrote.
fn config_of(mount: &Mount) -> String {
    text(&mount.store().with_file_name("tallyfs.toml")).to_owned()
}

#[track_caller]
fn number(answer: &Answer, key: &str) -> u64 {
    let json = answer.json();
    let value = &json[key];
    value.as_u64().unwrap_or_else(|| panic!("{key} is {value} in {json}"))
}

/// The details of all remarks of one kind, by path.
#[track_caller]
fn remarks(answer: &Answer, kind: &str) -> BTreeMap<String, String> {
    let json = answer.json();
    let word = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let all = json["remarks"].as_array().expect("a list").iter();
    all.filter(|remark| remark["kind"] == kind)
        .map(|remark| (word(&remark["path"]), word(&remark["detail"])))
        .collect()
}

/// Nothing wrong, and every recording known with its hash.
#[track_caller]
fn assert_sound(mount: &Mount) {
    let answer = tally(&["fsck", text(&mount.store()), "--json"]).ends(0);
    assert_eq!(number(&answer, "finding_count"), 0, "{}", answer.text);
    assert_eq!(answer.json()["notes"], serde_json::json!([]), "{}", answer.text);
    let answer = tally(&["scrub", text(&mount.store()), "--json"]).ends(0);
    assert_eq!(number(&answer, "without_hash"), 0, "{}", answer.text);
    assert_eq!(number(&answer, "without_row"), 0, "{}", answer.text);
}

/// Every name below `top`.
fn all_paths(top: &Path) -> Vec<PathBuf> {
    tree::describe(top).into_keys().collect()
}

#[track_caller]
fn assert_no_halves(top: &Path) {
    let halves: Vec<_> = all_paths(top)
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(HALF))
        .collect();
    assert!(halves.is_empty(), "{halves:?}");
}

fn set_times(path: &Path, seconds: i64) {
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 7 };
    let times = Timestamps {
        last_access: time(seconds + 1),
        last_modification: time(seconds),
    };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times can be set");
}

/// What tools have to carry over, with holes and access control lists, and without the fifo.
fn make_sample(source: &Path) {
    tree::make_sample(source);
    fs::remove_file(source.join("globex@example.com/fifo")).unwrap();
    let sparse = File::create_new(source.join("acme/sparse.wav")).unwrap();
    sparse.write_all_at(&[1; 5_000], 0).unwrap();
    sparse.write_all_at(&[2; 5_000], 8 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    let hole = File::create_new(source.join("acme/nothing but a hole")).unwrap();
    hole.set_len(3 << 20).unwrap();
    let listed = source.join("acme/sales/agent 7/listed.wav");
    make_file(&listed, 10_000);
    run("setfacl", &["-m", "u:1234:r,g:77:rw,m:rwx", text(&listed)]);
    let handing_down = source.join("acme/handing down");
    fs::create_dir(&handing_down).unwrap();
    make_file(&handing_down.join("before the list"), 100);
    run("setfacl", &["-d", "-m", "u:1234:rwx", text(&handing_down)]);
    make_file(&handing_down.join("after the list"), 100);
    fs::set_permissions(&handing_down, fs::Permissions::from_mode(0o2555)).unwrap();
    for (n, path) in (1_i64..).zip([
        "acme/sparse.wav",
        "acme/nothing but a hole",
        "acme/sales/agent 7/listed.wav",
        "acme/handing down",
        "acme/sales/agent 7",
        "acme/sales",
        "acme",
        "globex@example.com",
        "",
    ]) {
        set_times(&source.join(path), 1_500_000_000 + n);
    }
}

#[test]
fn everything_comes_along_and_is_counted() {
    let (mut mount, source) = at_rest(Setup::new());
    make_sample(&source);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o750)).unwrap();
    let before = tree::describe(&source);
    let times = |path: PathBuf| {
        let meta = path.metadata().unwrap();
        [meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec()]
    };
    let paths = ["acme/sparse.wav", "acme/sales/agent 7/listed.wav", "acme/empty", ""];
    let times_before = paths.map(|path| times(source.join(path)));
    let answer = import(&source, &mount, &[]).ends(0);
    assert_eq!(answer.json()["complete"], true);
    assert_eq!(
        paths.map(|path| times(source.join(path))),
        times_before,
        "reading leaves no trace"
    );
    assert_eq!(
        paths.map(|path| times(mount.store().join("data").join(path))),
        times_before
    );
    assert!(before == tree::describe(&source), "the original is as it was");
    assert_no_halves(&mount.store().join("data"));
    assert_sound(&mount);
    let log = mount.log();
    mount.start();
    let since = mount.log().split_off(log.len());
    assert!(!since.contains("counted"), "the next mount starts clean\n{since}");
    tree::assert_same(&source, &mount.point());
    let top = mount.point().metadata().unwrap();
    assert_eq!(top.mode() & 0o7777, 0o750);
    assert_eq!((top.mtime(), top.mtime_nsec()), (1_500_000_009, 7));
    assert!(
        mount.path("acme/sparse.wav").metadata().unwrap().blocks() * 512 < 1 << 20,
        "holes take no room"
    );
    let usage = mount.assert_usage_true();
    assert_eq!(
        usage,
        scan::tree(&source),
        "usage (left) and the sum of the tree (right)"
    );
    assert_eq!(number(&answer, "hard_links"), 1);
    assert_eq!(
        number(&answer, "files") + number(&answer, "symlinks"),
        usage.total.files,
        "{}",
        answer.text
    );
    assert_eq!(number(&answer, "bytes"), usage.total.bytes);
    mount.finish();
}

#[test]
fn a_second_run_passes_over_what_is_there() {
    let (mut mount, source) = at_rest(Setup::new());
    make_sample(&source);
    import(&source, &mount, &[]).ends(0);
    make_file(&source.join("acme/handing down/new.wav"), 4_000);
    set_times(&source.join("acme/handing down"), 1_500_000_004);
    let again = import(&source, &mount, &[]).ends(0);
    assert_eq!(
        (number(&again, "files"), number(&again, "bytes")),
        (1, 4_000),
        "{}",
        again.text
    );
    assert_eq!(
        (number(&again, "hard_links"), number(&again, "symlinks")),
        (0, 0),
        "{}",
        again.text
    );
    mount.start();
    tree::assert_same(&source, &mount.point());
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn a_store_is_made_at_first_use_and_a_directory_in_it_where_it_is_missing() {
    let (mut mount, source) = at_rest(Setup::new());
    fs::remove_dir_all(mount.store()).unwrap();
    fs::remove_file(mount.key_file()).unwrap();
    make_sample(&source);
    import(&source, &mount, &["--to", "/archive/2025"]).ends(0);
    assert_eq!(mount.key_file().metadata().unwrap().mode() & 0o7777, 0o400);
    mount.start();
    tree::assert_same(&source, &mount.path("archive/2025"));
    assert_eq!(mount.path("archive").metadata().unwrap().mode() & 0o7777, 0o755);
    mount.finish();
}

#[test]
fn a_mounted_store_can_be_imported_into_another() {
    let (mut target, _) = at_rest(Setup::new());
    let mount = Mount::new();
    make_sample(&mount.point());
    import(&mount.point(), &target, &[]).ends(0);
    target.start();
    tree::assert_same(&mount.point(), &target.point());
    target.finish();
    mount.finish();
}

#[test]
fn special_files_are_left_out_with_a_word_and_names_of_halves_too() {
    let (mut mount, source) = at_rest(Setup::new());
    make_file(&source.join("call.wav"), 100);
    rustix::fs::mkfifoat(rustix::fs::CWD, source.join("fifo"), 0o600.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let half = format!("{HALF}{}", "0".repeat(32));
    make_file(&source.join(&half), 100);
    let answer = import(&source, &mount, &[]).ends(0);
    let left_out = remarks(&answer, "left-out");
    assert_eq!(
        left_out.keys().collect::<Vec<_>>(),
        [&half, "fifo", "socket"],
        "{left_out:?}"
    );
    assert_eq!(answer.json()["counts"]["left-out"], 3);
    mount.start();
    assert_eq!(all_paths(&mount.point()), [Path::new("call.wav")]);
    mount.finish();
}

/// Starts an import that is to be ended in the midst of it.
fn begin_import(source: &Path, mount: &Mount, more: &[&str]) -> Child {
    Command::new(tallyfs())
        .args(["import", text(source), text(&mount.store())])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Names in directories of the store, without those of halves.
fn published_count(mount: &Mount) -> usize {
    let names = |dir: &Path| -> Vec<fs::DirEntry> { fs::read_dir(dir).into_iter().flatten().flatten().collect() };
    let tenant = mount.store().join("data/acme");
    let in_dirs = names(&tenant).into_iter().flat_map(|dir| names(&dir.path()));
    in_dirs
        .filter(|name| !name.file_name().to_string_lossy().starts_with(HALF))
        .count()
}

const MANY: u64 = 2_000;

/// Two directories of many files; each has a second name in `links`.
fn make_many(source: &Path) {
    for dir in ["acme/calls", "acme/links"] {
        fs::create_dir_all(source.join(dir)).unwrap();
    }
    for n in 0..MANY {
        let (call, link) = (
            source.join(format!("acme/calls/{n}.wav")),
            source.join(format!("acme/links/{n}.wav")),
        );
        make_file(&call, 20_000 + n);
        set_times(&call, 1_600_000_000 + n.cast_signed());
        if n % 10 == 0 {
            fs::hard_link(&call, &link).unwrap();
        }
    }
}

/// The mount shows nothing but whole files of the tree that was.
#[track_caller]
fn assert_whole(mount: &Mount, was: &BTreeMap<PathBuf, tree::Node>) -> usize {
    let mut whole_count = 0;
    for path in all_paths(&mount.point()) {
        let shown = mount.path(path.to_str().expect("plain names"));
        if path.to_string_lossy().contains(HALF) || shown.is_dir() {
            continue;
        }
        assert!(was.contains_key(&path), "{}", path.display());
        let n: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut expected = vec![0; 20_000 + n as usize];
        common::wav::noise(20_000 + n, 0, &mut expected);
        assert!(read(&shown) == expected, "{} is not whole", path.display());
        assert_eq!(shown.metadata().unwrap().mtime(), 1_600_000_000 + n.cast_signed());
        whole_count += 1;
    }
    whole_count
}

fn ended_in_the_midst(end: impl FnOnce(&mut Child), more: &[&str]) {
    let (mut mount, source) = at_rest(Setup::new());
    make_many(&source);
    let was = tree::describe(&source);
    let names = was.len() - 3;
    let mut child = begin_import(&source, &mount, more);
    wait::until("some are published", || (published_count(&mount) > 0).then_some(()));
    end(&mut child);
    let status = child.wait().expect("it ends");
    assert!(!status.success(), "it was to be ended before its end");
    // Half of it is there, each file of it whole, and what is not is in the tree.
    mount.start();
    let whole_count = assert_whole(&mount, &was);
    assert!(whole_count > 0 && whole_count < names, "{whole_count} of {names}");
    for path in was.keys() {
        let either = [source.join(path), mount.point().join(path)];
        assert!(either.iter().any(|path| path.exists()), "{} is lost", path.display());
    }
    mount.assert_usage_true();
    // What the import could not note before its end is looked up now, when there is time.
    wait::until("each has its row", || {
        let answer = tally(&["scrub", text(&mount.store()), "--json"]).ends(0);
        (number(&answer, "without_row") == 0 && number(&answer, "without_hash") == 0).then_some(())
    });
    mount.stop();
    import(&source, &mount, more).ends(0);
    assert_no_halves(&mount.store().join("data"));
    assert_sound(&mount);
    mount.start();
    assert_eq!(assert_whole(&mount, &was), names);
    let now = tree::describe(&mount.point());
    if more.is_empty() {
        assert!(was == tree::describe(&source), "the original is as it was");
        assert!(was == now, "all of the tree, its links too");
    } else {
        assert_eq!(all_paths(&source), Vec::<PathBuf>::new(), "all went");
    }
    let links = |path: &str| fs::metadata(mount.path(path)).unwrap().ino();
    assert_eq!(
        links("acme/calls/10.wav"),
        links("acme/links/10.wav"),
        "names of one file"
    );
    mount.assert_usage_true();
    mount.finish();
}

fn kill(child: &mut Child) {
    child.kill().expect("it can be killed");
}

fn interrupt(child: &mut Child) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process");
    kill_process(pid, Signal::INT).expect("it can be interrupted");
}

#[test]
fn a_killed_import_shows_nothing_half_and_goes_on() {
    ended_in_the_midst(kill, &[]);
}

#[test]
fn a_killed_import_that_removes_loses_nothing() {
    ended_in_the_midst(kill, &["--remove-source"]);
}

#[test]
fn an_interrupted_import_goes_on() {
    ended_in_the_midst(interrupt, &[]);
}

#[test]
fn an_interrupted_import_leaves_a_clean_store() {
    let (mut mount, source) = at_rest(Setup::new());
    make_many(&source);
    let mut child = begin_import(&source, &mount, &[]);
    wait::until("some are published", || (published_count(&mount) > 0).then_some(()));
    interrupt(&mut child);
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert_no_halves(&mount.store().join("data"));
    assert_sound(&mount);
    mount.start();
    assert!(!mount.log().contains("was killed"), "{}", mount.log());
    mount.finish();
}

/// Programs that this thread starts have one thread each: of two files that are copied at once, neither may fit.
fn on_one_core() {
    let all = sched_getaffinity(None).expect("the kernel tells");
    let first = (0..CpuSet::MAX_CPU)
        .find(|&core| all.is_set(core))
        .expect("this one runs somewhere");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("it may run there");
}

#[test]
fn a_limit_is_named_and_the_rest_comes_along() {
    let limits = "max_bytes = 100_000\n";
    let (mut mount, source) = at_rest(Setup::new().config(acme_limits(limits)));
    for (path, bytes) in [
        ("acme/1.wav", 40_000),
        ("acme/2.wav", 40_000),
        ("acme/3.wav", 40_000),
        ("acme/4.wav", 20_000),
        ("globex/1.wav", 400_000),
    ] {
        fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
        make_file(&source.join(path), bytes);
    }
    let before = tree::describe(&source);
    let config = config_of(&mount);
    on_one_core();
    let answer = import(&source, &mount, &["--config", &config, "--remove-source"]).ends(1);
    let refused = remarks(&answer, "limit");
    assert_eq!(refused.len(), 1, "{}", answer.text);
    let (path, detail) = refused.first_key_value().unwrap();
    assert!(
        path.starts_with("acme/") && detail.contains("'acme'"),
        "{path}: {detail}"
    );
    assert!(
        detail.contains("hard limit of bytes") && detail.contains("limit 100000"),
        "{detail}"
    );
    assert_eq!(
        all_paths(&source),
        [Path::new("acme"), Path::new(path)],
        "what was refused stays"
    );
    assert!(read(&source.join(path)) == read_noise(&source.join(path)));
    mount.start();
    let acme = mount.tenant("acme");
    assert_eq!(
        (acme.bytes, mount.tenant("globex").bytes),
        (140_000 - size_of(&source.join(path)), 400_000)
    );
    run(
        tallyfs(),
        &["quota", "set", text(&mount.path("acme")), "max_bytes=1MiB"],
    );
    mount.assert_usage_true();
    mount.stop();
    // A limit that was set on the directory holds here too.
    import(&source, &mount, &["--config", &config, "--remove-source"]).ends(0);
    mount.start();
    let now = tree::describe(&mount.point());
    assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(mount.tenant("acme").bytes, 140_000);
    mount.assert_usage_true();
    mount.finish();
}

fn size_of(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

fn read_noise(path: &Path) -> Vec<u8> {
    let mut content = vec![0; size_of(path) as usize];
    common::wav::noise(size_of(path), 0, &mut content);
    content
}

#[test]
fn each_kind_of_limit_is_named() {
    let cases = [
        ("max_files = 1\n", "hard limit of files", "tenant/b.wav"),
        ("max_dirs = 1\n", "hard limit of dir", "tenant/dir 2"),
        ("max_file_size = 3_000\n", "size", "tenant/b.wav"),
        ("day.max_bytes = 6_000\n", "limit of bytes per day", "tenant/b.wav"),
    ];
    for (limit, said, path) in cases {
        let config = format!("{RULES}[rules.limits.tenant]\n{limit}");
        let (mut mount, source) = at_rest(Setup::new().config(config));
        fs::create_dir_all(source.join("tenant/dir")).unwrap();
        fs::create_dir(source.join("tenant/dir 2")).unwrap();
        make_file(&source.join("tenant/a.wav"), 2_500);
        make_file(&source.join("tenant/b.wav"), 5_000);
        let answer = import(&source, &mount, &["--config", &config_of(&mount)]).ends(1);
        let refused = remarks(&answer, "limit");
        let detail = refused.get(path).unwrap_or_else(|| panic!("{limit}: {}", answer.text));
        assert!(
            detail.contains("'tenant'") && detail.contains(said),
            "{limit}: {detail}"
        );
        assert_eq!(refused.len(), 1, "{limit}: {refused:?}");
        assert_no_halves(&mount.store().join("data"));
        mount.start();
        assert!(read(&mount.path("tenant/a.wav")).len() == 2_500);
        mount.assert_usage_true();
        mount.finish();
    }
    let (mount, source) = at_rest(Setup::new());
    make_file(&source.join("a.wav"), 5_000);
    let answer = import(&source, &mount, &["--limit", "4KiB"]).ends(1);
    assert!(
        remarks(&answer, "limit")["a.wav"].contains("the mount"),
        "{}",
        answer.text
    );
}

#[test]
fn a_full_disk_ends_it_and_loses_nothing() {
    let (mut mount, source) = at_rest(Setup::new().small_disk(64));
    for n in 0..60 {
        make_file(&source.join(format!("{n}.wav")), 2 << 20);
    }
    let before = tree::describe(&source);
    let answer = import(&source, &mount, &[]).ends(1);
    assert_eq!(answer.json()["complete"], false);
    let told = remarks(&answer, "store");
    assert!(told.values().any(|detail| detail.contains("disk")), "{}", answer.text);
    assert!(told.len() < 10, "it did not go on in vain: {told:?}");
    assert!(before == tree::describe(&source));
    mount.start();
    for path in all_paths(&mount.point()) {
        let name = path.to_str().unwrap();
        assert!(
            name.starts_with(HALF) || read(&mount.path(name)) == read(&source.join(name)),
            "{name}"
        );
    }
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn the_source_goes_when_told_but_for_what_was_left_out() {
    let (mut mount, source) = at_rest(Setup::new());
    make_sample(&source);
    let was = tree::describe(&source);
    rustix::fs::mkfifoat(rustix::fs::CWD, source.join("acme/empty/fifo"), 0o600.into()).unwrap();
    set_times(&source.join("acme/empty"), 1_700_000_000);
    let answer = import(&source, &mount, &["--remove-source"]).ends(0);
    let left = ["acme", "acme/empty", "acme/empty/fifo"].map(PathBuf::from);
    assert_eq!(all_paths(&source), left);
    assert_eq!(number(&answer, "removed"), was.len() as u64 - 2, "{}", answer.text);
    mount.start();
    let now = tree::describe(&mount.point());
    for (path, node) in &was {
        assert!(
            path == Path::new("acme/empty") || now.get(path) == Some(node),
            "{}",
            path.display()
        );
    }
    mount.finish();
}

#[test]
fn what_looks_alike_is_removed_only_when_its_content_is_alike() {
    let (mut mount, source) = at_rest(Setup::new());
    for name in ["same.wav", "other.wav"] {
        fs::write(source.join(name), "content").unwrap();
        set_times(&source.join(name), 1_600_000_000);
    }
    import(&source, &mount, &[]).ends(0);
    fs::write(source.join("other.wav"), "CONTENT").unwrap();
    set_times(&source.join("other.wav"), 1_600_000_000);
    let answer = import(&source, &mount, &["--remove-source"]).ends(1);
    assert!(remarks(&answer, "exists").contains_key("other.wav"), "{}", answer.text);
    assert_eq!(all_paths(&source), [Path::new("other.wav")]);
    mount.start();
    assert_eq!(read(&mount.path("other.wav")), b"content");
    mount.finish();
}

#[test]
fn what_the_store_has_under_a_name_is_never_replaced() {
    let mut mount = Mount::new();
    for dir in ["a directory", "a file.d"] {
        fs::create_dir(mount.path(dir)).unwrap();
    }
    fs::write(mount.path("call.wav"), "the store's").unwrap();
    fs::write(mount.path("file"), "a file").unwrap();
    std::os::unix::fs::symlink("here", mount.path("link")).unwrap();
    mount.stop();
    let source = mount.native("old");
    fs::write(source.join("call.wav"), "the tree's").unwrap();
    fs::write(source.join("a directory"), "is a file here").unwrap();
    fs::create_dir(source.join("file")).unwrap();
    fs::write(source.join("file/below"), "x").unwrap();
    std::os::unix::fs::symlink("there", source.join("link")).unwrap();
    fs::write(source.join("new.wav"), "new").unwrap();
    let answer = import(&source, &mount, &["--remove-source"]).ends(1);
    let told = remarks(&answer, "exists");
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        ["a directory", "call.wav", "file", "link"]
    );
    assert!(told["call.wav"].contains("--to"), "{told:?}");
    assert_eq!(number(&answer, "removed"), 1);
    mount.start();
    assert_eq!(read(&mount.path("call.wav")), b"the store's");
    assert_eq!(read(&mount.path("file")), b"a file");
    assert_eq!(fs::read_link(mount.path("link")).unwrap(), Path::new("here"));
    assert_eq!(read(&mount.path("new.wav")), b"new");
    mount.finish();
}

#[test]
fn a_file_that_is_being_written_is_told_and_comes_with_the_next_run() {
    let (mut mount, source) = at_rest(Setup::new());
    make_file(&source.join("done.wav"), 10_000);
    let live = source.join("live.wav");
    make_file(&live, 32 << 20);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&live).unwrap();
            while !over.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
            }
        });
        let _over = wait::Over(&over);
        let answer = import(&source, &mount, &["--remove-source"]).ends(1);
        assert!(remarks(&answer, "changed").contains_key("live.wav"), "{}", answer.text);
        assert_eq!(number(&answer, "files"), 1);
    });
    assert_eq!(all_paths(&source), [Path::new("live.wav")]);
    let content = read(&live);
    import(&source, &mount, &["--remove-source"]).ends(0);
    mount.start();
    assert!(read(&mount.path("live.wav")) == content);
    mount.finish();
}

#[test]
fn a_store_in_use_is_refused_with_what_to_do() {
    let mount = Mount::new();
    let source = mount.native("old");
    make_file(&source.join("call.wav"), 100);
    let answer = import(&source, &mount, &[]).ends(5);
    let copy = format!("cp -a {}/. {}/", source.display(), mount.point().display());
    assert!(
        answer.errors.contains("stop that one first") && answer.errors.contains(&copy),
        "{}",
        answer.errors
    );
    run("sh", &["-c", &copy]);
    assert_eq!(read(&mount.path("call.wav")).len(), 100);
    mount.finish();
}

#[test]
fn tree_store_and_key_must_not_lie_in_one_another() {
    let (mount, source) = at_rest(Setup::new());
    make_file(&source.join("call.wav"), 100);
    let inside = source.join("new store");
    let answer = tally(&["import", text(&source), text(&inside)]).ends(1);
    assert!(answer.errors.contains("must not lie in"), "{}", answer.errors);
    assert!(!inside.exists(), "nothing was made");
    let answer = tally(&["import", text(&mount.store().join("data")), text(&mount.store())]).ends(1);
    assert!(answer.errors.contains("must not lie in"), "{}", answer.errors);
    let key = source.join("key");
    let new = mount.native("beside").join("store");
    let answer = tally(&["import", text(&source), text(&new), "--key-file", text(&key)]).ends(1);
    assert!(answer.errors.contains("move the key away"), "{}", answer.errors);
    assert!(!new.exists() && !key.exists(), "nothing was made");
    let nowhere = source.join("nowhere");
    let answer = tally(&["import", text(&nowhere), text(&mount.store())]).ends(1);
    assert!(answer.errors.contains(text(&nowhere)), "{}", answer.errors);
    import(&source, &mount, &["--to", "../up"]).ends(2);
}

#[test]
fn an_ordinary_user_gets_what_is_readable_and_is_told_of_the_rest() {
    if !is_root() {
        return; // that user is root's to become
    }
    let dir = tempfile::tempdir().unwrap();
    open_the_way_to(dir.path());
    let (source, place) = (dir.path().join("old"), dir.path().join("place"));
    fs::create_dir_all(source.join("closed")).unwrap();
    fs::create_dir(source.join("read only")).unwrap();
    fs::create_dir(&place).unwrap();
    make_file(&source.join("call.wav"), 5_000);
    make_file(&source.join("read only/call.wav"), 5_000);
    make_file(&source.join("secret.wav"), 5_000);
    fs::set_permissions(source.join("call.wav"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(source.join("secret.wav"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(source.join("read only"), fs::Permissions::from_mode(0o555)).unwrap();
    std::os::unix::fs::chown(&place, Some(1_234), Some(1_234)).unwrap();
    let program = dir.path().join("tallyfs");
    fs::copy(tallyfs(), &program).unwrap();
    let as_user = ["--reuid=1234", "--regid=1234", "--clear-groups"];
    let store = place.join("store");
    let arguments = ["import", text(&source), text(&store), "--json"];
    let words = [&as_user[..], &[text(&program)], &arguments].concat();
    for round in 0..2 {
        let output = common::command::output("setpriv", &words, dir.path());
        let answer = Answer {
            code: output.status.code().unwrap(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let answer = answer.ends(1);
        let unreadable = remarks(&answer, "unreadable");
        assert_eq!(
            unreadable.keys().collect::<Vec<_>>(),
            ["closed", "secret.wav"],
            "{}",
            answer.text
        );
        assert_eq!(
            number(&answer, "files"),
            if round == 0 { 2 } else { 1 },
            "{}",
            answer.text
        );
        assert!(number(&answer, "owners_not_kept") > 0, "{}", answer.text);
        // There is something new in a directory that the first run closed.
        make_file(&source.join("read only/new.wav"), 5_000);
    }
    let sealed = store.join("data/call.wav").metadata().unwrap();
    assert_eq!(
        (sealed.uid(), sealed.mode() & 0o7777),
        (1_234, 0o755),
        "no rights of another's are taken along"
    );
    let closed = store.join("data/read only").metadata().unwrap();
    assert_eq!(closed.mode() & 0o7777, 0o555);
}
