//! The interface for programs: HTTP over a Unix socket, and over loopback TCP by choice.
//!
//! A handler reads a request, calls one function of what lies below, and writes the answer; nothing is decided here
//! but who may. It lives in a thread of its own: whatever happens here, recordings go on. Paths of directories are one
//! part of an address, their slashes escaped (`acme%2Fsales`).
#![expect(unused_qualifications, reason = "the macro that describes paths writes them")]

mod access;
mod accounts;
mod books;
mod buckets;
mod deliveries;
mod health;
mod keys;
mod metrics;
mod physical;
mod problem;
mod replies;
mod request;
mod server;
mod tracker;
mod usage;

#[cfg(test)]
mod tests;

pub use access::{Access, secret_hash};
pub use books::Books;
pub use keys::KeyDesk;
pub use metrics::StartFacts;
pub use physical::Physical;
pub use server::{Listeners, Running, start};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::get;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::openapi::{InfoBuilder, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::alert::Board;
use crate::clock::Clock;
use crate::db::{Errands, WriterStatus};
use crate::fs::FileSystem;
use crate::metrics::RequestTimes;

/// Longest body of a request.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Longest time for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Requests that are answered at a time; more wait.
const REQUESTS_MAX: usize = 64;

/// What requests are answered from.
pub struct Services {
    /// Accounts and limits.
    pub fs: Arc<FileSystem>,
    /// Counters that programs feed, and who changed what.
    pub books: Arc<Books>,
    /// The database, read beside its writer.
    pub database: PathBuf,
    /// How its writer does.
    pub writer: Box<dyn Fn() -> WriterStatus + Send + Sync>,
    /// How long requests took.
    pub requests: Arc<RequestTimes>,
    /// How the daemon started.
    pub start: StartFacts,
    /// Whoever keeps the keys.
    pub keys: Box<dyn KeyDesk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who may what.
    pub access: Access,
    /// Who gets notices.
    pub board: Arc<Board>,
    /// What is written into the outbox.
    pub errands: Errands,
}

/// As every handler gets it.
type Shared = axum::extract::State<Arc<Services>>;

/// All paths, with the description that is made from them.
fn paths() -> OpenApiRouter<Arc<Services>> {
    let info = InfoBuilder::new()
        .title("TallyFS")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Usage, limits and counters of a mounted store of call recordings.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().info(info).build())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(tracker::list))
        .routes(routes!(tracker::get))
        .routes(routes!(tracker::increment))
        .routes(routes!(tracker::check))
        .routes(routes!(tracker::set_limits))
        .routes(routes!(tracker::reset))
        .routes(routes!(buckets::get))
        .routes(routes!(buckets::stats))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::get, accounts::set))
        .routes(routes!(accounts::reset))
        .routes(routes!(accounts::alerts))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::retry))
        .routes(routes!(deliveries::test))
        .routes(routes!(keys::list, keys::adopt))
        .routes(routes!(keys::rewrap))
        .routes(routes!(keys::destroy))
        .routes(routes!(usage::history))
        .routes(routes!(usage::stats))
}

/// Everything that is served.
fn router(services: Arc<Services>) -> Router {
    let (router, api) = paths().split_for_parts();
    router
        .route("/openapi.json", get(move || async move { Json(api) }))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            ANSWER_TIME_MAX,
        ))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS_MAX))
        .with_state(services)
}
