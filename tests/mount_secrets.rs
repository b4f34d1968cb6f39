//! Neither audio nor keys reach the disk in the clear, whether the daemon runs, was stopped, or was killed.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::{Mount, acme_limits, make_file, read, refused, wav, write_until_refused};

/// Something that must not be found, and what to call it.
struct Needle {
    what: &'static str,
    bytes: Vec<u8>,
}

/// Pieces of the recording, long enough not to appear by chance.
fn audio_needles(recording: &[u8]) -> Vec<Needle> {
    let piece = |what, from: usize, len: usize| Needle {
        what,
        bytes: recording[from..from + len].to_vec(),
    };
    let mut needles = vec![
        piece("RIFF and its length", 0, 8),
        piece("WAVEfmt", 8, 8),
        piece("the format", 20, 16),
    ];
    let step = recording.len() / 40;
    needles.extend((1..40).map(|n| piece("audio", n * step, 12)));
    needles.push(piece("audio", recording.len() - 12, 12));
    needles
}

/// The key as it is kept, as bytes and as text.
#[track_caller]
fn key_needles(mount: &Mount) -> Vec<Needle> {
    let kept = read(&mount.key_file());
    let as_text = String::from_utf8(kept.clone()).unwrap_or_default();
    let digits: Vec<u8> = as_text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let raw = if digits.len() >= 64 {
        from_hex(&digits[digits.len() - 64..])
    } else {
        kept
    };
    assert!(raw.len() >= 32, "a key of at least 32 bytes");
    let hex = raw
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    vec![
        Needle {
            what: "the key",
            bytes: raw[..16].to_vec(),
        },
        Needle {
            what: "the key",
            bytes: raw[raw.len() - 16..].to_vec(),
        },
        Needle {
            what: "the key in hex",
            bytes: hex.as_bytes()[..32].to_vec(),
        },
        Needle {
            what: "the key in hex",
            bytes: hex.to_uppercase().as_bytes()[..32].to_vec(),
        },
    ]
}

fn from_hex(digits: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hex digit") as u8;
    digits
        .chunks(2)
        .map(|pair| digit(pair[0]) * 16 + digit(pair[1]))
        .collect()
}

/// Every file of the store and the log, wherever it lies.
fn files_on_disk(mount: &Mount) -> Vec<PathBuf> {
    let mut found = vec![mount.store().with_file_name("daemon.log")];
    let mut waiting = vec![mount.store()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found
}

fn contains(content: &[u8], needle: &[u8]) -> bool {
    content.windows(needle.len()).any(|window| window == needle)
}

#[track_caller]
fn assert_absent(mount: &Mount, needles: &[Needle], when: &str) {
    for path in files_on_disk(mount) {
        let content = read(&path);
        for Needle { what, bytes } in needles {
            assert!(
                !contains(&content, bytes),
                "{what} is readable in {} {when}",
                path.display()
            );
        }
    }
}

#[test]
fn no_audio_and_no_key_on_disk() {
    let mut mount = Mount::with_config(acme_limits("max_bytes = 200000"));
    let recording = wav::file(3, 160_000);
    let mut needles = audio_needles(&recording);
    needles.extend(key_needles(&mount));
    let dir = mount.dir("acme");
    let mut file = File::create_new(dir.join("call.wav")).unwrap();
    recording.chunks(320).for_each(|frame| file.write_all(frame).unwrap());
    file.write_all_at(&recording[..44], 0).unwrap();
    assert_absent(&mount, &needles, "while it is recorded");
    // Refusals are logged; the log must not show what was refused.
    write_until_refused(&File::create_new(dir.join("second")).unwrap(), 50_000);
    file.sync_all().unwrap();
    fs::write(mount.path("short"), &recording[..100]).unwrap();
    mount.kill9();
    drop(file);
    assert_absent(&mount, &needles, "after a kill");
    assert!(read(&mount.path("acme/call.wav")) == recording);
    mount.stop();
    assert_absent(&mount, &needles, "after a clean stop");
    // The search itself can find: the key file and the log are what they should be.
    let key = read(&mount.key_file());
    let key_found = needles
        .iter()
        .any(|needle| needle.what.starts_with("the key") && contains(&key, &needle.bytes));
    assert!(key_found, "the key file holds the key that was looked for");
    assert!(mount.log().contains("mounted "));
}

#[test]
fn the_same_recording_twice_looks_different_on_disk() {
    let mut mount = Mount::new();
    for name in ["a", "b"] {
        make_file(&mount.path(name), 100_000);
    }
    assert!(read(&mount.path("a")) == read(&mount.path("b")));
    mount.stop();
    let [a, b] = ["data/a", "data/b"].map(|name| read(&mount.store().join(name)));
    assert_eq!(a.len(), b.len());
    // The middle of each page: every page begins with a nonce of its own.
    let middle = |page: &[u8]| page.get(1_000..1_064).map(<[u8]>::to_vec);
    let middles = |content: &[u8]| {
        content
            .chunks(4_096)
            .filter_map(middle)
            .filter(|m| *m != [0; 64])
            .collect::<Vec<_>>()
    };
    assert!(middles(&a).len() > 20);
    assert!(
        middles(&a).iter().all(|middle| !middles(&b).contains(middle)),
        "no page is the same"
    );
}

#[test]
fn the_key_file_lies_beside_the_store_for_its_owner_alone() {
    let mount = Mount::new();
    let meta = mount.key_file().metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o400);
    assert!(!mount.key_file().starts_with(mount.store()));
    let process = Path::new("/proc").join(mount.pid().to_string());
    let needles = key_needles(&mount);
    for name in ["cmdline", "environ"] {
        let content = read(&process.join(name));
        assert!(
            needles.iter().all(|needle| !contains(&content, &needle.bytes)),
            "the key is in {name}"
        );
    }
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    // The soft limit is often 0 without the daemon's doing.
    let limits: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(limits, ["0", "0"], "core dumps are off: {core}");
}

#[test]
fn a_changed_page_is_an_error_and_never_wrong_audio() {
    let mut mount = Mount::new();
    make_file(&mount.path("call"), 100_000);
    make_file(&mount.path("other"), 50_000);
    let original = read(&mount.path("call"));
    mount.stop();
    let backing = mount.store().join("data/call");
    let file = File::options().read(true).write(true).open(&backing).unwrap();
    // A byte in the middle of the tenth body page.
    let at = 20_480 + 4_096 * 10 + 2_000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    drop(file);
    mount.start();
    refused(fs::read(mount.path("call")), common::Errno::IO);
    let file = File::open(mount.path("call")).unwrap();
    let mut head = vec![0; 30_000];
    file.read_exact_at(&mut head, 0).unwrap();
    assert!(head == original[..30_000], "the rest stays readable");
    assert_eq!(read(&mount.path("other")).len(), 50_000);
    assert!(
        mount.log().contains("block"),
        "the log names the block:\n{}",
        mount.log()
    );
}
