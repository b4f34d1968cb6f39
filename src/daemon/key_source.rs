//! Where keys come from: files, credentials of systemd, a command, the environment, beside the store.
//!
//! A source may give several keys. Which of the ring's they are is told by check values alone, so no name or order
//! of a file means anything. Nothing that a source gave goes into an error.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::key_file::{self, CONTENT_BYTES_MAX, KekBytes, KeyError};
use super::key_ring;
use super::layout::StorePaths;
use crate::private_file;
use crate::sealed::keyring::KeyState;

/// How long a command may take: a service of keys far away answers within seconds or not at all.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);

/// Name of a credential; further ones have `.N` behind it.
pub const CREDENTIAL: &str = "tallyfs.key";

/// Where keys are to be taken from.
pub enum KeyChoice {
    /// Files that were named, and `FILE.N` of further keys beside the first.
    Files(Vec<PathBuf>),
    /// The credentials directory of a service, which holds [`CREDENTIAL`].
    Credentials(PathBuf),
    /// A program and its arguments; what it prints is the content of a key file.
    Command(Vec<String>),
    /// The environment variable `ENCRYPTION_KEY`, already read.
    Environment(KekBytes),
    /// `STORE.key`, and `STORE.key.N` of further keys, beside the store.
    Beside,
}

impl KeyChoice {
    /// The file that a first key is made in; `None` where a key has to be there.
    pub fn file_to_make(&self, paths: &StorePaths) -> Option<PathBuf> {
        match self {
            Self::Files(files) => files.first().cloned(),
            Self::Beside => Some(key_file::beside(&paths.root)),
            Self::Credentials(_) | Self::Command(_) | Self::Environment(_) => None,
        }
    }
}

/// A key that was given.
pub struct Given {
    /// The key.
    pub bytes: KekBytes,
    /// Where it came from, for messages.
    pub origin: String,
    /// The file that holds it and nothing else.
    pub own_file: Option<PathBuf>,
    /// Nobody named it: what it holds may be none of the ring's.
    pub is_found: bool,
}

/// Every key of the source.
///
/// # Errors
/// A source that cannot be used, with its name; `NotFound` of the file when there is no key file.
pub fn take(paths: &StorePaths, choice: KeyChoice) -> Result<Vec<Given>, KeyError> {
    match choice {
        KeyChoice::Environment(bytes) => Ok(vec![Given {
            bytes,
            origin: "ENCRYPTION_KEY".to_owned(),
            own_file: None,
            is_found: false,
        }]),
        KeyChoice::Command(words) => of_command(&words, COMMAND_TIME_MAX),
        KeyChoice::Credentials(dir) => of_credentials(&dir),
        KeyChoice::Files(files) => of_files(paths, &files),
        KeyChoice::Beside => of_files(paths, &[key_file::beside(&paths.root)]),
    }
}

/// The files, and those with a number behind the name of the first that the ring has a living key for: what a crash of
/// `keys add` left does not count. Without any, the error is that of the first.
fn of_files(paths: &StorePaths, files: &[PathBuf]) -> Result<Vec<Given>, KeyError> {
    let mut all = Vec::new();
    let mut missing = None;
    for path in files {
        match of_file(path, private_file::open) {
            Ok(given) => all.extend(given),
            Err(e) if e.is_not_found() && files.len() == 1 => missing = Some(e),
            Err(e) => return Err(e),
        }
    }
    let Some(first) = files.first() else {
        return Ok(all);
    };
    if fs::exists(paths.keyring()).unwrap_or(true) {
        let ring = key_ring::load(&paths.keyring())?;
        for key in ring.list().iter().filter(|key| key.state != KeyState::Destroyed) {
            let path = key_file::numbered(first, key.id);
            if files.contains(&path) {
                continue;
            }
            match of_file(&path, private_file::open) {
                Ok(given) => all.extend(given.into_iter().map(|given| Given {
                    is_found: true,
                    ..given
                })),
                Err(e) if e.is_not_found() => {}
                Err(e) => log::warn!("{e}"),
            }
        }
    }
    match missing {
        Some(e) if all.is_empty() => Err(e),
        _ => Ok(all),
    }
}

fn of_file(
    path: &Path,
    open: impl FnOnce(&Path) -> Result<fs::File, private_file::PrivateFileError>,
) -> Result<Vec<Given>, KeyError> {
    let keys = key_file::read_all(path, open)?;
    let is_alone = keys.len() == 1;
    let given = |bytes| Given {
        bytes,
        origin: path.display().to_string(),
        own_file: is_alone.then(|| path.to_owned()),
        is_found: false,
    };
    Ok(keys.into_iter().map(given).collect())
}

