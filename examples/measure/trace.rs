//! What the kernel saw: FUSE requests of one mount and system calls of one daemon, through two instances of tracefs.
//!
//! Every system call of the machine becomes a little dearer while it is on, so it is on for short passes alone and
//! never for those that take times. Forgets are no requests for the kernel's event, and are not seen.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const TRACEFS: &str = "/sys/kernel/tracing";
const NAME: &str = "tallyfs-measure-";
/// For each core, of each instance.
const BUFFER_KIB: &str = "16384";

/// Both instances; gone when dropped.
pub struct Tracer {
    requests: Instance,
    calls: Instance,
}

/// Whose system calls are wanted, and how much of them.
pub struct Watch<'a> {
    /// The mount, as the kernel numbers it.
    pub connection: u32,
    /// Threads whose system calls are seen, and those of threads that they start.
    pub threads: &'a [u32],
    /// When calls ended, too.
    pub with_ends: bool,
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, in microseconds.
    pub at_us: u64,
    /// In which thread.
    pub thread: u32,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A request goes to the daemon.
    Request(u32),
    /// A system call begins.
    Begins(i64),
    /// It ends.
    Ends(i64),
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// Requests and system calls in the order of time.
    pub events: Vec<Event>,
    /// So many did not fit in the buffers.
    pub lost: u64,
}

impl Tracer {
    /// Makes the instances.
    ///
    /// # Errors
    /// In words, what is missing.
    pub fn new() -> Result<Self, String> {
        remove_left_over();
        let make = |name: &str| -> io::Result<Instance> {
            let instance = Instance::new(name)?;
            instance.set("buffer_size_kb", BUFFER_KIB)?;
            instance.set("trace_clock", "mono")?;
            instance.set("tracing_on", "0")?;
            Ok(instance)
        };
        let both = || {
            Ok(Self {
                requests: make("requests")?,
                calls: make("calls")?,
            })
        };
        both().map_err(|e: io::Error| format!("tracefs cannot be used, root has it at {TRACEFS} ({e})"))
    }

    /// Begins to watch.
    pub fn begin(&self, watch: &Watch<'_>) -> io::Result<()> {
        let filter = format!("connection == {}", watch.connection);
        self.requests.set("events/fuse/fuse_request_send/filter", &filter)?;
        self.requests.set("events/fuse/fuse_request_send/enable", "1")?;
        let threads: Vec<_> = watch.threads.iter().map(ToString::to_string).collect();
        self.calls.set("options/event-fork", "1")?;
        self.calls.set("set_event_pid", &threads.join(" "))?;
        self.calls.set("events/raw_syscalls/sys_enter/enable", "1")?;
        let ends = if watch.with_ends { "1" } else { "0" };
        self.calls.set("events/raw_syscalls/sys_exit/enable", ends)?;
        for instance in [&self.requests, &self.calls] {
            instance.set("trace", "")?;
            instance.set("tracing_on", "1")?;
        }
        Ok(())
    }

    /// Ends it and tells what was seen.
    pub fn end(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        for instance in [&self.requests, &self.calls] {
            instance.set("tracing_on", "0")?;
            instance.set("events/enable", "0")?;
        }
        for instance in [&self.requests, &self.calls] {
            let text = fs::read_to_string(instance.0.join("trace"))?;
            seen.events.extend(text.lines().filter_map(event));
            seen.lost += instance.lost()?;
            instance.set("trace", "")?;
        }
        seen.events.sort_by_key(|event| event.at_us);
        Ok(seen)
    }
}

struct Instance(PathBuf);

