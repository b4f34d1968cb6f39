//! Notices that arrive: over kills and restarts, at receivers that are down, that hang or that say no, by HTTP, by a
//! program and by mail.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::{Value, json};

use common::command::{output, text};
use common::http_receiver::{Answer, Got, HttpReceiver, SECRET};
use common::mount::tallyfs;
use common::wait::until;
use common::{Errno, Mount, Setup, refused};

const OK: Answer = Answer::Status(204);

/// Tenants with a limit of 10,000 bytes and warnings at 50 and 80 %.
fn config(alerts: &str) -> String {
    format!(
        "[mount]\nwarn_percent = [50, 80]\n[[rules]]\npath = \"{{tenant}}/{{campaign}}\"\n\
         [rules.limits.tenant]\nmax_bytes = 10000\n{alerts}"
    )
}

fn receiver(name: &str, rest: &str) -> String {
    format!("[[alerts.receivers]]\nname = \"{name}\"\n{rest}\n")
}

fn webhook(name: &str, url: &str, secret: &Path) -> String {
    receiver(
        name,
        &format!("url = \"{url}\"\nsecret_file = \"{}\"", secret.display()),
    )
}

/// A file that only its owner may read.
fn secret_file(dir: &Path) -> PathBuf {
    let path = dir.join("secret");
    fs::write(&path, format!("{SECRET}\n")).expect("a secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("its mode");
    path
}

fn secrets() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = secret_file(dir.path());
    (dir, path)
}

fn write(dir: &Path, name: &str, bytes: usize) {
    fs::write(dir.join(name), vec![1; bytes]).expect("a recording");
}

/// Percent and path of each warning.
fn warnings(got: &[Got]) -> Vec<(String, String)> {
    let warning = |got: &Got| (got.label("path"), got.label("percent"));
    got.iter().map(warning).collect()
}

fn wait_for(receiver: &HttpReceiver, path: &str, percent: &str) {
    until(&format!("{percent} % of {path} are told"), || {
        let wanted = (path.to_owned(), percent.to_owned());
        warnings(&receiver.got()).contains(&wanted).then_some(())
    });
}

/// A crossing elsewhere: when it is told, all that came before it is.
fn tell_the_end(mount: &Mount, receiver: &HttpReceiver, tenant: &str) {
    write(&mount.dir(tenant), "end", 5000);
    wait_for(receiver, &format!("/{tenant}"), "50");
}

/// What is saved of the warnings of a tenant.
fn saved(mount: &Mount) -> String {
    let db = Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    let sql = "SELECT warned FROM terms JOIN directory USING (ino) WHERE name = CAST('acme' AS BLOB)";
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_default()
}

fn alerts(mount: &Mount, words: &[&str]) -> Output {
    let store = mount.store();
    let words = [&["alerts", words[0], text(&store)][..], &words[1..]].concat();
    output(tallyfs(), &words, Path::new("/"))
}

#[track_caller]
fn deliveries(mount: &Mount, more: &[&str]) -> Vec<Value> {
    let listed = alerts(mount, &[&["list", "--json"], more].concat());
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    serde_json::from_slice(&listed.stdout).expect("JSON")
}

