//! What is told: one form for the log, for the outbox and for all receivers.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::config::NoticeKind;
use crate::period::timestamp;
use crate::quota::{Account, EventKind, Meter};
use crate::units::format_bytes;

/// Paths are told up to this length: no message grows without bound.
const PATH_CHARS_MAX: usize = 1000;

/// Whether something begins or is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is so.
    Firing,
    /// It is so no longer.
    Resolved,
}

/// Something that somebody should know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// Whether it begins or is over.
    pub status: Status,
    /// When it was noticed, seconds since 1970.
    pub at_s: i64,
    /// When it began; the same, unless it is over.
    pub began_s: i64,
    /// Of the directory; `/` is the mount.
    pub path: String,
    /// Path of the tenant that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Level of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// `bytes`, `day.files` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// The step that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// What is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Of which limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When it begins to refuse, or stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The sentence.
    pub summary: String,
}

/// As a configuration and a row name it.
pub fn kind_name(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::NearLimit => "near_limit",
        NoticeKind::OverSoft => "over_soft",
        NoticeKind::Refused => "refused",
        NoticeKind::Clock => "clock",
        NoticeKind::Database => "database",
        NoticeKind::Test => "test",
    }
}

impl Notice {
    /// Of an event of an account.
    pub fn of(account: &Account, event: &EventKind, at_s: i64) -> Self {
        let path = String::from_utf8_lossy(&account.path()).into_owned();
        let place = if account.is_root() {
            "the mount".to_owned()
        } else {
            format!("'{path}'")
        };
        let mut notice = Self {
            path: shortened(format!("/{path}")),
            tenant: tenant_of(account),
            level: account.level(),
            summary: shortened(place),
            ..Self::bare(NoticeKind::NearLimit, at_s)
        };
        notice.put_event(event);
        notice
    }

    /// About the daemon itself.
    pub fn of_daemon(kind: NoticeKind, status: Status, times_s: [i64; 2], summary: String) -> Self {
        let [began_s, at_s] = times_s;
        Self {
            status,
            began_s,
            summary,
            ..Self::bare(kind, at_s)
        }
    }

    fn bare(kind: NoticeKind, at_s: i64) -> Self {
        Self {
            kind,
            status: Status::Firing,
            at_s,
            began_s: at_s,
            path: "/".to_owned(),
            tenant: None,
            level: None,
            meter: None,
            percent: None,
            used: None,
            limit: None,
            until: None,
            summary: String::new(),
        }
    }

    /// What is different by kind; the sentence begins with the place.
    fn put_event(&mut self, event: &EventKind) {
        match *event {
            EventKind::Warning {
                meter,
                percent,
                used,
                limit,
            } => {
                self.percent = Some(percent);
                self.put_figures(meter, used, Some(limit));
                let (used, limit) = (Amount(meter, used), Amount(meter, limit));
                self.say(format_args!(
                    "{percent} % of the limit of {meter} is reached: {used} of {limit}"
                ));
            }
            EventKind::OverSoft {
                meter,
                used,
                limit,
                grace_ends_s,
            } => {
                self.kind = NoticeKind::OverSoft;
                self.until = grace_ends_s.map(time);
                self.put_figures(meter, used, Some(limit));
                let then = match grace_ends_s {
                    Some(ends_s) => format!("growth is refused from {} on, unless it falls below", time(ends_s)),
                    None => "nothing is refused".to_owned(),
                };
                let (used, limit) = (Amount(meter, used), Amount(meter, limit));
                self.say(format_args!(
                    "the soft limit of {meter} is passed: {used} of {limit}; {then}"
                ));
            }
            EventKind::BelowSoft { meter, used, since_s } => {
                self.kind = NoticeKind::OverSoft;
                self.status = Status::Resolved;
                self.began_s = since_s;
                self.put_figures(meter, used, None);
                self.say(format_args!(
                    "below the soft limit of {meter} again: {}",
                    Amount(meter, used)
                ));
            }
            EventKind::Refused {
                meter,
                reason,
                used,
                limit,
                wanted,
            } => {
                self.kind = NoticeKind::Refused;
                self.until = reason.resets_at_s().map(time);
                self.put_figures(meter, used, Some(limit));
                let [used, limit, wanted] = [used, limit, wanted].map(|amount| Amount(meter, amount));
                self.say(format_args!(
                    "requests are refused by the limit of {meter}: {used} of {limit}, wanted {wanted} more"
                ));
            }
            EventKind::Leapt { days } => {
                self.kind = NoticeKind::Clock;
                self.say(format_args!(
                    "the clock went ahead by {days} days and stayed there; a new period is counted"
                ));
            }
        }
    }

    fn put_figures(&mut self, meter: Meter, used: u64, limit: Option<u64>) {
        self.meter = Some(meter.key().to_owned());
        self.used = Some(used);
        self.limit = limit;
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        // A String takes all.
        let _ = write!(self.summary, ": {what}");
    }
}

/// Path of the tenant at or above an account.
fn tenant_of(account: &Account) -> Option<String> {
    let lossy = |account: &Account| shortened(String::from_utf8_lossy(&account.path()).into_owned());
    if account.is_tenant() {
        return Some(lossy(account));
    }
    let mut at = account.parent();
    while let Some(above) = at {
        if above.is_tenant() {
            return Some(lossy(&above));
        }
        at = above.parent();
    }
    None
}

fn time(unix_s: i64) -> String {
    timestamp(unix_s.max(0).unsigned_abs())
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(PATH_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A figure of a meter, bytes with a unit.
struct Amount(Meter, u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(meter, amount) = self;
        if meter.is_bytes() {
            write!(f, "{} ({amount})", format_bytes(*amount))
        } else {
            write!(f, "{amount}")
        }
    }
}
