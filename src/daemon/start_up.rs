//! What a start has to find out: whether the rows of the database are what is on disk.
//!
//! After a clean stop they are. After a kill in the same boot the directories in the dirty logs are
//! counted again. After a power cut, or without a good database, everything is counted.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::daemon::DaemonError;
use crate::daemon::layout::StorePaths;
use crate::daemon::ledger_load::{ledger_of, multi_links};
use crate::db::{Ask, Database, Found, Identity, TermsRow};
use crate::fs::MultiLink;
use crate::id::Ino;
use crate::quota::{Ledger, SavedExternal};
use crate::recovery::{self, Counted, Probe, Unclean};
use crate::store::dirty_log::{DirtyLog, Leftover};
use crate::store::tree::{Tree, stat_fd};
use crate::sys::FileHandle;

/// What a start found, ready for the file system.
pub struct Started {
    /// The database, marked as in use.
    pub database: Database,
    /// All accounts.
    pub ledger: Arc<Ledger>,
    /// What accounts have beside their counters.
    pub terms: Vec<TermsRow>,
    /// Counters that programs feed.
    pub external: Vec<SavedExternal>,
    /// Inodes with several names.
    pub links: Vec<MultiLink>,
    /// The new dirty log.
    pub dirty: Arc<DirtyLog>,
    /// Recordings to recover.
    pub unclean: Vec<Unclean>,
    /// Directories in which killed daemons had changes that they did not save, and nobody did since.
    pub unsaved: Vec<Ino>,
    /// What the first write-back has to write.
    pub first_ask: Ask,
    /// How it was found.
    pub way: Way,
}

/// How a start came to know what is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the rows of a clean stop.
    Clean,
    /// From the rows, with the directories of the dirty logs counted again.
    Replay,
    /// Everything was counted.
    Scan,
}

impl Way {
    /// Its name for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Replay => "replay",
            Self::Scan => "scan",
        }
    }
}

/// Whether the rows of the database may be taken for what is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// When the last stop, or the dirty logs, say so.
    Rows,
    /// Never: everything is counted.
    Nothing,
}

/// Brings the ledger up to date.
///
/// # Errors
/// The database or the data directory cannot be used.
pub fn start(
    paths: &StorePaths,
    tree: &Tree,
    clock: &Arc<dyn Clock>,
    boot_id: [u8; 16],
    trust: Trust,
) -> Result<Started, DaemonError> {
    let (mut database, found) =
        Database::open(&paths.database(), clock.now().as_secs()).map_err(DaemonError::Database)?;
    if let Found::SetAside { path, reason } = &found {
        log::error!(
            "the database was damaged ({reason}); it is kept as {}, and everything is counted anew",
            path.display()
        );
    }
    let last = database.last_run().map_err(DaemonError::Database)?;
    let root_ino = Ino(stat_fd(tree.root()).map_err(DaemonError::Data)?.stx_ino);
    let root_generation = FileHandle::of(tree.root()).map_or(0, |handle| handle.generation());
    let is_root = |identity: Identity| {
        identity.root_ino == root_ino && identity.root_generation.is_none_or(|known| known == root_generation)
    };
    let (dirty, leftover) = DirtyLog::open(&paths.root, boot_id, last.log_epoch).map_err(DaemonError::Data)?;
    let same_store = trust == Trust::Rows && found == Found::Good && last.identity.is_some_and(is_root);
    let same_boot = last.boot_id == Some(boot_id);
    let (counted, way) = if same_store && last.clean {
        (rows(&database)?, Way::Clean)
    } else if same_store && same_boot && leftover.usable {
        replay(&database, tree, &leftover, &**clock)?
    } else {
        (scan(tree, &**clock)?, Way::Scan)
    };
    // Its rows name inodes, and those of a store that was moved or restored have other numbers.
    let is_moved = last.identity.is_some_and(|identity| !is_root(identity));
    let known = last.identity.filter(|_| !is_moved);
    if known.is_none_or(|identity| identity.root_generation.is_none()) {
        let store_id = known.map_or_else(new_store_id, |identity| Ok(identity.store_id))?;
        let identity = Identity {
            store_id,
            root_ino,
            root_generation: Some(root_generation),
        };
        database.set_identity(identity).map_err(DaemonError::Database)?;
    }
    if (found != Found::Good || is_moved) && counted.stats.files_read > 0 {
        log::warn!(
            "the database is {}: what was known of recordings sealed before is lost; see `tallyfs scrub`",
            if is_moved { "that of another place" } else { "new" }
        );
        database
            .note_baseline_lost(clock.now().as_secs())
            .map_err(DaemonError::Database)?;
    }
    database.mark_running(boot_id).map_err(DaemonError::Database)?;
    let unsaved = unsaved(&mut database, &leftover)?;
    Ok(Started {
        terms: database.terms().map_err(DaemonError::Database)?,
        external: database.external().map_err(DaemonError::Database)?,
        ledger: ledger_of(&counted.dirs, root_ino, clock.clone()),
        links: multi_links(&counted.links),
        dirty: Arc::new(dirty),
        database,
        unclean: counted.unclean,
        unsaved,
        first_ask: if way == Way::Clean { Ask::Dirty } else { Ask::Everything },
        way,
    })
}

