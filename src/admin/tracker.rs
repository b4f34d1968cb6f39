//! The quota tracker's paths: counters that programs feed, with their limits, and what the tenant's directory holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::access::Who;
use super::problem::{Problem, counter_name};
use super::replies::Reply;
use super::request::{Body, Page, Path, Query, bound, note, path_of};
use super::{Services, Shared};
use crate::config::Scope;
use crate::period::timestamp;
use crate::quota::{Bound, Exceeded, ExternalAmount, ExternalLimits, ExternalUsage, LimitUnit, Meter};

/// A tenant's counters and limits.
#[derive(Serialize, ToSchema)]
pub struct TenantQuota {
    tenant_id: String,
    /// Messages of the day.
    message_count: u64,
    /// `null`: unlimited.
    message_limit: Option<u64>,
    /// `YYYY-MM-DD`.
    message_period: String,
    message_resets_at: String,
    /// Bytes sent in the month.
    bytes_sent: u64,
    /// `null`: unlimited.
    bandwidth_limit_bytes: Option<u64>,
    /// `YYYY-MM`.
    bandwidth_period: String,
    bandwidth_resets_at: String,
    /// A counter has reached its limit.
    exceeded: bool,
    /// Which ones: `message_count`, `bandwidth`.
    exceeded_by: Vec<&'static str>,
    /// The directory of this name, as its attribute `user.tallyfs.quota.json` tells it.
    #[schema(value_type = Option<Object>)]
    storage: Option<Value>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Increment {
    tenant_id: String,
    #[serde(default)]
    message_count: u64,
    #[serde(default)]
    bytes_sent: u64,
    /// Count all or nothing, and answer 429 when it does not fit. Otherwise it counts in any case: it has happened.
    #[serde(default)]
    enforce: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    tenant_id: String,
    /// More messages that would come.
    #[serde(default)]
    message_count: u64,
    /// More bytes that would be sent.
    #[serde(default)]
    bytes_sent: u64,
    /// Bytes that would be stored in the tenant's directory.
    #[serde(default)]
    storage_bytes: u64,
    /// Answer 429 or 507 instead of `exceeded: true`.
    #[serde(default)]
    enforce: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Checked {
    tenant_id: String,
    exceeded: bool,
    /// `message_count`, `bandwidth`, or a meter of the directory: `bytes`.
    exceeded_by: Vec<String>,
    /// The first of them, with its figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Problem>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    tenant_id: String,
    /// Messages of a day: a number, or `"none"`. Not given: stays.
    #[schema(value_type = Option<Object>)]
    message_limit: Option<Value>,
    /// Bytes of a month: a number, a text such as `"5GiB"`, or `"none"`. Not given: stays.
    #[schema(value_type = Option<Object>)]
    bandwidth_limit_bytes: Option<Value>,
}

/// Counters of all tenants, by name.
#[utoipa::path(get, path = "/api/quota", params(Page), responses((status = 200, body = Vec<TenantQuota>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(services): Shared,
    who: Who,
    Query(page): Query<Page>,
) -> Result<Json<Vec<TenantQuota>>, Problem> {
    who.may(Scope::Read, None)?;
    let tracked = services.books.external.list();
    let mut names: BTreeSet<String> = tracked.into_iter().map(|(name, _)| name).collect();
    let tenants = services
        .fs
        .ledger()
        .watched()
        .into_iter()
        .filter(|account| account.is_tenant());
    names.extend(tenants.filter_map(|account| String::from_utf8(account.path()).ok()));
    let wanted = names.into_iter().filter(|name| *name > page.after).take(page.size()?);
    Ok(Json(wanted.map(|name| told(&services, &name)).collect()))
}

/// Counters of one tenant.
#[utoipa::path(get, path = "/api/quota/{tenant_id}", params(("tenant_id" = String, Path)),
    responses((status = 200, body = TenantQuota), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get(State(services): Shared, who: Who, Path(tenant): Path<String>) -> Result<Json<TenantQuota>, Problem> {
    who.may(Scope::Read, Some(&tenant))?;
    let found = told(&services, &tenant);
    if found.storage.is_none() && services.books.external.usage(&tenant).is_none() {
        return Err(unknown(&tenant));
    }
    Ok(Json(found))
}

/// Counts. With a header `Idempotency-Key`, the same request again is answered as the first one and counts no more.
#[utoipa::path(post, path = "/api/quota/increment", request_body = Increment,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = TenantQuota), (status = 429, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn increment(
    State(services): Shared,
    who: Who,
    headers: HeaderMap,
    Body(asked): Body<Increment>,
) -> Result<Response, Problem> {
    who.may(Scope::Quota, Some(&asked.tenant_id))?;
    let amount = ExternalAmount {
        messages: asked.message_count,
        bytes_sent: asked.bytes_sent,
    };
    let answer = || -> Result<Reply, Problem> {
        let external = &services.books.external;
        if asked.enforce {
            let refused = external.try_increment(&asked.tenant_id, amount)?;
            if let Some(first) = refused.first() {
                return Err(Problem::exceeded(&asked.tenant_id, first, services.clock.now_s()));
            }
        } else {
            external.increment(&asked.tenant_id, amount)?;
        }
        Ok(Reply::of(&told(&services, &asked.tenant_id)))
    };
    let Some(key) = headers.get("idempotency-key") else {
        return answer().map(IntoResponse::into_response);
    };
    let key = key
        .to_str()
        .map_err(|_| Problem::bad("Idempotency-Key: plain text alone"))?;
    let body = format!(
        "{} {} {} {}",
        asked.tenant_id, asked.message_count, asked.bytes_sent, asked.enforce
    );
    services
        .books
        .replies
        .once(
            &format!("{}\n{key}", who.name),
            &body,
            services.clock.monotonic(),
            answer,
        )
        .map(IntoResponse::into_response)
}

/// Says whether a counter has reached its limit, or would pass it.
#[utoipa::path(post, path = "/api/quota/check", request_body = Check,
    responses((status = 200, body = Checked), (status = 429, body = Problem, content_type = "application/problem+json"), (status = 507, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn check(State(services): Shared, who: Who, Body(asked): Body<Check>) -> Result<Json<Checked>, Problem> {
    who.may(Scope::Read, Some(&asked.tenant_id))?;
    let amount = ExternalAmount {
        messages: asked.message_count,
        bytes_sent: asked.bytes_sent,
    };
    let exceeded = services.books.external.check(&asked.tenant_id, amount)?;
    let mut exceeded_by: Vec<String> = exceeded
        .iter()
        .map(|exceeded| counter_name(exceeded.meter).to_owned())
        .collect();
    let no_room = no_room(&services, &asked);
    exceeded_by.extend(no_room.is_some().then(|| "bytes".to_owned()));
    let of_a_period = exceeded
        .first()
        .map(|first| Problem::exceeded(&asked.tenant_id, first, services.clock.now_s()));
    let reason = of_a_period.or(no_room);
    match reason {
        Some(problem) if asked.enforce => Err(problem),
        reason => Ok(Json(Checked {
            tenant_id: asked.tenant_id,
            exceeded: reason.is_some(),
            exceeded_by,
            reason,
        })),
    }
}

/// The tenant's directory has no room, or not enough.
fn no_room(services: &Services, asked: &Check) -> Option<Problem> {
    let account = services.fs.account_at(asked.tenant_id.as_bytes()).ok()?;
    let room = services.fs.ledger().available(&account).bytes?;
    if room.remaining > 0 && asked.storage_bytes <= room.remaining {
        return None;
    }
    Some(Problem::no_room(
        &path_of(&room.account),
        "bytes",
        room.used,
        room.limit,
        asked.storage_bytes,
    ))
}

/// Sets limits of a tenant's counters; those of its directory are set under `/api/v1/accounts`.
#[utoipa::path(post, path = "/api/quota/limits", request_body = SetLimits,
    responses((status = 200, body = TenantQuota), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn set_limits(
    State(services): Shared,
    who: Who,
    Body(asked): Body<SetLimits>,
) -> Result<Json<TenantQuota>, Problem> {
    who.may(Scope::Admin, Some(&asked.tenant_id))?;
    let messages = bound(asked.message_limit.as_ref(), "message_limit", LimitUnit::Count)?;
    let bandwidth = bound(
        asked.bandwidth_limit_bytes.as_ref(),
        "bandwidth_limit_bytes",
        LimitUnit::Bytes,
    )?;
    services
        .books
        .external
        .set_limits(&asked.tenant_id, |was| ExternalLimits {
            messages: messages.map_or(was.messages, Bound::limit),
            bandwidth_bytes: bandwidth.map_or(was.bandwidth_bytes, Bound::limit),
        })?;
    let written = [
        ("message_limit", messages, LimitUnit::Count),
        ("bandwidth_limit_bytes", bandwidth, LimitUnit::Bytes),
    ];
    let written = written
        .into_iter()
        .filter_map(|(name, bound, unit)| Some(format!("{name}={}", unit.exact(bound?))));
    note(
        &services,
        &who,
        "set",
        &asked.tenant_id,
        written.collect::<Vec<_>>().join(" "),
    );
    Ok(Json(told(&services, &asked.tenant_id)))
}

/// Begins both counters of a tenant anew.
#[utoipa::path(post, path = "/api/quota/{tenant_id}/reset", params(("tenant_id" = String, Path)),
    responses((status = 200, body = TenantQuota), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn reset(
    State(services): Shared,
    who: Who,
    Path(tenant): Path<String>,
) -> Result<Json<TenantQuota>, Problem> {
    who.may(Scope::Admin, Some(&tenant))?;
    if !services.books.external.reset(&tenant) {
        return Err(unknown(&tenant));
    }
    note(&services, &who, "reset", &tenant, String::new());
    Ok(Json(told(&services, &tenant)))
}

fn unknown(tenant: &str) -> Problem {
    Problem::not_found(format!("tenant '{tenant}' has neither counters nor a directory"))
}

fn told(services: &Arc<Services>, tenant: &str) -> TenantQuota {
    let external = &services.books.external;
    // A directory may have a name that no counter has.
    let exceeded: Vec<Exceeded> = external.check(tenant, ExternalAmount::default()).unwrap_or_default();
    let ExternalUsage { period, limits } = external.usage_or_new(tenant);
    let account = services.fs.account_at(tenant.as_bytes()).ok();
    let at = |seconds: i64| timestamp(seconds.max(0).unsigned_abs());
    TenantQuota {
        tenant_id: tenant.to_owned(),
        message_count: period.used(Meter::DayFiles),
        message_limit: limits.messages,
        message_period: period.day.day_key(),
        message_resets_at: at(period.day_ends_s),
        bytes_sent: period.used(Meter::MonthBytes),
        bandwidth_limit_bytes: limits.bandwidth_bytes,
        bandwidth_period: period.day.month_key(),
        bandwidth_resets_at: at(period.month_ends_s),
        exceeded: !exceeded.is_empty(),
        exceeded_by: exceeded.iter().map(|exceeded| counter_name(exceeded.meter)).collect(),
        storage: account.map(|account| services.fs.account_told(&account)),
    }
}
