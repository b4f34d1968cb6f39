//! Rows as plain structs: what is written back, what a start reads, what a scan yields.
//! They carry no behaviour, so that the ledger, a scan and the database can be compared row by row.

use crate::id::Ino;
use crate::quota::{LimitOverrides, OperationCounts, SavedExternal, SavedTerms};
use crate::units::Meters;

/// One directory. The root is its own parent and has an empty name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirRow {
    pub ino: Ino,
    /// Tells a directory from an earlier one with the same inode number.
    pub generation: u32,
    pub parent: Ino,
    /// Name in the parent, as bytes.
    pub name: Vec<u8>,
    /// What lies directly in it: plaintext bytes and count of its inodes with one link, and its
    /// direct sub-directories. Inodes with several links are not in here but in [`LinkRow`]s.
    pub own: Meters,
    /// Limits that were set on it.
    pub limits: LimitOverrides,
}

/// Links of one inode with several links that lie in one directory.
/// An inode is charged once, to the deepest directory that holds all its links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkRow {
    pub ino: Ino,
    pub parent: Ino,
    /// How many links of `ino` lie in `parent`, 1 or more.
    pub names: u64,
    /// Plaintext length of the inode: the whole of it, the same in each of its rows.
    pub bytes: u64,
}

/// What an account has beside its counters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TermsRow {
    pub ino: Ino,
    /// Tells a directory from an earlier one with the same inode number.
    pub generation: u32,
    pub saved: SavedTerms,
}

/// Somebody changed a limit or a counter by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRow {
    /// Seconds since 1970.
    pub at_s: u64,
    /// A user, or the name of a token.
    pub who: String,
    /// `set` or `reset`.
    pub action: String,
    /// Path of a directory, or a tenant of the tracker.
    pub subject: String,
    /// What was set.
    pub detail: String,
}

/// A notice for one receiver, on its way or there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxRow {
    /// The same for all receivers of a notice, and for all attempts.
    pub id: String,
    /// Name of the receiver.
    pub receiver: String,
    /// When it was noticed, seconds since 1970.
    pub created_s: u64,
    /// `near_limit` and so on.
    pub kind: String,
    /// Of the account.
    pub path: String,
    /// All that is told, as JSON.
    pub notice: String,
    /// How often was tried.
    pub attempts: u32,
    /// When the next attempt is due, milliseconds since 1970.
    pub next_ms: u64,
    pub state: OutboxState,
    /// When the state or the count of attempts changed, seconds since 1970.
    pub changed_s: u64,
    /// What the last failed attempt got for an answer.
    pub last_error: Option<String>,
}

/// What became of a notice for one receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboxState {
    /// To be tried, or tried again.
    Pending,
    /// The receiver has taken it.
    Delivered,
    /// Given up.
    Dead,
}

impl OutboxState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Directories and links of one instant.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    pub dirs: Vec<DirRow>,
    pub links: Vec<LinkRow>,
}

/// What a day of one tenant changed since the last write-back.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DayDelta {
    /// Period key, `2026-11-21`.
    pub date: String,
    /// Name of the tenant; empty for the whole mount.
    pub tenant: String,
    /// Figures of now, not differences.
    pub total_files: u64,
    pub total_size_bytes: u64,
    /// What the sealed files take in the store, as far as it is known by now.
    pub physical_bytes: Option<u64>,
    /// Differences, added to what the row holds.
    pub recordings_added: u64,
    pub recordings_deleted: u64,
    pub bytes_added: u64,
    pub bytes_deleted: u64,
    pub denied: u64,
}

/// What was done in a month below one tenant since the last write-back.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OperationsDelta {
    /// Period key, `2026-11`.
    pub month: String,
    /// Name of the tenant; empty for the whole mount.
    pub tenant: String,
    /// Added to what the row holds.
    pub counts: OperationCounts,
}

