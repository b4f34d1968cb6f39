//! What each request means: names, attributes, contents and limits, without a word of FUSE.
//!
//! Lock order, outermost first:
//! 1. `Dirty` operation guard (no lock: it pins an epoch of the dirty log)
//! 2. `tree_lock` (rename alone)
//! 3. `FileNode::sync_turn` of one file
//! 4. `FileNode::state` of one file (rename: of source and target, under the tree lock)
//! 5. `Links` table, `Committer` list
//! 6. `placing` (what an account's limits are)
//! 7. the ledger's admission lock
//!
//! 3 and 4 may be held over I/O on that one file; 5 to 7 never. `limits_turn`, held while an administrator sets a limit, is
//! taken before all of them. No `DashMap` guard is held over I/O,
//! over another map access, or when a method returns. The kernel keeps requests that change one
//! directory apart; what the daemon changes by itself goes through the same calls.

mod accounts;
mod acl;
mod attr;
mod baseline;
mod closing;
mod committer;
mod copy;
mod create;
mod date_dirs;
mod dir;
mod errno;
mod failures;
mod figures;
mod file;
mod handles;
mod hashing;
mod in_hand;
mod kept;
mod links;
mod lookup;
mod node;
mod quota_xattr;
mod refusals;
mod remove;
mod rename;
mod resize;
mod rotation;
mod setattr;
mod setup;
mod statfs;
mod take_over;
mod walkers;
mod xattr;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::config::Config;
use crate::id::Ino;
use crate::quota::{Account, Ledger};
use crate::sealed::keyring::KeyRing;
use crate::store::dirty_log::{DirtyLog, Operation};
use crate::store::tree::Tree;

pub use crate::sealed::keyring::{KeyInfo, KeyState};
pub use acl::NewMode;
pub use attr::Attr;
pub use baseline::{ContentNote, KnownHeads, Note, Place, Waiting};
pub use committer::CommitStatus;
pub use copy::CopyEnd;
pub use date_dirs::Vanished;
pub use dir::{DirEntry, Listing, OpenedDirectory, Remembered};
pub use errno::{Errno, FsResult};
pub use failures::{Damage, Failures};
pub use figures::PastOperations;
pub use file::{OpenMode, Opened, WriteAsked};
pub use handles::Handle;
pub use in_hand::InHand;
pub use kept::{Kept, NEWEST_STEP, is_repeated};
pub use links::{LinkCharge, MultiLink};
pub use node::{Node, ROOT_NODE};
pub use rename::RenameKind;
pub use resize::Seek;
pub use rotation::{RotationProgress, RotationState};
pub use setattr::{NewTime, SetAttr};
pub use statfs::Space;
pub use take_over::{Estate, TakenOver};
pub use xattr::XattrAnswer;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Kernel number of the thread.
    pub thread: u32,
}

/// An inode as a look-up answers it.
pub struct Entry {
    /// Its attributes.
    pub attr: Attr,
    /// Tells a reused inode number apart.
    pub generation: u32,
}

/// A look-up's answer.
pub enum Found {
    /// The name exists.
    Entry(Entry),
    /// It does not, and the kernel may remember that.
    Absent,
    /// It does not, but the daemon may make it by itself one day.
    AbsentForNow,
    /// It shows a figure that may change at any time.
    Figure(Entry),
}

/// The parts that a file system is made of.
pub struct Parts {
    /// The data directory.
    pub tree: Arc<Tree>,
    /// All accounts, loaded.
    pub ledger: Arc<Ledger>,
    /// Inodes with several names, loaded.
    pub links: Vec<MultiLink>,
    /// What to note before directories change.
    pub dirty: Arc<DirtyLog>,
    /// Keys.
    pub ring: Arc<KeyRing>,
    /// The checked configuration.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What was known of sealed files.
    pub known_heads: Arc<dyn KnownHeads>,
    /// What was done in past months.
    pub past_operations: Arc<dyn PastOperations>,
    /// So many recordings may wait to be sealed, each with a descriptor, before whoever closes one helps.
    pub unsealed_files_max: usize,
    /// Owner of the daemon process, to whom new inodes belong before they are given away.
    pub daemon: Caller,
    /// Group whose members may set limits; without one, root alone.
    pub administrators: Option<u32>,
    /// What makes the mount outlive this process, where somebody keeps it.
    pub estate: Option<Estate>,
}

/// The file system: one call for each request.
pub struct FileSystem {
    tree: Arc<Tree>,
    nodes: Arc<node::Nodes>,
    handles: handles::Handles,
    ledger: Arc<Ledger>,
    links: links::Links,
    dirty: Arc<DirtyLog>,
    ring: Arc<KeyRing>,
    /// Replaced while there are requests; read it by [`FileSystem::config`].
    config: RwLock<Arc<Config>>,
    clock: Arc<dyn Clock>,
    daemon: Caller,
    administrators: Option<u32>,
    estate: Option<Estate>,
    /// Copy a page aside and sync before it is overwritten in place.
    strict_overwrite: bool,
    refusals: refusals::Refusals,
    failures: Failures,
    committer: committer::Committer,
    notes: baseline::Notes,
    hashing: hashing::Hashing,
    rotation: rotation::Rotation,
    known_heads: Arc<dyn KnownHeads>,
    past_operations: Arc<dyn PastOperations>,
    open_figures: figures::OpenFigures,
    date_dirs: date_dirs::DateDirs,
    tree_lock: Mutex<()>,
    limits_turn: Mutex<()>,
    placing: Mutex<()>,
    stopping: AtomicBool,
}

impl FileSystem {
    /// The ledger, for figures.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The configuration that is in force. One request asks once, so that what it does is of one piece.
    fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// The account of a directory node.
    fn account_of(&self, node: &Node) -> FsResult<Arc<Account>> {
        self.ledger.account(node.ino).ok_or(Errno::ESTALE)
    }

    /// Notes every directory whose figures a file's length belongs to.
    fn mark_file(&self, operation: &Operation<'_>, node: &Node) {
        if node.file.several_links.load(std::sync::atomic::Ordering::Acquire) {
            for parent in self.links.parents(node.ino) {
                mark(operation, &parent);
            }
        }
        mark(operation, &node.file.home.read());
    }

    fn account_by_ino(&self, ino: Ino) -> FsResult<Arc<Account>> {
        self.ledger.account(ino).ok_or(Errno::ESTALE)
    }
}

/// Notes that what lies directly in the account's directory is about to change.
fn mark(operation: &Operation<'_>, account: &Account) {
    operation.mark(account.ino(), &account.dirty_epoch);
}

/// A name as system calls want it: one component of a path, and none that leads upwards. The kernel sends no
/// other; a descriptor that speaks FUSE in its place might.
fn c_name(name: &std::ffi::OsStr) -> FsResult<CString> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for name in ["", ".", "..", "a/b", "/etc", "../x", "a\0b"] {
            assert!(c_name(name.as_ref()).is_err(), "{name:?}");
        }
        for name in ["...", ".a", "call..wav", "\u{e9}"] {
            assert_eq!(c_name(name.as_ref()).unwrap().to_bytes(), name.as_bytes());
        }
    }
}