#[test]
fn each_crossing_is_told_once_and_signed_while_the_daemon_is_killed_between_and_amid_them() {
    let (_dir, secret) = secrets();
    let ops = HttpReceiver::new(OK);
    let mut mount = Mount::with_config(config(&webhook("ops", &ops.url(), &secret)));
    let acme = mount.dir("acme");
    write(&acme, "a", 6000);
    wait_for(&ops, "/acme", "50");
    mount.kill9();
    write(&acme, "b", 2500);
    wait_for(&ops, "/acme", "80");
    let mut crossings = 2;
    for round in 0..6 {
        fs::remove_file(acme.join("b")).expect("a deletion");
        until("the fall is saved", || (saved(&mount) == "bytes=50").then_some(()));
        write(&acme, "b", 2500);
        crossings += 1;
        match round % 3 {
            // At once: mostly nothing has been noticed.
            0 => {}
            // Amid the save or the delivery.
            1 => until("the log tells it", || {
                let told = mount.log().matches("'acme': 80 % of the limit").count();
                (told >= crossings - 1).then_some(())
            }),
            // Right after it was saved.
            _ => until("the crossing is saved", || (saved(&mount) == "bytes=80").then_some(())),
        }
        mount.kill9();
        until("the crossing is told", || {
            let ids: BTreeSet<String> = ops.got().iter().map(|got| got.id().to_owned()).collect();
            (ids.len() >= crossings).then_some(())
        });
        until("and saved", || (saved(&mount) == "bytes=80").then_some(()));
    }
    mount.remount();
    tell_the_end(&mount, &ops, "beta");
    let got = ops.got();
    assert!(got.iter().all(Got::is_signed), "all are signed");
    // A kill between the answer and its row sends the same id again: whoever counts ids counts crossings.
    let told: BTreeSet<_> = got
        .iter()
        .map(|got| (got.id().to_owned(), got.label("percent")))
        .collect();
    let count = |percent: &str| told.iter().filter(|(_, known)| known == percent).count();
    assert_eq!((count("80"), count("50")), (crossings - 1, 2), "{:?}", warnings(&got));
    assert!(!mount.log().contains(&SECRET[6..]), "no secret in the log");
}

