//! `tallyfs alerts`: what became of notices, dead ones tried again, receivers tested.

use std::path::Path;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{AlertsCommand, DaemonArgs};
use super::client::{Client, escaped};
use super::exit::{Code, Failure};
use super::quota::to_json;
use super::request::read_config;
use super::table::table;
use super::{print, subject};
use crate::alert::{Notice, Origin, Status, try_now};
use crate::clock::{Clock, SystemClock};
use crate::config::NoticeKind;

/// Entries of one answer.
const PAGE: usize = 1000;
/// What the table shows at most; `--json` has all.
const ROWS_MAX: usize = 1000;
/// The id of a test that does not go through the daemon: nobody keeps it.
const TEST_ID: &str = "msg_test";

#[derive(Deserialize)]
struct Delivery {
    id: String,
    receiver: String,
    state: String,
    kind: String,
    path: String,
    created: String,
    attempts: u32,
    last_error: Option<String>,
}

/// Runs one of its commands.
///
/// # Errors
/// Nobody answers, a receiver takes nothing, or what is asked for is refused.
pub fn run(command: &AlertsCommand) -> Result<Code, Failure> {
    match command {
        AlertsCommand::List { store, dead, json } => list(&client(store)?, *dead, *json),
        AlertsCommand::Test {
            store,
            receiver,
            config: None,
        } => {
            let path = format!("/api/v1/alerts/receivers/{}/test", escaped(receiver.as_bytes()));
            let told = client(store)?.ask(Method::POST, &path, None)?;
            let id = told["id"].as_str().unwrap_or_default();
            print(&format!("{receiver} took the test notice {id}"))
        }
        AlertsCommand::Test {
            store,
            receiver,
            config: Some(config),
        } => test_from_here(&store.path, receiver, config),
        AlertsCommand::Retry { store, id, all } => {
            let asked = json!({ "id": id, "all": all });
            let told = client(store)?.ask(Method::POST, "/api/v1/alerts/deliveries/retry", Some(&asked))?;
            print(&format!("{} notices are tried again", told["retried"]))
        }
    }
}

fn client(store: &DaemonArgs) -> Result<Client, Failure> {
    Client::of(&store.path, store.socket.as_deref())
}

/// Page after page, the newest first.
fn list(client: &Client, is_dead: bool, is_json: bool) -> Result<Code, Failure> {
    let state = if is_dead { "&state=dead" } else { "" };
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/alerts/deliveries?limit={PAGE}&after={after}{state}");
        let page = client.ask(Method::GET, &path, None)?;
        let page = page.as_array().cloned().unwrap_or_default();
        let is_last = page.len() < PAGE;
        after = page
            .last()
            .and_then(|last| last["cursor"].as_str())
            .map_or_else(String::new, |cursor| escaped(cursor.as_bytes()));
        all.extend(page);
        if is_last || (!is_json && all.len() >= ROWS_MAX) {
            break;
        }
    }
    if is_json {
        return print(&to_json(&all));
    }
    let deliveries: Vec<Delivery> = serde_json::from_value(Value::Array(all))
        .map_err(|e| Failure::new(Code::Failed, format!("the daemon of another version answers ({e})")))?;
    if deliveries.is_empty() {
        return print("no notices");
    }
    let head = [
        "created",
        "id",
        "receiver",
        "state",
        "attempts",
        "kind",
        "path",
        "last error",
    ]
    .map(String::from);
    let rows = deliveries.into_iter().map(|delivery| {
        [
            delivery.created,
            delivery.id,
            delivery.receiver,
            delivery.state,
            delivery.attempts.to_string(),
            delivery.kind,
            plain(&delivery.path),
            plain(&delivery.last_error.unwrap_or_default()),
        ]
    });
    print(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

/// A name may hold what moves a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Without a daemon, as this user and by this configuration.
fn test_from_here(store: &Path, receiver: &str, config: &Path) -> Result<Code, Failure> {
    let root = subject::find(store)?.paths.root;
    let alerts = read_config(config)?.alerts;
    let found = alerts.receivers.iter().find(|known| known.name == receiver);
    let found = found.ok_or_else(|| {
        let text = format!("{}: there is no receiver '{receiver}'", config.display());
        Failure::new(Code::Config, text)
    })?;
    let at_s = SystemClock::new().now_s();
    let summary = "a test: notices arrive here".to_owned();
    let notice = Notice::of_daemon(NoticeKind::Test, Status::Firing, [at_s; 2], summary);
    let answer = try_now(found, &Origin::here(&root, &alerts), &notice, TEST_ID);
    answer.map_err(|reason| Failure::new(Code::Failed, format!("{receiver}: {reason}")))?;
    print(&format!("{receiver} took the test notice {TEST_ID}"))
}
