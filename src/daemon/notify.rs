//! What the service manager is told, in the words of `sd_notify(3)`: ready, stopping, how it goes, still alive.
//!
//! Ready means that the mount answers: a thread of its own asks it, since the daemon itself has to answer. The same thread
//! pings the watchdog, and asks again before each ping: a daemon that answers nobody gets no ping, and is ended by the
//! manager. Without a manager (no `NOTIFY_SOCKET`) nothing is sent, and no thread is started. Nothing here may stop the
//! daemon: a message that cannot be sent is a line in the log.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Descriptors that one message takes: more than a mount has.
const FDS_MAX: usize = 16;
/// The longest status that is sent.
const STATUS_BYTES_MAX: usize = 512;

/// Tells the service manager. Clones speak for the same process.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    line: Option<Arc<Line>>,
    /// The manager wants to hear from us within this time, always.
    watchdog: Option<Duration>,
}

/// The way to the manager.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl Notifier {
    /// What the manager that started this process asks for, by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. The
    /// environment stays as it is.
    pub fn from_env(environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let Some(name) = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        match Line::open(&name) {
            Ok(line) => Self {
                line: Some(Arc::new(line)),
                watchdog: watchdog(environment),
            },
            Err(e) => {
                log::warn!(
                    "NOTIFY_SOCKET={}: {e}; the service manager is told nothing",
                    name.display()
                );
                Self::default()
            }
        }
    }

    /// Whether there is somebody to tell.
    pub fn is_heard(&self) -> bool {
        self.line.is_some()
    }

    /// Sends lines of `NAME=value`, and descriptors with them.
    ///
    /// # Errors
    /// What the system answers; EINVAL for more than 16 descriptors. Without a manager: never.
    pub fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match &self.line {
            Some(line) => line.send(text, fds),
            None => Ok(()),
        }
    }

    /// The mount answers.
    pub fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping: open recordings are sealed");
    }

    /// The configuration is read again; [`Notifier::ready`] ends that.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// What is being done, for people: one line.
    pub fn status(&self, text: &str) {
        let mut line = String::from("STATUS=");
        for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if line.len() + c.len_utf8() > STATUS_BYTES_MAX {
                break;
            }
            line.push(c);
        }
        self.tell(&line);
    }

    fn tell(&self, text: &str) {
        if let Err(e) = self.send(text, &[]) {
            // A `mount.tallyfs` that waited for the start is long gone.
            if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                return;
            }
            let what = text.lines().next().unwrap_or_default();
            log::warn!("the service manager could not be told {what}: {e}");
        }
    }

    /// From a thread of its own: says ready once the mount has answered, and pings the watchdog as long as it answers.
    /// The thread ends with what is returned.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn watch(&self, mount_point: &Path) -> io::Result<Option<Watch>> {
        if !self.is_heard() {
            return Ok(None);
        }
        let (end, ended) = crossbeam_channel::bounded(0);
        let (notifier, mount_point) = (self.clone(), mount_point.to_owned());
        thread::Builder::new().name("notifier".to_owned()).spawn(move || {
            notifier.watch_mount(&ended, || ask_by_another(&mount_point));
        })?;
        Ok(Some(Watch {
            notifier: self.clone(),
            _end: end,
        }))
    }

    /// `ask` may never come back: that is how a daemon that hangs is noticed.
    fn watch_mount(&self, ended: &Receiver<()>, ask: impl Fn() -> io::Result<()>) {
        if let Err(e) = ask() {
            log::error!("the mount does not answer ({e}); the service manager is not told that it is ready");
            return;
        }
        self.ready();
        self.status("Serving");
        // Twice within the time, as sd_watchdog_enabled(3) has it.
        let Some(pace) = self.watchdog.map(|within| within / 2) else {
            return;
        };
        while ended.recv_timeout(pace) == Err(RecvTimeoutError::Timeout) {
            match ask() {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(e) => log::warn!("the mount does not answer ({e}); the watchdog gets no ping"),
            }
        }
    }
}

/// Has another process look at the mount. No thread of the daemon may: the kernel lets nobody go who waits for an answer,
/// so a daemon that is killed while it asks itself could not die, and the next one not begin.
fn ask_by_another(mount_point: &Path) -> io::Result<()> {
    let asked = asker(mount_point).output()?;
    if asked.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&asked.stderr).trim().to_owned(),
    ))
}

/// Has another process look at the mount, and does not wait for what it finds: one more request comes in.
///
/// # Errors
/// It could not be started.
pub fn provoke_request(mount_point: &Path) -> io::Result<()> {
    asker(mount_point).stderr(Stdio::null()).spawn().map(|_| ())
}

