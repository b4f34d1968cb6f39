//! Bringing recordings into a store that is not mounted: the parts of a mount without the mount, as in a repair, and a
//! tree of files in place of requests.
//!
//! The store is opened, locked and put away as a daemon does it, so the next mount starts from a clean stop; a kill leaves
//! what a kill of a daemon leaves.

mod batch;
mod importer;
mod links;
mod places;
mod progress;
mod remarks;
mod source;
mod sweep;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::key_file;
use crate::daemon::key_source::KeyChoice;
use crate::daemon::layout::Store;
use crate::daemon::open_store::{OpenStore, Opening, Trust};
use crate::daemon::start_up::boot_id;
use crate::store::tree::{AccessTimes, stat_fd};
use crate::sys;

use importer::Importer;
use source::{InodeId, SourceDir};

pub use places::PlaceError;
pub use progress::{Shown, Watch};
pub use remarks::{Kind, Remark, Remarks, Tally};

/// What becomes of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceFate {
    /// It stays as it is.
    Stays,
    /// Each file is removed once its copy is verified and durable.
    Goes,
}

/// What is to be imported, and where.
pub struct ImportRequest {
    /// The directory whose content comes along.
    pub tree: PathBuf,
    /// The store; made at first use.
    pub store: PathBuf,
    /// Directory in the store, as a path below the mount; empty for its top.
    pub to: Vec<u8>,
    /// What becomes of the tree.
    pub fate: SourceFate,
    /// The configuration, for its limits.
    pub config: Config,
    /// Where the key comes from.
    pub key: KeyChoice,
}

/// What an import did.
pub struct Imported {
    /// The store.
    pub store: PathBuf,
    /// How much came along.
    pub tally: Tally,
    /// What did not.
    pub remarks: Remarks,
    /// Everything was met; not stopped, and no full disk.
    pub complete: bool,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Tree, store and key lie where they must not.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] DaemonError),
}

/// Imports a tree. What is in the store and whole is passed over, so it can be run again.
///
/// # Errors
/// [`ImportError`]; the tree is as it was, but for what was removed after its copy was durable.
pub fn import(request: ImportRequest, watch: &Watch<'_>) -> Result<Imported, ImportError> {
    sys::limits::disable_core_dumps().map_err(DaemonError::CoreDumps)?;
    if let Err(e) = sys::limits::raise_open_files() {
        log::warn!("the number of open files stays as it is: {e}");
    }
    let tree = places::tree(&request.tree)?;
    places::apart(&tree, &request.store)?;
    let key = match &request.key {
        KeyChoice::Files(files) => files.clone(),
        KeyChoice::Beside => vec![key_file::beside(&places::real(&request.store))],
        KeyChoice::Credentials(dir) => vec![dir.clone()],
        KeyChoice::Environment(_) | KeyChoice::Command(_) => Vec::new(),
    };
    key.iter().try_for_each(|key| places::key_outside(&tree, key))?;
    let top = SourceDir::top(&tree).map_err(|source| PlaceError::Source { path: tree, source })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut store = Store::open(&request.store).map_err(DaemonError::from)?;
    store.note_holder(None).map_err(DaemonError::from)?;
    let ring = key_file::obtain(&store, request.key, clock.now().as_secs()).map_err(DaemonError::from)?;
    if store.is_new() {
        store.finish_first_use().map_err(DaemonError::from)?;
    }
    rustix::process::umask(Mode::empty());
    let mut opened = OpenStore::open(Opening {
        paths: store.paths(),
        ring,
        config: Arc::new(request.config),
        clock: clock.clone(),
        // What is read back is not read by anybody.
        access_times: AccessTimes::Stay,
        boot_id: boot_id().map_err(DaemonError::Data)?,
        trust: Trust::Rows,
        kept: None,
    })?;
    let target = target::Target::new(opened.fs().clone(), clock);
    let progress = progress::Progress::new(watch, progress::survey(&top, watch.stop));
    let own = own_directories(&store).map_err(DaemonError::Data)?;
    let mut importer = Importer::new(&mut opened, target, progress, request.fate, own);
    let complete = importer.run(&top, &request.to);
    let (tally, remarks) = (importer.tally, std::mem::take(&mut importer.remarks));
    drop(importer);
    opened.close()?;
    Ok(Imported {
        store: store.paths().root.clone(),
        tally,
        remarks,
        complete,
    })
}

/// The store and its data directory, by their inodes: a bind mount shows them under other paths.
fn own_directories(store: &Store) -> std::io::Result<Vec<InodeId>> {
    let id = |path: &Path| -> std::io::Result<InodeId> { Ok(source::inode_id(&stat_fd(std::fs::File::open(path)?)?)) };
    Ok(vec![id(&store.paths().root)?, id(&store.paths().data())?])
}
