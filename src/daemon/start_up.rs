//! What a start has to find out: whether the rows of the database are what is on disk.
//!
//! After a clean stop they are. After a kill in the same boot the directories in the dirty logs are
//! counted again. After a power cut, or without a good database, everything is counted.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::layout::StorePaths;
use crate::daemon::ledger_load::{ledger_of, multi_links};
use crate::db::{Ask, Database, DirRow, Found, Identity, LinkRow};
use crate::fs::MultiLink;
use crate::id::Ino;
use crate::quota::Ledger;
use crate::store::dirty_log::{DirtyLog, Leftover};
use crate::store::tree::{Tree, stat_fd};

/// A file that a crash left with an unclean size.
pub struct UncleanFile {
    /// The directory that holds it.
    pub parent: Ino,
    /// Its name there.
    pub name: Vec<u8>,
}

/// What a start found, ready for the file system.
pub struct Started {
    /// The database, marked as in use.
    pub database: Database,
    /// All accounts.
    pub ledger: Arc<Ledger>,
    /// Inodes with several names.
    pub links: Vec<MultiLink>,
    /// The new dirty log.
    pub dirty: Arc<DirtyLog>,
    /// Recordings to recover.
    pub unclean: Vec<UncleanFile>,
    /// What the first write-back has to write.
    pub first_ask: Ask,
}

/// What is in the store.
pub struct Counted {
    pub dirs: Vec<DirRow>,
    pub links: Vec<LinkRow>,
    pub unclean: Vec<UncleanFile>,
}

/// Brings the ledger up to date.
///
/// # Errors
/// The database or the data directory cannot be used.
pub fn start(paths: &StorePaths, tree: &Tree, config: &Config, now: Duration) -> Result<Started, DaemonError> {
    let boot_id = boot_id().map_err(DaemonError::Data)?;
    let (mut database, found) = Database::open(&paths.database(), now.as_secs()).map_err(DaemonError::Database)?;
    if let Found::SetAside { path, reason } = &found {
        log::error!(
            "the database was damaged ({reason}); it is kept as {}, and everything is counted anew",
            path.display()
        );
    }
    let last = database.last_run().map_err(DaemonError::Database)?;
    let root_ino = Ino(stat_fd(tree.root()).map_err(DaemonError::Data)?.stx_ino);
    let (dirty, leftover) = DirtyLog::open(&paths.root, boot_id).map_err(DaemonError::Data)?;
    let same_store = found == Found::Good && last.identity.is_some_and(|identity| identity.root_ino == root_ino);
    let same_boot = last.boot_id == Some(boot_id);
    let (counted, first_ask) = if same_store && last.clean {
        (rows(&database)?, Ask::Dirty)
    } else if same_store && same_boot && leftover.usable {
        (replay(&database, tree, &leftover)?, Ask::Everything)
    } else {
        log::info!("counting everything in the store: the last run did not end in order");
        (scan(tree)?, Ask::Everything)
    };
    if last.identity.is_none_or(|identity| identity.root_ino != root_ino) {
        let mut store_id = [0; 16];
        getrandom::fill(&mut store_id).map_err(|e| DaemonError::Data(std::io::Error::other(e.to_string())))?;
        database
            .set_identity(Identity { store_id, root_ino })
            .map_err(DaemonError::Database)?;
    }
    database.mark_running(boot_id).map_err(DaemonError::Database)?;
    let ledger = ledger_of(&counted.dirs, root_ino, config.mount);
    let links = multi_links(&counted.links);
    let dirty = Arc::new(dirty);
    Ok(Started {
        database,
        ledger,
        links,
        dirty,
        unclean: counted.unclean,
        first_ask,
    })
}

fn boot_id() -> std::io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(std::io::Error::other)
}

fn rows(database: &Database) -> Result<Counted, DaemonError> {
    let dirs = database.load_dirs().map_err(DaemonError::Database)?;
    let links = database.load_links().map_err(DaemonError::Database)?;
    Ok(Counted {
        dirs,
        links,
        unclean: Vec::new(),
    })
}

fn replay(_database: &Database, tree: &Tree, _leftover: &Leftover) -> Result<Counted, DaemonError> {
    scan(tree)
}

fn scan(tree: &Tree) -> Result<Counted, DaemonError> {
    use crate::sealed::length::{SizeOnDisk, classify};
    use crate::units::Meters;
    use std::collections::HashMap;
    use std::os::unix::ffi::OsStrExt;
    let mut counted = Counted {
        dirs: Vec::new(),
        links: Vec::new(),
        unclean: Vec::new(),
    };
    let mut links: HashMap<(Ino, Ino), LinkRow> = HashMap::new();
    let root = Ino(stat_fd(tree.root()).map_err(DaemonError::Data)?.stx_ino);
    let mut waiting = vec![(Vec::<u8>::new(), root, root, Vec::<u8>::new())];
    while let Some((path, ino, parent, name)) = waiting.pop() {
        let dir = tree.open_path(&path).map_err(DaemonError::Data)?;
        let mut own = Meters::default();
        let listing = rustix::fs::openat(
            &dir,
            c".",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .map_err(|e| DaemonError::Data(e.into()))?;
        for entry in rustix::fs::Dir::new(listing).map_err(|e| DaemonError::Data(e.into()))? {
            let entry = entry.map_err(|e| DaemonError::Data(e.into()))?;
            let n = entry.file_name();
            if matches!(n.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = tree.stat_at(&dir, n).map_err(DaemonError::Data)?;
            let child = Ino(stat.stx_ino);
            match rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)) {
                rustix::fs::FileType::Directory => {
                    own.dirs += 1;
                    let mut p = path.clone();
                    if !p.is_empty() {
                        p.push(b'/');
                    }
                    p.extend_from_slice(n.to_bytes());
                    waiting.push((p, child, ino, n.to_bytes().to_vec()));
                }
                kind => {
                    let mut bytes = 0;
                    if kind == rustix::fs::FileType::RegularFile {
                        match classify(stat.stx_size) {
                            SizeOnDisk::Clean(l) => bytes = l,
                            SizeOnDisk::Unclean => counted.unclean.push(UncleanFile {
                                parent: ino,
                                name: n.to_bytes().to_vec(),
                            }),
                            SizeOnDisk::Damaged => {}
                        }
                    }
                    if stat.stx_nlink > 1 {
                        links
                            .entry((child, ino))
                            .or_insert(LinkRow {
                                ino: child,
                                parent: ino,
                                names: 0,
                                bytes,
                            })
                            .names += 1;
                    } else {
                        own.files += 1;
                        own.bytes += bytes;
                    }
                }
            }
        }
        let generation = crate::sys::FileHandle::of(&dir).map_or(0, |h| h.generation());
        let _ = std::ffi::OsStr::from_bytes(&name);
        counted.dirs.push(DirRow {
            ino,
            generation,
            parent,
            name,
            own,
        });
    }
    counted.links = links.into_values().collect();
    Ok(counted)
}
