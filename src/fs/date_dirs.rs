//! Date directories that are always there: today's and tomorrow's, below every known tenant.
//!
//! FreeSWITCH takes EEXIST for success at its first mkdir but for failure on the way down, so calls
//! that make a new day's directory at once lose recordings to each other. Here the first mkdir of the
//! day finds the directory, because the look-up of its name makes it. In a tenant that is itself new
//! the callers are on their way down already: `walkers` has their rule.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Mode;

use crate::config::Config;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::node::Node;
use crate::fs::walkers::{Place, Walkers};
use crate::fs::{Caller, Entry, FileSystem, Found, mark};
use crate::id::Ino;
use crate::period::CivilDate;
use crate::quota::Account;
use crate::store::tree::{make_directory, remove_directory, set_mode, set_owner, stat_fd};
use crate::units::Meters;

/// Keeps two look-ups from making one directory twice.
#[derive(Default)]
pub struct DateDirs {
    making: Mutex<()>,
    walkers: Walkers,
}

/// A name that the daemon removed by itself; the kernel has to be told.
pub struct Vanished {
    /// Directory that held it; [`crate::fs::ROOT_NODE`] for the root.
    pub parent: u64,
    /// The name.
    pub name: OsString,
}

impl FileSystem {
    /// Answers the look-up of a name that is not there.
    pub(super) fn lookup_absent(&self, parent: &Arc<Node>, name: &CStr, caller: Caller) -> FsResult<Found> {
        let config = self.config();
        if !config.has_date_directories() || !parent.is_directory() {
            return Ok(Found::Absent);
        }
        let (is_slot, is_tenant) = self.with_components(parent, |components| {
            (config.is_date_slot(components), config.is_tenant_slot(components))
        })?;
        if !is_slot && !is_tenant {
            return Ok(Found::Absent);
        }
        let place = (parent.ino, name.to_bytes().to_vec());
        let on_the_way = is_slot && self.is_walking(&place, caller)?;
        if is_slot
            && !on_the_way
            && let Some(entry) = self.make_date_directory(parent, name)?
        {
            return Ok(Found::Entry(entry));
        }
        self.date_dirs
            .walkers
            .told_absent(caller.thread, place, self.clock.monotonic(), self.walking_lifetime());
        Ok(Found::AbsentForNow)
    }

