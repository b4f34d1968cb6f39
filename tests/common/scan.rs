//! What a store holds, counted by code that shares nothing with the product.
//!
//! Lengths come from the sizes of the backing files by FORMAT.md section 4. Only a store that was stopped cleanly can be
//! scanned: a size that marks an unclean or damaged file is a failure.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes, files and directories of an account.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    pub bytes: u64,
    pub files: u64,
    pub dirs: u64,
}

/// Totals of a whole tree and of each directory at its top.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    pub total: Totals,
    pub tenants: BTreeMap<String, Totals>,
}

/// Shorthand for an expectation.
pub fn totals(bytes: u64, files: u64, dirs: u64) -> Totals {
    Totals { bytes, files, dirs }
}

/// Plaintext length of a sealed file of this size, or None when no sealed file has it.
pub fn plain_len(sealed_len: u64) -> Option<u64> {
    const FIRST_PAGES: u64 = 20_480;
    const BLOCK_0: u64 = 3_808;
    const BLOCK: u64 = 4_048;
    const PAGE: u64 = 4_096;
    if sealed_len == 0 {
        return Some(0);
    }
    let past = sealed_len.checked_sub(FIRST_PAGES)?;
    if past == 0 {
        return None;
    }
    if past <= BLOCK_0 {
        return Some(past);
    }
    if past < 2 * PAGE {
        return None;
    }
    let pages = (past - PAGE) / PAGE;
    let used = match (past - PAGE) % PAGE {
        0 => BLOCK,
        rest if rest < BLOCK => rest,
        _ => return None,
    };
    Some(BLOCK_0 + BLOCK * (pages - 1) + used)
}

/// Counts the backing files of a cleanly stopped store.
#[track_caller]
pub fn store(store: &Path) -> Usage {
    count(&store.join("data"), |path, len| {
        plain_len(len).unwrap_or_else(|| panic!("{}: {len} is not the size of a sealed file", path.display()))
    })
}

/// Counts what a mount shows.
#[track_caller]
pub fn tree(top: &Path) -> Usage {
    count(top, |_, len| len)
}

#[track_caller]
fn count(top: &Path, len_of: impl Fn(&Path, u64) -> u64) -> Usage {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    for entry in entries(top) {
        let name = entry
            .file_name()
            .into_string()
            .unwrap_or_else(|name| format!("{}", name.display()));
        let mut tenant = Totals::default();
        let mut seen_in_tenant = HashSet::new();
        let mut waiting = vec![entry.path()];
        while let Some(path) = waiting.pop() {
            let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            if meta.is_dir() {
                waiting.extend(entries(&path).map(|entry| entry.path()));
                tenant.dirs += 1;
                usage.total.dirs += 1;
                continue;
            }
            let bytes = if meta.is_file() { len_of(&path, meta.len()) } else { 0 };
            for (seen, totals) in [(&mut seen, &mut usage.total), (&mut seen_in_tenant, &mut tenant)] {
                if seen.insert(meta.ino()) {
                    totals.files += 1;
                    totals.bytes += bytes;
                }
            }
        }
        if entry.path().is_dir() && !entry.path().is_symlink() {
            // A directory does not count in its own account.
            tenant.dirs -= 1;
            usage.tenants.insert(name, tenant);
        }
    }
    usage
}

#[track_caller]
fn entries(dir: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|entry| entry.expect("an entry can be read"))
}

/// The figures of `tallyfs usage --json`.
#[track_caller]
pub fn from_json(text: &str) -> Usage {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let number = |value: &serde_json::Value, key: &str| {
        value[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no number {key} in {text}"))
    };
    let figures =
        |value: &serde_json::Value| totals(number(value, "bytes"), number(value, "files"), number(value, "dirs"));
    let tenants = json["tenants"]
        .as_array()
        .unwrap_or_else(|| panic!("no tenants in {text}"));
    let name = |value: &serde_json::Value| value["tenant"].as_str().expect("a tenant has a name").to_owned();
    Usage {
        total: figures(&json["total"]),
        tenants: tenants.iter().map(|tenant| (name(tenant), figures(tenant))).collect(),
    }
}
