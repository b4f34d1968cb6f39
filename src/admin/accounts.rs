//! Accounts of directories: usage and limits, set and told, and which of them need somebody's attention.

use std::str::from_utf8;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::access::Who;
use super::problem::Problem;
use super::request::{Body, Page, Path, Query, blocking, bound, note, path_of};
use super::{Services, Shared};
use crate::config::Scope;
use crate::period::timestamp;
use crate::quota::{Account, Bound, LimitKey, Meter};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Accounts of this level alone, such as `tenant`.
    pub level: Option<String>,
}

/// Limits to set, by name; `null` or `"default"`: the configuration's again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Names as in `tallyfs quota set`: `max_bytes`, `day.max_files` and so on; values are numbers, texts with a unit such as
    /// `"5GiB"` or `"36h"`, or `"none"`.
    #[schema(value_type = Object)]
    limits: Map<String, Value>,
}

/// Something that somebody should look at.
#[derive(Serialize, ToSchema)]
pub struct Alert {
    /// Of the directory; `/` is the mount.
    path: String,
    /// `full`: growth is refused; `over_soft`: a soft limit is passed; `near_limit`: a step of warnings is reached;
    /// `database`: usage is not being saved.
    kind: &'static str,
    /// `bytes`, `files`, `dirs`, `day.files`, `day.bytes`, `month.files`, `month.bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    meter: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// When it ends by itself (the period), or begins to refuse (the grace).
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// What is wrong, where figures do not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Tenants, the mount, and directories with limits, by path.
#[utoipa::path(get, path = "/api/v1/accounts", params(Page, Which),
    responses((status = 200, body = Vec<Object>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(services): Shared,
    who: Who,
    Query(page): Query<Page>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Value>>, Problem> {
    who.may(Scope::Read, None)?;
    let mut accounts: Vec<(String, Arc<Account>)> = services
        .fs
        .ledger()
        .watched()
        .into_iter()
        .filter(|account| which.level.is_none() || account.level() == which.level)
        .map(|account| (path_of(&account), account))
        .filter(|(path, _)| *path > page.after)
        .collect();
    accounts.sort_by(|(a, _), (b, _)| a.cmp(b));
    let wanted = accounts.iter().take(page.size()?);
    Ok(Json(
        wanted.map(|(_, account)| services.fs.account_told(account)).collect(),
    ))
}

/// One directory.
#[utoipa::path(get, path = "/api/v1/accounts/{path}", params(("path" = String, Path)),
    responses((status = 200, body = Object), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get(State(services): Shared, who: Who, Path(path): Path<String>) -> Result<Json<Value>, Problem> {
    let (tenant, account) = find(&services, &path)?;
    who.may(Scope::Read, tenant.as_deref())?;
    Ok(Json(services.fs.account_told(&account)))
}

/// Sets limits of a directory; they count at once and are durable when the answer comes.
#[utoipa::path(put, path = "/api/v1/accounts/{path}", params(("path" = String, Path)), request_body = Changes,
    responses((status = 200, body = Object), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn set(
    State(services): Shared,
    who: Who,
    Path(path): Path<String>,
    Body(asked): Body<Changes>,
) -> Result<Json<Value>, Problem> {
    let (tenant, account) = find(&services, &path)?;
    who.may(Scope::Admin, tenant.as_deref())?;
    let mut changes: Vec<(LimitKey, Option<Bound>)> = Vec::new();
    for (name, value) in &asked.limits {
        let key = LimitKey::named(name).ok_or_else(|| {
            let names = LimitKey::ALL.map(LimitKey::name).join(", ");
            Problem::bad(format!("'{name}' is no limit; limits are {names}"))
        })?;
        let is_default = value.as_str() == Some("default");
        changes.push((
            key,
            if is_default {
                None
            } else {
                bound(Some(value), name, key.unit())?
            },
        ));
    }
    let (fs, changed, written) = (services.fs.clone(), account.clone(), changes.clone());
    blocking(move || fs.set_limits_of(&changed, &written).map_err(Problem::from)).await?;
    let texts = changes.iter().map(|(key, bound)| match bound {
        Some(bound) => format!("{}={}", key.name(), key.exact(*bound)),
        None => format!("{}=default", key.name()),
    });
    note(
        &services,
        &who,
        "set",
        &path_of(&account),
        texts.collect::<Vec<_>>().join(" "),
    );
    Ok(Json(services.fs.account_told(&account)))
}

/// Begins the day and the month of a directory anew.
#[utoipa::path(post, path = "/api/v1/reset/{path}", params(("path" = String, Path)),
    responses((status = 200, body = Object), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn reset(State(services): Shared, who: Who, Path(path): Path<String>) -> Result<Json<Value>, Problem> {
    let (tenant, account) = find(&services, &path)?;
    who.may(Scope::Admin, tenant.as_deref())?;
    if !services.fs.ledger().reset_period(&account) {
        let detail = "periods are counted for tenants, the mount, and directories with limits alone";
        return Err(Problem::not_found(detail));
    }
    note(&services, &who, "reset", &path_of(&account), String::new());
    Ok(Json(services.fs.account_told(&account)))
}

/// What needs somebody's attention now, the most urgent first.
#[utoipa::path(get, path = "/api/v1/alerts", responses((status = 200, body = Vec<Alert>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn alerts(State(services): Shared, who: Who) -> Result<Json<Vec<Alert>>, Problem> {
    who.may(Scope::Read, None)?;
    let now_s = services.fs.ledger().now_s();
    let status = (services.writer)();
    let mut found: Vec<Alert> = status
        .failing_since
        .map(|_| database_alert(status.last_error))
        .into_iter()
        .collect();
    for account in services.fs.ledger().watched() {
        found.extend(Meter::ALL.into_iter().filter_map(|meter| alert(&account, meter, now_s)));
    }
    found.sort_by(|a, b| (urgency(a), &a.path, a.meter).cmp(&(urgency(b), &b.path, b.meter)));
    Ok(Json(found))
}

fn urgency(alert: &Alert) -> usize {
    let order = ["database", "full", "over_soft", "near_limit"];
    order.iter().position(|kind| *kind == alert.kind).unwrap_or(order.len())
}

fn database_alert(last_error: Option<String>) -> Alert {
    Alert {
        path: "/".to_owned(),
        kind: "database",
        meter: None,
        used: None,
        limit: None,
        until: None,
        detail: last_error,
    }
}

fn alert(account: &Account, meter: Meter, now_s: i64) -> Option<Alert> {
    let state = account.state_of(meter, now_s)?;
    let kind = match (state.is_full(), state.is_over_soft(), state.warned_percent) {
        (true, ..) => "full",
        (false, true, _) => "over_soft",
        (false, false, 1..) => "near_limit",
        (false, false, 0) => return None,
    };
    Some(Alert {
        path: path_of(account),
        kind,
        meter: Some(meter.key()),
        used: Some(state.used),
        limit: if kind == "over_soft" { state.soft } else { state.limit },
        until: state.until_s.map(|seconds| timestamp(seconds.max(0).unsigned_abs())),
        detail: None,
    })
}

/// The account, and the tenant that it belongs to.
fn find(services: &Services, path: &str) -> Result<(Option<String>, Arc<Account>), Problem> {
    let below = path.trim_matches('/');
    let account = services.fs.account_at(below.as_bytes())?;
    let mut at = Some(account.clone());
    while let Some(here) = at {
        if here.is_tenant() {
            return Ok((from_utf8(&here.path()).ok().map(str::to_owned), account));
        }
        at = here.parent();
    }
    Ok((None, account))
}
