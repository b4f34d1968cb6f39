//! Recursive totals from directory rows: own figures summed up the tree, inodes with several links
//! charged once to the deepest directory that holds all their links. Pure, and linear in the rows.

use std::collections::HashMap;

use super::rows::{DirRow, LinkRow};
use crate::id::Ino;
use crate::units::Meters;

/// Totals of every directory that hangs together with the root.
///
/// Rows of a running daemon are not a picture of one instant: a row whose parent is missing is
/// put below the root, and rows that are each other's parents are left out.
pub struct Totals<'a> {
    dirs: &'a [DirRow],
    index: HashMap<Ino, usize>,
    root: Option<usize>,
    total: Vec<Meters>,
}

/// Distance from the root; `None` for rows that the root does not reach.
type Depths = Vec<Option<usize>>;

impl<'a> Totals<'a> {
    pub fn new(dirs: &'a [DirRow], links: &[LinkRow]) -> Self {
        let index: HashMap<Ino, usize> = dirs.iter().enumerate().map(|(at, row)| (row.ino, at)).collect();
        let root = dirs.iter().position(|row| row.parent == row.ino);
        let mut totals = Self {
            dirs,
            index,
            root,
            total: dirs.iter().map(|row| row.own).collect(),
        };
        let (order, depths) = totals.top_down();
        for same in links.chunk_by(|a, b| a.ino == b.ino) {
            if let Some(at) = totals.common_ancestor(&depths, same) {
                let total = &mut totals.total[at];
                *total = total.saturating_add(Meters::of_file(same[0].bytes));
            }
        }
        for &at in order.iter().rev() {
            if let Some(parent) = totals.parent(at) {
                let below = totals.total[at];
                let total = &mut totals.total[parent];
                *total = total.saturating_add(below);
            }
        }
        totals
    }

    /// The whole mount.
    pub fn mount(&self) -> Meters {
        self.root.map_or(Meters::default(), |at| self.total[at])
    }

    /// Total of one directory with all below it.
    pub fn of(&self, ino: Ino) -> Option<Meters> {
        self.index.get(&ino).map(|&at| self.total[at])
    }

    /// Totals of the directories directly below the root, by name: the tenants of a layout whose
    /// first level is the tenant.
    pub fn tenants(&self) -> Vec<(&'a DirRow, Meters)> {
        let dirs = self.dirs;
        let mut tenants: Vec<_> = (0..dirs.len())
            .filter(|&at| self.root.is_some() && self.parent(at) == self.root)
            .map(|at| (&dirs[at], self.total[at]))
            .collect();
        tenants.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        tenants
    }

    fn parent(&self, at: usize) -> Option<usize> {
        let row = &self.dirs[at];
        match self.index.get(&row.parent) {
            _ if Some(at) == self.root => None,
            Some(&parent) if parent != at => Some(parent),
            _ => self.root,
        }
    }

    /// Rows in an order in which every parent comes before its children.
    fn top_down(&self) -> (Vec<usize>, Depths) {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.dirs.len()];
        for at in 0..self.dirs.len() {
            if let Some(parent) = self.parent(at) {
                children[parent].push(at);
            }
        }
        let mut depths: Depths = vec![None; self.dirs.len()];
        let mut order: Vec<usize> = self.root.into_iter().collect();
        if let Some(root) = self.root {
            depths[root] = Some(0);
        }
        let mut next = 0;
        while let Some(&at) = order.get(next) {
            next += 1;
            for &child in &children[at] {
                depths[child] = depths[at].map(|depth| depth + 1);
                order.push(child);
            }
        }
        (order, depths)
    }

    fn common_ancestor(&self, depths: &Depths, rows: &[LinkRow]) -> Option<usize> {
        let place = |row: &LinkRow| {
            let at = self.index.get(&row.parent).copied();
            at.filter(|&at| depths[at].is_some()).or(self.root)
        };
        let mut common = place(rows.first()?)?;
        for row in &rows[1..] {
            let mut other = place(row)?;
            while common != other {
                if depths[common] >= depths[other] {
                    common = self.parent(common)?;
                } else {
                    other = self.parent(other)?;
                }
            }
        }
        Some(common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::LimitOverrides;

    fn dir(ino: u64, parent: u64, bytes: u64, dirs: u64) -> DirRow {
        DirRow {
            ino: Ino(ino),
            generation: 0,
            parent: Ino(parent),
            name: ino.to_string().into_bytes(),
            own: Meters { bytes, files: 1, dirs },
            limits: LimitOverrides::NONE,
        }
    }

    fn link(ino: u64, parent: u64) -> LinkRow {
        LinkRow {
            ino: Ino(ino),
            parent: Ino(parent),
            names: 1,
            bytes: 1000,
        }
    }

    const fn meters(bytes: u64, files: u64, dirs: u64) -> Meters {
        Meters { bytes, files, dirs }
    }

    #[test]
    fn sums_go_up_the_tree_whatever_the_order_of_rows() {
        let rows = [dir(9, 5, 4, 0), dir(5, 2, 2, 1), dir(2, 2, 1, 2), dir(7, 2, 8, 0)];
        let totals = Totals::new(&rows, &[]);
        assert_eq!(totals.mount(), meters(15, 4, 3));
        assert_eq!(totals.of(Ino(5)), Some(meters(6, 2, 1)));
        let tenants: Vec<_> = totals.tenants().iter().map(|t| (t.0.ino.0, t.1.bytes)).collect();
        assert_eq!(tenants, [(5, 6), (7, 8)]);
    }

    #[test]
    fn an_inode_with_links_in_two_directories_is_charged_once_to_what_holds_both() {
        let rows = [
            dir(2, 2, 0, 2),
            dir(5, 2, 0, 2),
            dir(6, 5, 0, 0),
            dir(7, 5, 0, 0),
            dir(8, 2, 0, 0),
        ];
        let links = [link(70, 6), link(70, 7), link(71, 6), link(71, 8), link(72, 7)];
        let totals = Totals::new(&rows, &links);
        assert_eq!(totals.of(Ino(6)), Some(meters(0, 1, 0)));
        assert_eq!(totals.of(Ino(7)), Some(meters(1000, 2, 0)));
        assert_eq!(totals.of(Ino(5)), Some(meters(2000, 5, 2)));
        assert_eq!(totals.mount(), meters(3000, 8, 4));
    }

    #[test]
    fn lost_parents_and_loops_neither_hang_nor_hide_the_rest() {
        let rows = [dir(2, 2, 1, 0), dir(5, 99, 2, 0), dir(6, 7, 4, 0), dir(7, 6, 8, 0)];
        let totals = Totals::new(&rows, &[link(70, 6), link(70, 5)]);
        assert_eq!(totals.mount().bytes, 1003);
        assert_eq!(Totals::new(&[], &[]).mount(), Meters::default());
    }

    #[test]
    fn figures_at_the_end_of_the_numbers_stay_there() {
        let rows = [dir(2, 2, 1, 0), dir(5, 2, u64::MAX, 0)];
        assert_eq!(Totals::new(&rows, &[link(70, 5)]).mount(), meters(u64::MAX, 3, 0));
    }
}
