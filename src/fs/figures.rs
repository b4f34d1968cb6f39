//! Files in a tenant's directory that lie nowhere: `.quota` and `.stats/YYYY-MM.json` show what it uses and what was
//! done in it, as of the moment in which they are opened, in IronBucket's JSON. They are found by their names, no listing
//! of the tenant has them, nobody is charged for them, and nobody can change them. A file of such a name that is in the
//! store (it came there before, or behind the daemon's back) is shown in their place.

use std::ffi::{CStr, CString, OsStr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use rustix::fs::FileType;
use serde::Serialize;

use crate::fs::errno::{Errno, FsResult};
use crate::fs::node::Node;
use crate::fs::{Attr, DirEntry, Entry, FileSystem, OpenMode, Opened, Seek};
use crate::id::{Fh, Ino};
use crate::period::{CivilDate, timestamp};
use crate::quota::{Account, BucketQuota, BucketStats, OperationCounts};

/// In every number of an inode or handle of a figure. Bit 63 is another mark's (`fuse::convert`).
const MARK: u64 = 1 << 62;
/// Below it: the number of the tenant's inode, and behind that so many bits for which figure it is.
const KIND_BITS: u32 = 17;
/// Inode numbers of tenants with figures are below this; those of the file systems that Linux keeps on disks are.
const TENANT_LIMIT: u64 = MARK >> KIND_BITS;
const KIND_QUOTA: u64 = 0;
const KIND_STATISTICS: u64 = 1;
/// First of the months, which are counted from January 1970 on.
const KIND_MONTHS: u64 = 2;

const QUOTA_NAME: &[u8] = b".quota";
const STATISTICS_NAME: &[u8] = b".stats";
const MONTH_SUFFIX: &str = ".json";

/// Who remembers what was done in past months.
pub trait PastOperations: Send + Sync {
    /// Months of which there are counts, `YYYY-MM`, the oldest first; `None` when it cannot be told now.
    fn months(&self, tenant: &str) -> Option<Vec<String>>;

    /// Counts of a month that are saved; `None` when it cannot be told now.
    fn operations(&self, tenant: &str, month: &str) -> Option<OperationCounts>;
}

/// One that the kernel asks for.
struct Figure {
    tenant: Arc<Account>,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Quota,
    Statistics,
    Month(String),
}

impl Kind {
    /// That of a name directly in a tenant's directory.
    fn named(name: &CStr) -> Option<Self> {
        match name.to_bytes() {
            QUOTA_NAME => Some(Self::Quota),
            STATISTICS_NAME => Some(Self::Statistics),
            _ => None,
        }
    }

    /// That of a name in the directory of statistics.
    fn of_month(name: &OsStr) -> Option<Self> {
        let month = name.to_str()?.strip_suffix(MONTH_SUFFIX)?;
        CivilDate::from_month_key(month)?;
        Some(Self::Month(month.to_owned()))
    }

    fn code(&self) -> Option<u64> {
        match self {
            Self::Quota => Some(KIND_QUOTA),
            Self::Statistics => Some(KIND_STATISTICS),
            Self::Month(month) => {
                let first = CivilDate::from_month_key(month)?;
                let months = (i64::from(first.year) - 1970) * 12 + i64::from(first.month) - 1;
                let code = u64::try_from(months).ok()?.checked_add(KIND_MONTHS)?;
                (code < 1 << KIND_BITS).then_some(code)
            }
        }
    }

    fn of_code(code: u64) -> Option<Self> {
        Some(match code {
            KIND_QUOTA => Self::Quota,
            KIND_STATISTICS => Self::Statistics,
            _ => {
                let months = code - KIND_MONTHS;
                let (year, month) = (1970 + months / 12, months % 12 + 1);
                Self::Month(CivilDate::new(i32::try_from(year).ok()?, month as u8, 1)?.month_key())
            }
        })
    }

    fn is_directory(&self) -> bool {
        *self == Self::Statistics
    }
}

/// What is open: texts and names as of the moment in which they were opened.
#[derive(Default)]
pub struct OpenFigures {
    table: DashMap<u64, Arc<Shown>>,
    last: AtomicU64,
}

enum Shown {
    Text(Vec<u8>),
    /// Names with the numbers of their inodes.
    Names(Vec<(Ino, FileType, CString)>),
}

impl OpenFigures {
    fn insert(&self, shown: Shown) -> Fh {
        let number = MARK | (self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.table.insert(number, Arc::new(shown));
        Fh(number)
    }

    fn get(&self, fh: Fh) -> FsResult<Arc<Shown>> {
        self.table.get(&fh.0).map(|shown| shown.clone()).ok_or(Errno::EBADF)
    }
}

/// Whether a number of an inode or handle is a figure's.
pub(super) fn is_figure(number: u64) -> bool {
    number & MARK != 0
}

/// Refuses what would make a name that is a figure's.
pub(super) fn keep_figure(parent: &Account, name: &CStr) -> FsResult<()> {
    if parent.is_tenant() && Kind::named(name).is_some() {
        return Err(Errno::EEXIST);
    }
    Ok(())
}

/// The answer about an absent name that is to go: nobody removes a figure.
pub(super) fn unless_figure(parent: &Account, name: &CStr, answer: Errno) -> Errno {
    match keep_figure(parent, name) {
        Err(_) if answer == Errno::ENOENT => Errno::EPERM,
        _ => answer,
    }
}

impl FileSystem {
    /// The figure of this name, in a directory where the name was found absent.
    pub(super) fn figure_named(&self, parent: &Node, name: &CStr) -> Option<Entry> {
        let kind = Kind::named(name)?;
        let tenant = self.ledger.account(parent.ino).filter(|account| account.is_tenant())?;
        self.figure_entry(&Figure { tenant, kind })
    }

    /// The statistics of one month, by name.
    pub(super) fn look_up_month(&self, directory: u64, name: &OsStr) -> FsResult<Option<Entry>> {
        let directory = self.figure(directory)?;
        if !directory.kind.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let Some(kind) = Kind::of_month(name) else {
            return Ok(None);
        };
        let months = self.months(&directory.tenant)?;
        let is_there = months.iter().any(|month| kind == Kind::Month(month.clone()));
        let tenant = directory.tenant;
        Ok(is_there.then(|| self.figure_entry(&Figure { tenant, kind })).flatten())
    }

    fn figure(&self, number: u64) -> FsResult<Figure> {
        let below = number & !MARK;
        let tenant = self
            .ledger
            .account(Ino(below >> KIND_BITS))
            .filter(|account| account.is_tenant());
        let kind = Kind::of_code(below & ((1 << KIND_BITS) - 1));
        match (tenant, kind) {
            (Some(tenant), Some(kind)) => Ok(Figure { tenant, kind }),
            _ => Err(Errno::ESTALE),
        }
    }

    /// The tenant that a figure is of.
    pub(super) fn tenant_of_figure(&self, number: u64) -> FsResult<Arc<Account>> {
        Ok(self.figure(number)?.tenant)
    }

    fn figure_entry(&self, figure: &Figure) -> Option<Entry> {
        let tenant = figure.tenant.ino().0;
        let number = (tenant < TENANT_LIMIT).then_some(MARK | tenant << KIND_BITS | figure.kind.code()?)?;
        Some(Entry {
            attr: self.attr_of_figure(Ino(number), figure).ok()?,
            generation: figure.tenant.generation(),
        })
    }

    pub(super) fn figure_attr(&self, number: u64) -> FsResult<Attr> {
        self.attr_of_figure(Ino(number), &self.figure(number)?)
    }

    fn attr_of_figure(&self, ino: Ino, figure: &Figure) -> FsResult<Attr> {
        let is_directory = figure.kind.is_directory();
        let size = if is_directory {
            0
        } else {
            self.figure_text(figure)?.len() as u64
        };
        let now = self.clock.now();
        let now = (now.as_secs().cast_signed(), now.subsec_nanos());
        Ok(Attr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            kind: if is_directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            permissions: if is_directory { 0o555 } else { 0o444 },
            links: 1 + u32::from(is_directory),
            uid: self.daemon.uid,
            gid: self.daemon.gid,
            device: (0, 0),
        })
    }

    fn figure_text(&self, figure: &Figure) -> FsResult<Vec<u8>> {
        let last_updated = timestamp(self.now_unix_s());
        let tenant = &figure.tenant;
        match &figure.kind {
            Kind::Quota => json(&BucketQuota::new(&self.ledger.usage(tenant), last_updated)),
            Kind::Statistics => Err(Errno::EISDIR),
            Kind::Month(month) => {
                let saved = self.past_operations.operations(&tenant.display_path(), month);
                let mut counts = saved.ok_or(Errno::EIO)?;
                if *month == self.month_now() {
                    counts = counts.plus(tenant.pending_operations());
                }
                json(&BucketStats::new(counts, last_updated))
            }
        }
    }

    fn month_now(&self) -> String {
        CivilDate::from_unix_s(self.now_unix_s().cast_signed()).month_key()
    }

    /// Of which there are figures: those that are saved, and the one that is.
    fn months(&self, tenant: &Account) -> FsResult<Vec<String>> {
        let mut months = self.past_operations.months(&tenant.display_path()).ok_or(Errno::EIO)?;
        let now = self.month_now();
        if !months.contains(&now) {
            months.push(now);
        }
        Ok(months)
    }

    pub(super) fn open_figure(&self, number: u64, how: OpenMode) -> FsResult<Opened> {
        let figure = self.figure(number)?;
        if how.writes || how.truncates {
            return Err(Errno::EPERM);
        }
        let text = self.figure_text(&figure)?;
        Ok(Opened {
            fh: self.open_figures.insert(Shown::Text(text)),
            direct: true,
            keep_cache: false,
        })
    }

    pub(super) fn read_figure(&self, fh: Fh, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let Shown::Text(text) = &*self.open_figures.get(fh)? else {
            return Err(Errno::EISDIR);
        };
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| text.get(offset..))
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    pub(super) fn seek_in_figure(&self, fh: Fh, offset: u64, to: Seek) -> FsResult<u64> {
        let Shown::Text(text) = &*self.open_figures.get(fh)? else {
            return Err(Errno::EISDIR);
        };
        let end = text.len() as u64;
        match to {
            _ if offset >= end => Err(Errno::ENXIO),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(end),
        }
    }

    pub(super) fn open_figure_directory(&self, number: u64) -> FsResult<Fh> {
        let directory = self.figure(number)?;
        if !directory.kind.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let tenant = directory.tenant;
        let mut names = vec![
            (Ino(number), FileType::Directory, c".".to_owned()),
            (tenant.ino(), FileType::Directory, c"..".to_owned()),
        ];
        for month in self.months(&tenant)? {
            let name = CString::new(format!("{month}{MONTH_SUFFIX}")).map_err(|_| Errno::EIO)?;
            let kind = Kind::Month(month);
            if let Some(code) = kind.code() {
                names.push((
                    Ino(number & !((1 << KIND_BITS) - 1) | code),
                    FileType::RegularFile,
                    name,
                ));
            }
        }
        Ok(self.open_figures.insert(Shown::Names(names)))
    }

    pub(super) fn list_figures(
        &self,
        fh: Fh,
        position: u64,
        mut take: impl FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        let Shown::Names(names) = &*self.open_figures.get(fh)? else {
            return Err(Errno::ENOTDIR);
        };
        let skipped = usize::try_from(position).unwrap_or(usize::MAX);
        for (index, (ino, kind, name)) in names.iter().enumerate().skip(skipped) {
            let entry = DirEntry {
                ino: *ino,
                next: index as u64 + 1,
                kind: *kind,
                name,
                entry: None,
            };
            if take(&entry) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn close_figure(&self, fh: Fh) -> FsResult<()> {
        self.open_figures.table.remove(&fh.0).map(|_| ()).ok_or(Errno::EBADF)
    }
}

fn json(value: &impl Serialize) -> FsResult<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|_| Errno::EIO)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_number_tells_which_figure_it_is() {
        for kind in [
            Kind::Quota,
            Kind::Statistics,
            Kind::Month("1970-01".to_owned()),
            Kind::Month("2026-11".to_owned()),
            Kind::Month("9999-12".to_owned()),
        ] {
            let code = kind.code().expect("a code");
            assert!(code < 1 << KIND_BITS);
            assert_eq!(Kind::of_code(code), Some(kind));
        }
        assert_eq!(Kind::Month("1969-12".to_owned()).code(), None);
    }

    #[test]
    fn only_months_that_are_written_in_full_have_names() {
        let named = |name: &str| Kind::of_month(OsStr::from_bytes(name.as_bytes()));
        assert_eq!(named("2026-11.json"), Some(Kind::Month("2026-11".to_owned())));
        for other in ["2026-13.json", "2026-1.json", "2026-11", "2026-11.json~", ".json", "."] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
