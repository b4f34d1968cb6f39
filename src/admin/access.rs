//! Who asks, and what they may: by the credentials that the kernel knows on the Unix socket, by a token over TCP.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use sha2::{Digest, Sha256};

use super::Services;
use super::problem::Problem;
use crate::config::{Scope, Token};

/// Who may what.
pub struct Access {
    /// Group whose members steer, beside root.
    pub administrators: Option<u32>,
    /// The user who runs the daemon steers too.
    pub daemon_uid: u32,
    /// Everybody who reaches the Unix socket may read.
    pub open_to_readers: bool,
    /// Who may come over TCP.
    pub tokens: Vec<Token>,
}

/// Where a connection comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A process of this machine, as the kernel knows it.
    Local {
        /// Its user.
        uid: u32,
        /// Its groups.
        groups: Vec<u32>,
    },
    /// Anybody who can reach the port.
    Tcp,
}

/// Somebody who was let in.
#[derive(Debug)]
pub struct Who {
    /// For the log and the audit.
    pub name: String,
    scopes: Vec<Scope>,
    tenant: Option<String>,
}

/// SHA-256 of a token's text.
pub fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

impl Who {
    /// Passes who has this scope; `tenant` is what the request is about, `None` for all.
    pub fn may(&self, scope: Scope, tenant: Option<&str>) -> Result<(), Problem> {
        if !self.scopes.contains(&scope) {
            let detail = format!("'{}' has no scope '{scope}'", self.name);
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        match &self.tenant {
            Some(own) if tenant != Some(own.as_str()) => {
                let detail = format!("'{}' may ask about tenant '{own}' alone", self.name);
                Err(Problem::new(StatusCode::FORBIDDEN, detail))
            }
            _ => Ok(()),
        }
    }
}

impl Access {
    pub(super) fn local(&self, uid: u32, groups: &[u32]) -> Result<Who, Problem> {
        let steers =
            uid == 0 || uid == self.daemon_uid || self.administrators.is_some_and(|group| groups.contains(&group));
        let scopes = match (steers, self.open_to_readers) {
            (true, _) => vec![Scope::Read, Scope::Quota, Scope::Admin],
            (false, true) => vec![Scope::Read],
            (false, false) => {
                let detail = "only root and members of the group `access.administrators` may ask; `admin.open_to_readers = \
                              true` in the configuration lets everybody read";
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
        };
        Ok(Who {
            name: format!("uid {uid}"),
            scopes,
            tenant: None,
        })
    }

    pub(super) fn bearer(&self, header: Option<&str>) -> Result<Who, Problem> {
        let wrong = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let secret = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim())
            .ok_or_else(|| wrong("send `Authorization: Bearer TOKEN`; `tallyfs token` makes one"))?;
        let hash = secret_hash(secret);
        // All are compared: how long it takes tells nothing about which.
        let mut found = None;
        for token in &self.tokens {
            if is_same(&token.sha256, &hash) {
                found = Some(token);
            }
        }
        let token = found.ok_or_else(|| wrong("this token is not known"))?;
        Ok(Who {
            name: format!("token {}", token.name),
            scopes: token.scopes.clone(),
            tenant: token.tenant.clone(),
        })
    }
}

/// In the same time whatever differs.
fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

impl FromRequestParts<Arc<Services>> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Arc<Services>) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|info| &info.0);
        match peer {
            Some(Peer::Local { uid, groups }) => services.access.local(*uid, groups),
            Some(Peer::Tcp) | None => {
                let header = parts.headers.get(header::AUTHORIZATION);
                services.access.bearer(header.and_then(|value| value.to_str().ok()))
            }
        }
    }
}
