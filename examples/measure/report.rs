//! The table of all rows: times from the timed rounds, causes from the pass that counts, for each operation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::hops::Hops;
use super::measured::{Counts, Measured, Unit, median, percentile};
use super::parts::Part;

/// Everything that was measured.
pub struct Report {
    placement: &'static str,
    notes: Vec<String>,
    lines: Vec<Line>,
    /// Hops of single writes.
    pub hops: Vec<Hops>,
    /// Parts alone.
    pub parts: Vec<Part>,
}

/// One row of one mount.
struct Line {
    row: &'static str,
    mount: &'static str,
    unit: Unit,
    rate: f64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    cpu_us: f64,
    failed: u64,
    allocations: Option<f64>,
    allocated_bytes: Option<f64>,
    counted: Option<(u64, Counts)>,
}

impl Report {
    /// Nothing yet.
    pub fn new(one_core: bool) -> Self {
        Self {
            placement: if one_core {
                "client and daemon share one core"
            } else {
                "client and daemon on any core"
            },
            notes: Vec::new(),
            lines: Vec::new(),
            hops: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Something that the reader has to know.
    pub fn say(&mut self, note: String) {
        self.notes.push(note);
    }

    /// All passes of one group.
    pub fn add(&mut self, measured: impl Iterator<Item = Measured>) {
        let mut rows: Vec<Vec<Measured>> = Vec::new();
        for one in measured {
            let same = |row: &&mut Vec<Measured>| row[0].row == one.row && row[0].mount == one.mount;
            match rows.iter_mut().find(same) {
                Some(row) => row.push(one),
                None => rows.push(vec![one]),
            }
        }
        // Mounts side by side, rows in the order of the work.
        let order: Vec<&str> = rows.iter().map(|row| row[0].row).collect();
        rows.sort_by_key(|row| order.iter().position(|name| *name == row[0].row));
        for row in rows {
            let line = Line::of(&row);
            if line.counted.as_ref().is_some_and(|(_, counts)| counts.lost > 0) {
                self.say(format!(
                    "{} of {}: events were lost, counts are too small",
                    line.row, line.mount
                ));
            }
            self.lines.push(line);
        }
    }

    /// To standard output.
    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{:#}", self.to_json());
            return;
        }
        println!(
            "{}; figures right of p99 are for each operation of the client",
            self.placement
        );
        if !self.lines.is_empty() {
            println!(
                "{:<15} {:<12} {:>14} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}",
                "", "", "rate", "p50 us", "p99 us", "cpu us", "requests", "calls", "allocs", "bytes"
            );
        }
        for line in &self.lines {
            line.print();
        }
        for hops in &self.hops {
            println!(
                "\nhops of a write of {} bytes, {}, {} followed (watched, mean us):",
                hops.bytes, hops.mount, hops.followed
            );
            let told: Vec<_> = hops.means_us.iter().map(|(hop, us)| format!("{hop} {us:.1}")).collect();
            println!("  {}", told.join(", "));
        }
        if !self.parts.is_empty() {
            println!("\nparts alone, without a mount:");
        }
        for part in &self.parts {
            print_part(part);
        }
        for note in &self.notes {
            println!("\n{note}");
        }
    }

    fn to_json(&self) -> Value {
        let hops = |hops: &Hops| {
            let means: BTreeMap<_, _> = hops.means_us.iter().copied().collect();
            json!({"mount": hops.mount, "bytes": hops.bytes, "followed": hops.followed, "mean_us": means})
        };
        let part = |part: &Part| {
            let times = part.times_ns();
            json!({
                "name": part.name,
                "p50_ns": times.map(|(p50, _)| p50),
                "p99_ns": times.map(|(_, p99)| p99),
                "allocations": part.allocations,
                "figure": part.figure.map(|(value, _)| value),
                "unit": part.figure.map(|(_, unit)| unit),
            })
        };
        json!({
            "placement": self.placement,
            "rows": self.lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "hops": self.hops.iter().map(hops).collect::<Vec<_>>(),
            "parts": self.parts.iter().map(part).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

impl Line {
    /// Medians over the timed passes; counts, and allocations where they were counted too, of the other.
    fn of(row: &[Measured]) -> Self {
        let timed = || row.iter().filter(|one| one.counts.is_none());
        let counted = row.iter().find(|one| one.counts.is_some());
        let typical = |value: &dyn Fn(&Measured) -> Option<f64>| {
            let values: Vec<f64> = timed().filter_map(value).collect();
            (!values.is_empty()).then(|| median(values))
        };
        let micros =
            |hundredths| typical(&move |one: &Measured| Some(percentile(&one.latency_ns, hundredths)? as f64 / 1000.0));
        Self {
            row: row[0].row,
            mount: row[0].mount,
            unit: row[0].unit,
            rate: typical(&|one| Some(one.rate())).unwrap_or(f64::NAN),
            p50_us: micros(50),
            p99_us: micros(99),
            cpu_us: typical(&|one| Some(one.each(one.cpu_ns) / 1000.0)).unwrap_or(f64::NAN),
            failed: row.iter().map(|one| one.failed).sum(),
            allocations: typical(&|one| Some(one.each(one.allocations?.count))),
            allocated_bytes: typical(&|one| Some(one.each(one.allocations?.bytes))),
            counted: counted.and_then(|one| Some((one.operations, one.counts.clone()?))),
        }
    }

    fn print(&self) {
        let unit = match self.unit {
            Unit::Operations => "/s",
            Unit::MiB => "MiB/s",
        };
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let sum = |counts: fn(&Counts) -> &BTreeMap<String, u64>| self.each(|all| counts(all).values().sum::<u64>());
        println!(
            "{:<15} {:<12} {:>14} {:>9} {:>9} {:>8.1} {:>8} {:>8} {:>8} {:>9}",
            self.row,
            self.mount,
            format!("{:.0} {unit}", self.rate),
            number(self.p50_us, 1),
            number(self.p99_us, 1),
            self.cpu_us,
            number(sum(|all| &all.requests), 2),
            number(sum(|all| &all.calls), 2),
            number(self.allocations, 2),
            number(self.allocated_bytes, 0),
        );
        if self.failed > 0 {
            println!("  failed in all rounds: {}", self.failed);
        }
        if let Some((operations, counts)) = &self.counted {
            print_counts("requests", &counts.requests, *operations);
            print_counts("calls", &counts.calls, *operations);
            print_counts("background", &counts.background_calls, *operations);
        }
    }

    /// A count for each operation.
    fn each(&self, count: impl Fn(&Counts) -> u64) -> Option<f64> {
        let (operations, counts) = self.counted.as_ref()?;
        Some(count(counts) as f64 / (*operations).max(1) as f64)
    }

    fn to_json(&self) -> Value {
        let counted = self.counted.as_ref();
        json!({
            "row": self.row,
            "mount": self.mount,
            "unit": match self.unit { Unit::Operations => "operations/s", Unit::MiB => "MiB/s" },
            "rate": self.rate,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "cpu_us": self.cpu_us,
            "failed": self.failed,
            "allocations": self.allocations,
            "allocated_bytes": self.allocated_bytes,
            "counted_operations": counted.map(|(operations, _)| operations),
            "requests": counted.map(|(_, counts)| &counts.requests),
            "calls": counted.map(|(_, counts)| &counts.calls),
            "background_calls": counted.map(|(_, counts)| &counts.background_calls),
        })
    }
}

/// The most frequent first; what is rarer than one in a hundred operations is noise.
fn print_counts(what: &str, counts: &BTreeMap<String, u64>, operations: u64) {
    let mut shown: Vec<_> = counts
        .iter()
        .map(|(name, count)| (name, *count as f64 / operations.max(1) as f64))
        .filter(|(_, each)| *each >= 0.01)
        .collect();
    shown.sort_by(|a, b| b.1.total_cmp(&a.1));
    if !shown.is_empty() {
        let told: Vec<_> = shown.iter().map(|(name, each)| format!("{name} {each:.2}")).collect();
        println!("  {what}: {}", told.join(", "));
    }
}

fn print_part(part: &Part) {
    let mut told = Vec::new();
    if let Some((p50, p99)) = part.times_ns() {
        told.push(format!("p50 {p50} ns, p99 {p99} ns"));
    }
    if let Some((value, unit)) = part.figure {
        told.push(format!("{value:.2} {unit}"));
    }
    told.extend(part.allocations.map(|each| format!("{each:.2} allocations")));
    println!("  {:<64} {}", part.name, told.join(", "));
}
