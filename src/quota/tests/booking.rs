//! Room that stands for open recordings.

use super::*;
use crate::clock::ManualClock;
use std::time::Duration;

/// As [`super::nest`], and whoever waits for something to be given back waits for good: booked room is none that is.
fn nest(depth: u64) -> (Arc<Ledger>, Vec<Arc<Account>>) {
    let clock = Arc::new(ManualClock::default());
    let ledger = Arc::new(Ledger::build(ROOT, Limits::NONE, Duration::from_hours(1), clock));
    let mut chain = vec![Arc::clone(ledger.root())];
    for ino in 2..=depth {
        chain.push(child(&ledger, &chain[chain.len() - 1], ino));
    }
    (ledger, chain)
}

/// A limit, and so many bytes for each recording.
fn keeping(limit: u64, each: u64) -> Limits {
    Limits {
        recording_bytes: Some(each),
        ..bytes(limit)
    }
}

/// A new recording in the account, as a create makes it.
fn record(ledger: &Arc<Ledger>, account: &Arc<Account>) -> Result<Option<Booking>, Refusal> {
    let wanted = Meters::of_file(ledger.recording_bytes(account));
    Ok(ledger.reserve(account, wanted)?.claim_recording())
}

/// Appends; how much was taken.
fn append(ledger: &Arc<Ledger>, account: &Arc<Account>, length: u64, size: u64, from: &mut Option<Booking>) -> u64 {
    match ledger.reserve_recording_write(account, ask(length, size, length), from) {
        Ok((taken, reservation)) => {
            reservation.claim(Meters::of_bytes(taken));
            taken
        }
        Err(_) => 0,
    }
}

#[test]
fn a_recording_without_room_is_refused_at_its_start_and_others_do_not_take_what_is_kept() {
    let (ledger, chain) = nest(3);
    ledger.set_limits(&chain[1], keeping(1000, 400));
    let (mut first, mut second) = (record(&ledger, &chain[2]).unwrap(), record(&ledger, &chain[2]).unwrap());
    // At once, for no operation is under way that could give anything back.
    let refusal = record(&ledger, &chain[2]).err().expect("only 200 are left");
    assert_eq!(
        (refusal.limit, refusal.wanted, refusal.errno()),
        (1000, 400, libc::EDQUOT)
    );
    assert_eq!(chain[1].reserved(), Meters::of_bytes(800));
    assert_eq!(append(&ledger, &chain[2], 0, 300, &mut None), 200, "what is left");
    assert_eq!(append(&ledger, &chain[2], 200, 4, &mut None), 0);
    // Both record what they were promised, and no more.
    assert_eq!(append(&ledger, &chain[2], 0, 320, &mut first), 320);
    assert_eq!(append(&ledger, &chain[2], 320, 320, &mut first), 80);
    assert_eq!(append(&ledger, &chain[2], 0, 400, &mut second), 400);
    assert_eq!(append(&ledger, &chain[2], 400, 4, &mut second), 0);
    assert_eq!(chain[1].total().bytes, 1000);
    drop((first, second));
    all_consistent(&ledger);
}

#[test]
fn what_is_not_recorded_is_given_back_at_the_end() {
    let (ledger, chain) = nest(3);
    ledger.set_limits(&chain[1], keeping(1000, 600));
    let mut call = record(&ledger, &chain[2]).unwrap();
    assert_eq!(append(&ledger, &chain[2], 0, 100, &mut call), 100);
    assert_eq!(call.as_ref().map(Booking::left), Some(500));
    assert_eq!(chain[0].reserved(), Meters::of_bytes(500));
    drop(call);
    assert_eq!(append(&ledger, &chain[2], 0, 2000, &mut None), 900);
    // A recording without a limit above it books nothing.
    assert!(record(&ledger, &chain[0]).unwrap().is_none());
    all_consistent(&ledger);
}

#[test]
fn more_than_was_booked_is_recorded_as_far_as_there_is_room() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], keeping(1000, 100));
    let mut call = record(&ledger, &chain[1]).unwrap();
    let mut length = 0;
    while let taken @ 1.. = append(&ledger, &chain[1], length, 320, &mut call) {
        length += taken;
    }
    assert_eq!(length, 1000);
    // All or nothing, and what was drawn for it is kept again.
    let mut other = {
        ledger.set_limits(&chain[1], keeping(1200, 100));
        record(&ledger, &chain[1]).unwrap()
    };
    assert!(ledger.reserve_recording_length(&chain[1], 0, 500, &mut other).is_err());
    assert_eq!(other.as_ref().map(Booking::left), Some(100));
    assert_eq!(chain[1].reserved(), Meters::of_bytes(100));
    assert!(ledger.reserve_recording_length(&chain[1], 0, 150, &mut other).is_ok());
    drop((call, other));
    all_consistent(&ledger);
}

#[test]
fn a_directory_takes_what_is_booked_in_it_along() {
    let (ledger, chain) = nest(3);
    let other = child(&ledger, &chain[0], 10);
    ledger.set_limits(&chain[1], keeping(1000, 400));
    ledger.set_limits(&other, bytes(399));
    let mut call = record(&ledger, &chain[2]).unwrap();
    let moved = |new_parent| ledger.move_directory(&chain[2], new_parent, b"d", Meters::ZERO);
    // At once: nobody is about to give it back.
    assert!(moved(&other).is_err());
    ledger.set_limits(&other, bytes(400));
    let under_way = moved(&other).expect("it fits");
    assert_eq!(append(&ledger, &chain[2], 0, 40, &mut call), 40);
    let booked = || [&chain[1], &other].map(|account| account.booked.load().bytes);
    assert_eq!(booked(), [360, 360], "on both ways while it is under way");
    under_way.commit();
    assert_eq!(booked(), [0, 360]);
    assert_eq!(
        (chain[1].reserved(), other.reserved()),
        (Meters::ZERO, Meters::of_bytes(360))
    );
    assert_eq!(append(&ledger, &chain[2], 40, 400, &mut call), 360);
    drop(call);
    drop(moved(&chain[1]).expect("it fits"));
    assert_eq!(other.total().bytes, 400, "nothing happened");
    all_consistent(&ledger);
}

#[test]
fn a_recording_that_was_moved_to_another_account_is_cut_like_others() {
    let (ledger, chain) = nest(2);
    let other = child(&ledger, &chain[0], 10);
    ledger.set_limits(&chain[1], keeping(1000, 400));
    ledger.set_limits(&other, bytes(100));
    let mut call = record(&ledger, &chain[1]).unwrap();
    ledger
        .transfer(&chain[1], &other, Meters::of_file(0), Meters::ZERO)
        .unwrap()
        .commit();
    assert_eq!(append(&ledger, &other, 0, 320, &mut call), 100);
    assert_eq!(chain[1].reserved(), Meters::of_bytes(400), "until its end");
    drop(call);
    all_consistent(&ledger);
}