fn asker(mount_point: &Path) -> Command {
    // Not its path: an upgrade may have put another program there.
    let mut command = Command::new("/proc/self/exe");
    command.arg("answers").arg(mount_point).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Ends the thread that watches the mount, and says that the daemon is stopping.
pub struct Watch {
    notifier: Notifier,
    /// The thread is not waited for: it may hang in its question.
    _end: Sender<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.notifier.stopping();
    }
}

/// How often the manager wants to hear from this process.
fn watchdog(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| environment(name)?.to_str()?.parse::<u64>().ok();
    let within = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    let is_for_us = match environment("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(u64::from(std::process::id())),
        None => true,
    };
    is_for_us.then(|| Duration::from_micros(within))
}

impl Line {
    fn open(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddrUnix::new_abstract_name(rest)?,
            [b'/', ..] => SocketAddrUnix::new(name)?,
            _ => {
                return Err(io::Error::other(
                    "neither the path of a socket nor an abstract one (@...)",
                ));
            }
        };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, address })
    }

    fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = fds.len() <= FDS_MAX;
        if !fits || (!fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))) {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let bytes = [IoSlice::new(text.as_bytes())];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg_addr(&self.socket, &self.address, &bytes, &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSliceMut, Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        Notifier::from_env(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn told(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn manager(dir: &Path) -> (UnixDatagram, String) {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (socket, path.to_str().unwrap().to_owned())
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let quiet = notifier(&[("WATCHDOG_USEC", "1000")]);
        quiet.send("READY=1", &[]).unwrap();
        assert!(quiet.watch(Path::new("/")).unwrap().is_none());
        for wrong in ["", "notify", "vsock:2:3"] {
            assert!(!notifier(&[("NOTIFY_SOCKET", wrong)]).is_heard(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_with_an_abstract_name_is_reached() {
        let name = format!("tallyfs-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).stopping();
        assert!(told(&manager).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        let dir = tempfile::tempdir().unwrap();
        let (manager, path) = manager(dir.path());
        let notifier = notifier(&[("NOTIFY_SOCKET", &path)]);
        notifier.status("counting\nREADY=1");
        assert_eq!(told(&manager), "STATUS=counting READY=1");
        notifier.status(&"ö".repeat(600));
        assert!(told(&manager).len() <= STATUS_BYTES_MAX);
    }

    #[test]
    fn descriptors_go_along() {
        let dir = tempfile::tempdir().unwrap();
        let (manager, path) = manager(dir.path());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", &path)]);
        notifier.send("FDSTORE=1\nFDNAME=file", &[file.as_fd()]).unwrap();
        let too_many = vec![file.as_fd(); FDS_MAX + 1];
        assert!(notifier.send("FDSTORE=1", &too_many).is_err());

        let mut bytes = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &manager,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        assert_eq!(&bytes[..got.bytes], b"FDSTORE=1\nFDNAME=file");
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
            panic!("no descriptor came")
        };
        let mut same = std::fs::File::from(fds.next().unwrap());
        let mut text = String::new();
        same.rewind().unwrap();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }

    #[test]
    fn ready_is_said_after_the_answer_and_pings_need_answers() {
        let dir = tempfile::tempdir().unwrap();
        let (manager, path) = manager(dir.path());
        let notifier = notifier(&[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "2000")]);
        let (answer, answers) = crossbeam_channel::bounded::<io::Result<()>>(0);
        let (end, ended) = crossbeam_channel::bounded(0);
        let thread = thread::spawn(move || notifier.watch_mount(&ended, || answers.recv().unwrap()));
        manager.set_nonblocking(true).unwrap();
        let silent = manager.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
        manager.set_nonblocking(false).unwrap();
        answer.send(Ok(())).unwrap();
        assert_eq!(told(&manager), format!("READY=1\nMAINPID={}", std::process::id()));
        assert_eq!(told(&manager), "STATUS=Serving");
        // An answer that is an error brings no ping: the next message is the one after the good answer.
        answer.send(Err(rustix::io::Errno::IO.into())).unwrap();
        answer.send(Ok(())).unwrap();
        assert_eq!(told(&manager), "WATCHDOG=1");
        drop(end);
        // It may be asking once more.
        let _ = answer.send_timeout(Ok(()), Duration::from_millis(100));
        drop(answer);
        thread.join().unwrap();
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let variables = |pid: &'static str| {
            move |name: &str| match name {
                "WATCHDOG_USEC" => Some(OsString::from("3000000")),
                "WATCHDOG_PID" => Some(OsString::from(pid)),
                _ => None,
            }
        };
        assert_eq!(watchdog(&variables("1")), None);
        let ours: &'static str = std::process::id().to_string().leak();
        assert_eq!(watchdog(&variables(ours)), Some(Duration::from_secs(3)));
    }
}
