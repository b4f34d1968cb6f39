//! What the command line says when something is wrong: a message that names the culprit, a non-zero exit code, nothing mounted.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use common::command::{self, text};
use common::mount::{is_mounted, tallyfs};
use common::{Errno, Mount, RULES, Setup, make_file, read, refused, run, scan, wait};

/// A place with a store path and a mount point where nothing may be mounted in the end.
struct Place {
    // Held for its drop.
    _dir: TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("it is there");
        fs::create_dir(root.join("mnt")).expect("a mount point");
        Self { _dir: dir, root }
    }

    fn path(&self, name: &str) -> String {
        text(&self.root.join(name)).to_owned()
    }

    /// Mounts with more arguments; it must refuse. What it said.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let (store, point) = (self.path("store"), self.path("mnt"));
        let arguments = [&["mount", &store, &point], arguments].concat();
        let said = refuses(&arguments);
        assert!(!is_mounted(Path::new(&point)), "mounted although it refused: {said}");
        said
    }

    #[track_caller]
    fn config(&self, content: &str) -> String {
        fs::write(self.root.join("config.toml"), content).expect("a file");
        self.path("config.toml")
    }
}

/// Runs the program, which must end with a failure and a message of its own.
#[track_caller]
fn refuses(arguments: &[&str]) -> String {
    let output = command::output(tallyfs(), arguments, Path::new("/"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 124 and 137 are the time limit: it did not refuse but run.
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code != 0 && code < 100),
        "{arguments:?}: {:?}\n{said}",
        output.status
    );
    assert!(!said.trim().is_empty(), "{arguments:?} fails without a word");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "'{word}' is not in: {said}"
        );
    }
}

#[test]
fn a_missing_mount_point_is_named() {
    let place = Place::new();
    let missing = place.path("nowhere");
    assert_says(&refuses(&["mount", &place.path("store"), &missing]), &[&missing]);
    fs::write(&missing, b"").unwrap();
    assert_says(
        &refuses(&["mount", &place.path("store"), &missing]),
        &[&missing, "directory"],
    );
}

#[test]
fn a_mount_point_that_is_not_empty_is_refused() {
    let place = Place::new();
    fs::write(place.root.join("mnt/recording.wav"), b"in the clear").unwrap();
    assert_says(&place.refused(&[]), &[&place.path("mnt"), "empty"]);
    assert_eq!(read(&place.root.join("mnt/recording.wav")), b"in the clear");
}

#[test]
fn an_unknown_mount_option_is_named() {
    let place = Place::new();
    assert_says(&place.refused(&["-o", "allow_other,nosuchoption"]), &["nosuchoption"]);
}

#[test]
fn options_of_fstab_are_ignored() {
    let mount = Setup::new()
        .arguments(&["-o", "rw,nofail,_netdev,x-systemd.automount,comment=recordings"])
        .mount();
    make_file(&mount.path("a"), 5);
    mount.finish();
}

#[test]
fn a_limit_that_is_no_size_is_refused() {
    let place = Place::new();
    for wrong in ["10 apples", "-1", "99999999TiB", ""] {
        assert_says(&place.refused(&[&format!("--limit={wrong}")]), &["limit"]);
    }
}

#[test]
fn a_config_with_an_unknown_key_is_refused_with_its_name() {
    let place = Place::new();
    let config = place.config("[mount]\nmax_byte = \"1MiB\"\n");
    assert_says(&place.refused(&["--config", &config]), &["max_byte"]);
    assert_says(&refuses(&["check-config", &config]), &["max_byte"]);
    let missing = place.path("missing.toml");
    assert_says(&place.refused(&["--config", &missing]), &[&missing]);
    assert_says(&refuses(&["check-config", &missing]), &[&missing]);
}

#[test]
fn a_group_of_administrators_that_is_not_there_is_named() {
    let place = Place::new();
    let config = place.config("[access]\nadministrators = \"no-such-group-here\"\n");
    assert_says(
        &place.refused(&["--config", &config]),
        &["no-such-group-here", "groupadd"],
    );
}

#[test]
fn check_config_refuses_what_cannot_be_meant() {
    let place = Place::new();
    let wrong = [
        "[mount]\nmax_bytes = \"1 parsec\"\n",
        "[[rules]]\npath = \"{tenant\"\n",
        "[[rules]]\npath = \"{tenant}/{tenant}\"\n",
        "[[rules]]\npath = \"{tenant}\"\n[rules.limits.agent]\nmax_files = 1\n",
        "[[rules]]\npath = \"{tenant}/../{agent}\"\n",
        "[[exceptions]]\npath = \"/etc\"\nmax_files = 1\n",
        "[[exceptions]]\npath = \"../acme\"\nmax_files = 1\n",
        "[mount]\nmax_files = -1\n",
        "[durability]\ncommit_interval_s = -1\n",
        "this is not toml",
    ];
    for content in wrong {
        let config = place.config(content);
        let output = command::output(tallyfs(), &["check-config", &config], Path::new("/"));
        assert!(!output.status.success(), "accepted:\n{content}");
    }
}

