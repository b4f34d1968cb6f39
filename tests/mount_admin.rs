//! The interface for programs, over its sockets: who is answered, what is counted and set, and that it agrees with the
//! mount.

mod common;

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use common::http::{exchange, get, post, send, unix};
use common::user::as_user;
use common::wait::until;
use common::{Errno, Mount, RULES, Setup, refused, run};

/// Some user without rights.
const SOMEBODY: u32 = 12_345;

#[test]
fn counters_that_programs_feed_are_counted_checked_limited_and_reset() {
    let mut mount = Mount::with_config("[tracker]\nmessage_limit = 3\nbandwidth_limit = \"1KiB\"\n");
    let fed = json!({"tenant_id": "acme", "message_count": 2, "bytes_sent": 100});
    let told = post(&mount, "/api/quota/increment", &fed).is(200).json();
    assert_eq!((&told["message_count"], &told["message_limit"]), (&json!(2), &json!(3)));
    assert_eq!(
        (&told["bytes_sent"], &told["bandwidth_limit_bytes"]),
        (&json!(100), &json!(1024))
    );
    assert_eq!((&told["exceeded"], &told["storage"]), (&json!(false), &Value::Null));
    let told = post(&mount, "/api/quota/increment", &fed).is(200).json();
    assert_eq!(
        (&told["message_count"], &told["exceeded_by"]),
        (&json!(4), &json!(["message_count"]))
    );
    let check = json!({"tenant_id": "acme"});
    let told = post(&mount, "/api/quota/check", &check).is(200).json();
    assert_eq!(
        (&told["exceeded"], &told["reason"]["status"]),
        (&json!(true), &json!(429))
    );
    let must_fit = json!({"tenant_id": "acme", "message_count": 1, "enforce": true});
    let refused = post(&mount, "/api/quota/increment", &must_fit).is(429);
    assert!(
        refused
            .header("retry-after")
            .expect("a time")
            .parse::<u64>()
            .expect("seconds")
            <= 86_400
    );
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let problem = refused.json();
    assert_eq!(
        (&problem["used"], &problem["limit"], &problem["wanted"]),
        (&json!(4), &json!(3), &json!(1))
    );
    assert!(problem["resets_at"].is_i64());
    let raised = json!({"tenant_id": "acme", "message_limit": 10, "bandwidth_limit_bytes": "none"});
    let told = post(&mount, "/api/quota/limits", &raised).is(200).json();
    assert_eq!(
        (&told["message_limit"], &told["bandwidth_limit_bytes"]),
        (&json!(10), &Value::Null)
    );
    post(&mount, "/api/quota/increment", &must_fit).is(200);
    mount.remount();
    let told = get(&mount, "/api/quota/acme").is(200).json();
    assert_eq!(
        (&told["message_count"], &told["bytes_sent"], &told["message_limit"]),
        (&json!(5), &json!(200), &json!(10))
    );
    let told = post(&mount, "/api/quota/acme/reset", &json!({})).is(200).json();
    assert_eq!((&told["message_count"], &told["bytes_sent"]), (&json!(0), &json!(0)));
    get(&mount, "/api/quota/nobody").is(404);
    post(&mount, "/api/quota/nobody/reset", &json!({})).is(404);
    let names = get(&mount, "/api/quota").is(200).json();
    assert_eq!(names.as_array().expect("a list").len(), 1);
    mount.stop();
    let db = rusqlite::Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    let audit: Vec<(String, String)> = db
        .prepare("SELECT action, subject FROM quota_audit ORDER BY id")
        .expect("a table")
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows")
        .map(|row| row.expect("a row"))
        .collect();
    assert_eq!(audit, [("set".into(), "acme".into()), ("reset".into(), "acme".into())]);
}

#[test]
fn a_request_that_is_sent_again_under_its_key_counts_once() {
    let mount = Mount::new();
    let fed = json!({"tenant_id": "acme", "message_count": 1}).to_string();
    let again = |body: &str, key: &str| {
        exchange(
            unix(&mount),
            "POST",
            "/api/quota/increment",
            &[("Idempotency-Key", key)],
            body,
        )
    };
    for _ in 0..3 {
        assert_eq!(again(&fed, "a").is(200).json()["message_count"], 1);
    }
    assert_eq!(again(&fed, "b").is(200).json()["message_count"], 2);
    again(&json!({"tenant_id": "acme", "message_count": 2}).to_string(), "a").is(422);
}

