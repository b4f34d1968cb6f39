//! One attempt to hand a notice to a receiver, whatever its way, in bounded time.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::body::body;
use super::hook::{self, Hook};
use super::mail;
use super::notice::{Notice, Status, kind_name};
use super::post::{self, Message, Target};
use super::secret::Secret;
use crate::config::{Alerts, Receiver, Way};
use crate::period::timestamp;

/// Who tells it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the machine.
    pub instance: String,
    /// Path of the store.
    pub store: String,
    /// What links begin with; may be empty.
    pub external_url: String,
}

impl Origin {
    /// This machine and this store.
    pub fn here(store: &Path, alerts: &Alerts) -> Self {
        let system = rustix::system::uname();
        Self {
            instance: system.nodename().to_string_lossy().into_owned(),
            store: store.to_string_lossy().into_owned(),
            external_url: alerts.external_url.clone(),
        }
    }
}

/// Why a receiver has not taken a notice, as far as is known.
#[derive(Debug)]
pub struct Failed {
    /// For the log and the row. Holds no secret.
    pub reason: String,
    /// The receiver asks not to be tried before.
    pub retry_after: Option<Duration>,
    /// No other attempt will do.
    pub is_final: bool,
}

impl Failed {
    pub fn because(reason: &dyn fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            retry_after: None,
            is_final: false,
        }
    }
}

/// A notice under its id, and who tells it.
#[derive(Clone, Copy)]
pub struct Parcel<'a> {
    pub id: &'a str,
    pub notice: &'a Notice,
    pub origin: &'a Origin,
    /// Seconds since 1970.
    pub now_s: u64,
}

/// Tries once.
///
/// # Errors
/// The receiver has not said that it took it.
pub async fn attempt(receiver: &Receiver, parcel: Parcel<'_>) -> Result<(), Failed> {
    let limit = Duration::from_secs(receiver.time_limit_s);
    match timeout(limit, hand_over(receiver, parcel)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failed::because(&format_args!("no answer within {} s", limit.as_secs()))),
    }
}

/// Tries once, here and now, and waits for the answer.
///
/// # Errors
/// What the receiver answered.
pub fn try_now(receiver: &Receiver, origin: &Origin, notice: &Notice, id: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let parcel = Parcel {
        id,
        notice,
        origin,
        now_s: notice.at_s.max(0).unsigned_abs(),
    };
    let answer = runtime.block_on(attempt(receiver, parcel));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    answer.map_err(|failed| failed.reason)
}

async fn hand_over(receiver: &Receiver, parcel: Parcel<'_>) -> Result<(), Failed> {
    let Parcel {
        id,
        notice,
        origin,
        now_s,
    } = parcel;
    match &receiver.way {
        Way::Webhook {
            url,
            secret_file,
            ca_file,
        } => {
            let secret = secret_file.as_deref().map(Secret::read).transpose();
            let target = Target {
                url,
                secret: secret.map_err(|e| Failed::because(&e))?,
                ca_file: ca_file.as_deref(),
            };
            let body = body(notice, origin, &receiver.name).to_string();
            post::post(target, Message { id, at_s: now_s, body }).await
        }
        Way::Exec { command } => {
            let (program, arguments) = command
                .split_first()
                .ok_or_else(|| Failed::because(&"no program is named"))?;
            hook::run(Hook {
                program: Path::new(program),
                arguments: arguments.iter().map(String::as_str).collect(),
                variables: variables(receiver, parcel),
                input: body(notice, origin, &receiver.name).to_string().into_bytes(),
            })
            .await
        }
        Way::Mail { program, from, to } => {
            let message = mail::message(notice, origin, id, from.as_deref(), to, now_s);
            let mut arguments = vec!["-i"];
            if let Some(from) = from {
                arguments.extend(["-f", from]);
            }
            arguments.push("--");
            arguments.extend(to.iter().map(String::as_str));
            hook::run(Hook {
                program,
                arguments,
                variables: Vec::new(),
                input: message.into_bytes(),
            })
            .await
        }
    }
}

/// A notice as the environment of a program.
fn variables(receiver: &Receiver, parcel: Parcel<'_>) -> Vec<(&'static str, String)> {
    let Notice {
        kind,
        status,
        at_s,
        path,
        tenant,
        meter,
        percent,
        used,
        limit,
        until,
        summary,
        ..
    } = parcel.notice;
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let status = match status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut variables = vec![
        ("TALLYFS_NOTICE_ID", parcel.id.to_owned()),
        ("TALLYFS_RECEIVER", receiver.name.clone()),
        ("TALLYFS_KIND", kind_name(*kind).to_owned()),
        ("TALLYFS_STATUS", status.to_owned()),
        ("TALLYFS_AT", timestamp((*at_s).max(0).unsigned_abs())),
        ("TALLYFS_STORE", parcel.origin.store.clone()),
        ("TALLYFS_PATH", path.clone()),
        ("TALLYFS_TENANT", text(tenant)),
        ("TALLYFS_METER", text(meter)),
        ("TALLYFS_PERCENT", number(percent.map(u64::from))),
        ("TALLYFS_USED", number(*used)),
        ("TALLYFS_LIMIT", number(*limit)),
        ("TALLYFS_UNTIL", text(until)),
        ("TALLYFS_SUMMARY", summary.clone()),
    ];
    // No name of a file holds one, and no variable takes one.
    for (_, value) in &mut variables {
        value.retain(|c| c != '\0');
    }
    variables
}
