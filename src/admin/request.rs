//! What handlers have in common: how parameters and bodies are read, and what is done beside the answer.

use axum::extract::{FromRequest, FromRequestParts};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::Services;
use super::access::Who;
use super::problem::Problem;
use crate::db::AuditRow;
use crate::quota::{Account, Bound, LimitUnit};

/// Entries of one answer at most.
pub const PAGE_MAX: usize = 1000;

/// A body as JSON; what is wrong with it is a problem document.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Problem))]
pub struct Body<T>(pub T);

/// Parameters behind the `?`.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

/// Parameters in the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Entries after this one.
    #[serde(default)]
    pub after: String,
    /// So many at most, 1,000 at the most.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u64>,
}

impl Page {
    pub fn size(&self) -> Result<usize, Problem> {
        let asked = self.limit.map_or(Some(PAGE_MAX), |limit| usize::try_from(limit).ok());
        asked
            .filter(|size| (1..=PAGE_MAX).contains(size))
            .ok_or_else(|| Problem::bad(format!("limit: not allowed; from 1 to {PAGE_MAX}")))
    }
}

/// A limit as JSON has it: a number, a text with a unit, `"none"`.
pub fn bound(value: Option<&Value>, name: &str, unit: LimitUnit) -> Result<Option<Bound>, Problem> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => return Err(Problem::bad(format!("{name}: {other} is no limit"))),
    };
    let read = unit.parse(&text).map_err(|e| Problem::bad(format!("{name}: {e}")))?;
    Ok(Some(read))
}

/// `/` is the mount.
pub fn path_of(account: &Account) -> String {
    format!("/{}", String::from_utf8_lossy(&account.path()))
}

/// Keeps who changed what.
pub fn note(services: &Services, who: &Who, action: &str, subject: &str, detail: String) {
    services.books.note(AuditRow {
        at_s: services.clock.now().as_secs(),
        who: who.name.clone(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail,
    });
}

/// Runs what waits for a disk where it holds up nobody.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| {
        log::error!("a request ended unexpectedly: {e}");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Err(Problem::new(
            status,
            "this request ended unexpectedly; the log has more",
        ))
    })
}
