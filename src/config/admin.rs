//! The interface for programs, checked ([`Admin`], [`Tracker`]) and as it is written.

use crate::quota::ExternalLimits;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::template::{BytesForm, CountForm};
use crate::quota::Bound;
use crate::units::hex;

/// Messages of a day, where nobody says otherwise: the quota tracker's default.
const MESSAGES_DEFAULT: u64 = 50_000;
/// Bytes sent in a month, likewise.
const BANDWIDTH_DEFAULT_BYTES: u64 = 100 << 30;

/// Where and for whom the HTTP interface is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Admin {
    /// Its Unix socket.
    pub socket: AdminSocket,
    /// A TCP address of this machine alone, asked for with tokens.
    pub listen: Option<SocketAddr>,
    /// Everybody who reaches the Unix socket may read.
    pub open_to_readers: bool,
    /// Who may come over TCP.
    pub tokens: Vec<Token>,
}

/// Where the Unix socket is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum AdminSocket {
    /// `admin.sock` in the store.
    #[default]
    InStore,
    /// Nowhere.
    Off,
    /// At this path.
    At(PathBuf),
}

/// Somebody who may ask over TCP. Only the hash of the secret is known here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// For the log.
    pub name: String,
    /// SHA-256 of the secret's text.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The only tenant that it may ask about.
    pub tenant: Option<String>,
}

/// What a caller may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask.
    Read,
    /// Feed counters.
    Quota,
    /// Set limits and reset counters.
    Admin,
}

/// Counters that programs feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracker {
    /// Limits of tenants that were given none.
    pub limits: ExternalLimits,
    /// Periods end by themselves.
    pub auto_reset: bool,
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            limits: ExternalLimits {
                messages: Some(MESSAGES_DEFAULT),
                bandwidth_bytes: Some(BANDWIDTH_DEFAULT_BYTES),
            },
            auto_reset: true,
        }
    }
}

impl Admin {
    /// Takes a TCP address that only this machine reaches.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn loopback(text: &str) -> Result<SocketAddr, String> {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("'{text}' is no address; allowed: 127.0.0.1:8183 or [::1]:8183"))?;
        if address.ip().is_loopback() {
            return Ok(address);
        }
        Err(format!(
            "'{text}' can be reached from elsewhere, and there is no TLS here; allowed: 127.0.0.1:8183 or [::1]:8183, with a \
             proxy in front of it for others"
        ))
    }
}

#[derive(Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminForm {
    socket: Option<String>,
    listen: Option<ListenForm>,
    open_to_readers: bool,
    tokens: Vec<TokenForm>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct TokenForm {
    name: String,
    sha256: DigestForm,
    scopes: Vec<Scope>,
    tenant: Option<String>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TrackerForm {
    message_limit: CountForm,
    bandwidth_limit: BytesForm,
    auto_reset: bool,
}

struct ListenForm(SocketAddr);

struct DigestForm([u8; 32]);

impl<'de> Deserialize<'de> for ListenForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Admin::loopback(&text).map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for ListenForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DigestForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        let pairs: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
                _ => None,
            })
            .collect();
        let digest = pairs.and_then(|bytes| bytes.try_into().ok());
        // The text is not repeated: somebody may have put the secret there.
        digest.map(Self).ok_or_else(|| {
            de::Error::custom("not the SHA-256 of a token; allowed: the 64 hex digits that `tallyfs token` prints")
        })
    }
}

impl Serialize for DigestForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl AdminForm {
    pub(super) fn admin(self) -> Admin {
        let tokens = self.tokens.into_iter().map(|form| Token {
            name: form.name,
            sha256: form.sha256.0,
            scopes: form.scopes,
            tenant: form.tenant,
        });
        Admin {
            socket: match self.socket.as_deref() {
                None => AdminSocket::InStore,
                Some("none") => AdminSocket::Off,
                Some(path) => AdminSocket::At(path.into()),
            },
            listen: self.listen.map(|form| form.0),
            open_to_readers: self.open_to_readers,
            tokens: tokens.collect(),
        }
    }

    pub(super) fn of(admin: &Admin) -> Self {
        let tokens = admin.tokens.iter().map(|token| TokenForm {
            name: token.name.clone(),
            sha256: DigestForm(token.sha256),
            scopes: token.scopes.clone(),
            tenant: token.tenant.clone(),
        });
        Self {
            socket: match &admin.socket {
                AdminSocket::InStore => None,
                AdminSocket::Off => Some("none".to_owned()),
                AdminSocket::At(path) => Some(path.to_string_lossy().into_owned()),
            },
            listen: admin.listen.map(ListenForm),
            open_to_readers: admin.open_to_readers,
            tokens: tokens.collect(),
        }
    }
}

impl Default for TrackerForm {
    fn default() -> Self {
        Self::of(Tracker::default())
    }
}

impl TrackerForm {
    pub(super) fn tracker(self) -> Tracker {
        Tracker {
            limits: ExternalLimits {
                messages: self.message_limit.0.limit(),
                bandwidth_bytes: self.bandwidth_limit.0.limit(),
            },
            auto_reset: self.auto_reset,
        }
    }

    pub(super) fn of(tracker: Tracker) -> Self {
        let bound = |limit: Option<u64>| limit.map_or(Bound::Unlimited, Bound::from_number);
        Self {
            message_limit: CountForm(bound(tracker.limits.messages)),
            bandwidth_limit: BytesForm(bound(tracker.limits.bandwidth_bytes)),
            auto_reset: tracker.auto_reset,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Quota => "quota",
            Self::Admin => "admin",
        })
    }
}
