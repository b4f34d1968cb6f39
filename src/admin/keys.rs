//! Keys of the store: what there are, a new one taken in, recordings brought under it, an old one destroyed.
//!
//! No key goes over the wire: a new one lies in a file that its maker may read, and the daemon does.

use std::io;
use std::path::{Path, PathBuf};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::access::Who;
use super::problem::Problem;
use super::request::{Body, blocking, note};
use crate::config::Scope;
use crate::fs::{KeyInfo, RotationProgress, RotationState};
use crate::period::timestamp;

/// Whoever keeps the keys of the store.
pub trait KeyDesk: Send + Sync {
    /// Where the next start finds a new key without being told; `None`: keys come from no file.
    fn next_file(&self) -> Option<PathBuf>;
    /// Makes the key in a file the current one of the store or of a tenant.
    ///
    /// # Errors
    /// What is wrong with it.
    fn adopt(&self, file: &Path, tenant: Option<&str>) -> Result<u32, String>;
    /// Has recordings brought under the keys of now, in the background, and over restarts.
    ///
    /// # Errors
    /// That cannot be noted.
    fn rewrap(&self) -> io::Result<()>;
    /// Forgets a key for ever; one that anything needs only `with_recordings`.
    ///
    /// # Errors
    /// It cannot be.
    fn destroy(&self, id: u32, with_recordings: bool) -> Result<(), String>;
}

/// One key of the ring.
#[derive(Serialize, ToSchema)]
pub struct Key {
    id: u32,
    /// `active`, `retired` or `destroyed`.
    state: &'static str,
    /// Whose recordings are under it; `null`: those of all tenants without a key of their own.
    tenant: Option<String>,
    created_at: String,
    destroyed_at: Option<String>,
    /// The daemon has it.
    given: bool,
}

/// A recording that stays under its old key.
#[derive(Serialize, ToSchema)]
pub struct Left {
    path: String,
    reason: String,
}

/// How far bringing recordings under the current keys is.
#[derive(Serialize, ToSchema)]
pub struct Rotation {
    /// `none`, `running`, `waiting` (for recordings that are being written) or `done`.
    state: &'static str,
    /// Files, some more than once.
    looked_at: u64,
    changed: u64,
    open: u64,
    left_count: u64,
    /// The first hundred.
    left: Vec<Left>,
}

/// Keys, and what is being done about them.
#[derive(Serialize, ToSchema)]
pub struct Keys {
    #[serde(rename = "keys")]
    ring: Vec<Key>,
    /// Where the file of a new key goes, when it is to be found at the next start without being named.
    next_file: Option<String>,
    rotation: Rotation,
}

/// A new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// A file that holds it and nothing else, mode 0400 or 0600.
    file: String,
    /// Path of the tenant whose recordings are to be under it; not given: those of all who have no key of their own.
    #[serde(default)]
    tenant: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct Adopted {
    id: u32,
}

/// A key that is to be gone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Doomed {
    id: u32,
    /// The id again.
    confirm: u32,
    /// Also when recordings are under it, or it seals new ones of a tenant.
    #[serde(default)]
    with_recordings: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Destroyed {
    id: u32,
}

/// All keys, and how far a rotation is.
#[utoipa::path(get, path = "/api/v1/keys",
    responses((status = 200, body = Keys), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(services): Shared, who: Who) -> Result<Json<Keys>, Problem> {
    who.may(Scope::Read, None)?;
    let ring = services.fs.ring();
    let next_file = services.keys.next_file().map(|file| file.display().to_string());
    Ok(Json(Keys {
        ring: ring.list().into_iter().map(key).collect(),
        next_file,
        rotation: rotation(services.fs.rotation().progress()),
    }))
}

/// Takes a key in; new recordings are sealed under it from now on, old ones stay under theirs.
#[utoipa::path(post, path = "/api/v1/keys", request_body = NewKey,
    responses((status = 200, body = Adopted), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn adopt(State(services): Shared, who: Who, Body(asked): Body<NewKey>) -> Result<Json<Adopted>, Problem> {
    who.may(Scope::Admin, None)?;
    let tenant = asked
        .tenant
        .as_deref()
        .map(|tenant| tenant.trim_matches('/').to_owned());
    if let Some(tenant) = &tenant {
        let account = services.fs.account_at(tenant.as_bytes());
        if tenant.is_empty() || !account.is_ok_and(|account| account.is_tenant()) {
            return Err(Problem::bad(format!("tenant: '{tenant}' is no directory of a tenant")));
        }
    }
    let (desk, subject) = (services.clone(), tenant.clone().unwrap_or_else(|| "*".to_owned()));
    let adopted = blocking(move || Ok(desk.keys.adopt(Path::new(&asked.file), tenant.as_deref()))).await?;
    let id = adopted.map_err(|text| Problem::new(StatusCode::CONFLICT, text))?;
    note(&services, &who, "add key", &subject, format!("key {id}"));
    Ok(Json(Adopted { id }))
}

/// Brings recordings under the current keys in the background; asked again, it begins anew. How far it is: `GET /api/v1/keys`.
#[utoipa::path(post, path = "/api/v1/keys/rewrap",
    responses((status = 200, body = Rotation), (status = "4XX", body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn rewrap(State(services): Shared, who: Who) -> Result<Json<Rotation>, Problem> {
    who.may(Scope::Admin, None)?;
    let desk = services.clone();
    let begun = blocking(move || Ok(desk.keys.rewrap())).await?;
    begun.map_err(|e| {
        let text = format!("that this is to be done cannot be noted in the store: {e}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    note(
        &services,
        &who,
        "rewrap",
        "*",
        "recordings go under the current keys".to_owned(),
    );
    Ok(Json(rotation(services.fs.rotation().progress())))
}

/// Forgets a key for ever: recordings under it are unreadable from then on; those that are open can be read until they are
/// closed. Its file stays, for whoever asked to remove.
#[utoipa::path(post, path = "/api/v1/keys/destroy", request_body = Doomed,
    responses((status = 200, body = Destroyed), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn destroy(State(services): Shared, who: Who, Body(asked): Body<Doomed>) -> Result<Json<Destroyed>, Problem> {
    who.may(Scope::Admin, None)?;
    let Doomed {
        id,
        confirm,
        with_recordings,
    } = asked;
    if id != confirm {
        return Err(Problem::bad("confirm: is not the id of the key"));
    }
    let desk = services.clone();
    let destroyed = blocking(move || Ok(desk.keys.destroy(id, with_recordings))).await?;
    destroyed.map_err(|text| Problem::new(StatusCode::CONFLICT, text))?;
    let detail = "recordings under it are unreadable for ever".to_owned();
    note(&services, &who, "destroy", &format!("key {id}"), detail);
    Ok(Json(Destroyed { id }))
}

fn key(info: KeyInfo) -> Key {
    Key {
        id: info.id,
        state: info.state.name(),
        tenant: info.tenant,
        created_at: timestamp(info.created_s),
        destroyed_at: info.destroyed_s.map(timestamp),
        given: info.is_given,
    }
}

fn rotation(progress: RotationProgress) -> Rotation {
    let left = progress.left.into_iter();
    Rotation {
        state: match progress.state {
            RotationState::None => "none",
            RotationState::Running => "running",
            RotationState::Waiting => "waiting",
            RotationState::Done => "done",
        },
        looked_at: progress.looked_at,
        changed: progress.changed,
        open: progress.open,
        left_count: progress.left_count,
        left: left.map(|(path, reason)| Left { path, reason }).collect(),
    }
}
