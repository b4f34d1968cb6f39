//! How the daemon does: requests and how long they took, refusals, failures, what waits, and how it started.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::{Registry, Unit};

use super::super::Services;
use super::samples::{Counters, Fact, Gauges, Histograms, Labels, label};
use crate::metrics::RequestKind;

/// The cipher that pages are sealed with here.
const CIPHER: &str = if cfg!(feature = "aws-lc") { "aws-lc" } else { "aes-gcm" };

/// Registers what is named as in every other program.
pub fn put_process(services: &Services, registry: &mut Registry) {
    registry.register_with_unit(
        "process_start_time",
        "When the daemon began, since 1970",
        Unit::Seconds,
        Gauges::one(services.start.at.as_secs_f64()),
    );
}

/// Registers the rest.
pub fn put(services: &Services, registry: &mut Registry) {
    put_requests(services, registry);
    put_failures(services, registry);
    put_work(services, registry);
    put_ledger(services, registry);
    put_start(services, registry);
}

fn put_requests(services: &Services, registry: &mut Registry) {
    let times = RequestKind::ALL.map(|kind| (label("operation", kind.name()), services.requests.of(kind)));
    registry.register_with_unit(
        "request_duration",
        "Requests of the kernel, from their receipt to the answer",
        Unit::Seconds,
        Histograms(times.into()),
    );
    let refusals = services.fs.refusal_counts().into_iter();
    let refusals = refusals.map(|(meter, reason, count)| {
        let labels: Labels = vec![("meter", meter.key().into()), ("reason", reason.into())];
        (labels, count)
    });
    registry.register("refusals", "Requests refused by a limit", Counters(refusals.collect()));
}

fn put_failures(services: &Services, registry: &mut Registry) {
    let failures = services.fs.failures();
    let damage = failures.damage();
    registry.register(
        "damage",
        "Pages, heads and sizes of recordings that are not what was sealed, each time that one is met with",
        Counters(damage.map(|(kind, count)| (label("cause", kind.name()), count)).into()),
    );
    registry.register(
        "failed_syncs",
        "Syncs of recordings and directories that the disk failed",
        Counters::one(failures.failed_syncs()),
    );
    registry.register(
        "quota_miscounts",
        "Figures that would have fallen below zero; anything but 0 is a bug",
        Counters::one(services.fs.ledger().miscounts_count()),
    );
}

fn put_work(services: &Services, registry: &mut Registry) {
    let in_hand = services.fs.in_hand();
    registry.register(
        "open_files",
        "Open files by what they are open for",
        Gauges(vec![
            (label("mode", "write"), in_hand.open_for_writing),
            (label("mode", "read"), in_hand.open_for_reading),
        ]),
    );
    registry.register(
        "open_directories",
        "Directories that are being listed",
        Gauges::one(in_hand.open_directories),
    );
    registry.register(
        "unsealed_recordings",
        "Recordings that are being written, or wait to be sealed",
        Gauges::one(in_hand.unsealed),
    );
    registry.register(
        "recordings_to_hash",
        "Sealed recordings that wait for the hash of their content",
        Gauges::one(in_hand.to_hash),
    );
    registry.register(
        "recordings_hashed",
        "Recordings whose hash waits to be put into their heads",
        Gauges::one(in_hand.hashed),
    );
    let writer = (services.writer)();
    let behind = writer.behind_by(services.clock.now());
    registry.register_with_unit(
        "write_back_behind",
        "How long usage could not be saved",
        Unit::Seconds,
        Gauges::one(behind.as_secs_f64()),
    );
}

fn put_ledger(services: &Services, registry: &mut Registry) {
    let ledger = services.fs.ledger();
    registry.register(
        "quota_waiting",
        "Requests that wait for room that others may give back",
        Gauges::one(ledger.waiting_count() as u64),
    );
    registry.register(
        "directories",
        "Directories in the mount",
        Gauges::one(ledger.accounts_count() as u64),
    );
}

fn put_start(services: &Services, registry: &mut Registry) {
    let start = &services.start;
    let build = [("version", env!("CARGO_PKG_VERSION")), ("cipher", CIPHER)];
    let build: Vec<(&'static str, Arc<str>)> = build.map(|(name, value)| (name, value.into())).into();
    registry.register("build", "What is running", Fact(build));
    let took: Duration = start.recovery_took;
    registry.register_with_unit(
        "recovery_duration",
        "How long the start took to know what is in the store: after a clean stop, by replay of the dirty logs after a \
         kill, by a scan otherwise",
        Unit::Seconds,
        Gauges(vec![(label("kind", start.recovery), took.as_secs_f64())]),
    );
    registry.register(
        "recovered_recordings",
        "Recordings that were being written when the last daemon ended",
        Gauges(vec![
            (label("outcome", "whole"), start.recovered_count - start.damaged_count),
            (label("outcome", "damaged"), start.damaged_count),
        ]),
    );
}
