//! Facts about the ledger, one per test.

mod booking;
mod model;
mod ops;
mod races;
mod renames;
mod terms;

use super::*;
use crate::id::Ino;
use crate::units::Meters;
use std::sync::Arc;
use std::thread;

const ROOT: Ino = Ino(1);

fn bytes(limit: u64) -> Limits {
    Limits {
        bytes: Some(limit),
        ..Limits::NONE
    }
}

fn files(limit: u64) -> Limits {
    Limits {
        files: Some(limit),
        ..Limits::NONE
    }
}

/// A ledger and accounts below each other, the root first.
fn nest(depth: u64) -> (Arc<Ledger>, Vec<Arc<Account>>) {
    let ledger = Ledger::new(ROOT, Limits::NONE);
    let mut chain = vec![Arc::clone(ledger.root())];
    for ino in 2..=depth {
        chain.push(child(&ledger, &chain[chain.len() - 1], ino));
    }
    (ledger, chain)
}

fn child(ledger: &Ledger, parent: &Arc<Account>, ino: u64) -> Arc<Account> {
    ledger.charge_forced(parent, Meters::ONE_DIR);
    ledger.insert(parent, Ino(ino), 0, format!("d{ino}").as_bytes())
}

fn ask(plain_offset: u64, size: u64, old_length: u64) -> WriteAsk {
    WriteAsk {
        plain_offset,
        size,
        old_length,
    }
}

fn all_consistent(ledger: &Ledger) {
    assert_eq!((ledger.inconsistent(), ledger.miscounts_count()), (Vec::new(), 0));
    assert_eq!(ledger.root().reserved(), Meters::ZERO);
}

#[test]
fn a_claim_charges_every_account_above_and_a_drop_none() {
    let (ledger, chain) = nest(4);
    let reservation = ledger.reserve(&chain[3], Meters::of_file(100)).unwrap();
    assert!(chain.iter().all(|account| account.reserved() == Meters::of_file(100)));
    reservation.claim(Meters::of_file(60));
    drop(ledger.reserve(&chain[2], Meters::of_bytes(5)).unwrap());
    assert_eq!(chain[3].own(), Meters::of_file(60));
    assert_eq!(chain[2].own(), Meters::ONE_DIR);
    assert_eq!(
        chain[0].total(),
        Meters {
            bytes: 60,
            files: 1,
            dirs: 3
        }
    );
    all_consistent(&ledger);
}

#[test]
fn the_innermost_account_that_refuses_decides_and_nothing_is_held() {
    let (ledger, chain) = nest(4);
    ledger.set_limits(&chain[0], bytes(10));
    ledger.set_limits(&chain[2], bytes(10));
    let refusal = ledger.reserve(&chain[3], Meters::of_bytes(11)).err().unwrap();
    assert_eq!(
        (refusal.account, refusal.path.as_str(), refusal.errno()),
        (Ino(3), "d2/d3", libc::EDQUOT)
    );
    let text = refusal.to_string();
    assert!(
        text.contains("'d2/d3' (inode 3)") && text.contains("used 0, limit 10, wanted 11"),
        "{text}"
    );
    ledger.set_limits(&chain[2], Limits::NONE);
    let refusal = ledger.reserve(&chain[3], Meters::of_bytes(11)).err().unwrap();
    assert_eq!(
        (refusal.account, refusal.is_mount, refusal.errno()),
        (ROOT, true, libc::ENOSPC)
    );
    all_consistent(&ledger);
}

/// Q02, Q40.
#[test]
fn a_write_is_cut_at_a_whole_frame_and_the_next_is_refused() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], bytes(103));
    let (size, reservation) = ledger.reserve_write(&chain[1], ask(0, 200, 0)).unwrap();
    assert_eq!(size, 100);
    reservation.claim(Meters::of_bytes(100));
    let refusal = ledger.reserve_write(&chain[1], ask(100, 200, 100)).err().unwrap();
    assert_eq!(
        (refusal.meter, refusal.used, refusal.limit, refusal.wanted),
        (Meter::Bytes, 100, 103, 200)
    );
    // Three more do fit: a whole write need not end on a frame.
    let (size, reservation) = ledger.reserve_write(&chain[1], ask(100, 3, 100)).unwrap();
    assert_eq!((size, reservation.amount()), (3, Meters::of_bytes(3)));
}

