//! Inodes with several names: they are charged to the deepest directory that holds all their names,
//! so that a scan, which cannot know which name came first, counts the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::id::Ino;
use crate::quota::{Account, Ledger};
use crate::units::Meters;

/// One inode with several names, as it is loaded and saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MultiLink {
    /// The inode.
    pub ino: Ino,
    /// Plaintext bytes.
    pub bytes: u64,
    /// Directories that hold a name, once for each name.
    pub parents: Vec<Ino>,
}

/// What inodes with several names add to the account that they are charged to.
pub type LinkCharge = HashMap<Ino, Meters>;

struct Link {
    bytes: u64,
    parents: Vec<Arc<Account>>,
}

/// The table of inodes with several names.
#[derive(Default)]
pub struct Links {
    table: Mutex<HashMap<Ino, Link>>,
    changed: Mutex<HashSet<Ino>>,
}

impl Links {
    /// Puts a loaded inode in the table and charges it.
    pub fn load(&self, ledger: &Arc<Ledger>, loaded: &MultiLink) {
        let parents: Vec<_> = loaded.parents.iter().filter_map(|&ino| ledger.account(ino)).collect();
        if let Some(home) = common(ledger, &parents) {
            ledger.charge_forced(&home, Meters::of_file(loaded.bytes));
            self.table.lock().insert(
                loaded.ino,
                Link {
                    bytes: loaded.bytes,
                    parents,
                },
            );
        }
    }

    /// The directories that hold its names; empty when it has only one.
    pub fn parents(&self, ino: Ino) -> Vec<Arc<Account>> {
        self.table
            .lock()
            .get(&ino)
            .map_or_else(Vec::new, |link| link.parents.clone())
    }

    /// The account that an inode with several names is charged to.
    pub fn home(&self, ledger: &Ledger, ino: Ino) -> Option<Arc<Account>> {
        common(ledger, &self.parents(ino))
    }

    /// A name came to be in `parent`; `home` held the only name until now. Returns the new home.
    pub fn added(
        &self,
        ledger: &Ledger,
        ino: Ino,
        bytes: u64,
        home: &Arc<Account>,
        parent: &Arc<Account>,
    ) -> Arc<Account> {
        let mut table = self.table.lock();
        let link = table.entry(ino).or_insert_with(|| Link {
            bytes,
            parents: vec![home.clone()],
        });
        link.parents.push(parent.clone());
        link.bytes = bytes;
        let parents = link.parents.clone();
        drop(table);
        self.changed.lock().insert(ino);
        common(ledger, &parents).unwrap_or_else(|| home.clone())
    }

    /// A name in `parent` is gone. Returns the new home and how many names are left.
    pub fn removed(&self, ledger: &Ledger, ino: Ino, parent: &Account) -> Option<(Arc<Account>, usize)> {
        let mut table = self.table.lock();
        let link = table.get_mut(&ino)?;
        let at = link.parents.iter().position(|held| held.ino() == parent.ino())?;
        link.parents.swap_remove(at);
        let parents = link.parents.clone();
        if parents.len() <= 1 {
            table.remove(&ino);
        }
        drop(table);
        self.changed.lock().insert(ino);
        common(ledger, &parents).map(|home| (home, parents.len()))
    }

    /// A name went from one directory to another. Returns the new home.
    pub fn moved(&self, ledger: &Ledger, ino: Ino, from: &Account, to: &Arc<Account>) -> Option<Arc<Account>> {
        let mut table = self.table.lock();
        let link = table.get_mut(&ino)?;
        let at = link.parents.iter().position(|held| held.ino() == from.ino())?;
        link.parents[at] = to.clone();
        let parents = link.parents.clone();
        drop(table);
        self.changed.lock().insert(ino);
        common(ledger, &parents)
    }

    /// What the home would be after [`Links::moved`].
    pub fn home_if_moved(&self, ledger: &Ledger, ino: Ino, from: &Account, to: &Arc<Account>) -> Option<Arc<Account>> {
        let mut parents = self.parents(ino);
        let at = parents.iter().position(|held| held.ino() == from.ino())?;
        parents[at] = to.clone();
        common(ledger, &parents)
    }

    /// Where each inode is charged now, before a directory moves.
    pub fn homes(&self, ledger: &Ledger) -> Vec<(Ino, Arc<Account>)> {
        let inos: Vec<Ino> = self.table.lock().keys().copied().collect();
        inos.into_iter()
            .filter_map(|ino| Some((ino, self.home(ledger, ino)?)))
            .collect()
    }

    /// Plaintext bytes of an inode with several names.
    pub fn bytes(&self, ino: Ino) -> u64 {
        self.table.lock().get(&ino).map_or(0, |link| link.bytes)
    }

    /// Its length changed.
    pub fn set_bytes(&self, ino: Ino, bytes: u64) {
        if let Some(link) = self.table.lock().get_mut(&ino) {
            link.bytes = bytes;
            self.changed.lock().insert(ino);
        }
    }

    /// What has to be saved: rows of inodes that changed, and inodes that have no rows any more.
    pub fn take_changed(&self) -> (Vec<MultiLink>, Vec<Ino>) {
        let changed = std::mem::take(&mut *self.changed.lock());
        let table = self.table.lock();
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for ino in changed {
            match table.get(&ino) {
                Some(link) => rows.push(row(ino, link)),
                None => gone.push(ino),
            }
        }
        (rows, gone)
    }

    /// These could not be saved.
    pub fn give_back_changed(&self, inos: impl IntoIterator<Item = Ino>) {
        self.changed.lock().extend(inos);
    }

    /// All rows.
    pub fn all(&self) -> Vec<MultiLink> {
        self.table.lock().iter().map(|(&ino, link)| row(ino, link)).collect()
    }

    /// What the table adds to the own figures of accounts.
    pub fn charges(&self, ledger: &Ledger) -> LinkCharge {
        let links: Vec<_> = self
            .table
            .lock()
            .values()
            .map(|link| (link.bytes, link.parents.clone()))
            .collect();
        let mut charges = LinkCharge::new();
        for (bytes, parents) in links {
            if let Some(home) = common(ledger, &parents) {
                let sum = charges.entry(home.ino()).or_default();
                *sum = sum.saturating_add(Meters::of_file(bytes));
            }
        }
        charges
    }
}

fn row(ino: Ino, link: &Link) -> MultiLink {
    MultiLink {
        ino,
        bytes: link.bytes,
        parents: link.parents.iter().map(|account| account.ino()).collect(),
    }
}

fn common(ledger: &Ledger, parents: &[Arc<Account>]) -> Option<Arc<Account>> {
    let mut parents = parents.iter();
    let first = parents.next()?.clone();
    Some(parents.fold(first, |common, parent| ledger.common_ancestor(&common, parent)))
}
