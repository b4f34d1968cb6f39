//! Facts about the configuration.

use super::*;
use crate::period::Zone;
use crate::quota::{Bound, LimitKey, LimitOverrides, Steps};
use proptest::prelude::*;

fn parts(path: &str) -> Vec<&[u8]> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(str::as_bytes)
        .collect()
}

fn day(key: &str) -> CivilDate {
    CivilDate::from_day_key(key).unwrap()
}

fn config(text: &str) -> Config {
    Config::parse("tallyfs.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

const FULL: &str = r#"
[mount]
max_bytes = "10GiB"
max_files = 1000000
max_file_size = 0

[durability]
commit_interval_s = 3

[key]
file = "/etc/tallyfs/key"

[service]
threads = 4

[alerts]
external_url = "https://calls.example.com"
give_up_after = "none"
attempts_max = 9
[[alerts.receivers]]
name = "ops"
url = "http://alerts.example.com/tallyfs"
secret_file = "/etc/tallyfs/secret"
ca_file = "/etc/tallyfs/ca.pem"
kinds = ["near_limit", "database"]
tenant = "acme"
time_limit = "1m"
[[alerts.receivers]]
name = "pager"
exec = ["/usr/bin/page", "a b"]
[[alerts.receivers]]
name = "mail"
sendmail = "/usr/sbin/sendmail"
from = "tallyfs@example.com"
to = ["a@example.com", "b@example.com"]

[[rules]]
path = "{tenant}/archive/%Y/%b/%d"
[rules.limits.tenant]
max_bytes = "5GiB"
max_files = 100

[[rules]]
path = "{tenant}/{campaign}/{agent}/%Y-%m-%d"
[rules.limits.tenant]
max_bytes = "1GiB"
[rules.limits.campaign]
max_dirs = 7
[rules.limits.agent]
max_file_size = "100MB"

[[exceptions]]
path = "acme"
max_bytes = "50GiB"
max_files = "none"

[[exceptions]]
path = "acme/sales"
max_dirs = 9
"#;

#[test]
fn limits_come_from_the_first_rule_and_exceptions_replace_them_key_by_key() {
    let config = config(FULL);
    let at = |path: &str| config.placement(&parts(path));
    let limits = |path: &str| at(path).policy.limits;
    assert_eq!(
        limits(""),
        Limits {
            bytes: Some(10 << 30),
            files: Some(1_000_000),
            ..Limits::NONE
        }
    );
    assert_eq!(
        limits("other"),
        Limits {
            bytes: Some(5 << 30),
            files: Some(100),
            ..Limits::NONE
        }
    );
    assert_eq!(
        limits("acme"),
        Limits {
            bytes: Some(50 << 30),
            ..Limits::NONE
        }
    );
    assert_eq!(
        limits("other/sales"),
        Limits {
            dirs: Some(7),
            ..Limits::NONE
        }
    );
    assert_eq!(
        limits("acme/sales"),
        Limits {
            dirs: Some(9),
            ..Limits::NONE
        }
    );
    assert_eq!(
        limits("acme/sales/eva"),
        Limits {
            file_size: Some(100_000_000),
            ..Limits::NONE
        }
    );
    assert_eq!(limits("acme/archive"), Limits::NONE);
}

#[test]
fn levels_are_placeholders_of_the_governing_rule() {
    let config = config(FULL);
    let at = |path: &str| {
        let placement = config.placement(&parts(path));
        (placement.level.map(str::to_owned), placement.is_tenant)
    };
    let level = |name: &str| Some(name.to_owned());
    assert_eq!(at(""), (None, false));
    assert_eq!(at("acme"), (level("tenant"), true));
    assert_eq!(at("8000"), (level("tenant"), true));
    assert_eq!(at("acme/archive"), (None, false));
    assert_eq!(at("acme/archive/2026"), (None, false));
    // Not a year: the second rule takes it, for which `archive` is a campaign.
    assert_eq!(at("acme/archive/eva"), (level("agent"), false));
    assert_eq!(at("acme/sales"), (level("campaign"), false));
    assert_eq!(at("acme/8000"), (None, false));
    assert_eq!(at("acme/8000/eva"), (None, false));
    assert_eq!(at("acme/sales/eva/2026-11-21"), (None, false));
    assert_eq!(at("acme/sales/eva/2026-11-21/deeper"), (None, false));
}

#[test]
fn the_tenant_is_the_placeholder_of_that_name_or_the_first_directory_without_a_rule() {
    let nested = config("[[rules]]\npath = \"recordings/{tenant}/%Y\"\n");
    assert!(!nested.placement(&parts("recordings")).is_tenant);
    assert!(nested.placement(&parts("recordings/acme")).is_tenant);
    assert!(nested.placement(&parts("elsewhere")).is_tenant);
    let none = config("rules = []\n");
    assert!(none.placement(&parts("acme")).is_tenant);
    assert!(!none.placement(&parts("acme/x")).is_tenant);
}

#[test]
fn date_names_lead_from_the_tenant_to_today_and_tomorrow() {
    let config = config(FULL);
    let (today, tomorrow) = (day("2026-12-31"), day("2027-01-01"));
    let names = |path: &str| config.date_names(&parts(path), today, tomorrow);
    assert_eq!(names(""), [""; 0]);
    assert_eq!(names("acme"), ["archive"]);
    assert_eq!(names("acme/archive"), ["2026", "2027"]);
    assert_eq!(names("acme/archive/2026"), ["Dec"]);
    assert_eq!(names("acme/archive/2027"), ["Jan"]);
    assert_eq!(names("acme/archive/2025"), [""; 0]);
    assert_eq!(names("acme/archive/2026/Dec"), ["31"]);
    assert_eq!(names("acme/archive/2026/Dec/31"), [""; 0]);
    assert_eq!(names("acme/sales"), [""; 0]);
    assert_eq!(names("acme/sales/eva"), ["2026-12-31", "2027-01-01"]);
    assert_eq!(names("acme/sales/8000"), [""; 0]);
}

#[test]
fn date_slots_are_where_names_may_appear_by_themselves() {
    let config = config(FULL);
    for (path, expected) in [
        ("", false),
        ("acme", true),
        ("acme/archive", true),
        ("acme/archive/2031", true),
        ("acme/archive/2031/Feb", true),
        ("acme/archive/2031/Feb/30", false),
        ("acme/archive/2031/feb", false),
        ("acme/sales", false),
        ("acme/sales/eva", true),
    ] {
        assert_eq!(config.is_date_slot(&parts(path)), expected, "{path}");
    }
}

#[test]
fn no_date_directories_unless_a_rule_is_written_or_given() {
    let today = day("2026-11-21");
    let mut config = Config::default();
    assert!(!config.is_date_slot(&parts("acme")));
    assert!(config.date_names(&parts("acme"), today, today.next()).is_empty());
    config.add_layouts(&["{tenant}/%Y/%m".to_owned()]).unwrap();
    assert_eq!(config.date_names(&parts("acme"), today, today.next()), ["2026"]);
    config.service.date_directories = false;
    assert!(config.date_names(&parts("acme"), today, today.next()).is_empty());
    assert!(!config.is_date_slot(&parts("acme")));
}

#[test]
fn a_percent_sign_is_written_twice_and_comes_back() {
    let rule = Rule::from_layout("{tenant}/100%%/a%%-%Y").unwrap();
    assert_eq!(rule.path(), "{tenant}/100%%/a%%-%Y");
    let mut config = Config::default();
    config.add_layouts(&[rule.path()]).unwrap();
    assert_eq!(
        config.date_names(&parts("acme/100%"), day("2026-11-21"), day("2026-11-22")),
        ["a%-2026"]
    );
}

#[test]
fn errors_name_file_line_key_and_what_is_allowed() {
    for (text, line, fragments) in [
        (
            "[mount]\nmax_bytes = \"ten\"\n",
            2,
            &["max_bytes", "'ten'", "10GiB"][..],
        ),
        ("[mount]\nmax_bytes = -5\n", 2, &["max_bytes", "negative", "none"]),
        ("[mount]\nmax_files = \"5GiB\"\n", 2, &["max_files", "10000"]),
        ("[mount]\nmax_file = 5\n", 2, &["max_file", "max_files"]),
        ("[mont]\n", 1, &["mont", "mount"]),
        (
            "[mount]\ntime_zone = \"Mars/Phobos\"\n",
            2,
            &["time_zone", "Mars/Phobos", "Europe/Berlin"],
        ),
        ("[mount]\nwarn_percent = [0]\n", 2, &["warn_percent", "from 1 to 100"]),
        ("[mount]\ngrace = \"week\"\n", 2, &["grace", "7d"]),
        ("[mount]\nday.max_file = 5\n", 2, &["max_file", "max_files"]),
        (
            "[[exceptions]]\npath = \"a\"\nmonth.max_bytes = \"x\"\n",
            3,
            &["month.max_bytes", "10GiB"],
        ),
        ("[service]\n\nthreads = \"many\"\n", 3, &["threads", "u32"]),
        ("[[rules]]\npath = \"{tenant}/%H\"\n", 2, &["%H", "%Y %m %d %b"]),
        (
            "[[rules]]\npath = \"{tenant}//%Y\"\n",
            2,
            &["''", "{tenant}/archive/%Y/%b/%d"],
        ),
        ("[[rules]]\npath = \"{tenant}/rec-{agent}\"\n", 2, &["rec-{agent}"]),
        ("[[rules]]\npath = \"{tenant}/{tenant}\"\n", 2, &["twice"]),
        (
            "[[rules]]\npath = \"{tenant}/{agent}\"\ndate_directories = true\n",
            2,
            &["date_directories", "{tenant}/%Y/%m/%d"],
        ),
        (
            "[[rules]]\npath = \"{tenant}\"\n[rules.limits.agent]\nmax_files = 5\n",
            2,
            &["limits.agent", "tenant"],
        ),
        ("[[exceptions]]\npath = \"/acme\"\n", 2, &["'/acme'", "acme/sales"]),
        (
            "[[exceptions]]\npath = \"a\"\n[[exceptions]]\npath = \"a\"\n",
            4,
            &["twice"],
        ),
        ("x = [\n", 1, &[]),
    ] {
        is_refused(text, line, fragments);
    }
}

#[track_caller]
fn is_refused(text: &str, line: usize, fragments: &[&str]) {
    let message = Config::parse("tallyfs.toml", text).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("tallyfs.toml:{line}: ")),
        "{text}: {message}"
    );
    for fragment in fragments {
        assert!(message.contains(fragment), "{text}: {message}");
    }
}

