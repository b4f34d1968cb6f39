//! Notices on their way: what became of them, dead ones tried again, receivers tested.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::access::Who;
use super::problem::Problem;
use super::request::{Body, PAGE_MAX, Path, Query, blocking, note};
use crate::config::Scope;
use crate::db::{self, OutboxRow, OutboxState};
use crate::period::timestamp;

/// Between the id and the receiver of a cursor; no name of a receiver holds one.
const CURSOR_GAP: char = ' ';

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// `pending`, `delivered` or `dead`; all where it is not given.
    state: Option<String>,
    /// The `cursor` of the last entry of the page before; empty: from the newest on.
    #[serde(default)]
    after: String,
    /// Entries at most, up to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A notice for one receiver.
#[derive(Serialize, ToSchema)]
pub struct Delivery {
    /// The same for all receivers of a notice, and for each attempt: the header `webhook-id`.
    id: String,
    receiver: String,
    /// `pending`, `delivered` or `dead`.
    state: &'static str,
    /// `near_limit`, `over_soft`, `refused`, `clock`.
    kind: String,
    /// Of the directory; `/` is the mount.
    path: String,
    /// The sentence.
    summary: String,
    created: String,
    attempts: u32,
    /// When it is tried next; of a pending one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<String>,
    /// When it was delivered or given up, or tried last.
    changed: String,
    /// What the last failed attempt got for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// For the parameter `after`.
    cursor: String,
}

/// Which dead notices: one, by its id, or all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Retried {
    /// So many are tried again.
    retried: usize,
}

#[derive(Serialize, ToSchema)]
pub struct Tested {
    /// The test notice's id.
    id: String,
    receiver: String,
}

/// Notices for receivers, the newest first.
#[utoipa::path(get, path = "/api/v1/alerts/deliveries", params(Which),
    responses((status = 200, body = Vec<Delivery>), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(services): Shared,
    who: Who,
    Query(asked): Query<Which>,
) -> Result<Json<Vec<Delivery>>, Problem> {
    who.may(Scope::Read, None)?;
    let state = match &asked.state {
        Some(name) => Some(OutboxState::named(name).ok_or_else(|| {
            let states = OutboxState::ALL.map(OutboxState::name).join(", ");
            Problem::bad(format!("state: '{name}' is none; allowed: {states}"))
        })?),
        None => None,
    };
    let count = asked.limit.unwrap_or(100);
    if count == 0 || count as usize > PAGE_MAX {
        return Err(Problem::bad(format!(
            "limit: {count} is not allowed; from 1 to {PAGE_MAX}"
        )));
    }
    let path = services.database.clone();
    let rows = blocking(move || {
        let after = asked.after.split_once(CURSOR_GAP);
        Ok(db::open_read_only(&path)?.outbox(state, after, count)?)
    });
    Ok(Json(rows.await?.into_iter().map(delivery).collect()))
}

/// Tries dead notices again, at once.
#[utoipa::path(post, path = "/api/v1/alerts/deliveries/retry", request_body = Retry,
    responses((status = 200, body = Retried), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn retry(State(services): Shared, who: Who, Body(asked): Body<Retry>) -> Result<Json<Retried>, Problem> {
    who.may(Scope::Admin, None)?;
    if asked.all == asked.id.is_some() {
        return Err(Problem::bad("name an id, or say \"all\": true"));
    }
    let (id, now_s) = (asked.id.clone(), services.clock.now().as_secs());
    let (answer, told) = tokio::sync::oneshot::channel();
    let is_taken = services.errands.hand_over(move |database| {
        // Who asked may be gone.
        let _ = answer.send(database.retry_notices(id.as_deref(), now_s));
    });
    let unwell = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database cannot be written; /readyz says why",
        )
    };
    let told = if is_taken { told.await.ok() } else { None };
    let retried = told.ok_or_else(unwell)??;
    if let Some(id) = asked.id.as_deref().filter(|_| retried == 0) {
        return Err(Problem::not_found(format!("no dead notice has the id '{id}'")));
    }
    services.board.ring_at_once();
    note(
        &services,
        &who,
        "retry",
        asked.id.as_deref().unwrap_or("*"),
        format!("{retried} notices"),
    );
    Ok(Json(Retried { retried }))
}

/// Sends a test notice to a receiver, and says whether it took it.
#[utoipa::path(post, path = "/api/v1/alerts/receivers/{name}/test", params(("name" = String, Path)),
    responses((status = 200, body = Tested), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = 502, body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn test(State(services): Shared, who: Who, Path(name): Path<String>) -> Result<Json<Tested>, Problem> {
    who.may(Scope::Admin, None)?;
    if !services.board.has(&name) {
        return Err(Problem::not_found(services.board.no_such(&name)));
    }
    let answer = services.board.test(&name).await;
    let id = answer.map_err(|reason| Problem::new(StatusCode::BAD_GATEWAY, format!("{name}: {reason}")))?;
    Ok(Json(Tested { id, receiver: name }))
}

fn delivery(row: OutboxRow) -> Delivery {
    let notice: serde_json::Value = serde_json::from_str(&row.notice).unwrap_or_default();
    let is_pending = row.state == OutboxState::Pending;
    Delivery {
        cursor: format!("{}{CURSOR_GAP}{}", row.id, row.receiver),
        state: row.state.name(),
        summary: notice["summary"].as_str().unwrap_or_default().to_owned(),
        created: timestamp(row.created_s),
        next_attempt: is_pending.then(|| timestamp(row.next_ms / 1000)),
        changed: timestamp(row.changed_s),
        id: row.id,
        receiver: row.receiver,
        kind: row.kind,
        path: row.path,
        attempts: row.attempts,
        last_error: row.last_error,
    }
}
