//! What the kernel may remember of a listing: nothing while the directory changes, and nothing that was true before a change.

mod common;

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use common::bare::Bare;
use tallyfs::fs::{ROOT_NODE, Remembered};

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