impl Instance {
    fn new(name: &str) -> io::Result<Self> {
        let path = Path::new(TRACEFS).join(format!("instances/{NAME}{}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let path = self.0.join(file);
        let written = fs::write(&path, value);
        written.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }

    fn lost(&self) -> io::Result<u64> {
        let mut lost = 0;
        for core in fs::read_dir(self.0.join("per_cpu"))? {
            let stats = fs::read_to_string(core?.path().join("stats"))?;
            let overruns = stats.lines().filter_map(|line| line.strip_prefix("overrun: "));
            lost += overruns
                .filter_map(|count| count.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(lost)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Instances of a program that was killed.
fn remove_left_over() {
    let Ok(instances) = fs::read_dir(Path::new(TRACEFS).join("instances")) else {
        return;
    };
    for instance in instances.flatten() {
        let name = instance.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(NAME)?.split_once('-'));
        if owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(instance.path());
        }
    }
}

/// A line such as `  fuser-1-4242  [001] .....  123.456789: sys_enter: NR 18 (5, ...)`.
fn event(line: &str) -> Option<Event> {
    let (at, kind) = [": sys_enter: NR ", ": sys_exit: NR ", ": fuse_request_send: "]
        .iter()
        .find_map(|kind| Some((line.find(kind)?, *kind)))?;
    let (head, told) = (&line[..at], &line[at + kind.len()..]);
    let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
    let task = head[..head.rfind(" [")?].trim_end();
    let word_after = |what: &str| told.split(what).nth(1)?.split_whitespace().next();
    let number = || told.split_whitespace().next()?.parse().ok();
    let what = match kind {
        ": sys_enter: NR " => What::Begins(number()?),
        ": sys_exit: NR " => What::Ends(number()?),
        _ => What::Request(word_after("opcode ")?.parse().ok()?),
    };
    Some(Event {
        at_us: seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?,
        thread: task.rsplit('-').next()?.parse().ok()?,
        what,
    })
}

/// How often each name came.
pub fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// The kernel's names of requests.
pub fn request_name(opcode: u32) -> String {
    const NAMES: &[(u32, &str)] = &[
        (1, "LOOKUP"),
        (3, "GETATTR"),
        (4, "SETATTR"),
        (5, "READLINK"),
        (6, "SYMLINK"),
        (8, "MKNOD"),
        (9, "MKDIR"),
        (10, "UNLINK"),
        (11, "RMDIR"),
        (12, "RENAME"),
        (13, "LINK"),
        (14, "OPEN"),
        (15, "READ"),
        (16, "WRITE"),
        (17, "STATFS"),
        (18, "RELEASE"),
        (20, "FSYNC"),
        (21, "SETXATTR"),
        (22, "GETXATTR"),
        (23, "LISTXATTR"),
        (25, "FLUSH"),
        (26, "INIT"),
        (27, "OPENDIR"),
        (28, "READDIR"),
        (29, "RELEASEDIR"),
        (30, "FSYNCDIR"),
        (34, "ACCESS"),
        (35, "CREATE"),
        (36, "INTERRUPT"),
        (43, "FALLOCATE"),
        (44, "READDIRPLUS"),
        (45, "RENAME2"),
        (46, "LSEEK"),
        (50, "SYNCFS"),
        (52, "STATX"),
    ];
    name(NAMES, opcode)
}

/// Names of the system calls that a daemon of this kind makes.
pub fn call_name(number: i64) -> String {
    macro_rules! calls {
        ($($name:ident = $number:ident),* $(,)?) => { &[$((libc::$number, stringify!($name))),*] };
    }
    const NAMES: &[(i64, &str)] = calls! {
        read = SYS_read, write = SYS_write, readv = SYS_readv, writev = SYS_writev, pread64 = SYS_pread64,
        pwrite64 = SYS_pwrite64, preadv = SYS_preadv, pwritev = SYS_pwritev, splice = SYS_splice, openat = SYS_openat,
        openat2 = SYS_openat2, close = SYS_close, fstat = SYS_fstat, newfstatat = SYS_newfstatat, statx = SYS_statx,
        lseek = SYS_lseek, ftruncate = SYS_ftruncate, fallocate = SYS_fallocate, fsync = SYS_fsync,
        fdatasync = SYS_fdatasync, syncfs = SYS_syncfs, mkdirat = SYS_mkdirat, unlinkat = SYS_unlinkat,
        renameat2 = SYS_renameat2, linkat = SYS_linkat, symlinkat = SYS_symlinkat, mknodat = SYS_mknodat,
        fchmod = SYS_fchmod, fchmodat = SYS_fchmodat, fchown = SYS_fchown, fchownat = SYS_fchownat,
        utimensat = SYS_utimensat, getdents64 = SYS_getdents64, ioctl = SYS_ioctl, fcntl = SYS_fcntl,
        name_to_handle_at = SYS_name_to_handle_at, open_by_handle_at = SYS_open_by_handle_at, futex = SYS_futex,
        mmap = SYS_mmap, munmap = SYS_munmap, madvise = SYS_madvise, mprotect = SYS_mprotect, brk = SYS_brk,
        getrandom = SYS_getrandom, fstatfs = SYS_fstatfs, setfsuid = SYS_setfsuid, setfsgid = SYS_setfsgid,
        setresuid = SYS_setresuid, setresgid = SYS_setresgid, getxattr = SYS_getxattr, fgetxattr = SYS_fgetxattr,
        setxattr = SYS_setxattr, fsetxattr = SYS_fsetxattr, clone3 = SYS_clone3, sched_yield = SYS_sched_yield,
        pipe2 = SYS_pipe2, dup = SYS_dup, getuid = SYS_getuid, faccessat = SYS_faccessat, faccessat2 = SYS_faccessat2, flock = SYS_flock,
        copy_file_range = SYS_copy_file_range, fadvise64 = SYS_fadvise64, rt_sigprocmask = SYS_rt_sigprocmask,
        set_robust_list = SYS_set_robust_list, rseq = SYS_rseq, sched_getaffinity = SYS_sched_getaffinity,
        fremovexattr = SYS_fremovexattr, removexattr = SYS_removexattr, gettid = SYS_gettid,
        prctl = SYS_prctl, clock_nanosleep = SYS_clock_nanosleep, sigaltstack = SYS_sigaltstack,
    };
    name(NAMES, number)
}

fn name<N: Copy + PartialEq + std::fmt::Display>(names: &[(N, &str)], number: N) -> String {
    let known = names.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("#{number}"), |(_, name)| (*name).to_owned())
}