#[test]
fn what_is_no_request_gets_a_problem_that_says_so() {
    let mount = Mount::new();
    for (method, path, body, status, part) in [
        ("GET", "/nowhere", "", 404, "/openapi.json"),
        ("DELETE", "/api/quota", "", 405, "method"),
        ("POST", "/api/quota/increment", "{", 400, "JSON"),
        ("POST", "/api/quota/increment", "{\"tenant\": \"a\"}", 422, "tenant"),
        (
            "POST",
            "/api/quota/increment",
            "{\"tenant_id\": \"\", \"message_count\": 1}",
            400,
            "tenant_id",
        ),
        (
            "POST",
            "/api/quota/increment",
            "{\"tenant_id\": \"a\", \"message_count\": -1}",
            422,
            "message_count",
        ),
        (
            "POST",
            "/api/quota/limits",
            "{\"tenant_id\": \"a\", \"message_limit\": \"5GiB\"}",
            400,
            "whole number",
        ),
        ("GET", "/api/quota?limit=0", "", 400, "1000"),
        ("POST", "/api/quota/check", "{\"tenant_id\": \"\"}", 400, "tenant_id"),
        ("GET", "/api/v1/usage/history?days=0", "", 400, "3660"),
        ("GET", "/api/v1/usage/history?days=x", "", 400, "days"),
        ("GET", "/api/v1/accounts/nowhere", "", 404, "no such directory"),
        ("GET", "/api/v1/accounts/..%2F..%2Fetc", "", 400, "names"),
        (
            "PUT",
            "/api/v1/accounts/%2F",
            "{\"limits\": {\"max_byte\": 5}}",
            400,
            "max_bytes",
        ),
        ("GET", "/buckets/nobody?quota", "", 404, "no such directory"),
    ] {
        let answer = exchange(unix(&mount), method, path, &[], body).is(status);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{path}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{path}");
        assert!(
            problem["detail"].as_str().expect("a text").contains(part),
            "{path}: {problem}"
        );
    }
    let long = format!("{{\"tenant_id\": \"{}\"}}", "x".repeat(70_000));
    exchange(unix(&mount), "POST", "/api/quota/increment", &[], &long).is(413);
}

#[test]
fn limits_that_are_set_there_count_in_the_mount_at_once() {
    let mut mount = Mount::with_config(RULES);
    let sales = mount.dir("acme/sales");
    fs::write(sales.join("a"), vec![1; 1000]).expect("a recording");
    let set = json!({"limits": {"max_files": 2, "soft_bytes": "10KiB", "grace": "36h"}});
    let told = send(&mount, "PUT", "/api/v1/accounts/acme%2Fsales", &set)
        .is(200)
        .json();
    assert_eq!(
        (&told["path"], &told["used"]["bytes"]),
        (&json!("/acme/sales"), &json!(1000))
    );
    assert_eq!(
        told["set"],
        json!({"max_files": 2, "soft_bytes": 10240, "grace": 129_600})
    );
    File::create_new(sales.join("b")).expect("the second file");
    refused(File::create_new(sales.join("c")), Errno::DQUOT);
    mount.remount();
    let told = get(&mount, "/api/v1/accounts/acme%2Fsales").is(200).json();
    assert_eq!(told["limits"]["max_files"], 2);
    let unset = json!({"limits": {"max_files": "default", "grace": null, "soft_bytes": "default"}});
    let told = send(&mount, "PUT", "/api/v1/accounts/acme%2Fsales", &unset)
        .is(200)
        .json();
    assert_eq!(told["set"], json!({}));
    File::create_new(mount.path("acme/sales/c")).expect("no limit");
    let listed = get(&mount, "/api/v1/accounts?level=tenant").is(200).json();
    let paths: Vec<&Value> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|account| &account["path"])
        .collect();
    assert_eq!(paths, ["/acme"]);
    mount.assert_usage_true();
}