/// Q33, Q34.
#[test]
fn an_overwrite_is_taken_over_any_limit() {
    let (ledger, chain) = nest(2);
    ledger.charge_forced(&chain[1], Meters::of_file(50));
    ledger.set_limits(
        &chain[1],
        Limits {
            file_size: Some(10),
            ..bytes(7)
        },
    );
    assert_eq!(ledger.reserve_write(&chain[1], ask(0, 44, 50)).unwrap().0, 44);
    assert_eq!(ledger.reserve_write(&chain[1], ask(45, 20, 50)).unwrap().0, 5);
    assert_eq!(ledger.reserve_write(&chain[1], ask(60, 0, 50)).unwrap().0, 0);
    assert!(ledger.reserve(&chain[1], Meters::of_bytes(1)).is_err());
    assert!(ledger.reserve(&chain[1], Meters::of_file(0)).is_ok());
    assert!(ledger.reserve_length(&chain[1], 50, 50).is_ok());
    all_consistent(&ledger);
}

#[test]
fn the_smallest_file_size_of_the_chain_comes_first_and_answers_efbig() {
    let (ledger, chain) = nest(3);
    ledger.set_limits(
        &chain[2],
        Limits {
            file_size: Some(50),
            ..bytes(0)
        },
    );
    ledger.set_limits(
        &chain[1],
        Limits {
            file_size: Some(31),
            ..Limits::NONE
        },
    );
    let refusal = ledger.reserve_write(&chain[2], ask(31, 10, 31)).err().unwrap();
    assert_eq!(
        (refusal.account, refusal.meter, refusal.limit, refusal.errno()),
        (Ino(2), Meter::FileSize, 31, libc::EFBIG)
    );
    assert_eq!(
        ledger.reserve_length(&chain[2], 0, 32).err().unwrap().errno(),
        libc::EFBIG
    );
    assert_eq!(
        ledger.reserve_length(&chain[2], 0, 31).err().unwrap().errno(),
        libc::EDQUOT
    );
    ledger.set_limits(&chain[2], Limits::NONE);
    assert_eq!(ledger.reserve_write(&chain[2], ask(0, 100, 0)).unwrap().0, 31);
    assert_eq!(ledger.reserve_write(&chain[2], ask(0, u64::MAX, 0)).unwrap().0, 31);
}

/// Q29.
#[test]
fn a_hole_is_charged_in_full_and_a_pebibyte_refused() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], bytes(1000));
    let (size, reservation) = ledger.reserve_write(&chain[1], ask(900, 50, 10)).unwrap();
    assert_eq!((size, reservation.amount()), (50, Meters::of_bytes(940)));
    drop(reservation);
    assert!(ledger.reserve_write(&chain[1], ask(1010, 50, 10)).is_err());
    assert!(ledger.reserve_length(&chain[1], 10, 1 << 50).is_err());
    assert!(ledger.reserve_length(&chain[1], 10, 1010).is_ok());
    all_consistent(&ledger);
}

/// Q35.
#[test]
fn three_children_of_five_share_fifteen_less_what_lies_beside() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], files(14));
    let mut made = 0;
    for ino in 10..13 {
        let account = child(&ledger, &chain[1], ino);
        ledger.set_limits(&account, files(5));
        while let Ok(reservation) = ledger.reserve(&account, Meters::of_file(0)) {
            reservation.claim(Meters::of_file(0));
            made += 1;
        }
        assert_eq!(account.total().files, if ino < 12 { 5 } else { 4 });
    }
    assert_eq!((made, chain[1].total().files), (14, 14));
}

#[test]
fn q26_a_request_waits_for_what_may_be_given_back() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], bytes(100));
    let held = ledger.reserve(&chain[1], Meters::of_bytes(100)).unwrap();
    let (waiting, account) = (Arc::clone(&ledger), Arc::clone(&chain[1]));
    let other = thread::spawn(move || waiting.reserve_write(&account, ask(0, 40, 0)).map(|(size, _)| size));
    while ledger.waiting_count() == 0 && !other.is_finished() {
        thread::yield_now();
    }
    drop(held);
    assert_eq!(other.join().unwrap(), Ok(40));
}

