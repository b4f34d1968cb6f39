//! Limits and usage of directories as extended attributes: anyone may read them, administrators set limits, and no
//! list shows them, or `cp -a` would copy limits.
//!
//! A limit that is set lies in an attribute of the backing directory, so it moves and goes with the directory and
//! survives the loss of the database; the row is a copy for a quick start.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::OFlags;
use serde_json::{Value, json};

use crate::fs::acl::is_member;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::refusals::Refused;
use crate::fs::{Caller, FileSystem, Node, mark};
use crate::quota::{Account, Bound, LimitKey, LimitOverrides, Meter, PeriodUsage, Room};
use crate::store::tree;

/// Names that the file system keeps for itself.
const RESERVED: [&[u8]; 2] = [b"user.tallyfs.", b"ceph."];

/// What a reserved name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QuotaName {
    /// A limit.
    Limit(LimitKey),
    UsedBytes,
    UsedFiles,
    UsedDirs,
    /// What a day or a month has used.
    Used(Meter),
    /// The directory whose byte limit leaves the least.
    Binding,
    LastRefusal,
    /// All of it.
    Json,
    /// None that is known.
    Unknown,
}

impl QuotaName {
    /// `None`: an ordinary attribute.
    pub(super) fn of(name: &OsStr) -> Option<Self> {
        let name = name.as_bytes();
        if !RESERVED.iter().any(|reserved| name.starts_with(reserved)) {
            return None;
        }
        Some(Self::known(name).unwrap_or(Self::Unknown))
    }

    fn known(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"ceph.quota.max_bytes" => Self::Limit(LimitKey::MaxBytes),
            b"ceph.quota.max_files" => Self::Limit(LimitKey::MaxFiles),
            b"ceph.dir.rbytes" => Self::UsedBytes,
            b"ceph.dir.rfiles" => Self::UsedFiles,
            b"ceph.dir.rsubdirs" => Self::UsedDirs,
            _ => match std::str::from_utf8(name.strip_prefix(b"user.tallyfs.quota.")?).ok()? {
                "used_bytes" => Self::UsedBytes,
                "used_files" => Self::UsedFiles,
                "used_dirs" => Self::UsedDirs,
                "day.used_files" => Self::Used(Meter::DayFiles),
                "day.used_bytes" => Self::Used(Meter::DayBytes),
                "month.used_files" => Self::Used(Meter::MonthFiles),
                "month.used_bytes" => Self::Used(Meter::MonthBytes),
                "binding" => Self::Binding,
                "last_refusal" => Self::LastRefusal,
                "json" => Self::Json,
                limit => Self::Limit(LimitKey::named(limit)?),
            },
        })
    }
}

impl FileSystem {
    /// The text of an attribute of a directory.
    ///
    /// # Errors
    /// ENODATA where there is none: no limit, no refusal, an unknown name, no directory.
    pub(super) fn quota_value(&self, node: &Arc<Node>, name: QuotaName) -> FsResult<String> {
        if !node.is_directory() {
            return Err(Errno::ENODATA);
        }
        let account = self.account_of(node)?;
        let used = account.total();
        let told = match name {
            QuotaName::Limit(key) => account.limits().get(key).map(|limit| limit.to_string()),
            QuotaName::UsedBytes => Some(used.bytes.to_string()),
            QuotaName::UsedFiles => Some(used.files.to_string()),
            QuotaName::UsedDirs => Some(used.dirs.to_string()),
            QuotaName::Used(meter) => {
                let period = account.period(self.ledger.now_s());
                period.map(|period| period.used(meter).to_string())
            }
            QuotaName::Binding => {
                let least = self.ledger.available(&account).bytes;
                least.map(|room| format!("/{}", room.account.display_path()))
            }
            QuotaName::LastRefusal => self.last_refusal(&account).map(|told| told.to_string()),
            QuotaName::Json => Some(self.quota_json(&account).to_string()),
            QuotaName::Unknown => None,
        };
        told.ok_or(Errno::ENODATA)
    }

