//! What can be done to a store behind the daemon's back, who notices, and that the rest stays readable.
//! Each test is a row of the table in ARCHITECTURE.md.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::command::text;
use common::damage::{Answer, backing, body, flip, page, plain_range, put, record, resize, size, tally};
use common::{Errno, Mount, refused, wait};

const LENGTH: u32 = 60_000;

fn scrub(mount: &Mount, path: &Path) -> Answer {
    let _ = mount;
    tally(&["scrub", text(path), "--json"])
}

fn kinds(answer: &Answer, path: &str) -> Vec<String> {
    let json = answer.json();
    let list = json["findings"].as_array().expect("a list").clone();
    let here = list.iter().filter(|f| f["path"] == path);
    here.map(|f| f["kind"].as_str().expect("a text").to_owned()).collect()
}

/// Scrubs a mounted store until every recording has its hash.
#[track_caller]
fn until_hashed(mount: &Mount) {
    wait::until("all recordings are hashed", || {
        let answer = scrub(mount, &mount.store()).ends(0).json();
        (answer["without_hash"] == 0 && answer["without_row"] == 0 && answer["passed_over"] == 0).then_some(())
    });
}

/// Two recordings with hashes and rows, stopped.
fn store() -> (Mount, Vec<u8>, Vec<u8>) {
    let mut mount = common::Setup::new()
        .config("[durability]\ncommit_interval_s = 1\n")
        .mount();
    let one = record(&mount, "acme/one.wav", 1, LENGTH);
    let two = record(&mount, "acme/two.wav", 2, LENGTH);
    until_hashed(&mount);
    mount.stop();
    (mount, one, two)
}

/// One block of `one.wav` is bad: EIO there, all else is readable, and scrub tells it by this kind.
#[track_caller]
fn one_block_is_lost(mut mount: Mount, content: &[u8], block: u64, kind: &str) {
    let found = scrub(&mount, &mount.store()).ends(8);
    assert_eq!(kinds(&found, "acme/one.wav"), [kind], "{}", found.text);
    assert_eq!(kinds(&found, "acme/two.wav"), [""; 0], "{}", found.text);
    mount.start();
    let file = fs::File::open(mount.path("acme/one.wav")).unwrap();
    let bad = plain_range(block);
    let mut buffer = [0; 512];
    refused(file.read_at(&mut buffer, bad.start as u64 + 1000), Errno::IO);
    // The kernel reads whole pages of its own: those without a bad byte come back.
    for at in (0..content.len()).step_by(4096) {
        let end = (at + 4096).min(content.len());
        if end <= bad.start || at >= bad.end {
            let mut part = vec![0; end - at];
            file.read_exact_at(&mut part, at as u64)
                .unwrap_or_else(|e| panic!("{e} at {at}"));
            assert!(part == content[at..end], "other bytes at {at}");
        }
    }
    drop(file);
    assert!(mount.log().contains(&format!("block {block} ")), "{}", mount.log());
    mount.finish();
}

#[test]
fn a_flipped_bit_is_noticed_by_the_reader() {
    let (mount, one, _) = store();
    flip(&backing(&mount, "acme/one.wav"), body(5) + 77);
    one_block_is_lost(mount, &one, 5, "page");
}

#[test]
fn a_page_moved_within_its_file_is_noticed_by_the_reader() {
    let (mount, one, _) = store();
    let file = backing(&mount, "acme/one.wav");
    put(&file, body(6), &page(&file, body(3)));
    one_block_is_lost(mount, &one, 6, "page");
}

#[test]
fn a_page_moved_to_another_file_is_noticed_by_the_reader() {
    let (mount, one, _) = store();
    let other = page(&backing(&mount, "acme/two.wav"), body(6));
    put(&backing(&mount, "acme/one.wav"), body(6), &other);
    one_block_is_lost(mount, &one, 6, "page");
}

