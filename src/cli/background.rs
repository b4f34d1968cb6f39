//! Starting the daemon in the background: its parent waits until the mount answers, and shows why when it does not.
//!
//! The daemon is a process of its own from the first moment, so nothing is forked after threads exist. It says that it is
//! ready as it says so to systemd, at a socket that nobody else can write to.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Where the socket for the answer is made: by root, where only root writes.
const RUN_DIR: &str = "/run";
/// Lines that are kept for an error; a daemon says less until it serves.
const LINES_MAX: usize = 1000;
/// How long the last lines of a daemon that has ended are waited for.
const LAST_LINES_PATIENCE: Duration = Duration::from_secs(2);

/// How a start went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Began {
    /// The mount answers.
    Serving,
    /// The daemon ended; why was shown.
    Refused,
    /// A signal came first, and the daemon was told to stop.
    Interrupted,
}

/// What is heard from the daemon, and about it.
enum Heard {
    Ready,
    Line(String),
    /// Standard error is closed.
    Silent,
    Ended(io::Result<std::process::ExitStatus>),
    Signal,
}

/// Runs this program with `words` in the background, and waits until it says that it is ready.
///
/// # Errors
/// No process, socket or thread can be had.
pub fn start(words: &[OsString], verbose: bool) -> Result<Began, String> {
    let place = Place::new().map_err(|e| format!("cannot make a socket for the daemon's answer: {e}"))?;
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut daemon = Command::new(program)
        .args(words)
        .env("NOTIFY_SOCKET", place.socket_path())
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start the daemon: {e}"))?;
    let pid = Pid::from_child(&daemon);
    let began = listen(&place.socket, &mut daemon)
        .and_then(|(heard, ask_end)| follow(daemon, &heard, ask_end, verbose))
        .map_err(|e| format!("cannot wait for the daemon: {e}"));
    if !matches!(began, Ok(Began::Serving | Began::Refused)) {
        let _ = kill_process(pid, Signal::TERM);
    }
    began
}

/// Starts a thread for each thing that is listened to; they end with this process.
fn listen(socket: &UnixDatagram, daemon: &mut Child) -> io::Result<(Receiver<Heard>, Sender<Heard>)> {
    let (say, heard) = crossbeam_channel::bounded(16);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let say_signal = say.clone();
    spawn(move || {
        if signals.forever().next().is_some() {
            let _ = say_signal.send(Heard::Signal);
        }
    })?;
    let (socket, say_ready) = (socket.try_clone()?, say.clone());
    spawn(move || {
        if wait_for_ready(&socket).is_ok() {
            let _ = say_ready.send(Heard::Ready);
        }
    })?;
    if let Some(stderr) = daemon.stderr.take() {
        let say_line = say.clone();
        spawn(move || read_lines(stderr, &say_line))?;
    }
    Ok((heard, say))
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().spawn(work).map(|_| ())
}

fn wait_for_ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let length = socket.recv(&mut bytes)?;
        if bytes[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Ok(());
        }
    }
}

fn read_lines(stderr: ChildStderr, say: &Sender<Heard>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if say.send(Heard::Line(line)).is_err() {
            return;
        }
    }
    let _ = say.send(Heard::Silent);
}

/// Waits for the first thing that decides.
fn follow(mut daemon: Child, heard: &Receiver<Heard>, say: Sender<Heard>, verbose: bool) -> io::Result<Began> {
    spawn(move || {
        let _ = say.send(Heard::Ended(daemon.wait()));
    })?;
    let mut lines = Lines::new(verbose);
    loop {
        match heard.recv() {
            Ok(Heard::Ready) => {
                // What it warned of before, such as a new key, is for who mounts.
                lines.take_waiting(heard);
                lines.show_warnings();
                return Ok(Began::Serving);
            }
            Ok(Heard::Line(line)) => lines.take(line),
            Ok(Heard::Silent) => {}
            Ok(Heard::Signal) => {
                lines.show_all();
                return Ok(Began::Interrupted);
            }
            Ok(Heard::Ended(status)) => {
                lines.take_last(heard);
                lines.show_all();
                if lines.is_empty() {
                    super::logging::say_failure(&format!("the daemon ended without a word: {}", status?));
                }
                return Ok(Began::Refused);
            }
            Err(_) => return Err(io::Error::other("nothing is heard of it any more")),
        }
    }
}

/// What the daemon printed.
struct Lines {
    kept: Vec<String>,
    verbose: bool,
}

impl Lines {
    fn new(verbose: bool) -> Self {
        Self {
            kept: Vec::new(),
            verbose,
        }
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn take(&mut self, line: String) {
        if self.verbose {
            show(&line);
        }
        if self.kept.len() < LINES_MAX {
            self.kept.push(line);
        }
    }

    /// What was printed before it got ready.
    fn take_waiting(&mut self, heard: &Receiver<Heard>) {
        for next in heard.try_iter() {
            if let Heard::Line(line) = next {
                self.take(line);
            }
        }
    }

    /// What was printed before it ended.
    fn take_last(&mut self, heard: &Receiver<Heard>) {
        while let Ok(next) = heard.recv_timeout(LAST_LINES_PATIENCE) {
            match next {
                Heard::Line(line) => self.take(line),
                Heard::Silent => return,
                _ => {}
            }
        }
    }

    fn show_all(&self) {
        if !self.verbose {
            self.kept.iter().for_each(|line| show(line));
        }
    }

    fn show_warnings(&self) {
        if !self.verbose {
            self.kept
                .iter()
                .filter(|line| !is_usual(line))
                .for_each(|line| show(line));
        }
    }
}

/// A line of the log that says that all goes as it should.
fn is_usual(line: &str) -> bool {
    let head = line.strip_prefix('[').and_then(|rest| rest.split(']').next());
    head.is_some_and(|head| head.split_whitespace().any(|word| word == "INFO"))
}

fn show(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A directory of our own with the socket in it; it goes with this value.
struct Place {
    dir: PathBuf,
    socket: UnixDatagram,
}

impl Place {
    fn new() -> io::Result<Self> {
        let root = if rustix::process::geteuid().is_root() && Path::new(RUN_DIR).is_dir() {
            PathBuf::from(RUN_DIR)
        } else {
            std::env::temp_dir()
        };
        let random = getrandom::u64().map_err(io::Error::other)?;
        let dir = root.join(format!("tallyfs-mount-{random:016x}"));
        // Fails when the name is taken, also by a link: nobody can put a place of his under us.
        DirBuilder::new().mode(0o700).create(&dir)?;
        match UnixDatagram::bind(dir.join("notify")) {
            Ok(socket) => Ok(Self { dir, socket }),
            Err(e) => {
                let _ = fs::remove_dir(&dir);
                Err(e)
            }
        }
    }

    fn socket_path(&self) -> PathBuf {
        self.dir.join("notify")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.socket_path());
        let _ = fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_log_that_are_usual_are_passed_over() {
        assert!(is_usual(
            "[2026-11-29T05:00:00Z INFO  tallyfs::daemon::serve] mounted /m"
        ));
        assert!(!is_usual("[2026-11-29T05:00:00Z WARN  tallyfs::x] for your INFO"));
        assert!(!is_usual("tallyfs: /s: no store"));
    }

    #[test]
    fn the_socket_is_closed_to_others_and_goes() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new().unwrap();
        let dir = place.dir.clone();
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(place);
        assert!(!dir.exists());
    }
}
