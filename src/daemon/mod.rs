//! The daemon: brings the parts together, and takes them apart again in the right order.
//!
//! Start: no core files, the store and its lock, the key, the mount point; then `serve` brings the
//! ledger up to date and mounts last, so that no request waits for a scan. Nothing is mounted when
//! a step before fails.

pub mod accept;
pub mod baseline;
pub mod import;
pub mod inheritance;
mod interface;
pub mod keeper;
pub mod key_file;
pub mod key_ring;
pub mod key_source;
pub mod keys;
pub mod layout;
mod ledger_load;
pub mod mount;
pub mod mount_point;
pub mod mount_table;
pub mod notify;
pub mod open_store;
pub mod options;
mod physical;
pub mod reload;
pub mod repair;
pub mod rotation;
mod serve;
pub mod signals;
mod start_up;
mod succession;
mod watchman;
mod write_back;

use std::io;
use std::path::{Path, PathBuf};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::sealed::keyring::KeyRing;

use inheritance::Inheritance;
use key_file::KeyError;
use key_source::KeyChoice;
use layout::{LayoutError, Store};
use mount::{MountError, MountPlan};
use mount_point::MountPointError;
use mount_table::MountTable;
use notify::Notifier;
use options::MountOptions;
use reload::Reread;

/// Everything a mount was asked for, after command line, environment and `-o` were merged.
pub struct MountRequest {
    /// The store; made at first use.
    pub store: PathBuf,
    /// The mount point, an existing directory.
    pub mount_point: PathBuf,
    /// What the `-o` strings said; their `config`, `limit` and `key_file` are merged into the
    /// fields below already.
    pub options: MountOptions,
    /// The configuration, with limit and layouts of command line and environment applied.
    pub config: Config,
    /// Where the key comes from.
    pub key: KeyChoice,
    /// Directory of the credentials of this service: nothing in it is there to be written.
    pub credentials: Option<PathBuf>,
    /// Who is told how it goes.
    pub notifier: Notifier,
    /// What the process before this one left.
    pub inheritance: Option<Inheritance>,
    /// Whoever is told keeps descriptors for the next process, too.
    pub is_kept: bool,
    /// Reads the configuration again.
    pub reread: Option<Reread>,
}

/// What `run` has got ready for `serve`.
pub struct Parts {
    /// The store, locked until this is dropped.
    pub store: Store,
    /// Its key ring, with the key in it.
    pub ring: KeyRing,
    /// Where the next start looks for further keys; `None`: in no file.
    pub key_file: Option<PathBuf>,
    /// The configuration.
    pub config: Config,
    /// The mount to be made, as late as possible.
    pub mount_plan: MountPlan,
    /// Who is told how it goes.
    pub notifier: Notifier,
    /// What the process before this one left, if its mount is still there.
    pub inheritance: Option<Inheritance>,
    /// Somebody is told, and keeps descriptors for the next process.
    pub is_kept: bool,
    /// Reads the configuration again.
    pub reread: Option<Reread>,
}

/// Why a mount ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The store cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The mount point cannot be used.
    #[error(transparent)]
    MountPoint(#[from] MountPointError),
    /// The mount could not be made or taken away.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Core files could not be switched off.
    #[error("cannot switch core files off, which could hold the key: {0}")]
    CoreDumps(io::Error),
    /// The data directory cannot be used.
    #[error("the data directory of the store: {0}")]
    Data(io::Error),
    /// What is in the store cannot be counted.
    #[error(transparent)]
    Recovery(crate::recovery::Error),
    /// The group of administrators is none.
    #[error("access.administrators '{group}' of the configuration: {reason}")]
    Administrators {
        /// As the configuration has it.
        group: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Database(crate::db::Error),
    /// The database writer ended before its time.
    #[error("the database writer: {0}; the next start counts what it did not save")]
    Writer(String),
    /// No thread could be started.
    #[error("cannot start a thread: {0}; raise the limit of processes (TasksMax, ulimit -u)")]
    Thread(io::Error),
    /// The connection to the kernel.
    #[error("the connection to the kernel's FUSE: {0}")]
    Session(io::Error),
}

/// Mounts a store and serves it until it is unmounted or a signal asks to stop.
///
/// # Errors
/// See [`DaemonError`]; nothing stays mounted.
pub fn run(request: MountRequest) -> Result<(), DaemonError> {
    crate::sys::limits::disable_core_dumps().map_err(DaemonError::CoreDumps)?;
    if let Err(e) = crate::sys::limits::raise_open_files() {
        log::warn!("the number of open files stays as it is: {e}");
    }
    serve::serve(prepare(request)?)
}

/// Everything before recovery: store, lock, mount point and key.
fn prepare(mut request: MountRequest) -> Result<Parts, DaemonError> {
    let mut store = Store::open(&request.store)?;
    let left = request.inheritance.take();
    let (mount_point, inheritance) = claim(&request, left, &store.paths().root)?;
    store.note_holder(Some(&mount_point))?;
    let is_credential = |path: &PathBuf| request.credentials.as_ref().is_some_and(|dir| path.starts_with(dir));
    let key_file = request
        .key
        .file_to_make(store.paths())
        .filter(|path| !is_credential(path));
    let ring = key_file::obtain(&store, request.key, SystemClock::new().now().as_secs())?;
    if store.is_new() {
        store.finish_first_use()?;
    }
    let is_root = rustix::process::geteuid().is_root();
    let mount_plan = MountPlan {
        store: store.paths().root.clone(),
        mount_point,
        flags: request.options.flags,
        allow_other: request.options.allow_other.unwrap_or(is_root),
    };
    Ok(Parts {
        store,
        ring,
        key_file,
        config: request.config,
        mount_plan,
        is_kept: request.is_kept && request.notifier.is_heard(),
        notifier: request.notifier,
        inheritance,
        reread: request.reread,
    })
}

/// The mount point: that of the mount that was left, which nobody looks at before it is served, or one that is free.
fn claim(
    request: &MountRequest,
    inheritance: Option<Inheritance>,
    store: &Path,
) -> Result<(PathBuf, Option<Inheritance>), DaemonError> {
    if let Some(inheritance) = inheritance {
        let mount_point = mount_point::without_a_look(&request.mount_point)?;
        let table = MountTable::read().map_err(DaemonError::Data)?;
        if table.topmost(&mount_point).is_some_and(|entry| entry.is_of(store)) {
            return Ok((mount_point, Some(inheritance)));
        }
        log::warn!(
            "{}: the mount that was left is gone; mounting anew",
            mount_point.display()
        );
    }
    let mount_point = mount_point::prepare(&request.mount_point, store, request.options.nonempty)?;
    Ok((mount_point, None))
}
