//! `tallyfs quota`, as far as it asks the running daemon: lists, what needs attention, history, dump and load.

use std::io::{self, IsTerminal, Read};
use std::thread;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{AskArgs, QuotaCommand};
use super::client::{Client, escaped};
use super::exit::{Code, Failure};
use super::print;
use super::quota::{Account, Dumped, csv, quoted, rows, to_json};
use super::table::table;
use crate::units::format_bytes;

/// Entries of one answer.
const PAGE: usize = 1000;
/// Longest dump that is read.
const DUMP_BYTES_MAX: u64 = 64 << 20;
/// Rows that `top` shows.
const TOP_ROWS: usize = 20;

/// Runs one of its commands.
///
/// # Errors
/// Nobody answers, or what is asked for is refused.
pub fn run(command: &QuotaCommand) -> Result<Code, Failure> {
    match command {
        QuotaCommand::List { args, level } => {
            let accounts = accounts(&client(args)?, level.as_deref())?;
            print_accounts(args, &accounts)
        }
        QuotaCommand::Check(args) => check(args),
        QuotaCommand::Top { args, interval, times } => top(args, *interval, *times),
        QuotaCommand::Reset(args) => {
            let client = client(args)?;
            let path = format!("/api/v1/reset/{}", place(&client));
            print(&to_json(&client.ask(Method::POST, &path, None)?["period"]))
        }
        QuotaCommand::History { args, days } => history(args, *days),
        QuotaCommand::Dump(args) => {
            let accounts = accounts(&client(args)?, None)?;
            print(&to_json(
                &accounts.iter().filter_map(Account::dumped).collect::<Vec<_>>(),
            ))
        }
        QuotaCommand::Load(args) => load(args),
        QuotaCommand::Get { .. } | QuotaCommand::Set { .. } | QuotaCommand::Report(_) => Ok(Code::Done),
    }
}

fn client(args: &AskArgs) -> Result<Client, Failure> {
    Client::of(&args.path, args.socket.as_deref())
}

/// The directory that was named, in an address; `/` is the mount.
fn place(client: &Client) -> String {
    if client.below.is_empty() {
        escaped(b"/")
    } else {
        escaped(&client.below)
    }
}

fn read<T: for<'de> Deserialize<'de>>(told: Value) -> Result<T, Failure> {
    serde_json::from_value(told)
        .map_err(|e| Failure::new(Code::Failed, format!("the daemon of another version answers ({e})")))
}

