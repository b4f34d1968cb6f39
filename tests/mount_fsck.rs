//! `tallyfs fsck`: what is wrong with a store at rest is found, what can be mended is mended through the
//! same code that serves a mount, and nothing else is touched.

mod common;

use std::fs;
use std::io::Write;

use common::command::text;
use common::damage::{Answer, backing, body, flip, page, put, record, resize, size, tally};
use common::{Mount, scan, wav};

fn fsck(mount: &Mount, more: &[&str]) -> Answer {
    let store = mount.store();
    tally(&[&["fsck", text(&store), "--json"], more].concat())
}

/// Path and kind of every finding, and whether it was mended.
fn findings(answer: &Answer) -> Vec<(String, String, bool)> {
    let json = answer.json();
    let list = json["findings"].as_array().expect("a list").iter();
    list.map(|f| {
        let word = |name: &str| f[name].as_str().expect("a text").to_owned();
        (word("path"), word("kind"), f["mended"].as_bool().expect("yes or no"))
    })
    .collect()
}

#[track_caller]
fn finds(answer: &Answer, expected: &[(&str, &str, bool)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|&(path, kind, mended)| (path.to_owned(), kind.to_owned(), mended))
        .collect();
    assert_eq!(findings(answer), expected, "{}", answer.text);
}

/// Two recordings, stopped in order.
fn store() -> (Mount, Vec<u8>, Vec<u8>) {
    let mut mount = Mount::new();
    let one = record(&mount, "acme/one.wav", 1, 30_000);
    let two = record(&mount, "acme/two.wav", 2, 50_000);
    mount.stop();
    (mount, one, two)
}

#[test]
fn a_sound_store_has_no_findings_and_stays_as_it_is() {
    let (mut mount, ..) = store();
    let before = scan::store(&mount.store());
    for more in [
        &[][..],
        &["--repair"],
        &["--subtree", "/acme"],
        &["--subtree", "acme/one.wav"],
    ] {
        let answer = fsck(&mount, more).ends(0);
        finds(&answer, &[]);
    }
    assert_eq!(fsck(&mount, &[]).json()["recordings"], 2);
    assert_eq!(fsck(&mount, &["--subtree", "acme/one.wav"]).json()["recordings"], 1);
    assert_eq!(scan::store(&mount.store()), before);
    let said = tally(&["fsck", text(&mount.store())]).ends(0);
    assert!(said.text.contains("2 recordings, nothing wrong"), "{}", said.text);
    mount.start();
    let answer = fsck(&mount, &[]).ends(5);
    assert!(answer.errors.contains("scrub"), "{}", answer.errors);
    tally(&["fsck", text(&mount.native("empty"))]).ends(4);
    mount.finish();
}

