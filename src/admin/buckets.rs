//! The paths of IronBucket: a tenant as a bucket, its quota in JSON and in headers.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::access::Who;
use super::problem::Problem;
use super::tracker::{Path, Query};
use crate::config::Scope;
use crate::period::timestamp;

#[derive(Deserialize, IntoParams)]
pub struct Asked {
    /// The quota; asked for by its name alone.
    #[param(value_type = Option<String>, allow_reserved)]
    quota: Option<String>,
}

/// As IronBucket's `.quota` file has it.
#[derive(Serialize, ToSchema)]
pub struct BucketQuota {
    /// `null`: unlimited.
    max_size_bytes: Option<u64>,
    current_usage_bytes: u64,
    object_count: u64,
    /// RFC 3339, UTC.
    last_updated: String,
}

/// Quota of a tenant.
#[utoipa::path(get, path = "/buckets/{tenant}", params(("tenant" = String, Path), Asked),
    responses((status = 200, body = BucketQuota, headers(
        ("X-Amz-Bucket-Usage" = u64, description = "bytes"),
        ("X-Amz-Bucket-Quota" = u64, description = "bytes; not sent where there is no limit"),
        ("X-Amz-Bucket-Objects" = u64))),
    (status = "4XX", body = Problem)))]
pub async fn get(
    State(services): Shared,
    who: Who,
    Path(tenant): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<(HeaderMap, Json<BucketQuota>), Problem> {
    who.may(Scope::Read, Some(&tenant))?;
    if asked.quota.is_none() {
        return Err(Problem::bad("ask for /buckets/TENANT?quota"));
    }
    let account = services.fs.account_at(tenant.as_bytes())?;
    let usage = services.fs.ledger().usage(&account);
    let told = BucketQuota {
        max_size_bytes: usage.limits.bytes,
        current_usage_bytes: usage.total.bytes,
        object_count: usage.total.files,
        last_updated: timestamp(services.clock.now().as_secs()),
    };
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: u64| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    };
    put("x-amz-bucket-usage", told.current_usage_bytes);
    put("x-amz-bucket-objects", told.object_count);
    if let Some(limit) = told.max_size_bytes {
        put("x-amz-bucket-quota", limit);
    }
    Ok((headers, Json(told)))
}