#[test]
fn errors_of_receivers_name_them_and_say_what_is_allowed() {
    for (text, line, fragments) in [
        (
            "[[alerts.receivers]]\nname = \"a\"\n",
            2,
            &["alerts.receivers", "'a'", "exactly one of url, exec and sendmail"][..],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nurl = \"http://x/\"\nexec = [\"/x\"]\n",
            2,
            &["exactly one"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a b\"\nurl = \"http://x/\"\n",
            2,
            &["no name of a receiver"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nexec = [\"page\"]\n",
            2,
            &["'page'", "absolute path"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nexec = [\"/x\"]\n[[alerts.receivers]]\nname = \"a\"\nexec = [\"/x\"]\n",
            5,
            &["twice"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nexec = [\"/x\"]\nsecret_file = \"/s\"\n",
            2,
            &["belong to a url"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nexec = [\"/x\"]\ntime_limit = 61\n",
            2,
            &["time_limit", "1 to 60"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nexec = [\"/x\"]\nkinds = [\"full\"]\n",
            4,
            &["kinds", "near_limit"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nsendmail = \"/s\"\nto = [\"a@b\\nBcc: c@d\"]\n",
            2,
            &["no mail address", "ops@example.com"],
        ),
        (
            "[[alerts.receivers]]\nname = \"a\"\nsendmail = \"/s\"\nto = [\"-oQ/tmp@b\"]\n",
            2,
            &["no mail address"],
        ),
        ("[[alerts.receivers]]\nname = \"a\"\nsendmail = \"/s\"\n", 2, &["to:"]),
    ] {
        is_refused(text, line, fragments);
    }
}

#[test]
fn addresses_of_receivers_are_http_without_a_password_that_is_not_repeated() {
    let with = |url: &str| {
        let text = format!("[[alerts.receivers]]\nname = \"a\"\nurl = \"{url}\"\n");
        Config::parse("t", &text).map_err(|e| e.to_string())
    };
    for good in ["http://x", "http://[::1]:9000/a?b=c", "http://127.0.0.1:1/"] {
        assert!(with(good).is_ok(), "{good}");
    }
    assert_eq!(with("https://x/").is_ok(), cfg!(feature = "aws-lc"));
    for bad in ["", "x", "/x", "ftp://x/", "http://", "http://x/#y", "http://x y/"] {
        let error = with(bad).unwrap_err();
        assert!(error.contains("http://HOST"), "{bad}: {error}");
    }
    let error = with("https://me:hunter2@x/").unwrap_err();
    assert!(
        error.contains("no user or password") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn the_effective_form_reads_back_as_the_same() {
    for config in [Config::default(), config(FULL), config("rules = []\n"), config("")] {
        let text = config.to_toml();
        assert_eq!(Config::parse("effective", &text), Ok(config), "{text}");
    }
    assert_eq!(config(""), Config::default());
}

fn any_template() -> impl Strategy<Value = Template> {
    let bound = proptest::option::of(prop_oneof![
        Just(Bound::Unlimited),
        (1_u64..u64::MAX).prop_map(Bound::At)
    ]);
    let bounds = proptest::collection::vec(bound, LimitKey::ALL.len());
    let zone = proptest::option::of(proptest::sample::select(vec!["UTC", "Asia/Kolkata", "Europe/Berlin"]));
    let steps = proptest::option::of(proptest::collection::vec(1_u8..=100, 0..16));
    (bounds, zone, steps).prop_map(|(bounds, zone, steps)| Template {
        limits: LimitKey::ALL
            .into_iter()
            .zip(bounds)
            .fold(LimitOverrides::NONE, |all, (key, bound)| all.with(key, bound)),
        zone: zone.map(|name| Zone::named(name).unwrap()),
        steps: steps.map(|percents| Steps::new(&percents).unwrap()),
    })
}

proptest! {
    #[test]
    fn any_limits_read_back(mount in any_template(), tenant in any_template(), template in any_template(), threads in any::<u32>()) {
        let mut config = Config { mount, ..Config::default() };
        config.rules[0].limits.insert("tenant".to_owned(), tenant);
        config.exceptions.push(Exception { path: "a b/\"c\"".to_owned(), template });
        config.service.threads = threads;
        prop_assert_eq!(Config::parse("effective", &config.to_toml()), Ok(config));
    }
}

#[test]
fn time_zone_and_steps_come_from_the_exception_the_level_the_mount() {
    let text = "
[mount]
time_zone = \"Europe/Berlin\"
warn_percent = [50, 90]
[[rules]]
path = \"{tenant}/{agent}\"
[rules.limits.tenant]
time_zone = \"Asia/Kolkata\"
soft_bytes = \"1GiB\"
grace = \"36h\"
day.max_files = 100
month = { max_bytes = \"5GiB\" }
[[exceptions]]
path = \"acme\"
warn_percent = []
day.max_files = \"none\"
";
    let config = config(text);
    let policy = |path: &str| config.placement(&parts(path)).policy;
    let told = |path: &str| (policy(path).zone.to_string(), policy(path).steps.percents().to_vec());
    assert_eq!(told(""), ("Europe/Berlin".to_owned(), vec![50, 90]));
    assert_eq!(told("other/eva"), ("Europe/Berlin".to_owned(), vec![50, 90]));
    assert_eq!(told("acme"), ("Asia/Kolkata".to_owned(), vec![]));
    let tenant = Limits {
        soft_bytes: Some(1 << 30),
        grace_s: Some(36 * 3600),
        day_files: Some(100),
        month_bytes: Some(5 << 30),
        ..Limits::NONE
    };
    assert_eq!(policy("other").limits, tenant);
    assert_eq!(
        policy("acme").limits,
        Limits {
            day_files: None,
            ..tenant
        }
    );
    assert_eq!(
        Config::default().placement(&parts("acme")).policy.steps.percents(),
        [80]
    );
}
