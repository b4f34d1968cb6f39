//! Errors as RFC 9457 problem documents: what is wrong, by which figures, and what to do.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::fs::Errno;
use crate::quota::{Exceeded, ExternalError, Meter};

/// An error as it is answered, `application/problem+json`.
#[derive(Serialize, ToSchema, Debug)]
#[serde(transparent)]
pub struct Problem(Box<Details>);

/// Its members.
#[derive(Serialize, ToSchema, Debug)]
struct Details {
    /// What kind of problem, for programs; always `about:blank`, so the title is that of the status.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// What is wrong here, and what to do.
    detail: String,
    /// The counter that refuses: `message_count` or `bandwidth`, or a meter of storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    meter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<u64>,
    /// When the period ends, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<i64>,
    /// Seconds until then, for the header.
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            meter: None,
            used: None,
            limit: None,
            wanted: None,
            resets_at: None,
            retry_after_s: None,
        }))
    }

    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// A counter of a period refuses: 429, with the time until it begins anew.
    pub fn exceeded(tenant: &str, exceeded: &Exceeded, now_s: i64) -> Self {
        let Exceeded {
            meter,
            used,
            limit,
            wanted,
            resets_at_s,
        } = *exceeded;
        let name = counter_name(meter);
        let detail = format!("{tenant}: {name} is exhausted: used {used}, limit {limit}, wanted {wanted} more");
        let mut problem = Self::with_figures(StatusCode::TOO_MANY_REQUESTS, detail, name, [used, limit, wanted]);
        problem.0.resets_at = Some(resets_at_s);
        problem.0.retry_after_s = Some(resets_at_s.saturating_sub(now_s).max(1).unsigned_abs());
        problem
    }

    /// The directory of a tenant has no room: 507.
    pub fn no_room(path: &str, meter: &str, used: u64, limit: u64, wanted: u64) -> Self {
        let detail = format!("{path}: no room: {meter}: used {used}, limit {limit}, wanted {wanted} more");
        Self::with_figures(StatusCode::INSUFFICIENT_STORAGE, detail, meter, [used, limit, wanted])
    }

    /// Figures: used, limit, wanted.
    fn with_figures(status: StatusCode, detail: String, meter: &str, [used, limit, wanted]: [u64; 3]) -> Self {
        let mut problem = Self::new(status, detail);
        problem.0.meter = Some(meter.to_owned());
        problem.0.used = Some(used);
        problem.0.limit = Some(limit);
        problem.0.wanted = Some(wanted);
        problem
    }
}

/// As the quota tracker names its counters.
pub fn counter_name(meter: Meter) -> &'static str {
    if meter.is_bytes() { "bandwidth" } else { "message_count" }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.0.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

impl From<ExternalError> for Problem {
    fn from(e: ExternalError) -> Self {
        match e {
            ExternalError::Name => Self::bad(e.to_string()),
            ExternalError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, e.to_string()),
        }
    }
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE => {
                Self::not_found("there is no such directory in the mount")
            }
            Errno::EINVAL => Self::bad("a path is names with '/' between them, without '.', '..' or empty ones"),
            Errno(code) => {
                let text = std::io::Error::from_raw_os_error(code);
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the store answers: {text}"))
            }
        }
    }
}

impl From<crate::db::Error> for Problem {
    fn from(e: crate::db::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

pub async fn no_such_path() -> Problem {
    Problem::not_found("there is no such path; /openapi.json names those that there are")
}

pub async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path has no such method; /openapi.json names those that there are",
    )
}