/// One row of `storage_usage_log`. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DayRow {
    pub date: String,
    pub tenant: String,
    pub total_files: u64,
    pub total_size_bytes: u64,
    pub recordings_added: u64,
    pub recordings_deleted: u64,
    pub bytes_added: u64,
    pub bytes_deleted: u64,
    /// Requests that a limit refused.
    pub denied: u64,
    /// The most that a write-back of the day found.
    pub peak_files: u64,
    pub peak_size_bytes: u64,
    /// What the sealed files took in the store; `None`: nobody had looked yet.
    pub physical_bytes: Option<u64>,
    pub created_at_s: u64,
    pub updated_at_s: u64,
}

/// What one transaction writes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Batch {
    /// Rows to insert or to put in place of those with the same `ino`.
    pub dirs: Vec<DirRow>,
    pub removed_dirs: Vec<Ino>,
    /// All rows of each inode that is named here; they take the place of its old ones.
    pub links: Vec<LinkRow>,
    /// Inodes that have no link rows any more.
    pub removed_links: Vec<Ino>,
    pub days: Vec<DayDelta>,
    pub operations: Vec<OperationsDelta>,
    /// Rows to insert or to put in place of those with the same `ino`.
    pub terms: Vec<TermsRow>,
    /// Counters that others feed, the same.
    pub external: Vec<SavedExternal>,
    /// What people did, to be kept.
    pub audit: Vec<AuditRow>,
    /// Notices of what changed `terms`. A row that is there stays as it is.
    pub outbox: Vec<OutboxRow>,
    /// Rows of sealed files, to insert or to put in place of those with the same `ino`.
    pub sealed: Vec<SealedRow>,
    /// The same of places.
    pub places: Vec<PlaceRow>,
    /// Files that are being changed: what was known of their content is no longer so.
    pub unsealed: Vec<Ino>,
    /// Inodes that are gone.
    pub gone: Vec<Ino>,
    /// Directories whose files have their rows again; see [`super::Database::note_unsaved`].
    pub taken_up: Vec<Ino>,
    /// Changes of sealed files were dropped: none of the rows can be trusted.
    pub baseline_lost: bool,
    /// Every change of this epoch of the dirty log and of all before it is in the rows now.
    pub log_epoch: u64,
    /// Seconds since 1970, for the `created_at` and `updated_at` of days.
    pub at_s: u64,
}

/// What is known of a sealed file; see `sealed::row_mac` for its code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedRow {
    pub ino: Ino,
    pub file_id: [u8; 16],
    pub generation: u64,
    /// Zeros while it is not known.
    pub content_sha256: [u8; 32],
    /// Size of the backing file.
    pub sealed_size: u64,
    /// Seconds since 1970.
    pub sealed_at_s: u64,
    /// KEK that the code comes from.
    pub key_id: u32,
    pub mac: [u8; 32],
}

/// Where an inode lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceRow {
    pub ino: Ino,
    pub parent: Ino,
    /// Name in the parent, as bytes.
    pub name: Vec<u8>,
    /// KEK that the code comes from.
    pub key_id: u32,
    pub mac: [u8; 32],
}

/// Which store the database belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub store_id: [u8; 16],
    pub root_ino: Ino,
    /// Tells the root from an earlier directory with its number; absent from older files.
    pub root_generation: Option<u32>,
}

/// How the last daemon left the database.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LastRun {
    pub identity: Option<Identity>,
    /// The last daemon stopped in order: the rows are what is on disk.
    pub clean: bool,
    /// Boot in which the last daemon ran.
    pub boot_id: Option<[u8; 16]>,
    /// See [`Batch::log_epoch`]. Dirty logs that begin later than one past it leave a gap: scan.
    pub log_epoch: u64,
    /// Seconds since 1970.
    pub created_at_s: u64,
    /// When the rows of sealed files were lost, seconds since 1970; files sealed before have none.
    pub baseline_lost_s: Option<u64>,
}
