//! Limits and figures of a directory by its extended attributes.

use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};

/// Sets a limit as root.
#[track_caller]
pub fn set(dir: &Path, name: &str, value: &str) {
    let name = format!("user.tallyfs.quota.{name}");
    setxattr(dir, name, value.as_bytes(), XattrFlags::empty()).expect("root sets limits");
}

/// Reads a limit or a figure.
#[track_caller]
pub fn get(dir: &Path, name: &str) -> String {
    let mut value = vec![0; 65_536];
    let bytes = getxattr(dir, format!("user.tallyfs.quota.{name}"), &mut value).expect(name);
    String::from_utf8_lossy(&value[..bytes]).into_owned()
}
