//! Many threads at one limit.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs eight threads to a limit while another watches that it is never passed.
fn race(ledger: &Arc<Ledger>, watched: &Arc<Account>, work: impl Fn(u64) + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0_u64;
            while !done.load(Ordering::Acquire) || seen == 0 {
                let usage = ledger.usage(watched);
                assert!(usage.total.bytes + usage.reserved.bytes <= usage.limits.bytes.unwrap_or(u64::MAX));
                assert!(usage.total.files + usage.reserved.files <= usage.limits.files.unwrap_or(u64::MAX));
                seen += 1;
            }
        });
        let workers: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn({
                    let work = &work;
                    move || work(number)
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Release);
        watcher.join().unwrap();
    });
}

/// Q36, Q39.
#[test]
fn eight_writers_end_at_the_limit_to_the_frame() {
    let (ledger, chain) = nest(4);
    ledger.set_limits(&chain[1], bytes(1_000_003));
    let acknowledged = AtomicU64::new(0);
    race(&ledger, &chain[1], |number| {
        let (mut length, mut round) = (0, number);
        while let Ok((size, reservation)) = ledger.reserve_write(&chain[3], ask(length, 320, length)) {
            round += 1;
            // Some I/O fails, some is short.
            let written = match round % 7 {
                0 => 0,
                3 => size / 8 * 4,
                _ => size,
            };
            reservation.claim(Meters::of_bytes(written));
            length += written;
            acknowledged.fetch_add(written, Ordering::Relaxed);
        }
    });
    assert_eq!(acknowledged.into_inner(), 1_000_000);
    assert_eq!(chain[1].total().bytes, 1_000_000);
    all_consistent(&ledger);
}

/// Q37.
#[test]
fn eight_creators_make_exactly_as_many_files_as_allowed() {
    let (ledger, chain) = nest(3);
    ledger.set_limits(&chain[1], files(1000));
    let made = AtomicU64::new(0);
    race(&ledger, &chain[1], |number| {
        let mut round = number;
        while let Ok(reservation) = ledger.reserve(&chain[2], Meters::of_file(0)) {
            round += 1;
            if round % 3 == 0 {
                continue;
            }
            reservation.claim(Meters::of_file(0));
            made.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!((made.into_inner(), chain[1].total().files), (1000, 1000));
    all_consistent(&ledger);
}

#[test]
fn writers_below_a_directory_that_moves_about_stay_within_both_limits() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    let inner = child(&ledger, &a, 12);
    ledger.set_limits(&a, bytes(10_000));
    ledger.set_limits(&b, bytes(10_000));
    let stop = AtomicBool::new(false);
    race(&ledger, &b, |number| {
        if number == 0 {
            for round in 0..300 {
                let to = if round % 2 == 0 { &b } else { &a };
                let moving = ledger.move_directory(&inner, to, b"moved", Meters::ZERO).unwrap();
                assert!(a.total().bytes <= 10_000);
                if round % 3 > 0 {
                    moving.commit();
                }
            }
            stop.store(true, Ordering::Release);
        }
        while number != 0 && !stop.load(Ordering::Acquire) {
            if let Ok((size, reservation)) = ledger.reserve_write(&inner, ask(0, 64, 0)) {
                reservation.claim(Meters::of_bytes(size));
                ledger.uncharge(&inner, Meters::of_bytes(size));
            }
        }
    });
    all_consistent(&ledger);
}
