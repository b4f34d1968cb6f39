//! Files with a secret: opened only when nobody else can have read or written them. The one place that decides that,
//! for the key and for what notices are signed with.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a file is not taken. The messages name no content.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// A directory, a pipe, a device.
    #[error("{0}: not a regular file; name a file that holds the secret")]
    NotAFile(PathBuf),
    /// Someone else could have written it.
    #[error("{path}: owned by uid {owner}, not by root or uid {us}; run `chown {us} {path}`")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others may read it.
    #[error("{path}: mode {mode:04o} lets others at the secret; run `chmod 0400 {path}`")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something the system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// What it was done to.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Opens a regular file that belongs to root or to who runs the daemon, and that nobody else may read.
///
/// # Errors
/// See [`PrivateFileError`].
pub fn open(path: &Path) -> Result<File, PrivateFileError> {
    open_with(path, 0o077)
}

/// Opens a credential that a service manager handed over: its directory keeps others out, and where an access control
/// list lets the service in, the mode shows that as rights of the group.
///
/// # Errors
/// As [`open`].
pub fn open_credential(path: &Path) -> Result<File, PrivateFileError> {
    open_with(path, 0o037)
}

fn open_with(path: &Path, forbidden: u32) -> Result<File, PrivateFileError> {
    let failed = |action| {
        move |source| PrivateFileError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    };
    // A pipe without a writer must not hang whoever opens it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed("open the file with the secret"))?;
    let meta = file.metadata().map_err(failed("look at"))?;
    if !meta.is_file() {
        return Err(PrivateFileError::NotAFile(path.to_owned()));
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != us {
        return Err(PrivateFileError::Owner {
            path: path.to_owned(),
            owner: meta.uid(),
            us,
        });
    }
    if meta.mode() & forbidden != 0 {
        return Err(PrivateFileError::Mode {
            path: path.to_owned(),
            mode: meta.mode() & 0o7777,
        });
    }
    Ok(file)
}

/// Fills `buffer` as far as the file goes.
///
/// # Errors
/// The system's.
pub fn read_up_to(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}