#[test]
fn usage_history_buckets_alerts_and_metrics_tell_what_the_mount_holds() {
    let mount = Mount::with_config(format!("{RULES}[rules.limits.tenant]\nmax_bytes = 10000\n"));
    let acme = mount.dir("acme");
    fs::write(acme.join("a"), vec![1; 8000]).expect("a recording");
    fs::write(acme.join("b"), vec![1; 1000]).expect("a recording");
    fs::remove_file(acme.join("b")).expect("a deletion");
    let stats = get(&mount, "/api/v1/usage/stats?tenant=acme").is(200).json();
    let expected = json!({"total_files": 1, "total_size_bytes": 8000, "quota_bytes": 10000, "quota_percentage": 80.0, "is_quota_warning": true,
        "recordings_added_today": 2, "bytes_added_today": 9000});
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&stats[key], value, "{key}");
    }
    assert_eq!(
        get(&mount, "/api/v1/usage/stats").is(200).json()["quota_gb"],
        Value::Null
    );
    let day = until("the day is saved", || {
        let days = get(&mount, "/api/v1/usage/history?days=2&tenant=acme").is(200).json();
        days.as_array()?
            .iter()
            .find(|day| day["recordings_deleted"] == 1)
            .cloned()
    });
    assert_eq!(
        (&day["total_size_bytes"], &day["bytes_added"], &day["recordings_added"]),
        (&json!(8000), &json!(9000), &json!(2))
    );
    let bucket = get(&mount, "/buckets/acme?quota").is(200);
    assert_eq!(bucket.header("x-amz-bucket-usage"), Some("8000"));
    assert_eq!(bucket.header("x-amz-bucket-quota"), Some("10000"));
    assert_eq!(bucket.header("x-amz-bucket-objects"), Some("1"));
    assert_eq!(bucket.json()["current_usage_bytes"], 8000);
    until("the warning is due", || {
        let alerts = get(&mount, "/api/v1/alerts").is(200).json();
        (alerts[0]["kind"] == "near_limit" && alerts[0]["path"] == "/acme").then_some(())
    });
    let full = fs::write(acme.join("c"), vec![1; 5000]);
    refused(full, Errno::DQUOT);
    let alerts = get(&mount, "/api/v1/alerts").is(200).json();
    assert_eq!(
        (&alerts[0]["kind"], &alerts[0]["meter"]),
        (&json!("full"), &json!("bytes"))
    );
    let check = json!({"tenant_id": "acme", "storage_bytes": 1, "enforce": true});
    let no_room = post(&mount, "/api/quota/check", &check).is(507).json();
    assert_eq!((&no_room["used"], &no_room["limit"]), (&json!(10000), &json!(10000)));
    let metrics = get(&mount, "/metrics").is(200).body;
    for line in [
        "tallyfs_account_used_bytes{path=\"/acme\"} 10000",
        "tallyfs_account_limit_bytes{path=\"/acme\"} 10000",
        "tallyfs_account_used_ratio{path=\"/acme\",meter=\"bytes\"} 1.0",
        "tallyfs_account_period_used_files{path=\"/acme\",period=\"day\"} 3",
        "tallyfs_refusals_total{meter=\"bytes\",reason=\"hard\"} 1",
        "tallyfs_write_back_behind_seconds 0.0",
        "tallyfs_quota_miscounts_total 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert_eq!(get(&mount, "/health").is(200).json()["status"], "ok");
    assert_eq!(get(&mount, "/readyz").is(200).json()["ready"], true);
}

#[test]
fn physical_bytes_stand_beside_what_recordings_say() {
    let mut mount = Mount::with_config(RULES);
    for (name, length) in [("acme/a", 8000), ("acme/sub/b", 1), ("other/c", 300_000)] {
        let path = mount.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        fs::write(path, vec![1; length]).expect("a recording");
    }
    let usage_of = |path: &Path| -> Value {
        let told = run(
            common::mount::tallyfs(),
            &["usage", "--json", path.to_str().expect("UTF-8")],
        );
        serde_json::from_str(&told).expect("JSON")
    };
    let backing = |mount: &Mount, names: &[&str]| -> u64 {
        let sizes = names.iter().map(|name| {
            mount
                .store()
                .join("data")
                .join(name)
                .metadata()
                .expect("a backing file")
                .len()
        });
        sizes.sum()
    };
    // Looked up again and again: a file shrinks when it is sealed.
    let told = |mount: &Mount, tenant: &str, names: &[&str]| {
        until("the look", || {
            let expected = backing(mount, names);
            let stats = get(mount, &format!("/api/v1/usage/stats?tenant={tenant}"))
                .is(200)
                .json();
            let days = get(mount, &format!("/api/v1/usage/history?days=1&tenant={tenant}"))
                .is(200)
                .json();
            (stats["physical_bytes"] == expected && days[0]["physical_bytes"] == expected).then_some(())
        });
    };
    told(&mount, "acme", &["acme/a", "acme/sub/b"]);
    told(&mount, "", &["acme/a", "acme/sub/b", "other/c"]);
    let acme = backing(&mount, &["acme/a", "acme/sub/b"]);
    let metrics = get(&mount, "/metrics").is(200).body;
    let line = format!("tallyfs_account_physical_bytes{{path=\"/acme\"}} {acme}\n");
    assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    fs::rename(mount.path("acme/sub"), mount.path("other/sub")).expect("a move");
    told(&mount, "acme", &["acme/a"]);
    fs::remove_file(mount.path("other/c")).expect("a deletion");
    told(&mount, "acme", &["acme/a"]);
    told(&mount, "", &["acme/a", "other/sub/b"]);
    let (acme, other) = (backing(&mount, &["acme/a"]), backing(&mount, &["other/sub/b"]));
    let usage = usage_of(&mount.path("other"));
    assert_eq!(usage["total"]["physical_bytes"], other, "{usage}");
    // A daemon that has just started looks, though nothing changes.
    mount.stop();
    mount.start();
    told(&mount, "acme", &["acme/a"]);
    let usage = usage_of(&mount.store());
    assert_eq!(usage["tenants"][0]["physical_bytes"], acme, "{usage}");
    mount.finish();
}

