//! `tallyfs quota`: limits of directories in a mount, through their extended attributes; so the figures are those of
//! the file system itself, of now, and its rights hold.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::args::{QuotaCommand, QuotaReportArgs};
use super::exit::{Code, Failure};
use super::table::table;
use super::{print, quota_ask};
use crate::period::timestamp;
use crate::quota::{LimitKey, LimitUnit};
use crate::units::format_bytes;

/// In front of the name of each attribute.
const PREFIX: &str = "user.tallyfs.quota.";
/// Stands for the configuration's limit.
const DEFAULT: &str = "default";
/// Largest value of an attribute that Linux gives.
const VALUE_BYTES_MAX: usize = 65_536;

/// What `user.tallyfs.quota.json` tells of a directory.
#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
pub(super) struct Account {
    /// In the mount, from its root on.
    path: String,
    level: Option<String>,
    is_tenant: bool,
    used: Used,
    /// In force, by name.
    limits: BTreeMap<String, Option<u64>>,
    /// Set on the directory itself: a number, `"none"`, or nothing.
    set: BTreeMap<String, serde_json::Value>,
    grace_ends: GraceEnds,
    /// `None` where periods are not counted.
    period: Option<Period>,
    last_refusal: Option<Refusal>,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct Used {
    bytes: u64,
    files: u64,
    dirs: u64,
}

/// When the grace of a soft limit ends that is passed, in seconds since 1970.
#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct GraceEnds {
    bytes: Option<i64>,
    files: Option<i64>,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct Period {
    time_zone: String,
    date: String,
    day: PeriodUsed,
    month: PeriodUsed,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct PeriodUsed {
    files: u64,
    bytes: u64,
    /// Seconds since 1970.
    ends: i64,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct Refusal {
    path: String,
    meter: String,
    reason: String,
    /// When the limit begins anew, seconds since 1970.
    resets_at: Option<i64>,
    used: u64,
    limit: u64,
    wanted: u64,
    errno: i32,
    /// Seconds since 1970.
    at: u64,
}

/// Limits that were set on a directory.
#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
pub(super) struct Dumped {
    pub path: String,
    pub limits: BTreeMap<String, serde_json::Value>,
}

/// Runs one of its commands.
///
/// # Errors
/// What is no directory in a mount, is no limit, or may not be set.
pub fn run(command: &QuotaCommand) -> Result<Code, Failure> {
    match command {
        QuotaCommand::Get { dir, json } => {
            let account = read(dir)?;
            print(&if *json { to_json(&account) } else { account.text() })
        }
        QuotaCommand::Set { dir, limits } => set(dir, limits),
        QuotaCommand::Report(args) => report(args),
        other => quota_ask::run(other),
    }
}

/// Takes the whole command line for wrong before it sets the first limit.
fn set(dir: &Path, limits: &[String]) -> Result<Code, Failure> {
    let wrong = |text: String| Failure::new(Code::Usage, text);
    let mut asked = Vec::new();
    for word in limits {
        let names = LimitKey::ALL.map(LimitKey::name).join(", ");
        let (name, value) = word
            .split_once('=')
            .ok_or_else(|| wrong(format!("'{word}' is not LIMIT=VALUE; limits are {names}")))?;
        let key = LimitKey::named(name).ok_or_else(|| wrong(format!("'{name}' is no limit; limits are {names}")))?;
        if value != DEFAULT {
            key.parse(value).map_err(|e| wrong(format!("{name}: {e}")))?;
        }
        asked.push((key, value));
    }
    read(dir)?;
    for (key, value) in asked {
        let name = format!("{PREFIX}{}", key.name());
        let done = if value == DEFAULT {
            match removexattr(dir, name.as_str()) {
                // It was the configuration's already.
                Err(Errno::NODATA) => Ok(()),
                other => other,
            }
        } else {
            setxattr(dir, name.as_str(), value.as_bytes(), XattrFlags::empty())
        };
        done.map_err(|e| refused(dir, e))?;
    }
    Ok(Code::Done)
}

fn refused(dir: &Path, e: Errno) -> Failure {
    let why = match e {
        Errno::PERM => "only root and members of the group `access.administrators` set limits".to_owned(),
        Errno::ACCESS => "its mode does not let you write; ask its owner, or set limits as root".to_owned(),
        e => e.to_string(),
    };
    Failure::new(Code::Failed, format!("{}: {why}", dir.display()))
}

fn report(args: &QuotaReportArgs) -> Result<Code, Failure> {
    let mut accounts = Vec::new();
    collect(&args.dir, args.depth, &mut accounts)?;
    if args.json {
        return print(&to_json(&accounts));
    }
    print(&if args.csv { csv(&accounts) } else { rows(&accounts) })
}

/// A table of accounts, sizes in binary units.
pub(super) fn rows(accounts: &[Account]) -> String {
    let mut rows = vec![["", "size", "limit", "use%", "files", "limit", "use%", ""].map(String::from)];
    rows.extend(accounts.iter().map(Account::row));
    table(&rows)
}

/// The directory and those below it, in the order of their names. One that goes meanwhile is left out.
fn collect(dir: &Path, depth: u32, accounts: &mut Vec<Account>) -> Result<(), Failure> {
    accounts.push(read(dir)?);
    if depth == 0 {
        return Ok(());
    }
    let failed = |e| Failure::new(Code::Failed, format!("{}: {e}", dir.display()));
    let mut below: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    below.sort_unstable();
    for dir in below {
        match collect(&dir, depth - 1, accounts) {
            Err(_) if !dir.exists() => {}
            other => other?,
        }
    }
    Ok(())
}

fn read(dir: &Path) -> Result<Account, Failure> {
    let mut value = vec![0; VALUE_BYTES_MAX];
    let bytes = getxattr(dir, format!("{PREFIX}json"), &mut value).map_err(|e| match e {
        Errno::NODATA | Errno::OPNOTSUPP => Failure::new(
            Code::Store,
            format!("{}: not a directory in a mount of TallyFS", dir.display()),
        ),
        e => Failure::new(Code::Failed, format!("{}: {e}", dir.display())),
    })?;
    serde_json::from_slice(&value[..bytes]).map_err(|e| {
        let text = format!("{}: the daemon of another version answers ({e})", dir.display());
        Failure::new(Code::Failed, text)
    })
}

pub(super) fn to_json<T: Serialize>(told: &T) -> String {
    serde_json::to_string_pretty(told).expect("texts and numbers are JSON")
}

impl Account {
    /// How full it is, in thousandths of its byte limit.
    pub(super) fn fullness(&self) -> u128 {
        let limit = self.limit(LimitKey::MaxBytes);
        limit.map_or(0, |limit| u128::from(self.used.bytes) * 1000 / u128::from(limit.max(1)))
    }

    /// Its path and the limits that were set on it, as `load` reads them.
    pub(super) fn dumped(&self) -> Option<Dumped> {
        let limits = self.set.clone();
        (!limits.is_empty()).then(|| Dumped {
            path: self.path.clone(),
            limits,
        })
    }

    /// In the mount, from its root on.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What orders accounts of the same fullness.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used.bytes
    }

    fn limit(&self, key: LimitKey) -> Option<u64> {
        self.limits.get(key.name()).copied().flatten()
    }

    fn row(&self) -> [String; 8] {
        let (max_bytes, max_files) = (self.limit(LimitKey::MaxBytes), self.limit(LimitKey::MaxFiles));
        [
            self.path.clone(),
            format_bytes(self.used.bytes),
            max_bytes.map_or_else(|| "-".into(), format_bytes),
            percent(self.used.bytes, max_bytes),
            self.used.files.to_string(),
            max_files.map_or_else(|| "-".into(), |limit| limit.to_string()),
            percent(self.used.files, max_files),
            self.flag().to_owned(),
        ]
    }

    /// What a reader of a report should not miss.
    fn flag(&self) -> &'static str {
        let period = self.period.as_ref();
        let full = [
            (Some(self.used.bytes), LimitKey::MaxBytes),
            (Some(self.used.files), LimitKey::MaxFiles),
            (Some(self.used.dirs), LimitKey::MaxDirs),
            (period.map(|period| period.day.files), LimitKey::DayMaxFiles),
            (period.map(|period| period.day.bytes), LimitKey::DayMaxBytes),
            (period.map(|period| period.month.files), LimitKey::MonthMaxFiles),
            (period.map(|period| period.month.bytes), LimitKey::MonthMaxBytes),
        ];
        let is_full =
            |(used, key): (Option<u64>, LimitKey)| used.zip(self.limit(key)).is_some_and(|(used, limit)| used >= limit);
        let soft = [
            (self.used.bytes, LimitKey::SoftBytes),
            (self.used.files, LimitKey::SoftFiles),
        ];
        let is_over = |(used, key): (u64, LimitKey)| self.limit(key).is_some_and(|soft| used > soft);
        if full.into_iter().any(is_full) {
            "full"
        } else if soft.into_iter().any(is_over) {
            "over soft"
        } else {
            ""
        }
    }

    /// One line of [`Account::text`].
    fn line(&self, name: &str, used: Option<u64>, key: LimitKey) -> [String; 5] {
        let shown = |amount: u64| match key.unit() {
            LimitUnit::Bytes => format_bytes(amount),
            LimitUnit::Count | LimitUnit::Time => amount.to_string(),
        };
        let limit = self.limit(key);
        let is_set = self.set.get(key.name()).is_some_and(|set| !set.is_null());
        let from = match (is_set, limit) {
            (true, _) => "set",
            (false, Some(_)) => "configured",
            (false, None) => "",
        };
        [
            name.to_owned(),
            used.map(shown).unwrap_or_default(),
            limit.map_or_else(|| "-".to_owned(), shown),
            used.map(|used| percent(used, limit)).unwrap_or_default(),
            from.to_owned(),
        ]
    }

    fn text(&self) -> String {
        let head = [&self.path, "used", "limit", "use%", ""].map(String::from);
        let mut rows = vec![
            head,
            self.line("size", Some(self.used.bytes), LimitKey::MaxBytes),
            self.line("files", Some(self.used.files), LimitKey::MaxFiles),
            self.line("directories", Some(self.used.dirs), LimitKey::MaxDirs),
            self.line("size of a file", None, LimitKey::MaxFileSize),
        ];
        let soft = [
            ("size, soft", self.used.bytes, LimitKey::SoftBytes),
            ("files, soft", self.used.files, LimitKey::SoftFiles),
        ];
        let is_limited = |key| self.limit(key).is_some();
        let soft = soft.into_iter().filter(|(_, _, key)| is_limited(*key));
        rows.extend(soft.map(|(name, used, key)| self.line(name, Some(used), key)));
        if let Some(Period { day, month, .. }) = &self.period {
            rows.extend([
                self.line("files today", Some(day.files), LimitKey::DayMaxFiles),
                self.line("size today", Some(day.bytes), LimitKey::DayMaxBytes),
                self.line("files this month", Some(month.files), LimitKey::MonthMaxFiles),
                self.line("size this month", Some(month.bytes), LimitKey::MonthMaxBytes),
            ]);
        }
        let mut text = table(&rows);
        // A String takes all.
        for (meter, ends) in [("size", self.grace_ends.bytes), ("files", self.grace_ends.files)] {
            if let Some(ends) = ends {
                let ends = timestamp(ends.max(0).unsigned_abs());
                let _ = writeln!(text, "grace of the soft limit of {meter} ends: {ends}");
            }
        }
        if let Some(period) = &self.period {
            let _ = writeln!(text, "today is {} in {}", period.date, period.time_zone);
        }
        if let Some(last) = &self.last_refusal {
            let Refusal {
                path,
                meter,
                used,
                limit,
                wanted,
                at,
                ..
            } = last;
            let at = timestamp(*at);
            let _ = writeln!(
                text,
                "last refusal: {at} by {path}, {meter}: used {used}, limit {limit}, wanted {wanted}"
            );
        }
        text
    }
}

/// As df(1) has it: rounded up, so that 100 % is never shown too late. 0 of 0 is full.
fn percent(used: u64, limit: Option<u64>) -> String {
    let of = |limit: u64| (u128::from(used) * 100).div_ceil(u128::from(limit));
    match limit {
        None => "-".into(),
        Some(0) => "100%".into(),
        Some(limit) => format!("{}%", of(limit)),
    }
}

/// RFC 4180, sizes in bytes; an empty field is no limit.
pub(super) fn csv(accounts: &[Account]) -> String {
    let mut text =
        String::from("path,level,used_bytes,max_bytes,used_files,max_files,used_dirs,max_dirs,max_file_size\r\n");
    for account in accounts {
        let used = &account.used;
        let limit = |key| account.limit(key).map_or_else(String::new, |limit| limit.to_string());
        let fields = [
            quoted(&account.path),
            quoted(account.level.as_deref().unwrap_or_default()),
            used.bytes.to_string(),
            limit(LimitKey::MaxBytes),
            used.files.to_string(),
            limit(LimitKey::MaxFiles),
            used.dirs.to_string(),
            limit(LimitKey::MaxDirs),
            limit(LimitKey::MaxFileSize),
        ];
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    text
}

pub(super) fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_rounded_up_and_never_overflow() {
        let cases = [
            (0, Some(7), "0%"),
            (1, Some(1000), "1%"),
            (999, Some(1000), "100%"),
            (5, Some(0), "100%"),
        ];
        for (used, limit, told) in cases {
            assert_eq!(percent(used, limit), told);
        }
        assert_eq!(percent(u64::MAX, Some(1)), format!("{}%", u128::from(u64::MAX) * 100));
        assert_eq!(percent(7, None), "-");
    }

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        assert_eq!(quoted("acme"), "acme");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
