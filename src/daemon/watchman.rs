//! Tells people what the ledger noticed: lines in the log when usage nears a limit, passes a soft one, or comes back.

use std::fmt;

use crate::quota::{Event, EventKind, Meter};
use crate::units::format_bytes;

/// One line for each.
pub fn tell(events: &[Event]) {
    for event in events {
        let path = event.account.path();
        let place = if path.is_empty() {
            "the mount".to_owned()
        } else {
            format!("'{}'", String::from_utf8_lossy(&path))
        };
        match event.kind {
            EventKind::Warning {
                meter,
                percent,
                used,
                limit,
            } => {
                let (used, limit) = (Amount(meter, used), Amount(meter, limit));
                log::warn!("{place}: {percent} % of the limit of {meter} is reached: {used} of {limit}");
            }
            EventKind::OverSoft {
                meter,
                used,
                limit,
                grace_ends_s,
            } => {
                let (used, limit) = (Amount(meter, used), Amount(meter, limit));
                let then = match grace_ends_s {
                    Some(ends_s) => {
                        format!("growth is refused from {ends_s} (seconds since 1970) on, unless it falls below")
                    }
                    None => "nothing is refused".to_owned(),
                };
                log::warn!("{place}: the soft limit of {meter} is passed: {used} of {limit}; {then}");
            }
            EventKind::BelowSoft { meter, used } => {
                log::info!(
                    "{place}: below the soft limit of {meter} again: {}",
                    Amount(meter, used)
                );
            }
            EventKind::Leapt { days } => {
                log::warn!("{place}: the clock went ahead by {days} days and stayed there; a new period is counted");
            }
        }
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