#[test]
fn operations_of_a_month_are_counted_by_tenant_and_saved() {
    let mut mount = Mount::with_config(format!("{RULES}[rules.limits.tenant]\nmax_files = 2\n"));
    let acme = mount.dir("acme");
    fs::write(acme.join("a"), "x").expect("a recording");
    fs::write(acme.join("b"), "x").expect("a recording");
    refused(File::create_new(acme.join("c")), Errno::DQUOT);
    fs::read(acme.join("a")).expect("a reader");
    fs::remove_file(acme.join("b")).expect("a deletion");
    common::names(&acme);
    let month = get(&mount, "/api/v1/tenants/acme/stats").is(200).json()["month"].clone();
    let month = month.as_str().expect("a month").to_owned();
    let check = |mount: &Mount| {
        let told = get(mount, &format!("/api/v1/tenants/acme/stats?month={month}"))
            .is(200)
            .json();
        for (key, count) in [
            ("create", 2),
            ("read", 1),
            ("delete", 1),
            ("list", 1),
            ("denied", 1),
            ("write", 0),
        ] {
            assert_eq!(told[key], count, "{key}: {told}");
        }
        assert!(told["stat"].as_u64().expect("a count") > 0, "{told}");
        let bucket = get(mount, "/buckets/acme?stats").is(200).json();
        let seen = ["get_count", "put_count", "delete_count", "list_count"].map(|key| bucket[key].clone());
        assert_eq!(seen, [1, 2, 1, 1].map(Value::from));
    };
    check(&mount);
    mount.remount();
    check(&mount);
    let before = get(&mount, "/buckets/acme?stats&month=2001-01").is(200).json();
    assert_eq!(before["get_count"], 0);
    get(&mount, "/buckets/acme?stats&month=2001-13").is(400);
    assert_eq!(
        get(&mount, "/api/v1/tenants/acme/stats").is(200).json()["tenant"],
        "acme"
    );
    get(&mount, "/api/v1/tenants/nobody/stats").is(404);
}

/// Where the daemon says that it listens.
fn tcp(mount: &Mount) -> TcpStream {
    let address = until("the daemon listens", || {
        let log = mount.log();
        let (_, rest) = log.rsplit_once("answered at http://")?;
        Some(rest.lines().next()?.to_owned())
    });
    TcpStream::connect(address).expect("the daemon answers")
}

