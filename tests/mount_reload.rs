//! SIGHUP through a mount: limits go up and down while recordings are written, and nobody is disturbed.

mod common;

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::wait::{self, Over};
use common::{Errno, KIB, Mount, acme_limits, quota, read, refused, write_until_refused};

/// What the log says after a reload that was taken.
const TAKEN: &str = "its limits are in force";

fn count(mount: &Mount, words: &str) -> usize {
    mount.log().matches(words).count()
}

/// Reloads, and waits until the log has these words once more.
#[track_caller]
fn reload(mount: &Mount, config: &str, words: &str) {
    let before = count(mount, words);
    mount.reload(config);
    wait::until(words, || (count(mount, words) > before).then_some(()));
}

fn acme(max_bytes: u64) -> String {
    acme_limits(&format!("max_bytes = \"{}KiB\"", max_bytes / KIB))
}

#[test]
fn a_limit_goes_up_and_down_under_an_open_recording_and_nobody_else_is_disturbed() {
    let mount = Mount::with_config(acme(64 * KIB));
    let path = mount.dir("acme/sales/bob").join("call.wav");
    let other = mount.dir("other/sales/eve").join("long.wav");
    let over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = File::create_new(&other).unwrap();
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                file.write_all(&[7; 320])
                    .expect("no reload is noticed by another tenant");
                written += 320;
            }
            written
        });
        let _over = Over(&over);
        let mut file = File::create_new(&path).unwrap();
        write_until_refused(&file, 4096);
        assert_eq!(file.metadata().unwrap().len(), 64 * KIB);

        reload(&mount, &acme(256 * KIB), TAKEN);
        write_until_refused(&file, 4096);
        assert_eq!(file.metadata().unwrap().len(), 256 * KIB, "the same open file goes on");

        reload(&mount, &acme(128 * KIB), TAKEN);
        refused(file.write(&[1]), Errno::DQUOT);
        assert_eq!(read(&path).len() as u64, 256 * KIB, "nothing is taken away");
        assert_eq!(quota::get(&mount.path("acme"), "max_bytes"), (128 * KIB).to_string());

        file.set_len(128 * KIB - 100).unwrap();
        drop(file);
        let next = File::create_new(path.with_file_name("next.wav")).unwrap();
        write_until_refused(&next, 4096);
        assert_eq!(next.metadata().unwrap().len(), 100);
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert_eq!(read(&other).len(), written);
    mount.assert_usage_true();
    mount.finish();
}

#[test]
fn a_configuration_that_does_not_check_is_refused_and_the_old_one_stays() {
    let mount = Mount::with_config(acme(64 * KIB));
    let dir = mount.dir("acme/sales/bob");
    reload(&mount, "[mount]\nmax_byts = 5\n", "the one before stays in force");
    assert!(mount.log().contains("tallyfs.toml:2"), "{}", mount.log());
    assert_eq!(quota::get(&mount.path("acme"), "max_bytes"), (64 * KIB).to_string());
    let file = File::create_new(dir.join("call.wav")).unwrap();
    write_until_refused(&file, 4096);
    assert_eq!(file.metadata().unwrap().len(), 64 * KIB);
    // The next one that is sound counts.
    reload(&mount, &acme(96 * KIB), TAKEN);
    write_until_refused(&file, 4096);
    assert_eq!(file.metadata().unwrap().len(), 96 * KIB);
    drop(file);
    mount.finish();
}

#[test]
fn what_needs_a_restart_is_named_and_what_was_set_on_a_directory_stays() {
    let mount = Mount::with_config(acme(64 * KIB));
    mount.dir("acme");
    mount.dir("late");
    quota::set(&mount.path("late"), "max_bytes", "4096");
    let next = format!(
        "[service]\nthreads = 3\n[admin]\nopen_to_readers = true\n{}",
        acme(32 * KIB)
    );
    reload(&mount, &next, TAKEN);
    let log = mount.log();
    assert!(
        log.contains("from the next start of the daemon on: service.threads, admin"),
        "{log}"
    );
    assert_eq!(quota::get(&mount.path("acme"), "max_bytes"), (32 * KIB).to_string());
    assert_eq!(quota::get(&mount.path("late"), "max_bytes"), "4096");
    mount.finish();
}

#[test]
fn without_a_configuration_file_a_hang_up_is_passed_over() {
    let mount = Mount::new();
    mount.reload("");
    wait::until("a word about it", || {
        mount
            .log()
            .contains("no configuration file to read again")
            .then_some(())
    });
    mount.dir("still/there");
    mount.finish();
}