#[test]
fn a_zeroed_page_is_noticed_by_the_reader() {
    let (mount, one, _) = store();
    put(&backing(&mount, "acme/one.wav"), body(4), &[0; 4096]);
    one_block_is_lost(mount, &one, 4, "page");
}

#[test]
fn an_old_partial_page_in_place_of_a_full_one_is_noticed_by_the_reader() {
    let mut mount = Mount::new();
    let content = common::wav::file(3, LENGTH);
    let path = mount.path("acme/one.wav");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let cut = plain_range(5).start + 1000;
    fs::write(&path, &content[..cut]).unwrap();
    record(&mount, "acme/two.wav", 2, LENGTH);
    mount.remount();
    let partial = page(&backing(&mount, "acme/one.wav"), body(5));
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &content[cut..]))
        .unwrap();
    mount.stop();
    put(&backing(&mount, "acme/one.wav"), body(5), &partial);
    one_block_is_lost(mount, &content, 5, "page");
}

/// Refused at open, found by fsck and scrub, and nothing else is touched.
#[track_caller]
fn refused_at_open(mut mount: Mount, two: &[u8], kind: &str) -> Mount {
    for found in [
        tally(&["fsck", text(&mount.store()), "--json"]).ends(8),
        scrub(&mount, &mount.store()).ends(8),
    ] {
        assert!(
            kinds(&found, "acme/one.wav").contains(&kind.to_owned()),
            "{}",
            found.text
        );
        assert_eq!(kinds(&found, "acme/two.wav"), [""; 0], "{}", found.text);
    }
    mount.start();
    refused(fs::File::open(mount.path("acme/one.wav")), Errno::IO);
    assert!(mount.log().contains("damaged recording"), "{}", mount.log());
    assert!(common::read(&mount.path("acme/two.wav")) == two);
    mount.stop();
    mount
}

#[test]
fn a_file_cut_at_a_page_is_noticed_at_open() {
    let (mount, _, two) = store();
    resize(&backing(&mount, "acme/one.wav"), body(8));
    refused_at_open(mount, &two, "size");
}

#[test]
fn a_size_that_disagrees_with_the_head_is_noticed_at_open() {
    let (mount, _, two) = store();
    let file = backing(&mount, "acme/one.wav");
    resize(&file, size(&file) - 1);
    refused_at_open(mount, &two, "size");
}

/// The sealed bytes of `one.wav` before it is written again, and the mount stopped after that.
fn rewritten() -> (Mount, Vec<u8>, Vec<u8>) {
    let (mut mount, one, two) = store();
    let old = fs::read(backing(&mount, "acme/one.wav")).unwrap();
    mount.start();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(mount.path("acme/one.wav"))
        .unwrap();
    file.write_all_at(&one[..44], 0).unwrap();
    file.write_all_at(&[7; 4048], plain_range(3).start as u64).unwrap();
    drop(file);
    until_hashed(&mount);
    mount.stop();
    (mount, old, two)
}

#[test]
fn an_old_whole_file_put_back_is_noticed_at_open_and_can_be_accepted() {
    let (mount, old, two) = rewritten();
    fs::write(backing(&mount, "acme/one.wav"), &old).unwrap();
    let mut mount = refused_at_open(mount, &two, "old-copy");
    assert!(mount.log().contains("--accept"), "{}", mount.log());
    tally(&["fsck", text(&mount.store()), "--accept", "acme/one.wav"]).ends(0);
    mount.start();
    let mut content = Vec::new();
    fs::File::open(mount.path("acme/one.wav"))
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert!(content == common::wav::file(1, LENGTH));
    until_hashed(&mount);
    mount.finish();
}

/// As a backup program restores: a new file under the old name.
#[test]
fn an_old_copy_that_was_restored_as_a_new_file_and_accepted_is_no_copy_of_another() {
    let (mut mount, old, _) = rewritten();
    let path = backing(&mount, "acme/one.wav");
    fs::write(path.with_extension("new"), &old).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    let found = scrub(&mount, &mount.store()).ends(8);
    assert_eq!(kinds(&found, "acme/one.wav"), ["copy"], "{}", found.text);
    tally(&["fsck", text(&mount.store()), "--accept", "acme/one.wav"]).ends(0);
    scrub(&mount, &mount.store()).ends(0);
    mount.start();
    mount.finish();
}