#[test]
fn over_tcp_a_token_is_needed_for_every_path_but_those_of_health() {
    let mount = Mount::with_config("[admin]\nlisten = \"127.0.0.1:0\"\n");
    assert!(mount.log().contains("nobody can ask there"), "{}", mount.log());
    let described = get(&mount, "/openapi.json").is(200).json();
    let mut asked = 0;
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let path = path.replace(['{', '}'], "x");
            let status = exchange(tcp(&mount), &method.to_uppercase(), &path, &[], "{}").status;
            let is_open = matches!(path.as_str(), "/health" | "/readyz");
            assert_eq!(status, if is_open { 200 } else { 401 }, "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked > 15, "{asked}");
}

#[test]
fn a_token_lets_in_for_its_scopes_and_its_tenant() {
    let made = run(
        env!("CARGO_BIN_EXE_tallyfs"),
        &[
            "token", "billing", "--scope", "read", "--scope", "quota", "--tenant", "acme",
        ],
    );
    let secret = made
        .lines()
        .find_map(|line| line.trim().strip_prefix("tallyfs_"))
        .expect("a token");
    let secret = format!("tallyfs_{secret}");
    let (_, lines) = made.split_once("For the configuration:").expect("lines");
    let mount = Mount::with_config(format!("[admin]\nlisten = \"127.0.0.1:0\"\n{lines}"));
    let bearer = format!("Bearer {secret}");
    let ask = |method: &str, path: &str, body: &Value| {
        exchange(
            tcp(&mount),
            method,
            path,
            &[("Authorization", bearer.as_str())],
            &body.to_string(),
        )
    };
    ask(
        "POST",
        "/api/quota/increment",
        &json!({"tenant_id": "acme", "message_count": 1}),
    )
    .is(200);
    ask("GET", "/api/quota/acme", &json!({})).is(200);
    ask(
        "POST",
        "/api/quota/increment",
        &json!({"tenant_id": "globex", "message_count": 1}),
    )
    .is(403);
    ask("GET", "/api/quota", &json!({})).is(403);
    ask("GET", "/metrics", &json!({})).is(403);
    ask(
        "POST",
        "/api/quota/limits",
        &json!({"tenant_id": "acme", "message_limit": 1}),
    )
    .is(403);
    exchange(
        tcp(&mount),
        "GET",
        "/api/quota/acme",
        &[("Authorization", "Bearer tallyfs_0")],
        "",
    )
    .is(401);
    assert!(!mount.log().contains(&secret), "secrets are in no log");
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "[admin]\nlisten = \"0.0.0.0:8183\"\n").expect("a configuration");
    let checked = common::command::output(
        env!("CARGO_BIN_EXE_tallyfs"),
        &["check-config", common::command::text(file.path())],
        Path::new("/"),
    );
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(
        !checked.status.success() && told.contains("127.0.0.1:8183") && told.contains("TLS"),
        "{told}"
    );
}

#[test]
fn a_local_user_without_rights_is_refused_or_may_read() {
    for (open, status) in [(false, 403), (true, 200)] {
        let socket = tempfile::Builder::new()
            .prefix("tallyfs-sock-")
            .tempdir()
            .expect("a directory");
        fs::set_permissions(socket.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open to all");
        let path = socket.path().join("a.sock");
        let config = format!("[admin]\nsocket = \"{}\"\nopen_to_readers = {open}\n", path.display());
        let _mount = Setup::new().config(config).mount();
        let answered = as_user(SOMEBODY, &[], || {
            let ask = |method: &str, path: &str| {
                let stream = UnixStream::connect(socket.path().join("a.sock")).expect("a socket open to all");
                exchange(stream, method, path, &[], "{}").status
            };
            [ask("GET", "/api/quota"), ask("POST", "/api/quota/acme/reset")]
        });
        assert_eq!(answered, [status, 403]);
    }
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_taken_over_and_a_file_is_not() {
    let mut mount = Mount::new();
    mount.kill9();
    assert!(mount.store().join("admin.sock").exists());
    mount.remount();
    get(&mount, "/health").is(200);
    mount.stop();
    let socket = mount.store().join("admin.sock");
    assert!(!socket.exists(), "a clean stop takes it away");
    fs::write(&socket, "mine").expect("a file");
    mount.start();
    fs::write(mount.dir("acme").join("a"), "recordings go on").expect("a recording");
    assert!(mount.log().contains("cannot listen"), "{}", mount.log());
    assert_eq!(fs::read_to_string(&socket).expect("the file"), "mine");
    mount.stop();
    assert_eq!(fs::read_to_string(&socket).expect("the file"), "mine");
}

#[test]
fn a_database_that_takes_nothing_is_told_by_readyz_and_as_an_alert() {
    let mount = Mount::with_config(RULES);
    let db = rusqlite::Connection::open(mount.store().join("tallyfs.db")).expect("the database");
    db.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    fs::write(mount.dir("acme").join("a"), "x").expect("recordings go on");
    until("the alert", || {
        let alerts = get(&mount, "/api/v1/alerts").is(200).json();
        (alerts[0]["kind"] == "database").then_some(())
    });
    let told = until("readyz says so", || {
        Some(get(&mount, "/readyz")).filter(|answer| answer.status == 503)
    })
    .json();
    assert_eq!(told["ready"], false);
    db.execute_batch("ROLLBACK").expect("the lock goes");
    until("it is over", || (get(&mount, "/readyz").status == 200).then_some(()));
}
