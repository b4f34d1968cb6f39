//! Figures for Prometheus, taken when they are asked for.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::access::Who;
use super::problem::Problem;
use super::request::path_of;
use super::{Services, Shared};
use crate::config::Scope;
use crate::quota::Meter;

/// Accounts with figures of their own; beyond that the fullest are told and the rest only counted, so that no scrape
/// grows without bound.
const ACCOUNTS_MAX: usize = 1000;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<i64>>;

/// In the text form of OpenMetrics.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "application/openmetrics-text", body = String), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn metrics(State(services): Shared, who: Who) -> Result<Response, Problem> {
    who.may(Scope::Read, None)?;
    let mut registry = Registry::with_prefix("tallyfs");
    put_accounts(&services, &mut registry);
    put_daemon(&services, &mut registry);
    let mut text = String::new();
    // A String takes all.
    let _ = encode(&mut text, &registry);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn put_accounts(services: &Services, registry: &mut Registry) {
    let (used, limits) = (Gauges::default(), Gauges::default());
    let now_s = services.fs.ledger().now_s();
    let mut accounts = services.fs.ledger().watched();
    let all_count = accounts.len();
    if accounts.len() > ACCOUNTS_MAX {
        accounts.sort_by_key(|account| std::cmp::Reverse(account.total().bytes));
        accounts.truncate(ACCOUNTS_MAX);
    }
    for account in &accounts {
        for meter in Meter::ALL {
            let Some(state) = account.state_of(meter, now_s) else {
                continue;
            };
            let labels: Labels = vec![("path", path_of(account)), ("meter", meter.key().to_owned())];
            used.get_or_create(&labels).set(signed(state.used));
            if let Some(limit) = state.limit {
                limits.get_or_create(&labels).set(signed(limit));
            }
        }
    }
    registry.register(
        "account_used",
        "What counts against a limit: bytes of plaintext, files or directories",
        used,
    );
    registry.register("account_limit", "Hard limits, where there are any", limits);
    registry.register(
        "accounts",
        "Tenants, the mount, and directories with limits",
        gauge(all_count as u64),
    );
}

fn put_daemon(services: &Services, registry: &mut Registry) {
    let refusals = Family::<Labels, Counter>::default();
    for (meter, count) in services.fs.refusal_counts() {
        refusals
            .get_or_create(&vec![("meter", meter.key().to_owned())])
            .inc_by(count);
    }
    registry.register("refusals", "Requests refused by a limit since the start", refusals);
    let writer = (services.writer)();
    let behind_s = writer.behind_by(services.clock.now()).as_secs();
    registry.register(
        "write_back_behind_seconds",
        "How long usage could not be saved",
        gauge(behind_s),
    );
    registry.register(
        "quota_miscounts",
        "Figures that would have fallen below zero; anything but 0 is a bug",
        ConstCounter::new(services.fs.ledger().miscounts_count()),
    );
    registry.register(
        "quota_waiting",
        "Requests that wait for room that others may give back",
        gauge(services.fs.ledger().waiting_count() as u64),
    );
    registry.register(
        "directories",
        "Directories in the mount",
        gauge(services.fs.ledger().accounts_count() as u64),
    );
}

/// Gauges are signed there; what does not fit is told as the largest.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn gauge(value: u64) -> Gauge<i64> {
    let gauge = Gauge::default();
    gauge.set(signed(value));
    gauge
}
