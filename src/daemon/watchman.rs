//! Tells people what the ledger noticed: lines in the log when usage nears a limit, passes a soft one, or comes back.
//! The same sentences go to receivers, by way of the outbox.

use crate::alert::{Notice, Status};
use crate::quota::Event;

/// One line for each.
pub fn tell(events: &[Event], now_s: i64) {
    for event in events {
        let notice = Notice::of(&event.account, &event.kind, now_s);
        match notice.status {
            Status::Firing => log::warn!("{}", notice.summary),
            Status::Resolved => log::info!("{}", notice.summary),
        }
    }
}
