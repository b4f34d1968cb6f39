//! Figures for Prometheus, taken when they are asked for. All names stand in `accounts`, `daemon` and `notices`; units are the base
//! ones (bytes, seconds, shares of 1), and a name that was published stays.

mod accounts;
mod daemon;
mod form;
mod notices;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;

use super::access::Who;
use super::problem::Problem;
use super::request::blocking;
use super::{Services, Shared};
use crate::config::Scope;
use form::Form;

/// What is known of the start of the daemon.
#[derive(Clone, Debug)]
pub struct StartFacts {
    /// When it began, since 1970.
    pub at: Duration,
    /// How the ledger came to be: `clean`, `replay` or `scan`.
    pub recovery: &'static str,
    /// How long that took, with recordings that were being written.
    pub recovery_took: Duration,
    /// Recordings that were being written when the last daemon ended.
    pub recovered_count: u64,
    /// Those of them that do not open.
    pub damaged_count: u64,
}

/// In the text form of Prometheus, or in that of OpenMetrics where it is asked for (`Accept`).
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, content((String = "text/plain"), (String = "application/openmetrics-text"))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn metrics(State(services): Shared, who: Who, headers: HeaderMap) -> Result<Response, Problem> {
    who.may(Scope::Read, None)?;
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let form = Form::of(&accepted.join(","));
    // Apart from the loop that answers everybody else.
    let text = blocking(move || Ok(form.encode(&registry(&services)))).await?;
    let told = [(header::CONTENT_TYPE, form.content_type()), (header::VARY, "accept")];
    Ok((told, text).into_response())
}

fn registry(services: &Arc<Services>) -> Registry {
    let mut registry = Registry::default();
    daemon::put_process(services, &mut registry);
    let ours = registry.sub_registry_with_prefix("tallyfs");
    accounts::put(services, ours);
    daemon::put(services, ours);
    notices::put(services, ours);
    registry
}
