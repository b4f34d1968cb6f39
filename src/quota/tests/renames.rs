//! Facts about renames.

use super::*;

/// Q15, Q16.
#[test]
fn a_transfer_asks_only_accounts_that_are_not_shared() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    ledger.charge_forced(&a, Meters::of_file(100));
    ledger.set_limits(&chain[1], bytes(100));
    ledger.set_limits(&b, bytes(99));
    let refusal = ledger
        .transfer(&a, &b, Meters::of_file(100), Meters::ZERO)
        .err()
        .unwrap();
    assert_eq!((refusal.account, refusal.errno()), (Ino(11), libc::EDQUOT));
    assert_eq!(
        (a.total(), b.total(), b.reserved()),
        (Meters::of_file(100), Meters::ZERO, Meters::ZERO)
    );
    ledger.set_limits(&b, bytes(100));
    ledger
        .transfer(&a, &b, Meters::of_file(100), Meters::ZERO)
        .unwrap()
        .commit();
    assert_eq!(
        (a.total(), b.total(), chain[1].total().bytes),
        (Meters::ZERO, Meters::of_file(100), 100)
    );
    all_consistent(&ledger);
}

/// Q17.
#[test]
fn rename_over_moves_the_charge_and_credits_the_target() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    ledger.charge_forced(&a, Meters::of_file(100));
    ledger.charge_forced(&b, Meters::of_file(70));
    ledger.set_limits(
        &b,
        Limits {
            files: Some(1),
            ..bytes(100)
        },
    );
    let transfer = ledger
        .transfer(&a, &b, Meters::of_file(100), Meters::of_file(70))
        .unwrap();
    assert_eq!(b.reserved(), Meters::of_bytes(30));
    transfer.commit();
    assert_eq!((b.total(), chain[0].total().bytes), (Meters::of_file(100), 100));
    ledger.charge_forced(&b, Meters::of_file(8));
    ledger
        .transfer(&b, &b, Meters::of_file(8), Meters::of_file(100))
        .unwrap()
        .commit();
    assert_eq!((b.total(), chain[0].total().bytes), (Meters::of_file(8), 8));
    all_consistent(&ledger);
}

/// Q14.
#[test]
fn a_reservation_settles_where_its_directory_has_gone() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    let inner = child(&ledger, &a, 12);
    let reservation = ledger.reserve(&inner, Meters::of_file(50)).unwrap();
    let moving = ledger.move_directory(&inner, &b, b"there", Meters::ZERO).unwrap();
    assert_eq!(inner.path(), b"d2/d11/there");
    let during = ledger.reserve(&inner, Meters::of_file(5)).unwrap();
    during.claim(Meters::of_file(5));
    moving.commit();
    assert_eq!((a.total(), a.reserved()), (Meters::ZERO, Meters::ZERO));
    assert_eq!(
        (b.reserved(), b.total()),
        (
            Meters::of_file(50),
            Meters {
                bytes: 5,
                files: 1,
                dirs: 1
            }
        )
    );
    reservation.claim(Meters::of_file(50));
    assert_eq!(
        b.total(),
        Meters {
            bytes: 55,
            files: 2,
            dirs: 1
        }
    );
    all_consistent(&ledger);
}

#[test]
fn a_directory_move_that_fails_leaves_everything_as_it_was() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    ledger.charge_forced(&a, Meters::of_file(50));
    drop(ledger.move_directory(&a, &b, b"there", Meters::ZERO).unwrap());
    assert_eq!((a.path(), b.total()), (b"d2/d10".to_vec(), Meters::ZERO));
    ledger.set_limits(&b, bytes(49));
    assert_eq!(
        ledger
            .move_directory(&a, &b, b"there", Meters::ZERO)
            .err()
            .unwrap()
            .account,
        Ino(11)
    );
    // Into itself: nothing happens here, the rename answers EINVAL.
    let inner = child(&ledger, &a, 12);
    ledger.move_directory(&a, &inner, b"x", Meters::ZERO).unwrap().commit();
    assert!(!ledger.move_forced(&a, &inner, b"x"));
    assert_eq!(a.path(), b"d2/d10");
    all_consistent(&ledger);
}

/// Q18.
#[test]
fn an_exchange_asks_for_the_difference_alone() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    let inner = child(&ledger, &a, 12);
    ledger.charge_forced(&inner, Meters::of_file(100));
    ledger.charge_forced(&b, Meters::of_file(70));
    ledger.set_limits(&a, bytes(100));
    ledger.set_limits(&b, bytes(100));
    let sides = || {
        let dir = ExchangeSide {
            parent: &a,
            name: b"d12",
            moved: Moved::Dir(Arc::clone(&inner)),
        };
        (
            dir,
            ExchangeSide {
                parent: &b,
                name: b"f",
                moved: Moved::File(Meters::of_file(70)),
            },
        )
    };
    let (dir, file) = sides();
    ledger.exchange(dir, file).unwrap().commit();
    assert_eq!(
        (a.total(), b.total()),
        (
            Meters::of_file(70),
            Meters {
                bytes: 100,
                files: 1,
                dirs: 1
            }
        )
    );
    assert_eq!(inner.path(), b"d2/d11/f");
    all_consistent(&ledger);
}

#[test]
fn a_move_without_check_moves_totals_for_recovery() {
    let (ledger, chain) = nest(2);
    let (a, b) = (child(&ledger, &chain[1], 10), child(&ledger, &chain[1], 11));
    ledger.charge_forced(&a, Meters::of_file(50));
    ledger.set_limits(&b, bytes(1));
    assert!(ledger.move_forced(&a, &b, b"there"));
    ledger.adjust_own(&b, Meters::ONE_DIR);
    ledger.adjust_own(&chain[1], Meters::ONE_DIR);
    assert_eq!(
        b.total(),
        Meters {
            bytes: 50,
            files: 1,
            dirs: 1
        }
    );
    all_consistent(&ledger);
}
