//! How notices get to their receivers.

use prometheus_client::registry::Registry;

use super::super::Services;
use super::samples::{Counters, Gauges, Labels};

/// Registers them.
pub fn put(services: &Services, registry: &mut Registry) {
    let waiting = services.board.waiting().into_iter().map(|((receiver, state), count)| {
        let labels: Labels = vec![("receiver", receiver.into()), ("state", state.into())];
        (labels, count)
    });
    registry.register(
        "notices",
        "Notices in the outbox; delivered and dead ones go after a while",
        Gauges(waiting.collect()),
    );
    let mut attempts = Vec::new();
    for (receiver, counts) in services.board.counts() {
        for (outcome, count) in [
            ("delivered", counts.delivered),
            ("failed", counts.failed),
            ("given_up", counts.dead),
        ] {
            let labels: Labels = vec![("receiver", receiver.as_str().into()), ("outcome", outcome.into())];
            attempts.push((labels, count));
        }
    }
    registry.register(
        "notice_attempts",
        "What became of attempts since the start; given_up counts notices",
        Counters(attempts),
    );
}
