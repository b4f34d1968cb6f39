//! Comparison of two counts, directory by directory. Says what differs, mends nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::list::Counted;
use crate::db::{DirRow, LinkRow, Snapshot};
use crate::id::Ino;

/// One thing in which a record and a count differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// On disk, but not recorded.
    Missing { path: Vec<u8>, found: DirRow },
    /// Recorded, but not on disk.
    Gone { path: Vec<u8>, recorded: DirRow },
    /// The same directory with other figures, another place or another generation.
    Changed {
        path: Vec<u8>,
        recorded: DirRow,
        found: DirRow,
    },
    /// An inode with several links.
    Links {
        ino: Ino,
        recorded: Vec<LinkRow>,
        found: Vec<LinkRow>,
    },
}

/// Lists all differences, by inode number, directories first. Empty means equal to the byte.
/// Paths are those of the count, or of the record for what is not on disk.
pub fn compare(recorded: &Snapshot, found: &Counted) -> Vec<Difference> {
    let old = by_ino(&recorded.dirs);
    let new = by_ino(&found.dirs);
    let mut differences = Vec::new();
    for (ino, &row) in &new {
        match old.get(ino) {
            None => differences.push(Difference::Missing {
                path: path(&new, row),
                found: row.clone(),
            }),
            Some(&was) if was != row => differences.push(Difference::Changed {
                path: path(&new, row),
                recorded: was.clone(),
                found: row.clone(),
            }),
            Some(_) => {}
        }
    }
    for (_, &row) in old.iter().filter(|(ino, _)| !new.contains_key(ino)) {
        differences.push(Difference::Gone {
            path: path(&old, row),
            recorded: row.clone(),
        });
    }
    let (old, new) = (links_by_ino(&recorded.links), links_by_ino(&found.links));
    let mut inos: Vec<Ino> = old.keys().chain(new.keys()).copied().collect();
    inos.sort_unstable();
    inos.dedup();
    for ino in inos {
        let rows = |of: &BTreeMap<Ino, Vec<LinkRow>>| of.get(&ino).cloned().unwrap_or_default();
        let (recorded, found) = (rows(&old), rows(&new));
        if recorded != found {
            differences.push(Difference::Links { ino, recorded, found });
        }
    }
    differences
}

fn by_ino(rows: &[DirRow]) -> BTreeMap<Ino, &DirRow> {
    rows.iter().map(|row| (row.ino, row)).collect()
}

fn links_by_ino(rows: &[LinkRow]) -> BTreeMap<Ino, Vec<LinkRow>> {
    let mut by_ino: BTreeMap<Ino, Vec<LinkRow>> = BTreeMap::new();
    for row in rows {
        by_ino.entry(row.ino).or_default().push(row.clone());
    }
    for rows in by_ino.values_mut() {
        rows.sort_unstable_by_key(|row| row.parent);
    }
    by_ino
}

/// Path of a row, as far as its parents are known; ends also where rows run in a circle.
fn path(rows: &BTreeMap<Ino, &DirRow>, row: &DirRow) -> Vec<u8> {
    let mut names = vec![row.name.as_slice()];
    let mut at = row;
    while let Some(&parent) = rows.get(&at.parent).filter(|parent| parent.ino != at.ino) {
        if parent.parent == parent.ino || names.len() > rows.len() {
            break;
        }
        names.push(&parent.name);
        at = parent;
    }
    names.reverse();
    names.join(&b'/')
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, found } => {
                write!(f, "{}: not recorded; found {}", show(path), figures(found))
            }
            Self::Gone { path, recorded } => {
                write!(f, "{}: not there; recorded {}", show(path), figures(recorded))
            }
            Self::Changed { path, recorded, found } => {
                let (was, is) = (figures(recorded), figures(found));
                write!(f, "{}: recorded {was}, found {is}", show(path))
            }
            Self::Links { ino, recorded, found } => write!(
                f,
                "inode {ino}: links recorded {}, found {}",
                places(recorded),
                places(found)
            ),
        }
    }
}

/// The root has no name.
fn show(path: &[u8]) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    path.escape_ascii().to_string()
}

fn figures(row: &DirRow) -> String {
    let limits = if row.limits.is_none() {
        String::new()
    } else {
        format!(", limits {}", row.limits)
    };
    format!(
        "{} bytes, {} files, {} directories{limits} (inode {}, generation {}, in inode {})",
        row.own.bytes, row.own.files, row.own.dirs, row.ino, row.generation, row.parent
    )
}

fn places(rows: &[LinkRow]) -> String {
    let place = |row: &LinkRow| format!("{} in inode {} of {} bytes", row.names, row.parent, row.bytes);
    if rows.is_empty() {
        return "none".to_owned();
    }
    rows.iter().map(place).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::LimitOverrides;
    use crate::units::Meters;

    fn dir(ino: u64, parent: u64, name: &str, bytes: u64) -> DirRow {
        DirRow {
            ino: Ino(ino),
            generation: 0,
            parent: Ino(parent),
            name: name.into(),
            own: Meters {
                bytes,
                files: 1,
                dirs: 0,
            },
            limits: LimitOverrides::NONE,
        }
    }

    #[test]
    fn each_kind_of_difference_is_named_with_its_path() {
        let recorded = vec![
            dir(2, 2, "", 0),
            dir(3, 2, "a", 5),
            dir(4, 3, "old", 0),
            dir(6, 2, "b", 0),
        ];
        let found = vec![
            dir(2, 2, "", 0),
            dir(3, 2, "a", 6),
            dir(5, 3, "new", 0),
            dir(6, 3, "b", 0),
        ];
        let link = LinkRow {
            ino: Ino(9),
            parent: Ino(3),
            names: 2,
            bytes: 1,
        };
        let recorded = Snapshot {
            dirs: recorded,
            links: vec![link],
        };
        let found = Counted {
            dirs: found,
            ..Counted::default()
        };
        let told: Vec<String> = compare(&recorded, &found).iter().map(ToString::to_string).collect();
        let starts = [
            "a: recorded 5 bytes",
            "a/new: not recorded",
            "a/b: recorded",
            "a/old: not there",
            "inode 9: links recorded 2 in inode 3 of 1 bytes, found none",
        ];
        assert_eq!(told.len(), starts.len(), "{told:?}");
        for (line, start) in told.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn equal_counts_differ_in_nothing_and_circles_end() {
        let dirs = vec![dir(2, 2, "", 0), dir(3, 4, "x", 0), dir(4, 3, "y", 0)];
        let found = Counted {
            dirs: dirs.clone(),
            ..Counted::default()
        };
        let recorded = Snapshot {
            dirs,
            links: Vec::new(),
        };
        assert_eq!(compare(&recorded, &found), []);
        assert_eq!(compare(&Snapshot::default(), &found).len(), 3);
    }
}
