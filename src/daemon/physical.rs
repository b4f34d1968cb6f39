//! Looks up what the sealed recordings take in the store: the database knows it file by file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Books;
use crate::clock::Clock;
use crate::db::{self, Totals};
use crate::fs::FileSystem;

/// Between two looks, at least.
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
/// Looking takes this part of the time of one processor at most: a second for a million files or so.
const LOOK_SHARE: u32 = 100;

/// Looks now and then, in a thread that nobody waits for.
pub struct PhysicalLook {
    database: PathBuf,
    books: Arc<Books>,
    clock: Arc<dyn Clock>,
    due: Duration,
}

impl PhysicalLook {
    /// Due at once.
    pub fn new(database: PathBuf, books: &Arc<Books>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            database,
            books: books.clone(),
            clock: clock.clone(),
            due: Duration::ZERO,
        }
    }

    /// Looks when it is time, and when something may have changed.
    pub fn look_if_due(&mut self, fs: &FileSystem) {
        let began_at = self.clock.monotonic();
        if began_at < self.due || !self.books.physical.take_outdated() {
            return;
        }
        if let Err(e) = self.look(fs) {
            // Next time; the writer tells of a database that does not answer.
            log::debug!("physical bytes are not known: {e}");
            self.books.physical.outdate();
        }
        let ended_at = self.clock.monotonic();
        self.due = ended_at + LOOK_EVERY_MIN.max(ended_at.saturating_sub(began_at) * LOOK_SHARE);
    }

    fn look(&self, fs: &FileSystem) -> Result<(), db::Error> {
        let rows = db::open_read_only(&self.database)?.physical_dirs()?;
        let totals = Totals::new(&rows, &[]);
        let ledger = fs.ledger();
        let tenants = ledger.watched().into_iter().filter(|account| account.is_tenant());
        let inos = tenants.map(|account| account.ino()).chain([ledger.root().ino()]);
        // A directory that is not saved yet comes with the next look: saving it calls for one.
        let sizes = inos.filter_map(|ino| Some((ino, totals.of(ino)?.bytes)));
        self.books.physical.put(sizes);
        Ok(())
    }
}
