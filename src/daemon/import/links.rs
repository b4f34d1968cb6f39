//! Files with several names: the first that is met is copied, the others become names of that copy.

use std::collections::HashMap;

use super::source::InodeId;
use super::target::Known;

/// What became of the first name.
pub enum First {
    /// It waits in the batch.
    Waiting,
    /// The file in the store.
    At(Known),
    /// It did not come along.
    Lost,
}

struct Linked {
    first: First,
    /// Its path below the tree.
    path: Vec<u8>,
    /// Names that were not met yet, some of which may lie outside of the tree.
    left_count: u32,
}

/// All that were met and have names left.
#[derive(Default)]
pub struct Links {
    table: HashMap<InodeId, Linked>,
}

impl Links {
    /// Whether a name of the inode was met before.
    pub fn is_known(&self, id: InodeId) -> bool {
        self.table.contains_key(&id)
    }

    /// The first of `names` names is met.
    pub fn begin(&mut self, id: InodeId, path: Vec<u8>, names: u32, first: First) {
        let left_count = names.saturating_sub(1);
        self.table.insert(
            id,
            Linked {
                first,
                path,
                left_count,
            },
        );
    }

    /// The first name is done.
    pub fn settle(&mut self, id: InodeId, first: First) {
        if let Some(linked) = self.table.get_mut(&id) {
            linked.first = first;
        }
    }

    /// The file in the store, or the path of the first name, which did not come along.
    pub fn find(&self, id: InodeId) -> Result<&Known, String> {
        match self.table.get(&id) {
            Some(Linked {
                first: First::At(known),
                ..
            }) => Ok(known),
            Some(linked) => Err(String::from_utf8_lossy(&linked.path).into_owned()),
            None => Err(String::new()),
        }
    }

    /// A further name is done; with the last one the file is forgotten.
    pub fn one_less(&mut self, id: InodeId) {
        if let Some(linked) = self.table.get_mut(&id) {
            linked.left_count = linked.left_count.saturating_sub(1);
            if linked.left_count == 0 {
                self.table.remove(&id);
            }
        }
    }
}
