//! Measures a mounted store by cause: for each kind of work how fast it was, and what one operation of the
//! client cost in FUSE requests, system calls, allocations and processor time of the daemon.
//!
//! `cargo run --release --example measure -- frames close` runs the work of those rows, without names all of
//! it. Two passes: one for the times, with nothing watched, and a short one for the counts, watched through
//! tracefs (root). With `PASSTHROUGH_LL=/path/to/passthrough_ll` libfuse's pass-through does the same work in
//! turn. No figure of time is judged here: compare figures of one run alone.
#![allow(clippy::disallowed_methods, reason = "a program of its own, with its own arguments")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures for people, none near 2^52 and none below zero"
)]

#[path = "../record_calls/audio.rs"]
#[allow(dead_code, reason = "it checks what was read, which nobody does here")]
mod audio;
#[path = "../../tests/common/bare.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod bare;
mod bench;
mod calls;
mod daemon;
#[path = "../record_calls/dates.rs"]
#[allow(dead_code, reason = "record_calls can be told the day")]
mod dates;
mod hops;
mod measured;
mod metadata;
mod mount;
mod parts;
#[path = "../record_calls/recording.rs"]
#[allow(dead_code, reason = "record_calls looks at every field")]
mod recording;
mod report;
mod streams;
mod trace;
mod writes;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use bench::{Bench, Pass};
use measured::Measured;
use mount::{Kind, Mount};
use report::Report;
use trace::Tracer;

/// Scale of the pass that counts, at most: its events have to fit in the buffers of the kernel.
const COUNTED_SCALE_MAX: f64 = 0.1;

/// Speed, and the cause of it, of a store in a temporary directory.
#[derive(Parser, Debug)]
#[command(name = "measure")]
struct Args {
    /// Rows to measure by the beginning of their names (frames, close, ...), `hops` or `parts`; all without any
    rows: Vec<String>,
    /// Size of the work: 1 is about a minute for each round
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How often the times are taken, each mount in turn; medians are told
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Where the stores and mount points go
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Client and daemons on one core: no waking of another one in the times
    #[arg(long)]
    one_core: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Names of all rows, and nothing else
    #[arg(long)]
    list: bool,
    /// Serve STORE at POINT (what the program starts itself as)
    #[arg(long, hide = true, num_args = 2, value_names = ["STORE", "POINT"])]
    serve: Option<Vec<PathBuf>>,
}

/// Work that belongs together, and the rows that it fills.
struct Group {
    rows: &'static [&'static str],
    work: fn(&mut Bench<'_>) -> io::Result<()>,
}

const GROUPS: &[Group] = &[
    Group {
        rows: &["seq_write", "seq_read_cold", "seq_read_warm"],
        work: streams::sequential,
    },
    Group {
        rows: &["frames", "close"],
        work: writes::frames,
    },
    Group {
        rows: &["buffered"],
        work: writes::buffered,
    },
    Group {
        rows: &["create"],
        work: writes::create,
    },
    Group {
        rows: &["fsync"],
        work: writes::fsync,
    },
    Group {
        rows: &["rename", "mkdir_exists", "look_up_absent"],
        work: metadata::names,
    },
    Group {
        rows: &["tree_make", "ls_cold", "ls_warm", "stat_warm", "rm_tree"],
        work: metadata::tree,
    },
    Group {
        rows: &["rand_read", "rand_write"],
        work: streams::random,
    },
    Group {
        rows: &["parallel_write"],
        work: streams::parallel,
    },
    Group {
        rows: &["call_1", "call_50", "call_200"],
        work: calls::fresh_days,
    },
    Group {
        rows: &["call_1_full", "call_50_full", "call_200_full"],
        work: calls::full_day,
    },
];

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some([store, point]) = args.serve.as_deref() {
        return daemon::serve(store, point);
    }
    if args.list {
        for row in GROUPS.iter().flat_map(|group| group.rows) {
            println!("{row}");
        }
        println!("hops\nparts");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(report) => {
            report.print(args.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("measure: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|asked| row.starts_with(asked.as_str()))
    }

    fn groups(&self) -> impl Iterator<Item = &'static Group> {
        GROUPS
            .iter()
            .filter(|group| group.rows.iter().any(|row| self.wants(row)))
    }
}

fn run(args: &Args) -> io::Result<Report> {
    for asked in &args.rows {
        let mut known = GROUPS.iter().flat_map(|group| group.rows).chain(&["hops", "parts"]);
        if !known.any(|row| row.starts_with(asked.as_str())) {
            return Err(io::Error::other(format!(
                "no row begins with {asked:?}; --list names all"
            )));
        }
    }
    if args.one_core {
        let mut first = rustix::thread::CpuSet::new();
        first.set(0);
        rustix::thread::sched_setaffinity(None, &first)?;
    }
    let place = tempfile::Builder::new()
        .prefix("tallyfs-measure-")
        .tempdir_in(&args.dir)?;
    let mut kinds = vec![Kind::TallyFs];
    kinds.extend(std::env::var_os("PASSTHROUGH_LL").map(|program| Kind::PassThrough(program.into())));
    let mut report = Report::new(args.one_core);
    if args.groups().next().is_some() || args.wants("hops") {
        let tracer = Tracer::new();
        if let Err(why) = &tracer {
            report.say(format!("nothing is counted: {why}"));
        }
        measure_mounts(args, place.path(), &kinds, tracer.ok().as_ref(), &mut report)?;
    }
    if args.wants("parts") {
        report.parts = parts::all(args.scale)?;
    }
    Ok(report)
}

fn measure_mounts(
    args: &Args,
    place: &Path,
    kinds: &[Kind],
    tracer: Option<&Tracer>,
    report: &mut Report,
) -> io::Result<()> {
    let mut mounts = Vec::new();
    for kind in kinds {
        mounts.push(Mount::start(kind.clone(), place)?);
    }
    let mut runs = 0;
    for group in args.groups() {
        let mut measured: Vec<Measured> = Vec::new();
        for round in 0..=args.rounds {
            // The last one counts.
            let pass = match tracer {
                _ if round < args.rounds => Pass::Timed,
                Some(tracer) => Pass::Counted(tracer),
                None => break,
            };
            let scale = match pass {
                Pass::Timed => args.scale,
                Pass::Counted(_) => args.scale.min(COUNTED_SCALE_MAX),
            };
            for mount in &mut mounts {
                runs += 1;
                let mut bench = Bench::new(mount, pass, scale, runs)?;
                (group.work)(&mut bench).map_err(|e| io::Error::new(e.kind(), format!("{:?}: {e}", group.rows)))?;
                measured.extend(bench.finish());
            }
        }
        report.add(measured.into_iter().filter(|done| args.wants(done.row)));
    }
    if let Some(tracer) = tracer.filter(|_| args.wants("hops")) {
        for mount in &mut mounts {
            report.hops.extend(hops::all(mount, tracer)?);
        }
    }
    for mount in &mut mounts {
        mount.stop()?;
    }
    Ok(())
}