#[test]
fn an_old_full_page_put_back_is_noticed_by_scrub() {
    let (mut mount, old, _) = rewritten();
    let at = body(3) as usize;
    put(&backing(&mount, "acme/one.wav"), body(3), &old[at..at + 4096]);
    let found = scrub(&mount, &mount.store()).ends(8);
    assert_eq!(kinds(&found, "acme/one.wav"), ["content"], "{}", found.text);
    mount.start();
    let found = scrub(&mount, &mount.path("acme")).ends(8);
    assert_eq!(
        kinds(&found, "acme/one.wav"),
        ["content"],
        "beside a mount: {}",
        found.text
    );
    mount.finish();
}

#[test]
fn swapped_names_are_noticed_by_scrub() {
    let (mount, ..) = store();
    let [one, two]: [PathBuf; 2] = ["acme/one.wav", "acme/two.wav"].map(|path| backing(&mount, path));
    let aside = one.with_extension("aside");
    fs::rename(&one, &aside).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(&aside, &two).unwrap();
    let found = scrub(&mount, &mount.store()).ends(8);
    assert_eq!(kinds(&found, "acme/one.wav"), ["swapped"], "{}", found.text);
    assert_eq!(kinds(&found, "acme/two.wav"), ["swapped"], "{}", found.text);
}

#[test]
fn a_copy_of_a_sealed_file_is_noticed_by_fsck_and_scrub() {
    let (mount, ..) = store();
    fs::copy(backing(&mount, "acme/one.wav"), backing(&mount, "acme/zoe.wav")).unwrap();
    for found in [
        tally(&["fsck", text(&mount.store()), "--json"]).ends(8),
        scrub(&mount, &mount.store()).ends(8),
    ] {
        assert_eq!(kinds(&found, "acme/zoe.wav"), ["copy"], "{}", found.text);
    }
}

#[test]
fn a_copy_that_comes_first_by_name_or_over_another_recording_leaves_the_original_in_peace() {
    let (mount, ..) = store();
    fs::copy(backing(&mount, "acme/two.wav"), backing(&mount, "acme/one.wav")).unwrap();
    fs::copy(backing(&mount, "acme/two.wav"), backing(&mount, "acme/three.wav")).unwrap();
    for found in [
        tally(&["fsck", text(&mount.store()), "--json"]).ends(8),
        scrub(&mount, &mount.store()).ends(8),
    ] {
        for copy in ["acme/one.wav", "acme/three.wav"] {
            assert!(kinds(&found, copy).contains(&"copy".to_owned()), "{}", found.text);
        }
        assert_eq!(kinds(&found, "acme/two.wav"), [""; 0], "{}", found.text);
    }
}

#[test]
fn an_emptied_file_is_noticed_by_fsck_and_scrub_and_can_be_accepted() {
    let (mut mount, _, two) = store();
    resize(&backing(&mount, "acme/one.wav"), 0);
    let look = |code| {
        [
            tally(&["fsck", text(&mount.store()), "--json"]).ends(code),
            scrub(&mount, &mount.store()).ends(code),
        ]
    };
    for found in look(8) {
        assert_eq!(kinds(&found, "acme/one.wav"), ["size"], "{}", found.text);
        assert_eq!(kinds(&found, "acme/two.wav"), [""; 0], "{}", found.text);
    }
    tally(&["fsck", text(&mount.store()), "--accept", "acme/one.wav"]).ends(0);
    tally(&["fsck", text(&mount.store()), "--repair"]).ends(0);
    look(0);
    mount.start();
    // Empty by right: nobody is told of it, not even when the daemon had no time to save it.
    fs::File::create(mount.path("acme/two.wav")).unwrap();
    mount.kill9();
    until_hashed(&mount);
    fs::write(mount.path("acme/two.wav"), &two).unwrap();
    until_hashed(&mount);
    mount.finish();
}

