//! Keeps a mount alive over the deaths of its daemon, where no systemd does: `tallyfs mount --supervise`.
//!
//! The keeper starts the daemon, is handed its descriptors in the words of `sd_notify(3)`, and starts the next one with
//! them when it ends without having been asked to. It opens no store, knows no key and reads no request, so there is
//! little that it could die of. A daemon that dies again and again right after its start is given up: the mount is
//! taken away, and callers get errors instead of waiting for ever.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use rustix::io::FdFlags;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, recvmsg, sendto, socket_with,
};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::clock::machine_monotonic;
use crate::daemon::inheritance::{CONNECTION, MEMORY, VARIABLE};
use crate::daemon::mount::detach_of_store;
use crate::daemon::mount_point;
use crate::daemon::notify::Notifier;

/// The longest message of a daemon.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Descriptors that one message brings.
const MESSAGE_FDS_MAX: usize = 4;
/// A daemon that served for less than this was a failed attempt.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// What is to be kept.
pub struct Supervised {
    /// The program, to be started anew by its path: an upgrade puts another one there.
    pub program: PathBuf,
    /// Its arguments, without the one that asks for a keeper.
    pub arguments: Vec<OsString>,
    /// The mount point, to be cleared at the end.
    pub mount_point: PathBuf,
    /// The store, whose mount alone is cleared.
    pub store: PathBuf,
    /// So many short lives in a row are the end.
    pub short_lives_max: u32,
    /// Whoever started the keeper.
    pub notifier: Notifier,
}

/// Why there was no keeper, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The system refused.
    #[error("cannot keep the mount: {0}; without --supervise it is served all the same, until its daemon ends")]
    System(#[from] io::Error),
    /// The daemon does not start.
    #[error("{program}: cannot be started: {source}")]
    Start {
        /// The daemon's program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It dies again and again.
    #[error(
        "{mount_point}: given up after {count} daemons in a row ended right after their start (the last one: {how}); the \
         mount is taken away; see the log for why they ended, then mount again"
    )]
    GivenUp {
        /// The mount point.
        mount_point: PathBuf,
        /// Short lives.
        count: u32,
        /// How the last one ended.
        how: ExitStatus,
    },
}

/// What daemons said and left.
#[derive(Default)]
struct Estate {
    fds: Mutex<BTreeMap<String, OwnedFd>>,
    /// The daemon of now.
    child: AtomicI32,
    /// It has said that it is ready.
    is_ready: AtomicBool,
    /// It ends so that another one takes its place.
    hands_over: AtomicBool,
    /// The keeper was asked to stop.
    stops: AtomicBool,
}

/// Keeps the mount until it is unmounted, or a signal asks to stop; returns the exit code of the last daemon.
///
/// # Errors
/// See [`KeeperError`].
pub fn run(supervised: &Supervised) -> Result<u8, KeeperError> {
    let estate = Arc::new(Estate::default());
    let ear = Ear::open(&estate, &supervised.notifier)?;
    pass_signals_on(&estate)?;
    let (mut short_lives, mut has_served, mut ended_at) = (0, false, machine_monotonic());
    loop {
        estate.is_ready.store(false, Ordering::SeqCst);
        estate.hands_over.store(false, Ordering::SeqCst);
        let mut child = start(supervised, &ear.address, &estate, ended_at).map_err(|source| KeeperError::Start {
            program: supervised.program.clone(),
            source,
        })?;
        let begun_at = machine_monotonic();
        let how = child.wait()?;
        ear.hear_all()?;
        estate.child.store(0, Ordering::SeqCst);
        ended_at = machine_monotonic();
        let was_ready = estate.is_ready.load(Ordering::SeqCst);
        // A mount that was left can have callers, also before it has answered for the first time.
        has_served |= was_ready || estate.fds.lock().contains_key(CONNECTION);
        let is_over = how.success() && !estate.hands_over.load(Ordering::SeqCst);
        if is_over || !has_served || estate.stops.load(Ordering::SeqCst) {
            clear(supervised, &estate);
            return Ok(how.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        let is_short = !was_ready || ended_at.saturating_sub(begun_at) < SHORT_LIFE;
        short_lives = if is_short { short_lives + 1 } else { 0 };
        if short_lives >= supervised.short_lives_max {
            clear(supervised, &estate);
            return Err(KeeperError::GivenUp {
                mount_point: supervised.mount_point.clone(),
                count: short_lives,
                how,
            });
        }
        match how.signal() {
            Some(signal) => log::error!("the daemon was killed by signal {signal}; the next one takes the mount over"),
            None if how.success() => log::info!("the daemon hands the mount over to the next one"),
            None => log::error!("the daemon ended with {how}; the next one takes the mount over"),
        }
    }
}

/// Nobody serves the mount any more: whoever waits for it gets an error, and it goes.
fn clear(supervised: &Supervised, estate: &Estate) {
    estate.fds.lock().clear();
    let mount_point =
        mount_point::without_a_look(&supervised.mount_point).unwrap_or_else(|_| supervised.mount_point.clone());
    let store = std::fs::canonicalize(&supervised.store).unwrap_or_else(|_| supervised.store.clone());
    if let Err(e) = detach_of_store(&mount_point, &store) {
        log::error!(
            "{0}: cannot take the mount away: {e}; run `umount -l {0}`",
            mount_point.display()
        );
    }
}

fn start(supervised: &Supervised, address: &str, estate: &Estate, ended_at: Duration) -> io::Result<Child> {
    let mut command = Command::new(&supervised.program);
    command.args(&supervised.arguments);
    command.env("NOTIFY_SOCKET", address);
    for name in [
        VARIABLE,
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
    ] {
        command.env_remove(name);
    }
    let fds = estate.fds.lock();
    let left: Vec<&OwnedFd> = [CONNECTION, MEMORY].iter().filter_map(|name| fds.get(*name)).collect();
    if let [connection, memory] = left[..] {
        let (connection, memory, since) = (connection.as_raw_fd(), memory.as_raw_fd(), ended_at.as_nanos());
        command.env(VARIABLE, format!("{connection},{memory},{since}"));
    }
    for fd in &left {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    let started = command.spawn();
    for fd in &left {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    let child = started?;
    estate.child.store(child.id().cast_signed(), Ordering::SeqCst);
    if estate.stops.load(Ordering::SeqCst) {
        signal(estate, Signal::TERM);
    }
    Ok(child)
}

fn signal(estate: &Estate, signal: Signal) {
    if let Some(pid) = Pid::from_raw(estate.child.load(Ordering::SeqCst)) {
        // It may have ended in this moment.
        let _ = kill_process(pid, signal);
    }
}

/// From now on a stop stops the daemon, and other signals are the daemon's.
fn pass_signals_on(estate: &Arc<Estate>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR2])?;
    let estate = estate.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for number in signals.forever() {
            match number {
                SIGHUP => signal(&estate, Signal::HUP),
                SIGUSR2 => signal(&estate, Signal::USR2),
                _ => {
                    estate.stops.store(true, Ordering::SeqCst);
                    signal(&estate, Signal::TERM);
                }
            }
        }
    })?;
    Ok(())
}