/// What killed daemons left unsaved, noted until it is taken up.
fn unsaved(database: &mut Database, leftover: &Leftover) -> Result<Vec<Ino>, DaemonError> {
    let mut inos = database.unsaved().map_err(DaemonError::Database)?;
    inos.extend(&leftover.inos);
    inos.sort_unstable();
    inos.dedup();
    if !leftover.inos.is_empty()
        && let Err(e) = database.note_unsaved(&leftover.inos)
    {
        // On a full disk recordings are to be read and deleted all the same.
        log::warn!(
            "{e}; should this run be killed too, `tallyfs scrub` names recordings that the database does not know"
        );
    }
    Ok(inos)
}

fn new_store_id() -> Result<[u8; 16], DaemonError> {
    let mut store_id = [0; 16];
    getrandom::fill(&mut store_id).map_err(|e| DaemonError::Data(std::io::Error::other(e.to_string())))?;
    Ok(store_id)
}

/// The kernel's name of this boot of the machine.
///
/// # Errors
/// When it cannot be read.
pub fn boot_id() -> std::io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(std::io::Error::other)
}

/// The rows as they are: the last stop was a clean one.
fn rows(database: &Database) -> Result<Counted, DaemonError> {
    let dirs = database.load_dirs().map_err(DaemonError::Database)?;
    let links = database.load_links().map_err(DaemonError::Database)?;
    Ok(Counted {
        dirs,
        links,
        ..Counted::default()
    })
}

/// The rows, with the directories of the dirty logs counted again; everything when they disagree.
fn replay(
    database: &Database,
    tree: &Tree,
    leftover: &Leftover,
    clock: &dyn Clock,
) -> Result<(Counted, Way), DaemonError> {
    let rows = rows(database)?;
    match recovery::replay(
        tree.root(),
        rows.dirs,
        rows.links,
        &leftover.inos,
        probe(&|| clock.monotonic()),
    ) {
        Ok(counted) => {
            let stats = counted.stats;
            log::info!(
                "the last run was killed: counted {} directories with {} files again in {} ms",
                stats.directories_read,
                stats.files_read,
                stats.elapsed.as_millis()
            );
            Ok((counted, Way::Replay))
        }
        Err(e) if e.asks_for_scan() => {
            log::warn!("{e}");
            Ok((scan(tree, clock)?, Way::Scan))
        }
        Err(e) => Err(DaemonError::Recovery(e)),
    }
}

fn scan(tree: &Tree, clock: &dyn Clock) -> Result<Counted, DaemonError> {
    let counted = recovery::scan(tree.root(), probe(&|| clock.monotonic())).map_err(DaemonError::Recovery)?;
    let stats = counted.stats;
    log::info!(
        "counted everything: {} directories with {} files in {} ms",
        stats.directories_read,
        stats.files_read,
        stats.elapsed.as_millis()
    );
    for damaged in &counted.damaged {
        log::error!(
            "{}: {} is a size that no sealed recording has",
            damaged.path.display(),
            damaged.size
        );
    }
    Ok(counted)
}

fn probe(now: &(dyn Fn() -> Duration + Sync)) -> Probe<'_> {
    Probe {
        generation: &|fd| FileHandle::of(fd).map_or(0, |handle| handle.generation()),
        limits: &recovery::limits_on,
        now,
    }
}
