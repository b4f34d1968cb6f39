//! Repairs that have to go through the ledger and the write path: sealing what a crash left open, WAV
//! headers, usage. The parts of a mount without the mount: counted, changed, sealed and saved in the same
//! order, so a crash in between leaves what a crash of a mount leaves.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::audio::wav::Wav;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::layout::Store;
use crate::daemon::open_store::{OpenStore, Opening, Trust};
use crate::daemon::start_up::boot_id;
use crate::fs::{Caller, Errno, FileSystem, Found, FsResult, NewTime, OpenMode, ROOT_NODE, SetAttr, WriteAsked};
use crate::sealed::HEAD_PLAIN_BYTES;
use crate::sealed::keyring::KeyRing;
use crate::store::tree::AccessTimes;

/// What was done about one file.
pub struct Reopened {
    /// Relative to the data directory.
    pub path: Vec<u8>,
    /// Whether it is in order now; else the error.
    pub outcome: Result<(), String>,
}

/// Counts the whole store, seals what is unclean, gives the files of `paths` the header that their length
/// asks for, and saves the books.
///
/// # Errors
/// As a mount; what was done on disk stays.
pub fn repair(store: &Store, ring: KeyRing, paths: &[Vec<u8>]) -> Result<Vec<Reopened>, DaemonError> {
    let opened = OpenStore::open(Opening {
        paths: store.paths(),
        ring,
        config: Arc::new(Config::default()),
        clock: Arc::new(SystemClock::new()),
        access_times: AccessTimes::Stay,
        boot_id: boot_id().map_err(DaemonError::Data)?,
        trust: Trust::Nothing,
        kept: None,
    })?;
    let reopened = paths
        .iter()
        .map(|path| Reopened {
            path: path.clone(),
            outcome: reopen(opened.fs(), path).map_err(|e| std::io::Error::from_raw_os_error(e.0).to_string()),
        })
        .collect();
    opened.close()?;
    Ok(reopened)
}

/// Opens a file for writing, mends its header where it is a WAV whose header does not tell its audio,
/// and closes it, which has it sealed. Its times stay.
fn reopen(fs: &FileSystem, path: &[u8]) -> FsResult<()> {
    let root = Caller {
        uid: 0,
        gid: 0,
        thread: 0,
    };
    let mut ino = ROOT_NODE;
    for name in path.split(|&byte| byte == b'/') {
        match fs.lookup(ino, OsStr::from_bytes(name), root)? {
            Found::Entry(entry) => ino = entry.attr.ino.0,
            Found::Absent | Found::AbsentForNow | Found::Figure(_) => return Err(Errno::ENOENT),
        }
    }
    let before = fs.getattr(ino)?;
    let how = OpenMode {
        reads: true,
        writes: true,
        ..OpenMode::default()
    };
    let opened = fs.open(ino, how, root)?;
    let mut start = [0; HEAD_PLAIN_BYTES];
    let mended = fs.read(opened.fh, 0, &mut start).and_then(|bytes| {
        let wav = Wav::parse(&start[..bytes]);
        for patch in wav.map(|wav| wav.mend(before.size)).unwrap_or_default() {
            let asked = WriteAsked {
                plain_offset: patch.offset,
                data: &patch.bytes,
                caller: root,
                drops_privileges: false,
                from_mapping: false,
                is_repeated: false,
            };
            fs.write(opened.fh, &asked)?;
        }
        Ok(())
    });
    let times = SetAttr {
        atime: Some(NewTime::At(before.atime.0, before.atime.1)),
        mtime: Some(NewTime::At(before.mtime.0, before.mtime.1)),
        ..SetAttr::default()
    };
    let kept = fs.setattr(ino, &times, root).map(|_| ());
    fs.release(opened.fh)?;
    mended.and(kept)
}
