//! Which of three slots may be written: never the durable one, never one that a running sync may be
//! writing (a page changed while it is written back can reach the disk mixed).

use crate::sealed::SLOT_COUNT;
use crate::store::sealed_file::rules::{Rule, holds};

/// Marks of the three head slots or the three tail slots of one file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Slots {
    /// Holds what the last good sync made durable.
    pub durable: Option<u8>,
    /// Was written before the sync that is running began.
    pub syncing: Option<u8>,
    /// Written last; holds the newest content.
    pub current: Option<u8>,
    /// Holds a second copy of the durable one (sealed heads); written last of all.
    pub twin: Option<u8>,
    /// Holds the old copy of a body page that is not durably overwritten yet.
    pub aside: Option<u8>,
}

impl Slots {
    /// The slot to write now: the current one again when nothing relies on it, or a free one.
    pub fn writable(self) -> u8 {
        let relied_on = |slot: u8| {
            (Some(slot) == self.durable && holds(Rule::SpareDurableSlot))
                || (Some(slot) == self.syncing && holds(Rule::SpareSyncingSlot))
        };
        if let Some(current) = self.current
            && !relied_on(current)
        {
            return current;
        }
        let free = || (0..SLOT_COUNT as u8).filter(|&slot| !relied_on(slot));
        let spare = |slot: &u8| ![self.twin, self.aside].contains(&Some(*slot));
        let slot = free().find(spare).or_else(|| free().next());
        slot.expect("three slots, two of them relied on")
    }

    /// Whether a slot holds something that counts, or that a sync may be writing.
    pub fn uses(self, slot: u8) -> bool {
        [self.durable, self.syncing, self.current, self.aside].contains(&Some(slot))
    }

    /// A sync begins: what is there now is what it may be writing.
    pub fn sync_begins(&mut self) {
        self.syncing = self.current;
    }

    /// The sync that began with `written` in place is done.
    pub fn sync_done(&mut self, written: Option<u8>) {
        self.syncing = None;
        self.aside = None;
        if self.durable != written {
            self.twin = None;
        }
        self.durable = written;
    }
}