#[test]
fn check_config_prints_the_effective_form() {
    let place = Place::new();
    let config = place.config(&format!(
        "[mount]\nmax_bytes = \"5GiB\"\n{RULES}[rules.limits.tenant]\nmax_files = 123\n"
    ));
    let shown = run(tallyfs(), &["check-config", &config]);
    assert_says(&shown, &["{tenant}/{campaign}/{agent}", "123"]);
    // The fragment that the examples hand out is a good one.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/freeswitch/tallyfs.toml");
    run(tallyfs(), &["check-config", text(&example)]);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let mut mount = Mount::new();
    make_file(&mount.path("a"), 100);
    mount.stop();
    fs::set_permissions(mount.key_file(), fs::Permissions::from_mode(0o444)).unwrap();
    let said = refuses(&["mount", text(&mount.store()), text(&mount.point())]);
    assert_says(&said, &[text(&mount.key_file())]);
    assert!(!is_mounted(&mount.point()));
    fs::set_permissions(mount.key_file(), fs::Permissions::from_mode(0o400)).unwrap();
    mount.start();
    assert_eq!(read(&mount.path("a")).len(), 100);
    mount.finish();
}

#[test]
fn a_wrong_or_missing_key_is_refused_before_anything_is_mounted() {
    let mut mount = Mount::new();
    make_file(&mount.path("a"), 100);
    mount.stop();
    let mut other = Mount::new();
    other.stop();
    let (store, point) = (mount.store(), mount.point());
    let mounting = ["mount", text(&store), text(&point)];
    let said = refuses(&[&mounting[..], &["--key-file", text(&other.key_file())]].concat());
    assert_says(&said, &["key"]);
    let hidden = mount.key_file().with_extension("hidden");
    fs::rename(mount.key_file(), &hidden).unwrap();
    let said = refuses(&mounting);
    assert_says(&said, &["key"]);
    assert!(!mount.key_file().exists(), "a store with recordings gets no new key");
    assert!(!is_mounted(&point));
    fs::rename(&hidden, mount.key_file()).unwrap();
    mount.start();
    assert_eq!(read(&mount.path("a")).len(), 100);
    mount.finish();
}

#[test]
fn a_key_file_elsewhere_is_used() {
    let place = Place::new();
    let key = place.path("elsewhere.key");
    let mut mount = Setup::new().arguments(&["--key-file", &key]).mount();
    make_file(&mount.path("a"), 100);
    assert!(Path::new(&key).exists() && !mount.key_file().exists());
    mount.remount();
    assert_eq!(read(&mount.path("a")).len(), 100);
    mount.finish();
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let mount = Mount::new();
    make_file(&mount.path("a"), 100);
    let place = Place::new();
    let said = refuses(&["mount", text(&mount.store()), &place.path("mnt")]);
    assert_says(&said, &[text(&mount.store())]);
    assert!(!is_mounted(Path::new(&place.path("mnt"))));
    assert_eq!(read(&mount.path("a")).len(), 100);
    mount.finish();
}

