//! What the kernel may remember of a listing: nothing while the directory changes, and nothing that was true before a change.

mod common;

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use common::bare::Bare;
use tallyfs::fs::{Listing, ROOT_NODE, Remembered};
use tallyfs::id::Fh;

fn opened(bare: &Bare) -> Remembered {
    let opened = bare.fs().opendir(ROOT_NODE).expect("the root opens");
    assert!(bare.fs().releasedir(opened.fh).is_ok());
    opened.remembered
}

/// Moves the clock to a time after the last change of the root.
fn wait_after_change(bare: &Bare, after: Duration) {
    let changed = fs::metadata(bare.data()).and_then(|data| data.modified());
    let changed = changed.expect("the data directory").duration_since(UNIX_EPOCH);
    let changed = changed.expect("a time after 1970");
    bare.clock().set_now(changed + after);
}

#[test]
fn a_directory_at_rest_is_remembered_until_it_changes() {
    let bare = Bare::new();
    for name in ["first", "second"] {
        fs::write(bare.data().join(name), []).expect("somebody with access to the store");
        wait_after_change(&bare, Duration::from_millis(99));
        assert_eq!([opened(&bare), opened(&bare)], [Remembered::Not; 2], "{name} is new");
        wait_after_change(&bare, Duration::from_millis(101));
        let expected = [Remembered::Anew, Remembered::Kept, Remembered::Kept];
        assert_eq!([opened(&bare), opened(&bare), opened(&bare)], expected, "after {name}");
    }
}

#[test]
fn a_change_between_two_listings_at_rest_is_noticed() {
    let bare = Bare::new();
    bare.clock().set_now(Duration::from_hours(24 * 365_250));
    assert_eq!([opened(&bare), opened(&bare)], [Remembered::Anew, Remembered::Kept]);
    fs::write(bare.data().join("planted"), []).expect("somebody with access to the store");
    assert_eq!([opened(&bare), opened(&bare)], [Remembered::Anew, Remembered::Kept]);
}

/// Names from a position on, and the position behind them.
fn listed(bare: &Bare, fh: Fh, position: u64) -> (Vec<String>, u64) {
    let (mut names, mut next) = (Vec::new(), position);
    let done = bare.fs().readdir(fh, position, Listing::Names, |entry| {
        names.push(entry.name.to_string_lossy().into_owned());
        next = entry.next;
        false
    });
    assert!(done.is_ok(), "a listing");
    names.sort_unstable();
    (names, next)
}

/// As after a restart between the last names and the end, and after seekdir(3).
#[test]
fn a_listing_that_is_first_read_at_its_end_can_be_rewound() {
    let bare = Bare::new();
    fs::write(bare.data().join("call"), []).expect("somebody with access to the store");
    let open = || bare.fs().opendir(ROOT_NODE).expect("the root opens").fh;
    let (names, end) = listed(&bare, open(), 0);
    assert_eq!(names, [".", "..", "call"]);
    let later = open();
    assert_eq!(listed(&bare, later, end), (Vec::new(), end));
    assert_eq!(listed(&bare, later, 0), (names, end));
}