    /// Everything about one directory, sizes in bytes, times in seconds since 1970.
    pub(super) fn quota_json(&self, account: &Arc<Account>) -> Value {
        let usage = self.ledger.usage(account);
        let available = self.ledger.available(account);
        let limits = LimitKey::ALL.map(|key| (key.name().to_owned(), json!(usage.limits.get(key))));
        let written = LimitKey::ALL.into_iter().filter_map(|key| {
            let told = match account.overrides().get(key)? {
                Bound::Unlimited => json!("none"),
                Bound::At(limit) => json!(limit),
            };
            Some((key.name().to_owned(), told))
        });
        json!({
            "path": format!("/{}", account.display_path()),
            "level": account.level(),
            "is_tenant": account.is_tenant(),
            "used": { "bytes": usage.total.bytes, "files": usage.total.files, "dirs": usage.total.dirs },
            "limits": Value::Object(limits.into_iter().collect()),
            "set": Value::Object(written.collect()),
            "grace_ends": { "bytes": account.grace_ends_s(Meter::Bytes), "files": account.grace_ends_s(Meter::Files) },
            "period": account.period(self.ledger.now_s()).map(|period| period_json(&period)),
            "available": { "bytes": available.bytes.as_ref().map(room_json), "files": available.files.as_ref().map(room_json) },
            "last_refusal": self.last_refusal(account),
        })
    }

    /// The newest refusal by the account or one above it: that is what stopped a writer here.
    pub(super) fn newest_refusal(&self, account: &Arc<Account>) -> Option<Refused> {
        let mut newest: Option<Refused> = None;
        let mut at = Some(account.clone());
        while let Some(account) = at {
            at = account.parent();
            let found = self.refusals.last(account.ino());
            if let Some(found) = found
                && newest.as_ref().is_none_or(|newest| newest.at < found.at)
            {
                newest = Some(found);
            }
        }
        newest
    }

    fn last_refusal(&self, account: &Arc<Account>) -> Option<Value> {
        let Refused { refusal, at } = self.newest_refusal(account)?;
        Some(json!({
            "path": format!("/{}", refusal.path),
            "meter": refusal.meter.key(),
            "reason": refusal.reason.key(),
            "resets_at": refusal.reason.resets_at_s(),
            "used": refusal.used,
            "limit": refusal.limit,
            "wanted": refusal.wanted,
            "errno": refusal.errno(),
            "at": at.as_secs(),
        }))
    }

    /// Sets a limit of a directory. Durable on return.
    ///
    /// # Errors
    /// EPERM for anyone but administrators; EINVAL for what is no limit; EOPNOTSUPP for what cannot be set; EEXIST and
    /// ENODATA as the flags ask; errors of the disk, after which the old limit counts until the next start takes what the disk has.
    pub(super) fn set_quota(
        &self,
        node: &Arc<Node>,
        name: QuotaName,
        value: &[u8],
        flags: i32,
        caller: Caller,
    ) -> FsResult<()> {
        let key = self.settable(node, name, caller)?;
        let text = std::str::from_utf8(value).map_err(|_| Errno::EINVAL)?;
        let text = text.trim_matches(['\0', ' ', '\t', '\n']);
        let bound = key.parse(text).map_err(|e| {
            log::info!("a limit was refused: {}: {e}", key.name());
            Errno::EINVAL
        })?;
        let asks = |flag| flags & flag != 0;
        self.change_limit(node, |was| {
            match was.get(key) {
                Some(_) if asks(libc::XATTR_CREATE) => return Err(Errno(libc::EEXIST)),
                None if asks(libc::XATTR_REPLACE) => return Err(Errno::ENODATA),
                _ => {}
            }
            Ok(was.with(key, Some(bound)))
        })
    }

    /// Takes a limit away that was set: that of the path's rule counts again.
    ///
    /// # Errors
    /// As [`FileSystem::set_quota`]; ENODATA when none was set.
    pub(super) fn remove_quota(&self, node: &Arc<Node>, name: QuotaName, caller: Caller) -> FsResult<()> {
        let key = self.settable(node, name, caller)?;
        self.change_limit(node, |was| match was.get(key) {
            Some(_) => Ok(was.with(key, None)),
            None => Err(Errno::ENODATA),
        })
    }