fn of_credentials(dir: &Path) -> Result<Vec<Given>, KeyError> {
    let entries = fs::read_dir(dir).map_err(key_file::failed("read the credentials in", dir))?;
    let mut all = of_file(&dir.join(CREDENTIAL), private_file::open_credential)?;
    for entry in entries {
        let name = entry
            .map_err(key_file::failed("read the credentials in", dir))?
            .file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(CREDENTIAL)?.strip_prefix('.'));
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            all.extend(of_file(&dir.join(&name), private_file::open_credential)?);
        }
    }
    // Not ours to overwrite: the service manager gave copies.
    for given in &mut all {
        given.own_file = None;
    }
    Ok(all)
}

/// Runs the words as they are, without a shell. Its standard error is the daemon's.
fn of_command(words: &[String], time_max: Duration) -> Result<Vec<Given>, KeyError> {
    let origin = format!("the key command {}", words.first().map_or("", String::as_str));
    let failed = |reason: String| KeyError::Command {
        origin: origin.clone(),
        reason,
    };
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| failed("names no program".to_owned()))?;
    let mut running = Running(
        Command::new(program)
            .args(arguments)
            // A key in the environment is nothing for another program.
            .env_remove("ENCRYPTION_KEY")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| failed(format!("cannot be started: {e}")))?,
    );
    let mut output = running
        .0
        .stdout
        .take()
        .ok_or_else(|| failed("has no output".to_owned()))?;
    let (tell, told) = mpsc::channel();
    let reader = thread::Builder::new().name("key-command".to_owned());
    reader
        .spawn(move || {
            let mut content = Zeroizing::new([0; CONTENT_BYTES_MAX + 1]);
            let read = read_to_end(&mut output, &mut content[..]);
            // Nobody asks any more when the time was up.
            let _ = tell.send(read.map(|len| (content, len)));
        })
        .map_err(|e| failed(format!("cannot be read from: {e}")))?;
    let (content, len) = told
        .recv_timeout(time_max)
        .map_err(|_| failed(format!("gave no key within {} s", time_max.as_secs())))?
        .map_err(|e| failed(format!("cannot be read from: {e}")))?;
    if len > CONTENT_BYTES_MAX {
        // It may go on printing for ever: nobody waits for its end.
        return Err(KeyError::Form { origin, is_file: true });
    }
    let status = running.wait(time_max).map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        return Err(failed(format!(
            "ended with {status}; what it says on standard error is above"
        )));
    }
    let keys = key_file::decode_all(&content[..len], &origin)?;
    let given = |bytes| Given {
        bytes,
        origin: origin.clone(),
        own_file: None,
        is_found: false,
    };
    Ok(keys.into_iter().map(given).collect())
}

/// Until the end, or until the buffer is full.
fn read_to_end(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// A program that is killed, with what it started, when nobody waits for it any more.
struct Running(Child);

impl Running {
    /// It closed its output and has little left to do.
    fn wait(&mut self, time_max: Duration) -> io::Result<ExitStatus> {
        const LOOK_PACE: Duration = Duration::from_millis(5);
        for _ in 0..time_max.as_millis() / LOOK_PACE.as_millis() {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            thread::park_timeout(LOOK_PACE);
        }
        Err(io::Error::other("closed its output and did not end"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that was waited for is gone, and its number may be somebody else's.
        if let (Ok(None), Some(pid)) = (self.0.try_wait(), Pid::from_raw(self.0.id().cast_signed())) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn said(script: &str, time_max: Duration) -> Result<usize, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        of_command(&words, time_max)
            .map(|keys| keys.len())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_command_gives_keys_and_its_output_is_never_repeated() {
        let long = Duration::from_secs(20);
        assert_eq!(said(&format!("echo {HEX}; echo {HEX}"), long), Ok(2));
        let error = said("echo very-secret", long).unwrap_err();
        assert!(error.contains("/bin/sh") && !error.contains("very-secret"), "{error}");
        let error = said(&format!("echo {HEX}; exit 3"), long).unwrap_err();
        assert!(error.contains("exit status: 3") && !error.contains(HEX), "{error}");
        assert!(said("yes", long).unwrap_err().contains("not a key"));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let error = said(&script, Duration::from_secs(1)).unwrap_err();
        assert!(error.contains("within 1 s"), "{error}");
        let pid: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // Killed; it may wait to be reaped by whoever inherited it.
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        for _ in 0..400 {
            if state().is_empty() || state().contains(") Z") {
                return;
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        panic!("it runs on: {}", state());
    }

    #[test]
    fn credentials_may_be_several() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("tallyfs.key"), HEX).unwrap();
        fs::write(path("tallyfs.key.2"), HEX).unwrap();
        fs::write(path("tallyfs.key.old"), "none of ours").unwrap();
        for name in ["tallyfs.key", "tallyfs.key.2"] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o440)).unwrap();
        }
        assert_eq!(of_credentials(dir.path()).map(|keys| keys.len()).ok(), Some(2));
    }
}