#[test]
fn a_request_that_waited_is_refused_once_the_room_is_used() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], bytes(100));
    let held = ledger.reserve(&chain[1], Meters::of_bytes(100)).unwrap();
    let (waiting, account) = (Arc::clone(&ledger), Arc::clone(&chain[1]));
    let other = thread::spawn(move || waiting.reserve(&account, Meters::of_bytes(1)).is_err());
    while ledger.waiting_count() == 0 && !other.is_finished() {
        thread::yield_now();
    }
    held.claim(Meters::of_bytes(100));
    assert!(other.join().unwrap());
}

#[test]
fn a_part_of_a_write_is_granted_without_waiting() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], bytes(100));
    let _held = ledger.reserve(&chain[1], Meters::of_bytes(90)).unwrap();
    assert_eq!(ledger.reserve_write(&chain[1], ask(0, 40, 0)).unwrap().0, 8);
}

#[test]
fn a_raised_limit_lets_waiting_requests_in() {
    let (ledger, chain) = nest(2);
    ledger.set_limits(&chain[1], bytes(10));
    let _held = ledger.reserve(&chain[1], Meters::of_bytes(10)).unwrap();
    let (waiting, account) = (Arc::clone(&ledger), Arc::clone(&chain[1]));
    let other = thread::spawn(move || waiting.reserve(&account, Meters::of_bytes(5)).is_ok());
    while ledger.waiting_count() == 0 && !other.is_finished() {
        thread::yield_now();
    }
    ledger.set_limits(&chain[1], bytes(15));
    assert!(other.join().unwrap());
}

#[test]
fn giving_back_more_than_there_is_ends_at_zero_and_is_counted() {
    let (ledger, chain) = nest(3);
    ledger.charge_forced(&chain[1], Meters::of_file(100));
    ledger.charge_forced(&chain[2], Meters::of_file(10));
    ledger.uncharge(&chain[2], Meters::of_file(15));
    assert_eq!(ledger.miscounts_count(), 1);
    assert_eq!(chain[2].own(), Meters::ZERO);
    assert_eq!(chain[1].total().bytes, 100);
    assert!(ledger.inconsistent().is_empty());
}

#[test]
fn correcting_an_account_corrects_its_chain() {
    let (ledger, chain) = nest(3);
    ledger.charge_forced(
        &chain[2],
        Meters {
            bytes: 100,
            files: 3,
            dirs: 0,
        },
    );
    ledger.adjust_own(
        &chain[2],
        Meters {
            bytes: 40,
            files: 7,
            dirs: 0,
        },
    );
    assert_eq!(
        chain[0].total(),
        Meters {
            bytes: 40,
            files: 7,
            dirs: 2
        }
    );
    all_consistent(&ledger);
}

#[test]
fn loading_sums_totals_bottom_up() {
    let ledger = Ledger::new(ROOT, Limits::NONE);
    let mut accounts = vec![Arc::clone(ledger.root())];
    for ino in 2..=1000_u64 {
        let parent = Arc::clone(&accounts[(ino as usize * 7919) % accounts.len()]);
        accounts.push(ledger.insert(&parent, Ino(ino), 0, b"d"));
    }
    for account in &accounts {
        ledger.load_own(account, Meters::of_file(account.ino().0));
    }
    ledger.sum_totals();
    assert_eq!(
        ledger.root().total(),
        Meters {
            bytes: 500_500,
            files: 1000,
            dirs: 0
        }
    );
    all_consistent(&ledger);
}

/// Q27.
#[test]
fn a_removed_directory_gives_back_what_is_still_open_in_it() {
    let (ledger, chain) = nest(3);
    ledger.charge_forced(&chain[2], Meters::of_file(100));
    ledger.remove(Ino(3));
    ledger.uncharge(&chain[1], Meters::ONE_DIR);
    assert!(ledger.account(Ino(3)).is_none());
    let again = ledger.insert(&chain[1], Ino(3), 1, b"again");
    assert_eq!((again.total(), chain[0].total().bytes), (Meters::ZERO, 100));
    ledger.uncharge(&chain[2], Meters::of_file(100));
    assert_eq!(chain[0].total(), Meters::ONE_DIR);
    all_consistent(&ledger);
}

