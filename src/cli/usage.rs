//! `tallyfs usage`: how much a store, or a directory in a mount, holds.
//!
//! Finds out what a path means, asks `figures`, and prints a table or JSON.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::{Code, Failure};
use super::figures::{Amount, Stored};
use super::table::table;
use crate::clock::{Clock, SystemClock};
use crate::daemon::layout::{LayoutError, StorePaths};
use crate::daemon::mount_table::{FS_TYPE, MountTable};
use crate::id::Ino;
use crate::period::timestamp;
use crate::units::{Meters, format_bytes};

/// What `usage` says.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub struct Usage {
    store: PathBuf,
    /// Relative to the mount; `null` for the whole store.
    directory: Option<PathBuf>,
    total: Figures,
    /// Directories at the top of the mount; for the whole store only.
    tenants: Vec<Tenant>,
    /// Whether the figures hold every change that was finished at `as_of`. If not, the daemon was
    /// killed, or its database cannot be written.
    exact: bool,
    as_of: String,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
struct Figures {
    bytes: u64,
    /// What the sealed files take in the store; those that are being written are not in it.
    physical_bytes: u64,
    files: u64,
    dirs: u64,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct Tenant {
    tenant: String,
    #[serde(flatten)]
    figures: Figures,
}

impl From<Amount> for Figures {
    fn from(amount: Amount) -> Self {
        let Meters { bytes, files, dirs } = amount.meters;
        Self {
            bytes,
            physical_bytes: amount.physical_bytes,
            files,
            dirs,
        }
    }
}

/// What is asked about.
struct Subject {
    paths: StorePaths,
    /// The directory in the mount; `None` for all of it.
    directory: Option<Directory>,
}

struct Directory {
    path: PathBuf,
    ino: Ino,
}

/// The figures for `path`: a store, a mount point or a directory in a mount.
///
/// # Errors
/// When `path` is none of them, or the database cannot be read.
pub fn read(path: &Path) -> Result<Usage, Failure> {
    let subject = find(path)?;
    let now_s = SystemClock::new().now().as_secs();
    let ino = subject.directory.as_ref().map(|directory| directory.ino);
    let stored = Stored::read(&subject.paths, ino)?;
    let total = stored.total.ok_or_else(|| {
        let text = format!("{}: not in the database yet; ask again in a second", path.display());
        Failure::new(Code::Failed, text)
    })?;
    let tenants = stored.tenants.into_iter().map(|(tenant, amount)| Tenant {
        tenant,
        figures: amount.into(),
    });
    Ok(Usage {
        store: subject.paths.root,
        directory: subject.directory.map(|directory| directory.path),
        total: total.into(),
        tenants: if ino.is_some() { Vec::new() } else { tenants.collect() },
        exact: stored.is_exact,
        as_of: timestamp(now_s),
    })
}

/// Finds out what `path` is.
fn find(path: &Path) -> Result<Subject, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        let text = format!("{}: {why}", path.display());
        Failure::new(Code::Store, text)
    };
    let real = fs::canonicalize(path).map_err(|e| wrong(&e))?;
    let table = MountTable::read().map_err(|e| wrong(&e))?;
    if let Some(entry) = table.holding(&real)
        && entry.fs_type == FS_TYPE
    {
        let below = real.strip_prefix(&entry.mount_point).unwrap_or(&real);
        let directory = if below.as_os_str().is_empty() {
            None
        } else {
            let meta = fs::metadata(&real).map_err(|e| wrong(&e))?;
            if !meta.is_dir() {
                return Err(wrong(&"not a directory; name the one that it lies in"));
            }
            Some(Directory {
                path: below.to_owned(),
                ino: Ino(meta.ino()),
            })
        };
        return Ok(Subject {
            paths: StorePaths::of_existing(&entry.source)?,
            directory,
        });
    }
    match StorePaths::of_existing(&real) {
        Ok(paths) => Ok(Subject { paths, directory: None }),
        Err(LayoutError::NoStore(_)) => Err(wrong(
            &"neither a store nor a directory in a mount of one; see `tallyfs usage --help`",
        )),
        Err(e) => Err(e.into()),
    }
}

impl Usage {
    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are JSON")
    }

    /// For people: a table, sizes in binary units.
    pub fn text(&self) -> String {
        let mut rows = vec![["", "size", "bytes", "files", "directories", "physical"].map(String::from)];
        let row = |name: String, figures: &Figures| {
            [
                name,
                format_bytes(figures.bytes),
                figures.bytes.to_string(),
                figures.files.to_string(),
                figures.dirs.to_string(),
                format_bytes(figures.physical_bytes),
            ]
        };
        rows.extend(self.tenants.iter().map(|t| row(t.tenant.clone(), &t.figures)));
        let whole = match &self.directory {
            Some(path) => path.display().to_string(),
            None => "total".into(),
        };
        rows.push(row(whole, &self.total));
        let mut text = table(&rows);
        if !self.exact {
            text.push_str("not exact: what the daemon had not saved is missing; a mount counts again\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(exact: bool) -> Usage {
        let figures = |bytes, files, dirs| Figures {
            bytes,
            physical_bytes: bytes + 24_576 * files,
            files,
            dirs,
        };
        let tenant = |name: &str, figures| Tenant {
            tenant: name.into(),
            figures,
        };
        Usage {
            store: "/s".into(),
            directory: None,
            total: figures(3 << 30, 12, 5),
            tenants: vec![
                tenant("acme", figures(3 << 30, 11, 3)),
                tenant("ünit", figures(0, 1, 0)),
            ],
            exact,
            as_of: timestamp(1_795_272_239),
        }
    }

    #[test]
    fn the_table_lines_up() {
        let text = usage(true).text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("acme "), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].len()));
        assert!(lines[3].contains("3221225472"), "{text}");
        assert!(usage(false).text().contains("not exact"));
    }

    #[test]
    fn json_has_the_figures_of_each_tenant() {
        let json: serde_json::Value = serde_json::from_str(&usage(true).json()).unwrap();
        assert_eq!(json["total"]["bytes"], 3_u64 << 30);
        assert_eq!(json["tenants"][0]["tenant"], "acme");
        assert_eq!(json["tenants"][0]["files"], 11);
        assert_eq!(json["tenants"][1]["physical_bytes"], 24_576);
        assert_eq!(json["directory"], serde_json::Value::Null);
        assert_eq!(json["exact"], true);
        assert_eq!(json["as_of"], "2026-11-21T14:43:59Z");
    }

    #[test]
    fn what_is_neither_store_nor_mount_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let failure = read(dir.path()).unwrap_err();
        assert_eq!(failure.code, Code::Store);
        assert!(failure.text.contains("neither a store"), "{}", failure.text);
    }
}
