//! From rows to a ledger: every directory becomes an account, parents before children.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::db::{DirRow, LinkRow};
use crate::fs::MultiLink;
use crate::id::Ino;
use crate::quota::{Ledger, Limits};

/// A ledger with the figures of the rows, without limits yet. Rows that hang on nothing are left out and named.
pub fn ledger_of(rows: &[DirRow], root_ino: Ino, clock: Arc<dyn Clock>) -> Arc<Ledger> {
    let ledger = Ledger::with_clock(root_ino, Limits::NONE, clock);
    let mut children: HashMap<Ino, Vec<&DirRow>> = HashMap::new();
    for row in rows {
        if row.ino == root_ino {
            ledger.load_own(ledger.root(), row.own);
            ledger.root().set_generation(row.generation);
            ledger.root().set_overrides(row.limits.clone());
        } else {
            children.entry(row.parent).or_default().push(row);
        }
    }
    let mut placed_count = 0;
    let mut waiting = vec![ledger.root().clone()];
    while let Some(parent) = waiting.pop() {
        for row in children.remove(&parent.ino()).unwrap_or_default() {
            let account = ledger.insert(&parent, row.ino, row.generation, &row.name);
            ledger.load_own(&account, row.own);
            account.set_overrides(row.limits.clone());
            waiting.push(account);
            placed_count += 1;
        }
    }
    let lost: usize = children.values().map(Vec::len).sum();
    if lost > 0 {
        log::warn!("{lost} directories of the database belong to none of the {placed_count} others and are left out");
    }
    ledger.sum_totals();
    ledger
}

/// Link rows by inode.
pub fn multi_links(rows: &[LinkRow]) -> Vec<MultiLink> {
    let mut links: HashMap<Ino, MultiLink> = HashMap::new();
    for row in rows {
        let link = links.entry(row.ino).or_insert_with(|| MultiLink {
            ino: row.ino,
            bytes: row.bytes,
            parents: Vec::new(),
        });
        link.bytes = row.bytes;
        link.parents.extend((0..row.names).map(|_| row.parent));
    }
    links.into_values().collect()
}

/// The rows of one inode with several names.
pub fn link_rows(link: &MultiLink) -> Vec<LinkRow> {
    let mut names: HashMap<Ino, u64> = HashMap::new();
    for &parent in &link.parents {
        *names.entry(parent).or_default() += 1;
    }
    names
        .into_iter()
        .map(|(parent, names)| LinkRow {
            ino: link.ino,
            parent,
            names,
            bytes: link.bytes,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::quota::LimitOverrides;
    use crate::units::Meters;

    fn row(ino: u64, generation: u32, parent: u64, name: &[u8], own: Meters) -> DirRow {
        DirRow {
            ino: Ino(ino),
            generation,
            parent: Ino(parent),
            name: name.to_vec(),
            own,
            limits: LimitOverrides::NONE,
        }
    }

    #[test]
    fn every_row_becomes_an_account_with_its_generation_the_root_too() {
        let rows = [
            row(9, 90, 7, b"sales", Meters::of_file(300)),
            row(2, 20, 2, b"", Meters::ONE_DIR),
            row(
                7,
                70,
                2,
                b"acme",
                Meters {
                    dirs: 1,
                    ..Meters::of_file(100)
                },
            ),
        ];
        let ledger = ledger_of(&rows, Ino(2), Arc::new(SystemClock::new()));
        for row in &rows {
            let account = ledger.account(row.ino).unwrap();
            assert_eq!((account.generation(), account.own()), (row.generation, row.own));
        }
        assert_eq!(
            ledger.root().total(),
            Meters {
                bytes: 400,
                files: 2,
                dirs: 2
            }
        );
    }

    #[test]
    fn link_rows_and_inodes_with_several_names_are_each_others_inverse() {
        let rows = [
            LinkRow {
                ino: Ino(5),
                parent: Ino(7),
                names: 2,
                bytes: 10,
            },
            LinkRow {
                ino: Ino(5),
                parent: Ino(9),
                names: 1,
                bytes: 10,
            },
        ];
        let links = multi_links(&rows);
        assert_eq!(links.len(), 1);
        let mut again = link_rows(&links[0]);
        again.sort_by_key(|row| row.parent);
        assert_eq!(again, rows);
    }
}
