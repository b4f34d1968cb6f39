//! The body of a webhook: that of Alertmanager's, version 4, so that whatever takes those takes ours. One notice is a
//! group of one alert.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::attempt::Origin;
use super::notice::{Notice, Status, kind_name};
use crate::config::NoticeKind;
use crate::period::timestamp;

/// How Alertmanager says that an alert has not ended.
const NO_END: &str = "0001-01-01T00:00:00Z";

type Labels = BTreeMap<&'static str, String>;

/// The body for one receiver.
pub fn body(notice: &Notice, origin: &Origin, receiver: &str) -> Value {
    let (labels, annotations) = (labels(notice, origin), annotations(notice));
    let group: Labels = ["alertname", "path"]
        .into_iter()
        .filter_map(|name| Some((name, labels.get(name)?.clone())))
        .collect();
    let ends_at = match notice.status {
        Status::Firing => NO_END.to_owned(),
        Status::Resolved => time(notice.at_s),
    };
    json!({
        "version": "4",
        "groupKey": group_key(&group),
        "truncatedAlerts": 0,
        "status": notice.status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": origin.external_url,
        "alerts": [{
            "status": notice.status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": time(notice.began_s),
            "endsAt": ends_at,
            "generatorURL": origin.external_url,
            "fingerprint": format!("{:016x}", fingerprint(&labels)),
        }],
    })
}

/// What tells one alert from another: the same when it begins and when it is over.
fn labels(notice: &Notice, origin: &Origin) -> Labels {
    let mut labels = Labels::from([
        ("alertname", alert_name(notice.kind).to_owned()),
        ("severity", severity(notice.kind).to_owned()),
        ("instance", origin.instance.clone()),
        ("store", origin.store.clone()),
        ("kind", kind_name(notice.kind).to_owned()),
        ("path", notice.path.clone()),
    ]);
    let more = [
        ("tenant", notice.tenant.clone()),
        ("level", notice.level.clone()),
        ("meter", notice.meter.clone()),
        ("percent", notice.percent.map(|percent| percent.to_string())),
    ];
    labels.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    labels
}

fn annotations(notice: &Notice) -> Labels {
    let mut annotations = Labels::from([("summary", notice.summary.clone())]);
    let more = [
        ("used", notice.used.map(|used| used.to_string())),
        ("limit", notice.limit.map(|limit| limit.to_string())),
        ("until", notice.until.clone()),
    ];
    annotations.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    annotations
}

fn alert_name(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::NearLimit => "TallyfsNearLimit",
        NoticeKind::OverSoft => "TallyfsOverSoftLimit",
        NoticeKind::Refused => "TallyfsRefused",
        NoticeKind::Clock => "TallyfsClockLeapt",
        NoticeKind::Database => "TallyfsDatabaseNotWritten",
        NoticeKind::Test => "TallyfsTest",
    }
}

fn severity(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::NearLimit | NoticeKind::OverSoft | NoticeKind::Clock => "warning",
        NoticeKind::Refused | NoticeKind::Database => "critical",
        NoticeKind::Test => "info",
    }
}

/// As Alertmanager writes it: the route, here none, and the labels of the group.
fn group_key(group: &Labels) -> String {
    let labels: Vec<String> = group
        .iter()
        .map(|(name, value)| format!("{name}={}", Value::from(value.as_str())))
        .collect();
    format!("{{}}:{{{}}}", labels.join(", "))
}

/// FNV-1a over names and values in order, as Prometheus reckons it.
fn fingerprint(labels: &Labels) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for (name, value) in labels {
        name.bytes().for_each(&mut add);
        add(0xff);
        value.bytes().for_each(&mut add);
        add(0xff);
    }
    hash
}

fn time(unix_s: i64) -> String {
    timestamp(unix_s.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            instance: "rec1".to_owned(),
            store: "/var/lib/tallyfs".to_owned(),
            external_url: "https://calls.example.com".to_owned(),
        }
    }

    fn notice(status: Status, at_s: i64) -> Notice {
        let times_s = [1_795_219_200, at_s];
        Notice::of_daemon(
            NoticeKind::Database,
            status,
            times_s,
            "usage is not \"saved\"\n".to_owned(),
        )
    }

    #[test]
    fn the_body_is_alertmanagers_and_an_end_has_the_fingerprint_of_its_beginning() {
        let fired = body(&notice(Status::Firing, 1_795_219_200), &origin(), "ops");
        let over = body(&notice(Status::Resolved, 1_795_219_260), &origin(), "ops");
        for (body, status, ends_at) in [
            (&fired, "firing", "0001-01-01T00:00:00Z"),
            (&over, "resolved", "2026-11-21T00:01:00Z"),
        ] {
            assert_eq!((&body["version"], &body["receiver"]), (&json!("4"), &json!("ops")));
            assert_eq!(
                body["groupKey"],
                r#"{}:{alertname="TallyfsDatabaseNotWritten", path="/"}"#
            );
            let alert = &body["alerts"][0];
            assert_eq!((&body["status"], &alert["status"]), (&json!(status), &json!(status)));
            assert_eq!(
                (&alert["startsAt"], &alert["endsAt"]),
                (&json!("2026-11-21T00:00:00Z"), &json!(ends_at))
            );
            assert_eq!(alert["labels"], body["commonLabels"]);
            assert_eq!(alert["annotations"]["summary"], "usage is not \"saved\"\n");
            assert_eq!(body["externalURL"], "https://calls.example.com");
        }
        assert_eq!(fired["alerts"][0]["fingerprint"], over["alerts"][0]["fingerprint"]);
    }

    #[test]
    fn the_fingerprint_is_that_of_prometheus() {
        // Of no label it is the basis of the hash.
        assert_eq!(fingerprint(&Labels::new()), 14_695_981_039_346_656_037);
        let one = Labels::from([("a", "b".to_owned())]);
        let other = Labels::from([("a", "c".to_owned())]);
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
