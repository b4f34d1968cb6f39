//! `tallyfs salvage`: what is left of a damaged recording comes out, in its place in time, and plays.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::command::{exists, run, text};
use common::damage::{BLOCK, backing, body, flip, plain_range, put, record, resize, size, tally};
use common::{Mount, wav};

#[test]
fn a_bad_page_becomes_silence_and_the_rest_stays_in_place() {
    let mut mount = Mount::new();
    let content = record(&mount, "acme/call.wav", 1, 60_000);
    mount.stop();
    let file = backing(&mount, "acme/call.wav");
    flip(&file, body(3) + 100);
    put(&file, body(9), &[0; 4096]);
    let out = mount.native("out").join("saved.wav");
    let answer = tally(&["salvage", text(&file), "-o", text(&out)]).ends(8);
    assert!(answer.text.contains("8096 are silence in 2 places"), "{}", answer.text);
    let mut expected = content;
    expected[plain_range(3)].fill(0);
    expected[plain_range(9)].fill(0);
    let saved = fs::read(&out).unwrap();
    assert!(saved == expected, "what came out is not what was left");
    assert_eq!(wav::playable_bytes(&saved), 60_000);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    if exists("sox") {
        assert_eq!(run("soxi", &["-s", text(&out)]).trim(), "30000");
    }
}

#[test]
fn a_file_that_was_cut_comes_out_with_its_whole_length() {
    let mut mount = Mount::new();
    let content = record(&mount, "call.wav", 2, 40_000);
    mount.stop();
    let file = backing(&mount, "call.wav");
    let whole = size(&file);
    resize(&file, body(6));
    assert!(whole > body(6));
    let out = mount.native("out").join("saved.wav");
    tally(&["salvage", text(&file), "--output", text(&out)]).ends(8);
    let saved = fs::read(&out).unwrap();
    let kept = plain_range(5).end;
    assert_eq!(saved.len(), content.len());
    assert!(saved[..kept] == content[..kept]);
    assert!(saved[kept..].iter().all(|&byte| byte == 0), "silence behind the cut");
}

#[test]
fn a_header_of_zero_length_is_mended_in_what_comes_out() {
    let mount = Mount::new();
    let mut content = wav::file(3, 20_000);
    content[4..8].fill(0);
    content[40..44].fill(0);
    fs::write(mount.path("call.wav"), &content).unwrap();
    let out = mount.native("out").join("saved.wav");
    // Named in the mount, beside a daemon that serves it.
    let answer = tally(&["salvage", text(&mount.path("call.wav")), "-o", text(&out)]).ends(0);
    assert!(answer.text.contains("real length"), "{}", answer.text);
    assert!(fs::read(&out).unwrap() == wav::file(3, 20_000));
    assert!(
        fs::read(mount.path("call.wav")).unwrap() == content,
        "the recording itself is not touched"
    );
    mount.finish();
}

#[test]
fn nothing_is_overwritten_and_nothing_useless_is_left() {
    let mut mount = Mount::new();
    record(&mount, "call.wav", 4, 10_000);
    mount.stop();
    let file = backing(&mount, "call.wav");
    let out = mount.native("out").join("saved.wav");
    fs::write(&out, "mine").unwrap();
    let answer = tally(&["salvage", text(&file), "-o", text(&out)]).ends(1);
    assert!(answer.errors.contains("name a new file"), "{}", answer.errors);
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    fs::remove_file(&out).unwrap();
    for slot in 0..3 {
        put(&file, slot * 4096, &[7; 4096]);
    }
    let answer = tally(&["salvage", text(&file), "-o", text(&out)]).ends(8);
    assert!(answer.errors.contains("head page"), "{}", answer.errors);
    assert!(!out.exists());
    fs::remove_file(mount.key_file()).unwrap();
    tally(&["salvage", text(&file), "-o", text(&out)]).ends(6);
    assert!(!out.exists(), "no key, no file");
}

#[test]
fn mu_law_silence_is_not_a_zero_byte() {
    let mut mount = Mount::new();
    let mut content = wav::file(5, 20_000);
    content[20] = 7;
    content[32] = 1;
    content[34] = 8;
    fs::write(mount.path("call.wav"), &content).unwrap();
    mount.stop();
    let file = backing(&mount, "call.wav");
    flip(&file, body(2));
    let out = mount.native("out").join("saved.wav");
    tally(&["salvage", text(&file), "-o", text(&out)]).ends(8);
    let saved = fs::read(&out).unwrap();
    assert!(saved[plain_range(2)].iter().all(|&byte| byte == 0xff));
    assert_eq!(plain_range(2).len() as u64, BLOCK);
}