/// All accounts that the daemon tells of, page after page.
fn accounts(client: &Client, level: Option<&str>) -> Result<Vec<Account>, Failure> {
    let mut all: Vec<Account> = Vec::new();
    loop {
        let after = all
            .last()
            .map_or_else(String::new, |account| escaped(account.path().as_bytes()));
        let level = level.map_or_else(String::new, |level| format!("&level={}", escaped(level.as_bytes())));
        let path = format!("/api/v1/accounts?limit={PAGE}&after={after}{level}");
        let page: Vec<Account> = read(client.ask(Method::GET, &path, None)?)?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn print_accounts(args: &AskArgs, accounts: &[Account]) -> Result<Code, Failure> {
    print(&match (args.json, args.csv) {
        (true, _) => to_json(&accounts),
        (false, true) => csv(accounts),
        (false, false) => rows(accounts),
    })
}

#[derive(Deserialize)]
struct Alert {
    path: String,
    kind: String,
    meter: Option<String>,
    used: Option<u64>,
    limit: Option<u64>,
    until: Option<String>,
    detail: Option<String>,
}

fn check(args: &AskArgs) -> Result<Code, Failure> {
    let told = client(args)?.ask(Method::GET, "/api/v1/alerts", None)?;
    let alerts: Vec<Alert> = read(told.clone())?;
    let cells = |alert: &Alert| {
        let is_bytes = alert.meter.as_deref().is_some_and(|meter| meter.ends_with("bytes"));
        let amount = |amount: Option<u64>| match amount {
            Some(amount) if is_bytes && !args.csv => format_bytes(amount),
            Some(amount) => amount.to_string(),
            None => String::new(),
        };
        [
            alert.path.clone(),
            alert.kind.clone(),
            alert.meter.clone().unwrap_or_default(),
            amount(alert.used),
            amount(alert.limit),
            alert.until.clone().or_else(|| alert.detail.clone()).unwrap_or_default(),
        ]
    };
    let head = ["path", "kind", "meter", "used", "limit", "until"].map(String::from);
    let rows: Vec<_> = std::iter::once(head).chain(alerts.iter().map(cells)).collect();
    let text = match (args.json, args.csv) {
        (true, _) => to_json(&told),
        (false, true) => records(&rows),
        (false, false) if alerts.is_empty() => "nothing needs attention".to_owned(),
        (false, false) => table(&rows),
    };
    print(&text)?;
    Ok(if alerts.is_empty() { Code::Done } else { Code::Failed })
}

fn top(args: &AskArgs, interval_s: u64, times: u64) -> Result<Code, Failure> {
    let client = client(args)?;
    let clears = io::stdout().is_terminal();
    let mut looks = 0;
    loop {
        let mut accounts = accounts(&client, None)?;
        accounts.sort_by_key(|account| std::cmp::Reverse((account.fullness(), account.used_bytes())));
        accounts.truncate(TOP_ROWS);
        if clears {
            // To the upper left corner, and what was there is gone.
            print("\u{1b}[H\u{1b}[2J")?;
        }
        print_accounts(args, &accounts)?;
        looks += 1;
        if looks == times {
            return Ok(Code::Done);
        }
        thread::park_timeout(Duration::from_secs(interval_s.max(1)));
    }
}

#[derive(Deserialize)]
struct Day {
    date: String,
    total_files: u64,
    total_size_bytes: u64,
    recordings_added: u64,
    recordings_deleted: u64,
    bytes_added: u64,
    bytes_deleted: u64,
    denied: u64,
    peak_size_bytes: u64,
    physical_bytes: Option<u64>,
}

/// Where it is heading, as the interface tells it.
#[derive(Deserialize)]
struct Heading {
    growth_bytes_per_day: Option<i64>,
    full_on: Option<String>,
}

impl Heading {
    /// One line, when there is something to tell.
    fn line(&self) -> Option<String> {
        let growth = self.growth_bytes_per_day.filter(|growth| *growth > 0)?;
        let growth = format_bytes(growth.cast_unsigned());
        Some(match &self.full_on {
            Some(day) => format!("grows by {growth} a day, and is full on {day}"),
            None => format!("grows by {growth} a day"),
        })
    }
}

fn history(args: &AskArgs, days: u32) -> Result<Code, Failure> {
    let client = client(args)?;
    let path = format!("/api/v1/usage/history?days={days}&tenant={}", escaped(&client.below));
    let told = client.ask(Method::GET, &path, None)?;
    if args.json {
        return print(&to_json(&told));
    }
    let days: Vec<Day> = read(told)?;
    let size = |bytes: u64| {
        if args.csv {
            bytes.to_string()
        } else {
            format_bytes(bytes)
        }
    };
    let head = if args.csv {
        [
            "date",
            "total_files",
            "total_size_bytes",
            "recordings_added",
            "bytes_added",
            "recordings_deleted",
            "bytes_deleted",
            "peak_size_bytes",
            "physical_bytes",
            "denied",
        ]
    } else {
        [
            "day",
            "files",
            "size",
            "new files",
            "new",
            "deleted files",
            "deleted",
            "peak",
            "physical",
            "refused",
        ]
    };
    let mut rows = vec![head.map(String::from)];
    rows.extend(days.iter().map(|day| {
        [
            day.date.clone(),
            day.total_files.to_string(),
            size(day.total_size_bytes),
            day.recordings_added.to_string(),
            size(day.bytes_added),
            day.recordings_deleted.to_string(),
            size(day.bytes_deleted),
            size(day.peak_size_bytes),
            day.physical_bytes.map(size).unwrap_or_default(),
            day.denied.to_string(),
        ]
    }));
    if args.csv {
        return print(&records(&rows));
    }
    let path = format!("/api/v1/usage/stats?tenant={}", escaped(&client.below));
    let heading: Heading = read(client.ask(Method::GET, &path, None)?)?;
    let told = heading.line().map(|line| format!("\n{line}")).unwrap_or_default();
    print(&format!("{}{told}", table(&rows)))
}

/// Reads all of it before the first limit is set.
fn load(args: &AskArgs) -> Result<Code, Failure> {
    let client = client(args)?;
    let mut text = String::new();
    let wrong = |why: &dyn std::fmt::Display| Failure::new(Code::Usage, format!("standard input: {why}"));
    io::stdin()
        .take(DUMP_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| wrong(&e))?;
    let dumped: Vec<Dumped> = serde_json::from_str(&text).map_err(|e| wrong(&format!("no dump of limits: {e}")))?;
    let mut failed = 0_usize;
    for Dumped { path, limits } in &dumped {
        let address = format!("/api/v1/accounts/{}", escaped(path.as_bytes()));
        if let Err(failure) = client.ask(Method::PUT, &address, Some(&json!({ "limits": limits }))) {
            log::error!("{path}: {}", failure.text);
            failed += 1;
        }
    }
    if failed > 0 {
        let text = format!("{failed} of {} directories have not got their limits", dumped.len());
        return Err(Failure::new(Code::Failed, text));
    }
    print(&format!("limits of {} directories are set", dumped.len()))
}

/// RFC 4180.
fn records<const N: usize>(rows: &[[String; N]]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        text.push_str(&row.each_ref().map(|field| quoted(field)).join(","));
        text.push_str("\r\n");
        text
    })
}
