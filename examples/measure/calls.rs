//! FreeSWITCH's whole sequence for each recording, many starting at the same instant; the time told is that from a
//! call's first mkdir to its first acknowledged byte, and one operation is one recording from start to close.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bench::{Bench, Timer};
use super::dates::Day;
use super::measured::Unit;
use super::recording::{Call, Outcome, Progress, record};

/// Calls that start at once, how often, and the rows that tell of them: in a new day, in one that is full.
const CROWDS: [(u32, u32, &str, &str); 3] = [
    (1, 50, "call_1", "call_1_full"),
    (50, 4, "call_50", "call_50_full"),
    (200, 2, "call_200", "call_200_full"),
];
/// Below the tenant's directory; the rule of the daemon has the same.
const DAY_LAYOUT: &str = "sales/%Y/%m/%d";
/// Recordings that a full day directory has already.
const FULL_DAY_FILES: u32 = 20_000;
/// One whole buffer of 64 KiB and the rest that is written at the end: 5 s.
const AUDIO_BYTES: u64 = 80_000;
const BUFFER_BYTES: usize = 64 << 10;

static NEXT_CALL: AtomicU64 = AtomicU64::new(0);

/// Each burst is the first of the day in its tenant: where nobody made the day directory before, the calls do.
pub fn fresh_days(bench: &mut Bench<'_>) -> io::Result<()> {
    for (calls, bursts, row, _) in CROWDS {
        let tenants = (0..bursts).map(|number| bench.tenant(&format!("{row}-{number}")));
        let tenants: Vec<PathBuf> = tenants.collect::<io::Result<_>>()?;
        bench.phase(row, Unit::Operations, |_, timer| {
            for tenant in &tenants {
                burst(&tenant.join(Day::today().format(DAY_LAYOUT)), calls, timer);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The same where the day directory is there and has many recordings.
pub fn full_day(bench: &mut Bench<'_>) -> io::Result<()> {
    let day = bench.dir().join("2026/11/21");
    fs::create_dir_all(&day)?;
    for number in 0..bench.count(FULL_DAY_FILES, 500) {
        File::create_new(day.join(format!("before-{number:06}.wav")))?;
    }
    for (calls, bursts, _, row) in CROWDS {
        bench.phase(row, Unit::Operations, |_, timer| {
            for _ in 0..bursts {
                burst(&day, calls, timer);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Calls that start at once, with names of their own.
fn burst(day: &Path, calls: u32, timer: &mut Timer) {
    let barrier = Barrier::new(calls as usize);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..calls)
            .map(|_| {
                let barrier = &barrier;
                let number = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move || {
                    let call = Call {
                        path: day.join(format!("call-{number:08}.wav")),
                        seed: number,
                        audio_bytes: AUDIO_BYTES,
                        frame_bytes: BUFFER_BYTES,
                        real_time: false,
                    };
                    barrier.wait();
                    record(&call, &Progress::default())
                })
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("a call does not panic"))
            .collect()
    });
    for outcome in outcomes {
        // FreeSWITCH itself loses calls where several make one directory at once; those have no first byte.
        if outcome.failed_start.is_some() {
            timer.fail();
        } else {
            timer.count(1, outcome.acknowledged_len);
            timer.add_latency(outcome.start_us * 1000);
        }
    }
}
