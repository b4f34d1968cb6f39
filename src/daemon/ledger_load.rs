//! From rows to a ledger: every directory becomes an account, parents before children.

use std::collections::HashMap;
use std::sync::Arc;

use crate::db::{DirRow, LinkRow};
use crate::fs::MultiLink;
use crate::id::Ino;
use crate::quota::{Ledger, Limits};

/// A ledger with the figures of the rows. Rows that hang on nothing are left out and named.
pub fn ledger_of(rows: &[DirRow], root_ino: Ino, mount: Limits) -> Arc<Ledger> {
    let ledger = Ledger::new(root_ino, mount);
    let mut children: HashMap<Ino, Vec<&DirRow>> = HashMap::new();
    for row in rows {
        if row.ino == root_ino {
            ledger.load_own(ledger.root(), row.own);
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
