//! Whether the daemon lives, and whether it is well.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;

/// Longest lag of the database that is still well, in seconds: beyond the longest of its usual pauses.
const BEHIND_WELL_MAX_S: u64 = 5;

#[derive(Serialize, ToSchema)]
pub struct Health {
    status: &'static str,
    version: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Ready {
    ready: bool,
    database: DatabaseHealth,
}

#[derive(Serialize, ToSchema)]
struct DatabaseHealth {
    ok: bool,
    /// How long nothing could be written, in seconds.
    behind_s: u64,
    /// The last error ever.
    last_error: Option<String>,
}

/// The daemon answers.
#[utoipa::path(get, path = "/health", responses((status = 200, body = Health)))]
pub async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Recordings are served in any case; 503 says that usage is not being saved.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub async fn ready(State(services): Shared) -> (StatusCode, Json<Ready>) {
    let status = (services.writer)();
    let behind_s = status.behind_by(services.clock.now()).as_secs();
    let ok = behind_s <= BEHIND_WELL_MAX_S;
    let told = Ready {
        ready: ok,
        database: DatabaseHealth {
            ok,
            behind_s,
            last_error: status.last_error,
        },
    };
    let code = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(told))
}