#[test]
fn a_slot_is_used_again_only_when_nobody_holds_its_account() {
    let (ledger, chain) = nest(1);
    let held = ledger.insert(&chain[0], Ino(100), 0, b"held");
    ledger.remove(Ino(100));
    let slots: Vec<u32> = (200..300)
        .map(|ino| {
            let slot = ledger.insert(&chain[0], Ino(ino), 0, b"d").slot;
            ledger.remove(Ino(ino));
            slot
        })
        .collect();
    assert!(!slots.contains(&held.slot));
    assert!(slots.iter().all(|slot| *slot < 5), "{slots:?}");
}

#[test]
fn an_inode_number_used_again_gets_a_new_account() {
    let (ledger, chain) = nest(1);
    let first = ledger.insert(&chain[0], Ino(7), 1, b"a");
    assert!(Arc::ptr_eq(&first, &ledger.insert(&chain[0], Ino(7), 1, b"a")));
    assert!(!Arc::ptr_eq(&first, &ledger.insert(&chain[0], Ino(7), 2, b"b")));
}

/// Q19.
#[test]
fn links_are_free_where_the_same_limited_accounts_are_above() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    let inner = child(&ledger, &a, 12);
    ledger.set_limits(&chain[1], bytes(5));
    assert!(ledger.same_limited_chain(&a, &b) && ledger.same_limited_chain(&inner, &chain[1]));
    ledger.set_limits(&a, files(5));
    assert!(!ledger.same_limited_chain(&inner, &b) && ledger.same_limited_chain(&inner, &a));
    assert_eq!(ledger.common_ancestor(&inner, &b).ino(), chain[1].ino());
    assert_eq!(ledger.common_ancestor(&inner, &a).ino(), a.ino());
}

/// Q21.
#[test]
fn available_is_the_least_over_the_chain() {
    let (ledger, chain) = nest(4);
    assert!(ledger.available(&chain[3]).bytes.is_none());
    ledger.set_limits(
        &chain[1],
        Limits {
            files: Some(3),
            ..bytes(100)
        },
    );
    ledger.set_limits(&chain[3], bytes(50));
    ledger.charge_forced(&chain[2], Meters::of_file(60));
    let _held = ledger.reserve(&chain[2], Meters::of_bytes(5)).unwrap();
    let available = ledger.available(&chain[3]);
    let room = available.bytes.unwrap();
    assert_eq!(
        (room.remaining, room.used, room.limit, room.account.ino()),
        (35, 60, 100, Ino(2))
    );
    assert_eq!(available.files.map(|room| room.remaining), Some(2));
    ledger.charge_forced(&chain[1], Meters::of_bytes(1000));
    assert_eq!(ledger.available(&chain[3]).bytes.map(|room| room.remaining), Some(0));
}

#[test]
fn flow_is_kept_on_tenants_and_the_mount() {
    let (ledger, chain) = nest(3);
    ledger.set_level(&chain[1], Some("tenant"), true);
    assert_eq!(
        (chain[1].level().as_deref(), chain[1].is_tenant()),
        (Some("tenant"), true)
    );
    ledger.count_added(&chain[2], 1, 100);
    ledger.count_deleted(&chain[2], 2, 30);
    ledger.count_operation(&chain[2], OperationKind::List);
    let mut operations = OperationCounts::default();
    operations.0[OperationKind::List as usize] = 1;
    assert_eq!(chain[1].pending_operations(), operations);
    let expected = FlowCounts {
        files_added: 1,
        files_deleted: 2,
        bytes_added: 100,
        bytes_deleted: 30,
        operations,
    };
    assert_eq!(
        (chain[0].take_flow(), chain[2].take_flow()),
        (expected, FlowCounts::default())
    );
    assert_eq!(chain[1].take_flow(), expected);
    assert_eq!(chain[1].take_flow(), FlowCounts::default());
    chain[1].give_back_flow(expected);
    assert_eq!(chain[1].take_flow(), expected);
}
