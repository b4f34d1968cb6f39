//! What a listing tells of each name: an entry where the kernel has none, or an old one.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use common::bare::{Bare, ROOT};
use tallyfs::fs::{Listing, NewMode, OpenMode, Opened, ROOT_NODE, WriteAsked};

fn create(bare: &Bare, name: &str) -> Opened {
    let how = OpenMode {
        writes: true,
        ..OpenMode::default()
    };
    let mode = NewMode::exactly(0o100_644);
    let made = bare.fs().create(ROOT_NODE, OsStr::new(name), mode, how, ROOT);
    made.unwrap_or_else(|e| panic!("{name}: errno {}", e.0)).1
}

fn write(bare: &Bare, file: &Opened) {
    let asked = WriteAsked {
        plain_offset: 0,
        data: b"frame",
        caller: ROOT,
        drops_privileges: false,
        from_mapping: false,
    };
    assert_eq!(bare.fs().write(file.fh, &asked).ok(), Some(5));
}

/// Names of the root, with the length in the entry of each that has one.
fn listed(bare: &Bare) -> BTreeMap<String, Option<u64>> {
    let fh = bare.fs().opendir(ROOT_NODE).expect("the root opens");
    let mut found = BTreeMap::new();
    let read = bare.fs().readdir(fh, 0, Listing::WithEntries, |name| {
        let text = OsStr::from_bytes(name.name.to_bytes()).to_string_lossy().into_owned();
        found.insert(text, name.entry.as_ref().map(|entry| entry.attr.size));
        false
    });
    assert!(read.is_ok());
    assert!(bare.fs().releasedir(fh).is_ok());
    found.retain(|name, _| name != "." && name != "..");
    found
}

fn expected<const N: usize>(names: [(&str, Option<u64>); N]) -> BTreeMap<String, Option<u64>> {
    names
        .into_iter()
        .map(|(name, length)| (name.to_owned(), length))
        .collect()
}

#[test]
fn a_listing_tells_what_the_kernel_does_not_know() {
    let bare = Bare::new();
    let (a, b) = (create(&bare, "a"), create(&bare, "b"));
    assert_eq!(
        listed(&bare),
        expected([("a", None), ("b", None)]),
        "told by the creation"
    );
    write(&bare, &b);
    assert_eq!(listed(&bare), expected([("a", None), ("b", Some(5))]), "written since");
    assert_eq!(
        listed(&bare),
        expected([("a", None), ("b", None)]),
        "told by the listing"
    );
    let a_ino = bare.fs().lookup(ROOT_NODE, OsStr::new("a"), ROOT);
    let Ok(tallyfs::fs::Found::Entry(entry)) = a_ino else {
        panic!("a is there");
    };
    // Made and looked up: twice. The open handle keeps it in the daemon's memory.
    bare.fs().forget(entry.attr.ino.0, 2);
    assert_eq!(
        listed(&bare),
        expected([("a", Some(0)), ("b", None)]),
        "forgotten by the kernel"
    );
    bare.clock().advance(std::time::Duration::from_hours(1));
    assert_eq!(listed(&bare), expected([("a", Some(0)), ("b", Some(5))]), "an hour ago");
    assert!(bare.fs().release(a.fh).is_ok() && bare.fs().release(b.fh).is_ok());
}
