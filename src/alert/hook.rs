//! A program that is run with a notice: without a shell, with an environment of its own (the daemon's may hold the
//! key), none of the daemon's descriptors, and no longer than it may take. What it prints is read, told in part, and
//! dropped.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::attempt::Failed;

/// Where programs find others; the daemon's own PATH does not matter.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// So much of what it prints is kept for the log.
const TOLD_BYTES_MAX: usize = 400;

/// What is run.
pub struct Hook<'a> {
    /// An absolute path.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<&'a str>,
    /// Its environment, beside `PATH` and `LC_ALL`.
    pub variables: Vec<(&'static str, String)>,
    /// What it reads from standard input.
    pub input: Vec<u8>,
}

/// Runs it to its end. Dropped before that, it kills the program with all that it started in its process group.
///
/// # Errors
/// It could not be started, or did not end with 0.
pub async fn run(hook: Hook<'_>) -> Result<(), Failed> {
    let failed = |e: io::Error| Failed::because(&format_args!("{}: {e}", hook.program.display()));
    let (mut running, output) = start(&hook).map_err(failed)?;
    let mut told = Vec::new();
    let mut exited = running.when_exited().map_err(failed)?;
    {
        let reading = read_output(&output, &mut told);
        tokio::pin!(reading);
        tokio::select! {
            _ = &mut exited => {}
            // It closed its output, and may go on.
            () = &mut reading => drop(exited.await),
        }
    }
    // What it printed last. Somebody whom it started may hold the pipe open: that is not waited for.
    drain(&output, &mut told);
    let status = running.reap().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&told)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let gap = if said.trim().is_empty() { "" } else { ": " };
    Err(Failed::because(&format_args!(
        "{} ended with {status}{gap}{}",
        hook.program.display(),
        said.trim()
    )))
}

fn start(hook: &Hook<'_>) -> io::Result<(Running, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(hook.program);
    command
        .args(&hook.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .envs(hook.variables.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::from(input(&hook.input)?))
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        // So that what it starts can be killed with it, and signals of a terminal are not its.
        .process_group(0);
    let child = command.spawn()?;
    // It holds the other end of the pipe.
    drop(command);
    let running = Running(Some(child));
    Ok((running, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// In memory, so that a program that does not read holds up nobody.
fn input(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("notice", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Until the other end is closed; an error ends it too.
async fn read_output(output: &pipe::Receiver, told: &mut Vec<u8>) {
    while output.readable().await.is_ok() {
        if !read_some(output, told) {
            return;
        }
    }
}

fn drain(output: &pipe::Receiver, told: &mut Vec<u8>) {
    // A pipe holds no more than 16 of them.
    for _ in 0..16 {
        let before = told.len();
        if !read_some(output, told) || told.len() == before {
            return;
        }
    }
}

/// False at the end.
fn read_some(output: &pipe::Receiver, told: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match output.try_read(&mut buffer) {
        Ok(0) => false,
        Ok(count) => {
            let room = TOLD_BYTES_MAX.saturating_sub(told.len());
            told.extend_from_slice(&buffer[..count.min(room)]);
            true
        }
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    }
}

/// A program that runs until it has been reaped.
struct Running(Option<Child>);

impl Running {
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.0.as_ref()?.id().cast_signed())
    }

    /// Says when it has ended. It is left to be reaped: until then its number is nobody else's, so that its group can be
    /// killed.
    fn when_exited(&self) -> io::Result<oneshot::Receiver<()>> {
        let pid = self.pid().ok_or(io::ErrorKind::NotFound)?;
        let (tell, told) = oneshot::channel();
        let waiter = thread::Builder::new().name("courier-waiter".to_owned());
        waiter.spawn(move || {
            let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            while matches!(wait(), Err(Errno::INTR)) {}
            // Nobody asks any more when the time was up.
            let _ = tell.send(());
        })?;
        Ok(told)
    }

    /// Only once it has ended: then this does not wait.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let mut child = self.0.take().ok_or(io::ErrorKind::NotFound)?;
        child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.pid();
        let Some(mut child) = self.0.take() else { return };
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        // One that hangs in the kernel dies when it gets out: nobody here waits for that.
        let reaper = thread::Builder::new().name("courier-reaper".to_owned());
        let _ = reaper.spawn(move || child.wait());
    }
}
