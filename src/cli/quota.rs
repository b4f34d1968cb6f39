//! `tallyfs quota`: limits of directories in a mount, through their extended attributes; so the figures are those of
//! the file system itself, of now, and its rights hold.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::args::{QuotaCommand, QuotaReportArgs};
use super::exit::{Code, Failure};
use super::table::table;
use super::{print, usage};
use crate::quota::LimitKey;
use crate::units::format_bytes;

/// In front of the name of each attribute.
const PREFIX: &str = "user.tallyfs.quota.";
/// Stands for the configuration's limit.
const DEFAULT: &str = "default";
/// Largest value of an attribute that Linux gives.
const VALUE_BYTES_MAX: usize = 65_536;

/// What `user.tallyfs.quota.json` tells of a directory.
#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct Account {
    /// In the mount, from its root on.
    path: String,
    level: Option<String>,
    is_tenant: bool,
    used: Used,
    /// In force.
    limits: Limits<Option<u64>>,
    /// Set on the directory itself: a number, `"none"`, or nothing.
    set: Limits<serde_json::Value>,
    last_refusal: Option<Refusal>,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct Used {
    bytes: u64,
    files: u64,
    dirs: u64,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the names of the attributes")]
struct Limits<T> {
    max_bytes: T,
    max_files: T,
    max_dirs: T,
    max_file_size: T,
}

#[derive(Deserialize, Serialize, PartialEq, Eq, Debug)]
struct Refusal {
    path: String,
    meter: String,
    used: u64,
    limit: u64,
    wanted: u64,
    errno: i32,
    /// Seconds since 1970.
    at: u64,
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
    if args.csv {
        return print(&csv(&accounts));
    }
    let mut rows = vec![["", "size", "limit", "use%", "files", "limit", "use%", ""].map(String::from)];
    rows.extend(accounts.iter().map(Account::row));
    print(&table(&rows))
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

fn to_json<T: Serialize>(told: &T) -> String {
    serde_json::to_string_pretty(told).expect("texts and numbers are JSON")
}

impl Account {
    fn row(&self) -> [String; 8] {
        let (max_bytes, max_files) = (self.limits.max_bytes, self.limits.max_files);
        let full = [
            (self.used.bytes, max_bytes),
            (self.used.files, max_files),
            (self.used.dirs, self.limits.max_dirs),
        ];
        let is_full = full
            .iter()
            .any(|(used, limit)| limit.is_some_and(|limit| *used >= limit));
        [
            self.path.clone(),
            format_bytes(self.used.bytes),
            max_bytes.map_or_else(|| "-".into(), format_bytes),
            percent(self.used.bytes, max_bytes),
            self.used.files.to_string(),
            max_files.map_or_else(|| "-".into(), |limit| limit.to_string()),
            percent(self.used.files, max_files),
            if is_full { "full".into() } else { String::new() },
        ]
    }

    fn text(&self) -> String {
        let size = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), format_bytes);
        let count = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let from = |set: &serde_json::Value, limit: Option<u64>| match (set.is_null(), limit) {
            (false, _) => "set".to_owned(),
            (true, Some(_)) => "configured".to_owned(),
            (true, None) => String::new(),
        };
        let (used, limits, set) = (&self.used, &self.limits, &self.set);
        let rows = [
            [
                self.path.clone(),
                "used".into(),
                "limit".into(),
                "use%".into(),
                String::new(),
            ],
            [
                "size".into(),
                format_bytes(used.bytes),
                size(limits.max_bytes),
                percent(used.bytes, limits.max_bytes),
                from(&set.max_bytes, limits.max_bytes),
            ],
            [
                "files".into(),
                used.files.to_string(),
                count(limits.max_files),
                percent(used.files, limits.max_files),
                from(&set.max_files, limits.max_files),
            ],
            [
                "directories".into(),
                used.dirs.to_string(),
                count(limits.max_dirs),
                percent(used.dirs, limits.max_dirs),
                from(&set.max_dirs, limits.max_dirs),
            ],
            [
                "size of a file".into(),
                String::new(),
                size(limits.max_file_size),
                String::new(),
                from(&set.max_file_size, limits.max_file_size),
            ],
        ];
        let mut text = table(&rows);
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
            let at = usage::timestamp(*at);
            // A String takes all.
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
fn csv(accounts: &[Account]) -> String {
    let mut text =
        String::from("path,level,used_bytes,max_bytes,used_files,max_files,used_dirs,max_dirs,max_file_size\r\n");
    for Account {
        path,
        level,
        used,
        limits,
        ..
    } in accounts
    {
        let limit = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
        let fields = [
            quoted(path),
            quoted(level.as_deref().unwrap_or_default()),
            used.bytes.to_string(),
            limit(limits.max_bytes),
            used.files.to_string(),
            limit(limits.max_files),
            used.dirs.to_string(),
            limit(limits.max_dirs),
            limit(limits.max_file_size),
        ];
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(field: &str) -> String {
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