#[test]
fn a_store_of_a_newer_version_is_refused_unchanged() {
    let mut mount = Mount::new();
    make_file(&mount.path("a"), 100);
    mount.stop();
    let database = mount.store().join("tallyfs.db");
    let open = || rusqlite::Connection::open(&database).expect("the database opens");
    let version = |db: &rusqlite::Connection| {
        db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let ours = version(&open());
    assert!(ours > 0, "the database says its version");
    open().pragma_update(None, "user_version", 9_999).unwrap();
    let said = refuses(&["mount", text(&mount.store()), text(&mount.point())]);
    assert_says(&said, &["newer"]);
    assert_eq!(version(&open()), 9_999, "a newer store is left as it is");
    open().pragma_update(None, "user_version", ours).unwrap();
    mount.start();
    assert_eq!(read(&mount.path("a")).len(), 100);
    mount.finish();
}

#[test]
fn a_mount_point_inside_the_store_is_refused() {
    let place = Place::new();
    fs::create_dir_all(place.root.join("store/data")).unwrap();
    for point in ["store", "store/data"] {
        let said = refuses(&["mount", &place.path("store"), &place.path(point)]);
        assert_says(&said, &[&place.path("store")]);
        assert!(!is_mounted(&place.root.join(point)));
    }
}

#[test]
fn a_wrong_command_line_shows_its_usage() {
    assert_says(&refuses(&["mount"]), &["usage"]);
    assert_says(&refuses(&["nosuchcommand"]), &["nosuchcommand"]);
    let place = Place::new();
    assert_says(&refuses(&["usage", &place.path("nowhere")]), &[&place.path("nowhere")]);
    assert_says(&refuses(&["status", &place.path("nowhere")]), &[&place.path("nowhere")]);
    assert_says(
        &run(tallyfs(), &["--help"]),
        &["mount", "usage", "status", "check-config"],
    );
    assert_says(&run(tallyfs(), &["--version"]), &["tallyfs", env!("CARGO_PKG_VERSION")]);
}

#[test]
fn usage_is_shown_for_people_and_as_json_mounted_or_not() {
    let mut mount = Mount::with_config(RULES);
    make_file(&mount.dir("acme/sales").join("a"), 1_234_567);
    let (store, below) = (mount.store(), mount.path("acme/sales"));
    let live = mount.usage();
    assert_eq!(live.tenants["acme"], scan::totals(1_234_567, 1, 1));
    assert_eq!(
        scan::from_json(&run(tallyfs(), &["usage", text(&below), "--json"])).total,
        scan::totals(1_234_567, 1, 0)
    );
    wait::until("the stored figures follow", || {
        (scan::from_json(&run(tallyfs(), &["usage", text(&store), "--json"])) == live).then_some(())
    });
    assert_says(&run(tallyfs(), &["usage", text(&store)]), &["acme"]);
    assert_says(&run(tallyfs(), &["status", text(&store)]), &["mounted"]);
    let status = run(tallyfs(), &["status", text(&store), "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("status is JSON");
    assert!(status.is_object());
    mount.stop();
    assert_eq!(
        scan::from_json(&run(tallyfs(), &["usage", text(&store), "--json"])),
        live
    );
    assert_says(&run(tallyfs(), &["status", text(&store)]), &["not mounted"]);
}

#[test]
fn the_daemon_ends_by_itself_when_it_is_unmounted() {
    let mut mount = Mount::new();
    make_file(&mount.path("a"), 100_000);
    run("umount", &[text(&mount.point())]);
    let status = mount.wait_for_end();
    assert!(status.success(), "{status}\n{}", mount.log());
    assert_eq!(scan::store(&mount.store()).total, scan::totals(100_000, 1, 0), "sealed");
    mount.start();
    run("fusermount3", &["-u", text(&mount.point())]);
    assert!(mount.wait_for_end().success());
    mount.start();
    assert_eq!(read(&mount.path("a")).len(), 100_000);
    mount.finish();
}

/// A file of 5,000 acknowledged bytes, still open.
fn open_file(mount: &Mount) -> fs::File {
    let file = fs::File::create_new(mount.path("open")).unwrap();
    file.write_all_at(&[1; 5_000], 0).unwrap();
    file
}

#[test]
fn an_interrupt_waits_for_a_recording_that_is_about_to_end() {
    let mut mount = Mount::new();
    let file = open_file(&mount);
    mount.interrupt();
    wait::until("the daemon has heard", || {
        mount.log().contains("stopping").then_some(())
    });
    file.write_all_at(&[1; 5_000], 5_000).unwrap();
    drop(file);
    let status = mount.wait_for_end();
    assert!(status.success(), "{status}\n{}", mount.log());
    assert!(!is_mounted(&mount.point()));
    assert_eq!(scan::store(&mount.store()).total, scan::totals(10_000, 1, 0), "sealed");
    mount.start();
    assert_eq!(read(&mount.path("open")), [1; 10_000]);
    mount.finish();
}

#[test]
fn an_interrupt_cuts_off_what_stays_open_and_the_next_start_has_it_all() {
    let mut mount = Mount::new();
    let file = open_file(&mount);
    mount.interrupt();
    let status = mount.wait_for_end();
    assert!(status.success(), "{status}\n{}", mount.log());
    assert!(!is_mounted(&mount.point()));
    refused(file.write_at(&[1; 10], 5_000), Errno::NOTCONN);
    drop(file);
    mount.start();
    assert_eq!(read(&mount.path("open")), [1; 5_000]);
    mount.assert_usage_true();
    assert_eq!(mount.finish().total, scan::totals(5_000, 1, 0));
}