/// Where daemons send their messages.
struct Ear {
    /// As `NOTIFY_SOCKET` has it.
    address: String,
    own: SocketAddrUnix,
    mouth: OwnedFd,
    heard: Receiver<()>,
}

impl Ear {
    fn open(estate: &Arc<Estate>, above: &Notifier) -> io::Result<Self> {
        let (socket, mouth) = (datagram_socket()?, datagram_socket()?);
        set_socket_passcred(&socket, true)?;
        let name = format!("tallyfs-keeper-{}", std::process::id());
        let own = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        bind(&socket, &own)?;
        let (say_heard, heard) = crossbeam_channel::unbounded();
        let (estate, above) = (estate.clone(), above.clone());
        thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            loop {
                match receive(&socket, &estate) {
                    Ok(Heard::Daemon(text, fds)) => take(&estate, &text, fds, &above),
                    Ok(Heard::Keeper) => _ = say_heard.send(()),
                    Ok(Heard::Stranger) => {}
                    Err(e) => {
                        log::error!("the daemon is not heard any more: {e}");
                        return;
                    }
                }
            }
        })?;
        Ok(Self {
            address: format!("@{name}"),
            own,
            mouth,
            heard,
        })
    }

    /// Comes back when everything is taken that was said until now.
    fn hear_all(&self) -> io::Result<()> {
        sendto(&self.mouth, b"X_KEEPER=1", SendFlags::empty(), &self.own)?;
        self.heard.recv().map_err(io::Error::other)
    }
}

fn datagram_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A message.
enum Heard {
    /// Of the daemon of now, or the last one.
    Daemon(String, Vec<OwnedFd>),
    /// Of this process.
    Keeper,
    /// Of anybody else.
    Stranger,
}

fn receive(socket: &OwnedFd, estate: &Estate) -> io::Result<Heard> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut into = [IoSliceMut::new(&mut bytes)];
        recvmsg(socket.as_fd(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let (mut fds, mut sender) = (Vec::new(), None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(received) => fds.extend(received),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    // Whoever starts a daemon holds the lock until its number is known.
    let _starting = estate.fds.lock();
    let text = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
    Ok(match sender {
        Some(pid) if pid == std::process::id().cast_signed() => Heard::Keeper,
        Some(pid) if pid == estate.child.load(Ordering::SeqCst) => Heard::Daemon(text, fds),
        _ => Heard::Stranger,
    })
}

fn take(estate: &Estate, text: &str, fds: Vec<OwnedFd>, above: &Notifier) {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if value("READY") == Some("1") {
        estate.is_ready.store(true, Ordering::SeqCst);
        above.ready();
    }
    if value("X_HANDS_OVER") == Some("1") {
        estate.hands_over.store(true, Ordering::SeqCst);
    }
    if let Some(status) = value("STATUS") {
        above.status(status);
    }
    let Some(name) = value("FDNAME") else {
        return;
    };
    if value("FDSTOREREMOVE") == Some("1") {
        estate.fds.lock().remove(name);
    }
    if value("FDSTORE") == Some("1")
        && let Some(fd) = fds.into_iter().next()
    {
        estate.fds.lock().insert(name.to_owned(), fd);
    }
}