    fn walking_lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.config().service.date_directory_grace_s))
    }

    /// Whether the caller was told that the place, or a directory on the way to it, is absent, and
    /// has not made the place since.
    fn is_walking(&self, place: &Place, caller: Caller) -> FsResult<bool> {
        if !self.date_dirs.walkers.are_any() {
            return Ok(false);
        }
        let mut way = vec![place.clone()];
        let mut at = Some(self.account_by_ino(place.0)?);
        while let Some(account) = at {
            at = account.parent();
            if let Some(parent) = &at {
                way.push((parent.ino(), account.name()));
            }
        }
        let now = self.clock.monotonic();
        Ok(self
            .date_dirs
            .walkers
            .may_make(caller.thread, place, &way, now, self.walking_lifetime()))
    }

    /// Whether a date directory that exists is to be answered as absent to this caller, whose mkdir
    /// will then succeed.
    pub(super) fn may_still_make(&self, parent: &Node, name: &CStr, caller: Caller) -> bool {
        if !self.date_dirs.walkers.are_any() {
            return false;
        }
        let place = (parent.ino, name.to_bytes().to_vec());
        self.is_date_name(parent, name).unwrap_or(false) && self.is_walking(&place, caller).unwrap_or(false)
    }

    /// The caller made a directory, or was told so.
    pub(super) fn note_made(&self, parent: &Node, name: &CStr, caller: Caller) {
        if self.date_dirs.walkers.are_any() {
            self.date_dirs
                .walkers
                .made(caller.thread, (parent.ino, name.to_bytes().to_vec()));
        }
    }

    fn is_date_name(&self, parent: &Node, name: &CStr) -> FsResult<bool> {
        let config = self.config();
        self.with_components(parent, |components| {
            self.days_at_hand().iter().any(|&(day, next)| {
                config
                    .date_names(components, day, next)
                    .iter()
                    .any(|wanted| wanted.as_bytes() == name.to_bytes())
            })
        })
    }

    fn with_components<T>(&self, node: &Node, work: impl FnOnce(&[&[u8]]) -> T) -> FsResult<T> {
        let components = self.account_of(node)?.components();
        let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
        Ok(work(&components))
    }

    /// A day before or after now. Recorders name directories by their own time zone, which can be a
    /// day away from UTC; a day more on either side serves them all.
    fn day(&self, from_today: i64) -> CivilDate {
        let now_s = i64::try_from(self.now_unix_s()).unwrap_or(i64::MAX);
        CivilDate::from_unix_s(now_s.saturating_add(from_today * 86_400))
    }

    /// Yesterday to the day after tomorrow, as pairs.
    fn days_at_hand(&self) -> [(CivilDate, CivilDate); 2] {
        [(self.day(-1), self.day(0)), (self.day(1), self.day(2))]
    }

    /// Makes the date directory `name` in `parent` if it is one of today or tomorrow.
    fn make_date_directory(&self, parent: &Arc<Node>, name: &CStr) -> FsResult<Option<Entry>> {
        if !self.is_date_name(parent, name)? {
            return Ok(None);
        }
        let account = self.account_of(parent)?;
        let _making = self.date_dirs.making.lock();
        let operation = self.dirty.enter();
        mark(&operation, &account);
        let made = parent.with_path(&self.tree, |dir| {
            let above = stat_fd(dir)?;
            let mode = u32::from(above.stx_mode) & 0o7777;
            make_directory(dir, name, mode)?;
            // It is on disk, so it counts, whatever goes wrong from here on. Never refused: a limit of
            // directories must not cost a recording.
            self.ledger.charge_forced(&account, Meters::ONE_DIR);
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let owner = (above.stx_uid != self.daemon.uid).then_some(above.stx_uid);
            let group = (above.stx_gid != self.daemon.gid).then_some(above.stx_gid);
            if owner.is_some() || group.is_some() {
                set_owner(std::os::fd::AsFd::as_fd(&fd), owner, group)?;
            }
            if mode & 0o7000 != 0 {
                set_mode(std::os::fd::AsFd::as_fd(&fd), mode)?;
            }
            Ok((stat_fd(&fd)?.stx_ino, self.tree.handle_at(dir, name)?.generation()))
        });
        match made {
            Ok((ino, generation)) => {
                let new = self.insert_account(&account, Ino(ino), generation, name.to_bytes());
                mark(&operation, &new);
            }
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        let stat = parent.with_path(&self.tree, |dir| self.tree.stat_at(dir, name))?;
        self.meet(parent, name, &stat).map(|(_, entry)| Some(entry))
    }

    /// Removes date directories that are empty and past. The caller tells the kernel of each.
    pub fn remove_past_date_directories(&self) -> Vec<Vanished> {
        let config = self.config();
        if !config.has_date_directories() {
            return Vec::new();
        }
        let yesterday = self.day(-1);
        let mut past: Vec<_> = self
            .ledger
            .accounts()
            .into_iter()
            .filter(|account| is_past(&config, account, yesterday))
            .collect();
        past.sort_by_key(|account| std::cmp::Reverse(account.components().len()));
        past.iter().filter_map(|account| self.remove_past(account)).collect()
    }

    fn remove_past(&self, account: &Arc<Account>) -> Option<Vanished> {
        let parent = account.parent()?;
        let name = std::ffi::CString::new(account.name()).ok()?;
        let dir = self.tree.open_path(&parent.path()).ok()?;
        let operation = self.dirty.enter();
        mark(&operation, &parent);
        mark(&operation, account);
        remove_directory(&dir, &name).ok()?;
        self.directory_gone(&parent, account.ino().0);
        let parent = if parent.is_root() {
            crate::fs::ROOT_NODE
        } else {
            parent.ino().0
        };
        Some(Vanished {
            parent,
            name: OsString::from_vec(name.into_bytes()),
        })
    }
}

/// An empty date directory whose days are over.
fn is_past(config: &Config, account: &Account, day: CivilDate) -> bool {
    if account.total() != Meters::ZERO || account.reserved() != Meters::ZERO {
        return false;
    }
    let components = account.components();
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    config.is_past_date(&components, day)
}