#[test]
fn a_wrong_size_is_mended_when_the_pages_are_there() {
    let (mut mount, one, two) = store();
    let file = backing(&mount, "acme/one.wav");
    let right = size(&file);
    resize(&file, right + 1);
    finds(
        &fsck(&mount, &["--subtree", "acme"]).ends(8),
        &[("acme/one.wav", "size", false)],
    );
    let answer = fsck(&mount, &["--repair"]).ends(0);
    assert!(
        findings(&answer).contains(&("acme/one.wav".into(), "size".into(), true)),
        "{}",
        answer.text
    );
    assert_eq!(size(&file), right);
    // A page behind the end that is not of this recording.
    put(
        &file,
        right.next_multiple_of(4096),
        &page(&backing(&mount, "acme/two.wav"), body(5)),
    );
    let answer = fsck(&mount, &["--repair"]).ends(0);
    assert!(
        findings(&answer).contains(&("acme/one.wav".into(), "size".into(), true)),
        "{}",
        answer.text
    );
    assert_eq!(size(&file), right);
    finds(&fsck(&mount, &[]).ends(0), &[]);
    mount.start();
    assert!(common::read(&mount.path("acme/one.wav")) == one);
    assert!(common::read(&mount.path("acme/two.wav")) == two);
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn a_cut_recording_gets_its_size_back_and_is_told_as_damaged() {
    let (mut mount, one, _) = store();
    let file = backing(&mount, "acme/one.wav");
    resize(&file, body(4));
    let answer = fsck(&mount, &["--repair"]).ends(8);
    let found = findings(&answer);
    assert!(
        found.contains(&("acme/one.wav".into(), "size".into(), true)),
        "{found:?}"
    );
    assert!(
        found.contains(&("acme/one.wav".into(), "page".into(), false)),
        "{found:?}"
    );
    mount.start();
    // The kernel asks for its own pages, so what shares one with lost bytes goes with them.
    let kept = common::damage::plain_range(3).end / 4096 * 4096;
    let mut start = vec![0; kept];
    let mut reader = fs::File::open(mount.path("acme/one.wav")).unwrap();
    std::io::Read::read_exact(&mut reader, &mut start).unwrap();
    assert!(start == one[..kept], "what was not cut is readable");
    assert_eq!(
        fs::metadata(mount.path("acme/one.wav")).unwrap().len(),
        one.len() as u64
    );
    drop(reader);
    mount.finish();
}

#[test]
fn a_size_that_hides_newer_pages_is_not_cut() {
    let mut mount = Mount::new();
    record(&mount, "call.wav", 1, 10_000);
    mount.remount();
    let file = backing(&mount, "call.wav");
    let old_heads: Vec<_> = (0..3).map(|slot| page(&file, slot * 4096)).collect();
    let mut writer = fs::OpenOptions::new()
        .append(true)
        .open(mount.path("call.wav"))
        .unwrap();
    writer.write_all(&vec![3; 20_000]).unwrap();
    drop(writer);
    mount.stop();
    let grown = size(&file);
    for (slot, head) in old_heads.iter().enumerate() {
        put(&file, slot as u64 * 4096, head);
    }
    let answer = fsck(&mount, &["--repair"]).ends(8);
    assert!(
        findings(&answer).contains(&("call.wav".into(), "size".into(), false)),
        "{}",
        answer.text
    );
    assert_eq!(size(&file), grown, "no byte of a recording is deleted");
}

#[test]
fn recordings_left_open_by_a_kill_are_found_and_sealed() {
    let mut mount = Mount::new();
    let content = wav::file(7, 90_000);
    let mut writer = fs::File::create(mount.path("call.wav")).unwrap();
    writer.write_all(&content).unwrap();
    mount.kill();
    drop(writer);
    finds(&fsck(&mount, &[]).ends(8), &[("call.wav", "unclean", false)]);
    assert!(fsck(&mount, &[]).text.contains("did not stop in order"));
    finds(&fsck(&mount, &["--repair"]).ends(0), &[("call.wav", "unclean", true)]);
    finds(&fsck(&mount, &[]).ends(0), &[]);
    mount.start();
    assert!(common::read(&mount.path("call.wav")) == content);
    mount.finish();
}

#[test]
fn a_header_of_zero_length_is_mended_in_place() {
    let mut mount = Mount::new();
    let right = wav::file(8, 40_000);
    let mut content = right.clone();
    content[4..8].fill(0);
    content[40..44].fill(0);
    for name in ["a.wav", "b.wav"] {
        fs::write(mount.path(name), &content).unwrap();
    }
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(mount.path("a.wav")).unwrap().set_modified(time).unwrap();
    mount.stop();
    let before = scan::store(&mount.store());
    let wrong = [("a.wav", "wav-header", false), ("b.wav", "wav-header", false)];
    finds(&fsck(&mount, &[]).ends(8), &wrong);
    let answer = fsck(&mount, &["--repair", "--subtree", "a.wav"]).ends(0);
    finds(&answer, &[("a.wav", "wav-header", true)]);
    finds(&fsck(&mount, &[]).ends(8), &wrong[1..]);
    assert_eq!(scan::store(&mount.store()), before, "length and charge stay");
    mount.start();
    assert!(common::read(&mount.path("a.wav")) == right);
    assert!(common::read(&mount.path("b.wav")) == content, "nobody asked for it");
    assert_eq!(fs::metadata(mount.path("a.wav")).unwrap().modified().unwrap(), time);
    mount.finish();
}

#[test]
fn a_damaged_copy_of_the_head_is_written_anew_from_the_other() {
    let (mut mount, one, _) = store();
    let file = backing(&mount, "acme/one.wav");
    let heads: Vec<_> = (0..3).map(|slot| page(&file, slot * 4096)).collect();
    let used: Vec<_> = (0..3)
        .filter(|&slot| heads[slot as usize].iter().any(|&b| b != 0))
        .collect();
    assert_eq!(used.len(), 2, "two copies of the head");
    for &slot in &used {
        put(&file, slot * 4096, &heads[slot as usize]);
        flip(&file, slot * 4096 + 2000);
        finds(&fsck(&mount, &[]).ends(8), &[("acme/one.wav", "head-copy", false)]);
        finds(
            &fsck(&mount, &["--repair"]).ends(0),
            &[("acme/one.wav", "head-copy", true)],
        );
        finds(&fsck(&mount, &[]).ends(0), &[]);
    }
    mount.start();
    assert!(common::read(&mount.path("acme/one.wav")) == one);
    mount.finish();
}

#[test]
fn copies_and_strays_are_told_and_left_and_usage_follows_the_disk() {
    let (mut mount, ..) = store();
    let file = backing(&mount, "acme/one.wav");
    fs::copy(&file, backing(&mount, "acme/three.wav")).unwrap();
    fs::write(backing(&mount, "acme/zzz.txt"), vec![b'x'; 28_672]).unwrap();
    fs::write(mount.store().join("notes.txt"), "x").unwrap();
    let expected = |mended| {
        vec![
            ("acme/three.wav", "copy", false),
            ("acme/zzz.txt", "stray", false),
            ("notes.txt", "stray", false),
            ("tallyfs.db", "usage", mended),
        ]
    };
    finds(&fsck(&mount, &[]).ends(8), &expected(false));
    finds(&fsck(&mount, &["--repair"]).ends(8), &expected(true));
    finds(&fsck(&mount, &[]).ends(8), &expected(true)[..3]);
    assert!(backing(&mount, "acme/three.wav").exists() && backing(&mount, "acme/zzz.txt").exists());
    mount.start();
    mount.finish();
}

#[test]
fn a_missing_database_is_made_anew_by_repair() {
    let (mut mount, ..) = store();
    for name in ["tallyfs.db", "tallyfs.db-wal", "tallyfs.db-shm"] {
        let _ = fs::remove_file(mount.store().join(name));
    }
    finds(&fsck(&mount, &[]).ends(8), &[("tallyfs.db", "database", false)]);
    finds(
        &fsck(&mount, &["--repair"]).ends(0),
        &[("tallyfs.db", "database", true)],
    );
    finds(&fsck(&mount, &[]).ends(0), &[]);
    mount.start();
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn an_unknown_key_and_a_head_that_does_not_open_are_told_apart() {
    let (mount, ..) = store();
    for (name, offset) in [("acme/one.wav", 12), ("acme/two.wav", 300)] {
        let file = backing(&mount, name);
        for slot in 0..3 {
            if page(&file, slot * 4096).iter().any(|&byte| byte != 0) {
                flip(&file, slot * 4096 + offset);
            }
        }
    }
    let found = findings(&fsck(&mount, &["--subtree", "acme"]).ends(8));
    assert_eq!(found[0], ("acme/one.wav".into(), "key".into(), false));
    assert_eq!(found[1], ("acme/two.wav".into(), "head".into(), false));
}