/// Changes the database of a stopped store.
#[track_caller]
fn forge(mount: &Mount, statement: &str) {
    let database = rusqlite::Connection::open(mount.store().join("tallyfs.db")).unwrap();
    assert_eq!(database.execute(statement, []).unwrap(), 1, "{statement}");
}

#[test]
fn a_forged_row_is_named_by_scrub_and_stops_no_reader() {
    for statement in [
        // A baseline that an old copy would fit; then a code, a place and its code.
        "UPDATE sealed SET generation = 1 WHERE ino = (SELECT ino FROM place WHERE name = CAST('one.wav' AS BLOB))",
        "UPDATE sealed SET generation = generation + 1 WHERE ino = (SELECT ino FROM place WHERE name = CAST('one.wav' AS BLOB))",
        "UPDATE sealed SET mac = zeroblob(32) WHERE ino = (SELECT ino FROM place WHERE name = CAST('one.wav' AS BLOB))",
        "UPDATE place SET mac = zeroblob(32) WHERE name = CAST('one.wav' AS BLOB)",
        "UPDATE place SET parent = parent + 1 WHERE name = CAST('one.wav' AS BLOB)",
    ] {
        let (mut mount, one, _) = store();
        forge(&mount, statement);
        let found = scrub(&mount, &mount.store()).ends(8);
        assert_eq!(kinds(&found, "acme/one.wav"), ["row"], "{statement}: {}", found.text);
        assert_eq!(kinds(&found, "acme/two.wav"), [""; 0], "{statement}: {}", found.text);
        mount.start();
        assert!(common::read(&mount.path("acme/one.wav")) == one, "{statement}");
        mount.finish();
    }
}

#[test]
fn a_zeroed_page_in_a_file_with_holes_is_noticed_by_scrub() {
    let mut mount = common::Setup::new()
        .config("[durability]\ncommit_interval_s = 1\n")
        .mount();
    let file = fs::File::create(mount.path("call.raw")).unwrap();
    file.write_all_at(&[5; 9000], 20_000).unwrap();
    file.set_len(60_000).unwrap();
    file.write_all_at(&[6; 9000], 40_000).unwrap();
    drop(file);
    until_hashed(&mount);
    mount.stop();
    put(&backing(&mount, "call.raw"), body(11), &[0; 4096]);
    let found = scrub(&mount, &mount.store()).ends(8);
    assert_eq!(kinds(&found, "call.raw"), ["content"], "{}", found.text);
}

#[test]
fn kills_and_restarts_raise_no_alarm() {
    let mut mount = common::Setup::new()
        .config("[durability]\ncommit_interval_s = 1\n")
        .mount();
    for round in 0..4_u64 {
        for name in ["a.wav", "b.wav", "c.wav"] {
            record(&mount, &format!("acme/{name}"), round, LENGTH);
        }
        fs::rename(mount.path("acme/a.wav"), mount.path("acme/moved.wav")).unwrap();
        fs::rename(mount.path("acme/b.wav"), mount.path("acme/a.wav")).unwrap();
        if round % 2 == 0 {
            until_hashed(&mount);
        }
        let file = fs::OpenOptions::new()
            .append(true)
            .open(mount.path("acme/c.wav"))
            .unwrap();
        std::io::Write::write_all(&mut &file, &[1; 5000]).unwrap();
        drop(file);
        if round == 1 {
            mount.remount();
        } else {
            mount.kill9();
        }
        for name in ["a.wav", "c.wav", "moved.wav"] {
            assert!(!common::read(&mount.path(&format!("acme/{name}"))).is_empty());
        }
        until_hashed(&mount);
    }
    assert!(!mount.log().contains("ERROR"), "{}", mount.log());
    mount.finish();
}
