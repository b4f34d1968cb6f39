//! `df` of any directory: the smallest room over its accounts and the real disk.

use std::sync::Arc;

use crate::fs::FileSystem;
use crate::fs::errno::FsResult;
use crate::fs::figures::is_figure;
use crate::fs::node::Node;
use crate::quota::{Account, Room};

/// Unit of the figures, and what stat calls the preferred block size.
pub const BLOCK_BYTES: u64 = 4096;

/// Room as statfs(2) tells it; blocks of [`BLOCK_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Files in all.
    pub files: u64,
    /// Files that can still be made.
    pub files_free: u64,
    /// Longest name.
    pub name_bytes_max: u32,
}

impl FileSystem {
    /// Room below a directory, or below the directory of a file.
    ///
    /// # Errors
    /// Errors of the backing statfs.
    pub fn statfs(&self, number: u64) -> FsResult<Space> {
        let account = if is_figure(number) {
            self.tenant_of_figure(number)?
        } else {
            self.paying_account(&*self.node(number)?)?
        };
        let disk = rustix::fs::fstatvfs(self.tree.root())?;
        let disk_free = disk.f_bavail.saturating_mul(disk.f_frsize) / BLOCK_BYTES;
        let limited = self.ledger.available(&account);
        let used = account.total();
        let (blocks, blocks_free) = if let Some(room) = &limited.bytes {
            narrowed(room, disk_free)
        } else {
            let used = used.bytes.div_ceil(BLOCK_BYTES);
            (used.saturating_add(disk_free), disk_free)
        };
        let (files, files_free) = if let Some(room) = &limited.files {
            let free = room.remaining.min(disk.f_favail);
            (room.used.saturating_add(free), free)
        } else {
            let used = used.files.saturating_add(used.dirs);
            (used.saturating_add(disk.f_favail), disk.f_favail)
        };
        Ok(Space {
            blocks,
            blocks_free,
            files,
            files_free,
            name_bytes_max: disk.f_namemax as u32,
        })
    }

    fn paying_account(&self, node: &Node) -> FsResult<Arc<Account>> {
        if node.is_directory() {
            self.account_of(node)
        } else {
            Ok(node.home())
        }
    }
}

/// Total and free blocks under a byte limit, no freer than the disk.
fn narrowed(room: &Room, disk_free: u64) -> (u64, u64) {
    let free = (room.remaining / BLOCK_BYTES).min(disk_free);
    let total = if free < disk_free {
        room.limit.max(room.used) / BLOCK_BYTES
    } else {
        room.used.div_ceil(BLOCK_BYTES) + free
    };
    (total, free)
}