    fn settable(&self, node: &Node, name: QuotaName, caller: Caller) -> FsResult<LimitKey> {
        let QuotaName::Limit(key) = name else {
            return Err(Errno::EOPNOTSUPP);
        };
        if !self.is_administrator(caller) {
            return Err(Errno::EPERM);
        }
        if node.is_directory() {
            Ok(key)
        } else {
            Err(Errno::ENOTDIR)
        }
    }

    /// Root, whoever runs the daemon, and members of the group that the configuration names.
    fn is_administrator(&self, caller: Caller) -> bool {
        let by_group = self.administrators.is_some_and(|group| is_member(caller, group));
        caller.uid == 0 || caller.uid == self.daemon.uid || by_group
    }

    fn change_limit(
        &self,
        node: &Arc<Node>,
        change: impl FnOnce(LimitOverrides) -> FsResult<LimitOverrides>,
    ) -> FsResult<()> {
        let account = self.account_of(node)?;
        let open = || Ok(node.open(&self.tree, OFlags::RDONLY | OFlags::DIRECTORY)?.into());
        self.change_limits(&account, open, change)
    }

    /// First on disk, then in memory, so that a limit that counts is never lost.
    pub(super) fn change_limits(
        &self,
        account: &Arc<Account>,
        open: impl FnOnce() -> FsResult<OwnedFd>,
        change: impl FnOnce(LimitOverrides) -> FsResult<LimitOverrides>,
    ) -> FsResult<()> {
        let _turn = self.limits_turn.lock();
        let limits = change(account.overrides())?;
        let operation = self.dirty.enter();
        mark(&operation, account);
        let directory = open()?;
        tree::set_limits_text(directory.as_fd(), &limits.to_string())?;
        log::info!("limits set on '{}': {}", account.display_path(), shown(&limits));
        account.set_overrides(limits);
        self.place(account);
        Ok(())
    }

    /// Takes over what was set on a directory that came to the store by itself.
    pub(super) fn adopt_limits(&self, account: &Arc<Account>, node: &Node) {
        let text = node.with_path(&self.tree, tree::limits_text);
        match text.map(|text| LimitOverrides::parse(&text.unwrap_or_default())) {
            Ok(Ok(limits)) if limits.is_none() => {}
            Ok(Ok(limits)) => {
                account.set_overrides(limits);
                self.place(account);
            }
            Ok(Err(e)) => log::error!("limits of directory inode {}: {e}; they do not count", node.ino),
            Err(e) => log::error!("limits of directory inode {}: errno {}", node.ino, e.0),
        }
    }
}

fn shown(limits: &LimitOverrides) -> String {
    if limits.is_none() {
        "none any more".to_owned()
    } else {
        limits.to_string()
    }
}

fn room_json(room: &Room) -> Value {
    json!({
        "remaining": room.remaining,
        "used": room.used,
        "limit": room.limit,
        "path": format!("/{}", room.account.display_path()),
    })
}

fn period_json(period: &PeriodUsage) -> Value {
    let used =
        |files, bytes, ends_s| json!({ "files": period.used(files), "bytes": period.used(bytes), "ends": ends_s });
    json!({
        "time_zone": period.zone,
        "date": period.day.day_key(),
        "day": used(Meter::DayFiles, Meter::DayBytes, period.day_ends_s),
        "month": used(Meter::MonthFiles, Meter::MonthBytes, period.month_ends_s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_known_or_unknown_and_others_are_ordinary() {
        let of = |name: &str| QuotaName::of(OsStr::new(name));
        assert_eq!(of("user.comment"), None);
        assert_eq!(of("user.tallyfs"), None);
        assert_eq!(
            of("user.tallyfs.quota.max_bytes"),
            Some(QuotaName::Limit(LimitKey::MaxBytes))
        );
        assert_eq!(of("ceph.quota.max_files"), Some(QuotaName::Limit(LimitKey::MaxFiles)));
        assert_eq!(of("ceph.dir.rsubdirs"), Some(QuotaName::UsedDirs));
        for unknown in ["user.tallyfs.limits", "user.tallyfs.quota.", "ceph.dir.layout", "ceph."] {
            assert_eq!(of(unknown), Some(QuotaName::Unknown), "{unknown}");
        }
    }
}
