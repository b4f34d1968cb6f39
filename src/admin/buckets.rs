//! A tenant as IronBucket has a bucket: its quota in JSON and in headers, and what was done in a month.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Who;
use super::problem::Problem;
use super::request::{Path, Query, blocking};
use super::{Services, Shared};
use crate::config::Scope;
use crate::db;
use crate::period::{CivilDate, timestamp};
use crate::quota::{Account, BucketQuota, BucketStats, OperationCounts, OperationKind};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// The quota; told too where nothing is asked for.
    #[param(value_type = Option<String>)]
    #[serde(rename = "quota")]
    _quota: Option<String>,
    /// What was done in a month; asked for by its name alone.
    #[param(value_type = Option<String>)]
    stats: Option<String>,
    /// That month, `YYYY-MM`; not given: the one that is (UTC).
    #[param(pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    month: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Month {
    /// `YYYY-MM`; not given: the one that is (UTC).
    #[param(pattern = "^[0-9]{4}-(0[1-9]|1[0-2])$")]
    month: Option<String>,
}

/// Either, by what was asked for.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Told {
    Quota(BucketQuota),
    Stats(BucketStats),
}

/// What was done below a tenant in a month.
#[derive(Serialize, ToSchema)]
pub struct TenantStats {
    tenant: String,
    /// `YYYY-MM`, UTC.
    month: String,
    read: u64,
    write: u64,
    create: u64,
    delete: u64,
    list: u64,
    stat: u64,
    /// Refused by a limit.
    denied: u64,
}

/// What was done below a tenant in a month (`?stats`), or its quota (`?quota`).
#[utoipa::path(get, path = "/buckets/{tenant}", params(("tenant" = String, Path), Asked),
    responses((status = 200, body = Told, headers(
        ("X-Amz-Bucket-Usage" = u64, description = "bytes"),
        ("X-Amz-Bucket-Quota" = u64, description = "bytes; not sent where there is no limit"),
        ("X-Amz-Bucket-Objects" = u64))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    State(services): Shared,
    who: Who,
    Path(tenant): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<(HeaderMap, Json<Told>), Problem> {
    who.may(Scope::Read, Some(&tenant))?;
    let account = services.fs.account_at(tenant.as_bytes())?;
    let usage = services.fs.ledger().usage(&account);
    let last_updated = timestamp(services.clock.now().as_secs());
    let told = if asked.stats.is_none() {
        Told::Quota(BucketQuota::new(&usage, last_updated))
    } else {
        let (_, counts) = operations(&services, &account, asked.month).await?;
        Told::Stats(BucketStats::new(counts, last_updated))
    };
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: u64| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    };
    put("x-amz-bucket-usage", usage.total.bytes);
    put("x-amz-bucket-objects", usage.total.files);
    if let Some(limit) = usage.limits.bytes {
        put("x-amz-bucket-quota", limit);
    }
    Ok((headers, Json(told)))
}

/// What was done below a tenant in a month.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/stats", params(("tenant" = String, Path), Month),
    responses((status = 200, body = TenantStats), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn stats(
    State(services): Shared,
    who: Who,
    Path(tenant): Path<String>,
    Query(asked): Query<Month>,
) -> Result<Json<TenantStats>, Problem> {
    who.may(Scope::Read, Some(&tenant))?;
    let account = services.fs.account_at(tenant.as_bytes())?;
    let (month, counts) = operations(&services, &account, asked.month).await?;
    Ok(Json(TenantStats {
        tenant,
        month,
        read: counts.of(OperationKind::Read),
        write: counts.of(OperationKind::Write),
        create: counts.of(OperationKind::Create),
        delete: counts.of(OperationKind::Delete),
        list: counts.of(OperationKind::List),
        stat: counts.of(OperationKind::Stat),
        denied: counts.of(OperationKind::Denied),
    }))
}

/// Counts of a month (`None`: the one that is): what is saved, and of the month that is also what is not.
async fn operations(
    services: &Services,
    account: &Arc<Account>,
    month: Option<String>,
) -> Result<(String, OperationCounts), Problem> {
    let now_s = services.clock.now().as_secs();
    let current = CivilDate::from_unix_s(now_s.cast_signed()).month_key();
    let month = month.unwrap_or_else(|| current.clone());
    if CivilDate::from_month_key(&month).is_none() {
        return Err(Problem::bad(format!(
            "month: '{month}' is not allowed; YYYY-MM such as {current}"
        )));
    }
    if !account.is_tenant() && !account.is_root() {
        return Err(Problem::not_found("operations are counted for tenants alone"));
    }
    let (path, tenant, asked) = (services.database.clone(), account.display_path(), month.clone());
    let saved = blocking(move || Ok(db::open_read_only(&path)?.operations(&tenant, &asked)?)).await?;
    let pending = if month == current {
        account.pending_operations()
    } else {
        OperationCounts::default()
    };
    Ok((month, saved.plus(pending)))
}
