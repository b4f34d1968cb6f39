//! Usage of the mount and of tenants: now, and day by day.

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Who;
use super::problem::Problem;
use super::request::{Query, blocking};
use super::{Services, Shared};
use crate::config::Scope;
use crate::db;
use crate::period::{CivilDate, DAY_S};
use crate::quota::{Account, Meter, Trend};

/// Days that are told where nobody says how many.
const DAYS_DEFAULT: u32 = 30;
/// Ten years.
const DAYS_MAX: u32 = 3660; // also in the description below
/// Usage at which the mount counts as nearly full, in percent.
const WARNING_PERCENT: f64 = 80.0;
const GIB: f64 = 1_073_741_824.0;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// So many days back, today included; 30 where it is not given, 3,660 at the most.
    #[param(minimum = 1, maximum = 3660)]
    days: Option<u32>,
    /// Path of a tenant; not given: the whole mount.
    #[serde(default)]
    tenant: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfWhom {
    /// Path of a tenant; not given: the whole mount.
    #[serde(default)]
    tenant: String,
}

/// One day (UTC), as the table `storage_usage_log` has it.
#[derive(Serialize, ToSchema)]
pub struct Day {
    date: String,
    /// At the last change of the day.
    total_files: u64,
    total_size_bytes: u64,
    recordings_added: u64,
    recordings_deleted: u64,
    bytes_added: u64,
    bytes_deleted: u64,
    /// Requests that a limit refused.
    denied: u64,
    /// What the sealed files took in the store at the last look; `null`: nobody had looked yet.
    physical_bytes: Option<u64>,
    /// The most that was there, looked at about once a second.
    peak_files: u64,
    peak_size_bytes: u64,
}

/// Usage of now.
#[derive(Serialize, ToSchema)]
pub struct Stats {
    total_files: u64,
    total_size_bytes: u64,
    /// What the sealed files take in the store, looked up now and then (a second after a change, minutes with millions of
    /// files); files that are being written are not in it. `null`: not looked up yet, or no tenant.
    physical_bytes: Option<u64>,
    /// In units of 2^30 bytes.
    total_size_gb: f64,
    /// The limit in units of 2^30 bytes; `null`: unlimited.
    quota_gb: Option<f64>,
    quota_bytes: Option<u64>,
    /// `null` where there is no limit.
    quota_percentage: Option<f64>,
    /// 80 % or more are used.
    is_quota_warning: bool,
    /// Since midnight of the account's time zone.
    recordings_added_today: u64,
    bytes_added_today: u64,
    /// By the line through the last 30 days; `null` where the history has less than three, or cannot be read.
    growth_bytes_per_day: Option<i64>,
    /// When that line meets the limit, `YYYY-MM-DD`; `null`: there is no limit, or not within ten years.
    full_on: Option<String>,
}

/// Days with a change, the newest first.
#[utoipa::path(get, path = "/api/v1/usage/history", params(Asked),
    responses((status = 200, body = Vec<Day>), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn history(State(services): Shared, who: Who, Query(asked): Query<Asked>) -> Result<Json<Vec<Day>>, Problem> {
    let tenant = asked.tenant.trim_matches('/').to_owned();
    who.may(Scope::Read, (!tenant.is_empty()).then_some(&tenant))?;
    let days = asked.days.unwrap_or(DAYS_DEFAULT);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Problem::bad(format!(
            "days: {days} is not allowed; from 1 to {DAYS_MAX}"
        )));
    }
    let now_s = services.clock.now_s();
    let first = CivilDate::from_unix_s(now_s - i64::from(days - 1) * DAY_S).day_key();
    let path = services.database.clone();
    let rows = blocking(move || Ok(db::open_read_only(&path)?.days(&tenant, days)?)).await?;
    let told = rows.into_iter().filter(|row| row.date >= first).map(|row| Day {
        date: row.date,
        total_files: row.total_files,
        total_size_bytes: row.total_size_bytes,
        recordings_added: row.recordings_added,
        recordings_deleted: row.recordings_deleted,
        bytes_added: row.bytes_added,
        bytes_deleted: row.bytes_deleted,
        denied: row.denied,
        physical_bytes: row.physical_bytes,
        peak_files: row.peak_files,
        peak_size_bytes: row.peak_size_bytes,
    });
    Ok(Json(told.collect()))
}

/// The mount or one tenant now.
#[utoipa::path(get, path = "/api/v1/usage/stats", params(OfWhom),
    responses((status = 200, body = Stats), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn stats(State(services): Shared, who: Who, Query(asked): Query<OfWhom>) -> Result<Json<Stats>, Problem> {
    let tenant = asked.tenant.trim_matches('/');
    who.may(Scope::Read, (!tenant.is_empty()).then_some(tenant))?;
    let account = services.fs.account_at(tenant.as_bytes())?;
    let usage = services.fs.ledger().usage(&account);
    let limit = usage.limits.bytes;
    let percentage = limit.map(|limit| match limit {
        0 => 100.0,
        limit => rounded(float(usage.total.bytes) / float(limit) * 100.0),
    });
    let today = account.period(services.fs.ledger().now_s());
    let trend = trend(&services, &account).await;
    let day = CivilDate::from_unix_s(services.clock.now_s());
    let full_on = |limit| trend?.full_on(day, usage.total.bytes, limit);
    let used = |meter| today.as_ref().map_or(0, |today| today.used(meter));
    Ok(Json(Stats {
        total_files: usage.total.files,
        total_size_bytes: usage.total.bytes,
        physical_bytes: services.books.physical.of(account.ino()),
        total_size_gb: rounded(float(usage.total.bytes) / GIB),
        quota_gb: limit.map(|limit| rounded(float(limit) / GIB)),
        quota_bytes: limit,
        quota_percentage: percentage,
        is_quota_warning: percentage.is_some_and(|percentage| percentage >= WARNING_PERCENT),
        recordings_added_today: used(Meter::DayFiles),
        bytes_added_today: used(Meter::DayBytes),
        growth_bytes_per_day: trend.map(|trend| trend.bytes_per_day.round() as i64),
        full_on: limit.and_then(full_on).map(CivilDate::day_key),
    }))
}

/// Of the days that are saved; they are history, and nobody has to wait for a database that does not answer.
async fn trend(services: &Services, account: &Account) -> Option<Trend> {
    let (path, tenant) = (services.database.clone(), account.display_path());
    let read = blocking(move || Ok(db::open_read_only(&path)?.days(&tenant, DAYS_DEFAULT)?));
    let first = CivilDate::from_unix_s(services.clock.now_s() - i64::from(DAYS_DEFAULT - 1) * DAY_S);
    let mut totals: Vec<_> = read
        .await
        .ok()?
        .into_iter()
        .filter_map(|row| Some((CivilDate::from_day_key(&row.date)?, row.total_size_bytes)))
        .filter(|(day, _)| *day >= first)
        .collect();
    totals.reverse();
    Trend::of(&totals)
}

#[expect(clippy::cast_precision_loss, reason = "for people; programs take the bytes")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// To three places: enough for people; programs take the bytes.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