#[test]
fn the_body_is_that_of_alertmanager_and_a_soft_limit_that_is_left_resolves_its_alert() {
    let (_dir, secret) = secrets();
    let ops = HttpReceiver::new(OK);
    let alerts = webhook("ops", &ops.url(), &secret) + "kinds = [\"over_soft\"]\ntenant = \"acme\"\n";
    let mount = Mount::with_config(config(&alerts).replace("max_bytes = 10000", "soft_bytes = 10000"));
    let (acme, beta) = (mount.dir("acme"), mount.dir("beta"));
    write(&beta, "a", 10_001);
    until("the other tenant's is noticed", || {
        mount.log().contains("'beta': the soft limit").then_some(())
    });
    write(&acme, "a", 10_001);
    let fired = until("the passing is told", || ops.got().first().cloned());
    fs::remove_file(acme.join("a")).expect("a deletion");
    let over = until("the return is told", || ops.got().get(1).cloned());
    assert_eq!(ops.got().len(), 2, "nothing of other kinds or tenants");
    let (fired, over) = (fired.json(), over.json());
    assert_eq!(
        (&fired["status"], &over["status"]),
        (&json!("firing"), &json!("resolved"))
    );
    let (first, last) = (&fired["alerts"][0], &over["alerts"][0]);
    assert_eq!(first["fingerprint"], last["fingerprint"]);
    assert_eq!(first["startsAt"], last["startsAt"]);
    assert_eq!(first["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(
        (
            &first["labels"]["alertname"],
            &first["labels"]["tenant"],
            &first["annotations"]["used"]
        ),
        (&json!("TallyfsOverSoftLimit"), &json!("acme"), &json!("10001"))
    );
    for key in [
        "version",
        "groupKey",
        "truncatedAlerts",
        "receiver",
        "groupLabels",
        "commonLabels",
        "commonAnnotations",
        "externalURL",
    ] {
        assert!(!fired[key].is_null(), "{key}");
    }
}

#[test]
fn a_receiver_that_is_down_gets_it_later_and_once() {
    let (_dir, secret) = secrets();
    let (up, address) = (HttpReceiver::new(OK), HttpReceiver::nowhere());
    let down_url = format!("http://{address}/notices?from=tallyfs");
    let both = webhook("up", &up.url(), &secret) + &webhook("down", &down_url, &secret);
    let mut mount = Mount::with_config(config(&both));
    write(&mount.dir("acme"), "a", 6000);
    wait_for(&up, "/acme", "50");
    until("the other was tried", || {
        let failed = |row: &Value| row["receiver"] == "down" && row["attempts"].as_u64() > Some(0);
        deliveries(&mount, &[]).iter().any(failed).then_some(())
    });
    mount.kill9();
    let down = HttpReceiver::at(address, OK);
    wait_for(&down, "/acme", "50");
    tell_the_end(&mount, &down, "beta");
    let ids = |receiver: &HttpReceiver| receiver.got().iter().map(|got| got.id().to_owned()).collect::<Vec<_>>();
    until("both have all", || (ids(&up).len() == 2).then_some(()));
    assert_eq!(ids(&up), ids(&down), "an id is the same for all");
    until("all are noted as delivered", || {
        let rows = deliveries(&mount, &[]);
        rows.iter().all(|row| row["state"] == "delivered").then_some(())
    });
}

#[test]
fn a_receiver_that_hangs_delays_neither_others_nor_a_stop() {
    let (_dir, secret) = secrets();
    let (hanging, ops) = (HttpReceiver::new(Answer::Nothing), HttpReceiver::new(OK));
    let hung = webhook("hanging", &hanging.url(), &secret) + "time_limit = 60\n";
    let mut mount = Mount::with_config(config(&(hung + &webhook("ops", &ops.url(), &secret))));
    write(&mount.dir("acme"), "a", 6000);
    until("one hangs", || (hanging.hanging_count() == 1).then_some(()));
    for tenant in ["beta", "gamma", "delta"] {
        tell_the_end(&mount, &ops, tenant);
    }
    assert_eq!(hanging.hanging_count(), 1, "one attempt at a time, and it is not over");
    // Gives up after as long as the attempt may take.
    mount.stop();
    hanging.answer(OK);
    mount.start();
    for tenant in ["acme", "beta", "gamma", "delta"] {
        wait_for(&hanging, &format!("/{tenant}"), "50");
    }
}

#[test]
fn what_is_given_up_is_listed_and_tried_again_when_somebody_says_so() {
    let (_dir, secret) = secrets();
    let ops = HttpReceiver::new(Answer::Status(500));
    let once = "[alerts]\nattempts_max = 1\n".to_owned() + &webhook("ops", &ops.url(), &secret);
    let mount = Mount::with_config(config(&once));
    write(&mount.dir("acme"), "a", 6000);
    write(&mount.dir("beta"), "a", 6000);
    let dead = until("both are given up", || {
        let dead = deliveries(&mount, &["--dead"]);
        (dead.len() == 2).then_some(dead)
    });
    assert!(
        dead.iter().all(|row| row["state"] == "dead" && row["attempts"] == 1),
        "{dead:?}"
    );
    let error = dead[0]["last_error"].as_str().expect("an error");
    assert!(error.starts_with("answered 500") && error.ends_with(": why"), "{error}");
    let table = alerts(&mount, &["list", "--dead"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("/acme") && table.contains("answered 500"), "{table}");
    until("the metrics tell it", || {
        let told = metrics(&mount);
        told.contains("tallyfs_notices{receiver=\"ops\",state=\"dead\"} 2")
            .then_some(())
    });
    ops.answer(OK);
    let id = dead[0]["id"].as_str().expect("an id");
    assert!(alerts(&mount, &["retry", id]).status.success());
    let got = until("it is delivered", || ops.got().first().cloned());
    assert_eq!(got.id(), id);
    let wrong = alerts(&mount, &["retry", id]);
    assert!(!wrong.status.success(), "it is not dead any more");
    assert!(alerts(&mount, &["retry", "--all"]).status.success());
    until("the other is delivered", || (ops.got().len() == 2).then_some(()));
    until("none is dead", || {
        deliveries(&mount, &["--dead"]).is_empty().then_some(())
    });
    assert!(metrics(&mount).contains("tallyfs_notice_attempts_total{receiver=\"ops\",outcome=\"given_up\"} 2"));
}

fn metrics(mount: &Mount) -> String {
    let socket = mount.store().join("admin.sock");
    common::run(
        "curl",
        &["-sS", "--unix-socket", text(&socket), "http://tallyfs/metrics"],
    )
}

#[test]
fn refusals_are_told_once_for_a_burst() {
    let (_dir, secret) = secrets();
    let ops = HttpReceiver::new(OK);
    let alerts = webhook("ops", &ops.url(), &secret) + "kinds = [\"refused\"]\n";
    let mut mount = Mount::with_config(config(&alerts));
    let acme = mount.dir("acme");
    let burst = |acme: &Path| {
        let file = File::create(acme.join("a")).expect("a file");
        file.write_all_at(&[1; 10_000], 0).expect("what fits");
        for at in 0..40 {
            refused(file.write_at(&[1; 8], 10_000 + at), Errno::DQUOT);
        }
    };
    burst(&acme);
    let first = until("the burst is told", || ops.got().first().cloned());
    assert_eq!(
        (first.label("alertname").as_str(), first.label("path").as_str()),
        ("TallyfsRefused", "/acme")
    );
    mount.kill9();
    let file = File::options().write(true).open(acme.join("a")).expect("the file");
    refused(file.write_at(&[1; 8], 10_000), Errno::DQUOT);
    drop(file);
    fs::remove_file(acme.join("a")).expect("a deletion");
    until("the fall is saved", || {
        let db = Connection::open(mount.store().join("tallyfs.db")).expect("the database");
        let told = db.query_row("SELECT count(*) FROM terms WHERE refused <> ''", [], |row| row.get(0));
        (told == Ok(0)).then_some(())
    });
    burst(&acme);
    // A kill between a delivery and its note has it delivered again, under the same number.
    let told = || {
        let mut seen = std::collections::HashSet::new();
        let mut got = ops.got();
        got.retain(|got| seen.insert(got.id().to_owned()));
        got.iter().map(|got| got.label("path")).collect::<Vec<_>>()
    };
    until("the second burst is told", || (told().len() == 2).then_some(()));
    burst(&mount.dir("beta"));
    until("another account's is told", || (told().len() == 3).then_some(()));
    assert_eq!(told(), ["/acme", "/acme", "/beta"]);
}

#[test]
fn a_database_that_cannot_be_written_is_told_from_memory_and_so_is_its_end() {
    let (_dir, secret) = secrets();
    let ops = HttpReceiver::new(OK);
    let mount = Mount::with_config(config(&webhook("ops", &ops.url(), &secret)));
    let acme = mount.dir("acme");
    write(&acme, "a", 100);
    mount.assert_usage_true();
    let other = Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    write(&acme, "b", 6000);
    let fired = until("the trouble is told", || ops.got().first().cloned());
    assert_eq!(
        (fired.label("alertname").as_str(), fired.is_signed()),
        ("TallyfsDatabaseNotWritten", true)
    );
    other.execute_batch("ROLLBACK").expect("unlocked");
    // The crossing meanwhile is saved and told then, before or after the end of the trouble.
    wait_for(&ops, "/acme", "50");
    let over = until("the end is told", || {
        ops.got().into_iter().find(|got| got.json()["status"] == "resolved")
    });
    let print = |got: &Got| got.json()["alerts"][0]["fingerprint"].clone();
    assert_eq!(print(&fired), print(&over));
    assert_eq!(ops.got().len(), 3);
}

/// A program for `sh`, that only its owner may change.
fn script(dir: &Path, name: &str, lines: &str) -> PathBuf {
    let path = dir.join(name);
    let mut file = File::create(&path).expect("a script");
    write!(file, "#!/bin/sh\n{lines}\n").expect("its text");
    file.set_permissions(fs::Permissions::from_mode(0o700))
        .expect("its mode");
    path
}

#[test]
fn a_program_and_a_mail_get_notices_and_no_name_breaks_out_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let put = |name: &str| dir.join(name).display().to_string();
    let hook = script(
        dir,
        "hook",
        &format!(
            "printf '%s\\n' \"$1\" > {0}; env > {1}; cat > {2}; for fd in /proc/$$/fd/*; do readlink $fd; done > {3}; mv {0} {4}",
            put("args.new"),
            put("env"),
            put("stdin"),
            put("fds"),
            put("args")
        ),
    );
    let mailer = script(
        dir,
        "sendmail",
        &format!(
            "printf '%s\\n' \"$@\" > {0}; cat > {1}; mv {0} {2}",
            put("to.new"),
            put("mail"),
            put("to")
        ),
    );
    let alerts = receiver("pager", &format!("exec = [\"{}\", \"a $(id) b\"]", hook.display()))
        + &receiver(
            "mail",
            &format!("sendmail = \"{}\"\nto = [\"ops@example.com\"]", mailer.display()),
        );
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let mount = Setup::new()
        .config(config(&alerts))
        .environment("ENCRYPTION_KEY", key)
        .mount();
    write(&mount.dir("ac\nBcc: all@example.com\n\nme"), "a", 6000);
    let path = "/ac\nBcc: all@example.com\n\nme";
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    until("the program has run", || dir.join("args").exists().then_some(()));
    assert_eq!(read("args"), "a $(id) b\n", "no shell");
    let body: Value = serde_json::from_str(&read("stdin")).expect("JSON");
    assert_eq!(body["alerts"][0]["labels"]["path"], path);
    let environment = read("env");
    assert!(environment.contains(&format!("TALLYFS_PATH={path}")), "{environment}");
    assert!(environment.contains("TALLYFS_PERCENT=50\n") && environment.contains("TALLYFS_KIND=near_limit\n"));
    assert!(!environment.contains("ENCRYPTION_KEY"), "the daemon's environment");
    let descriptors = read("fds");
    for held in ["/dev/fuse", "tallyfs.db", "/store", "socket:"] {
        assert!(!descriptors.contains(held), "{descriptors}");
    }
    let mode = fs::metadata(dir.join("env")).expect("made by the hook").mode();
    assert_eq!(mode & 0o777, 0o600, "the umask of a program");
    until("the mail was sent", || dir.join("to").exists().then_some(()));
    assert_eq!(read("to"), "-i\n--\nops@example.com\n");
    let mail = read("mail");
    let (head, _) = mail.split_once("\n\n").expect("a head");
    assert!(head.lines().all(|line| !line.starts_with("Bcc")), "{head}");
    assert!(
        head.contains("To: ops@example.com\n") && head.contains("Subject: ["),
        "{head}"
    );
    until("both are noted", || {
        let rows = deliveries(&mount, &[]);
        (rows.len() == 2 && rows.iter().all(|row| row["state"] == "delivered")).then_some(())
    });
}

#[test]
fn a_program_that_fails_or_does_not_end_is_a_failed_attempt_and_a_test_says_why() {
    let (temp, secret) = secrets();
    let dir = temp.path();
    let failing = script(dir, "failing", "echo nobody is on duty; exit 3");
    let endless = script(dir, "endless", "sleep 1000 & wait");
    let ops = HttpReceiver::new(OK);
    let (down, open) = (HttpReceiver::nowhere(), dir.join("open"));
    fs::write(&open, SECRET).expect("a secret");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("its mode");
    let all = webhook("ops", &ops.url(), &secret)
        + &receiver("failing", &format!("exec = [\"{}\"]", failing.display()))
        + &receiver(
            "endless",
            &format!("exec = [\"{}\"]\ntime_limit = 1", endless.display()),
        )
        + &receiver("down", &format!("url = \"http://{down}/\""))
        + &webhook("open", &ops.url(), &open);
    let config_text = config(&all);
    let config_file = dir.join("tallyfs.toml");
    fs::write(&config_file, &config_text).expect("a configuration");
    let mount = Mount::with_config(config_text);
    for (name, words) in [
        ("failing", "ended with exit status: 3: nobody is on duty"),
        ("endless", "no answer within 1 s"),
        ("down", "Connection refused"),
        ("open", "chmod 0400"),
        ("nobody", "there is no receiver 'nobody'"),
    ] {
        for more in [&[][..], &["--config", text(&config_file)]] {
            let tested = alerts(&mount, &[&["test", name], more].concat());
            let said = String::from_utf8_lossy(&tested.stderr);
            assert!(
                !tested.status.success() && said.contains(words),
                "{name} {more:?}: {said}"
            );
            assert!(!said.contains(&SECRET[6..]), "{said}");
        }
    }
    let before = ops.got().len();
    assert!(alerts(&mount, &["test", "ops"]).status.success());
    assert!(
        alerts(&mount, &["test", "ops", "--config", text(&config_file)])
            .status
            .success()
    );
    let got = ops.got();
    assert_eq!(got.len() - before, 2);
    assert!(
        got.iter()
            .all(|got| got.is_signed() && got.label("alertname") == "TallyfsTest")
    );
    assert!(deliveries(&mount, &[]).is_empty(), "tests are no notices");
}
