//! Where the time of one write goes, hop by hop, as the kernel saw it: nothing in the daemon takes part.
//!
//! Watching makes each system call dearer by some tenths of a microsecond, so the hops show where the time goes and the
//! timed rows how much it is. The time in the daemon itself is split by `parts`: charging and sealing alone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use super::mount::Mount;
use super::trace::{Event, Tracer, Watch, What};

const WRITES: u64 = 2000;
/// Shares of the slowest and of the quickest that are left out of a mean, in hundredths.
const TRIMMED_HUNDREDTHS: usize = 10;

/// The hops of one kind of write on one mount.
pub struct Hops {
    /// Whose mount it was.
    pub mount: &'static str,
    /// Bytes of each write.
    pub bytes: usize,
    /// Writes that could be followed.
    pub followed: usize,
    /// Name and mean in microseconds, without the slowest and quickest tenth.
    pub means_us: Vec<(&'static str, f64)>,
}

/// Moments of one write, in their order.
#[derive(Clone, Copy, Default)]
struct Path {
    called: u64,
    sent: u64,
    received: u64,
    /// Time inside system calls between receiving and replying.
    backing: u64,
    replying: u64,
    returned: u64,
}

/// A small append and a large write.
pub fn all(mount: &mut Mount, tracer: &Tracer) -> io::Result<Vec<Hops>> {
    [320, 64 << 10]
        .into_iter()
        .map(|bytes| follow(mount, tracer, bytes))
        .collect()
}

fn follow(mount: &mut Mount, tracer: &Tracer, bytes: usize) -> io::Result<Hops> {
    let path = mount.point().join(format!("hops-{bytes}"));
    let file = File::create_new(&path)?;
    let data = vec![0x5A; bytes];
    file.write_all_at(&data, 0)?;
    let daemon: HashSet<u32> = mount.threads()?.into_iter().map(|(tid, _)| tid).collect();
    let client = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let threads: Vec<u32> = daemon.iter().copied().chain([client]).collect();
    tracer.begin(&Watch {
        connection: mount.connection()?,
        threads: &threads,
        with_ends: true,
    })?;
    let written = (1..=WRITES).try_for_each(|number| file.write_all_at(&data, number * bytes as u64));
    let seen = tracer.end()?;
    written?;
    drop(file);
    fs::remove_file(path)?;
    let paths = paths(&seen.events, client);
    let mean = |hop: fn(&Path) -> u64| trimmed_mean(paths.iter().map(hop).collect());
    Ok(Hops {
        mount: mount.name(),
        bytes,
        followed: paths.len(),
        means_us: vec![
            ("to the queue", mean(|path| path.sent.saturating_sub(path.called))),
            ("receive", mean(|path| path.received.saturating_sub(path.sent))),
            (
                "daemon",
                mean(|path| path.replying.saturating_sub(path.received).saturating_sub(path.backing)),
            ),
            ("backing", mean(|path| path.backing)),
            ("reply", mean(|path| path.returned.saturating_sub(path.replying))),
            ("all", mean(|path| path.returned.saturating_sub(path.called))),
        ],
    })
}

/// One client writes, so that everything between its call and its return belongs to that write.
fn paths(events: &[Event], client: u32) -> Vec<Path> {
    let mut paths = Vec::new();
    let mut path: Option<Path> = None;
    let mut server = None;
    let mut begun = 0;
    for event in events {
        match event.what {
            What::Begins(libc::SYS_pwrite64) if event.thread == client => {
                server = None;
                path = Some(Path {
                    called: event.at_us,
                    ..Path::default()
                });
            }
            What::Ends(libc::SYS_pwrite64) if event.thread == client => {
                if let Some(mut whole) = path.take().filter(|path| path.replying > 0) {
                    whole.returned = event.at_us;
                    paths.push(whole);
                }
            }
            _ if event.thread == client && !matches!(event.what, What::Request(_)) => {}
            _ => {
                let Some(path) = path.as_mut() else { continue };
                match event.what {
                    What::Request(_) => path.sent = event.at_us,
                    // The first call that ends is the one that took the request in.
                    What::Ends(libc::SYS_read | libc::SYS_splice) if server.is_none() && path.sent > 0 => {
                        server = Some(event.thread);
                        path.received = event.at_us;
                    }
                    What::Begins(libc::SYS_writev) if server == Some(event.thread) && path.replying == 0 => {
                        path.replying = event.at_us;
                    }
                    What::Begins(_) if server == Some(event.thread) => begun = event.at_us,
                    What::Ends(_) if server == Some(event.thread) && path.replying == 0 => {
                        path.backing += event.at_us.saturating_sub(begun);
                    }
                    _ => {}
                }
            }
        }
    }
    paths
}

fn trimmed_mean(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    let cut = values.len() * TRIMMED_HUNDREDTHS / 100;
    let middle = &values[cut..values.len() - cut];
    middle.iter().sum::<u64>() as f64 / middle.len().max(1) as f64
}
