//! Accounts by the path of their directory, for whoever steers from beside the mount.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::fs::errno::{Errno, FsResult};
use crate::fs::{FileSystem, c_name};
use crate::id::Ino;
use crate::quota::{Account, Bound, LimitKey, Meter, Refusal};
use crate::store::tree::stat_fd;

impl FileSystem {
    /// The account of a directory, by its path below the mount; empty for the mount itself.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR; EINVAL for a path with `.`, `..` or empty components.
    pub fn account_at(&self, path: &[u8]) -> FsResult<Arc<Account>> {
        if path.is_empty() {
            return Ok(self.ledger.root().clone());
        }
        for component in path.split(|byte| *byte == b'/') {
            c_name(std::os::unix::ffi::OsStrExt::from_bytes(component))?;
        }
        let directory = self.tree.open_path(path)?;
        self.account_by_ino(Ino(stat_fd(&directory)?.stx_ino))
            .map_err(|_| Errno::ENOTDIR)
    }

    /// Everything about one account, as its attribute `user.tallyfs.quota.json` has it.
    pub fn account_told(&self, account: &Arc<Account>) -> Value {
        self.quota_json(account)
    }

    /// The limit that refused a request in the account's directory, or one above it, at `since` (since 1970) or later.
    pub fn refusal_since(&self, account: &Arc<Account>, since: Duration) -> Option<Refusal> {
        let newest = self.newest_refusal(account)?;
        (newest.at >= since).then_some(newest.refusal)
    }

    /// How many requests were refused since the start, by meter and by the name of the reason.
    pub fn refusal_counts(&self) -> Vec<(Meter, &'static str, u64)> {
        self.refusals.counts()
    }

    /// Sets limits of a directory, or takes them away (`None`: the configuration's again). Durable on return. Whether the
    /// caller may is not asked here.
    ///
    /// # Errors
    /// ESTALE when the directory went or moved meanwhile; errors of the disk.
    pub fn set_limits_of(&self, account: &Arc<Account>, changes: &[(LimitKey, Option<Bound>)]) -> FsResult<()> {
        self.change_limits(
            account,
            || {
                let directory = self.tree.open_path(&account.path())?;
                if Ino(stat_fd(&directory)?.stx_ino) != account.ino() {
                    return Err(Errno::ESTALE);
                }
                // That one is a place, and attributes are set on an open directory.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(rustix::fs::openat(directory.as_fd(), c".", flags, Mode::empty())?)
            },
            |was| {
                Ok(changes
                    .iter()
                    .fold(was, |limits, (key, bound)| limits.with(*key, *bound)))
            },
        )
    }
}
