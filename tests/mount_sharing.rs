//! Several processes at one file: locks, appends and mappings. Each case runs on a native directory as well.

#[macro_use]
mod common;

use std::path::Path;

use common::command::text;
use common::run;

cases! {
    flocks_keep_processes_apart
    record_locks_keep_ranges_apart
    closing_any_descriptor_lets_a_waiting_process_in
    appends_of_several_processes_never_overlap
    mappings_are_shared_between_processes
}

#[track_caller]
fn shared(what: &str, dir: &Path) {
    let said = run("python3", &["-c", include_str!("common/sharing.py"), what, text(dir)]);
    assert_eq!(said, "ok\n");
}

fn flocks_keep_processes_apart(dir: &Path) {
    shared("flocks", dir);
}

fn record_locks_keep_ranges_apart(dir: &Path) {
    shared("ranges", dir);
}

fn closing_any_descriptor_lets_a_waiting_process_in(dir: &Path) {
    shared("closing", dir);
}

fn appends_of_several_processes_never_overlap(dir: &Path) {
    shared("appends", dir);
}

fn mappings_are_shared_between_processes(dir: &Path) {
    shared("mappings", dir);
}
