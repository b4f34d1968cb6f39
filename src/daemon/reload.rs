//! SIGHUP: the configuration is read again, and what can count at once does, while recordings go on.
//!
//! A configuration that does not check changes nothing. A thread of its own does it: a file on a disk that hangs must not
//! keep a stop waiting.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::notify::Notifier;
use crate::fs::FileSystem;

/// Reads the configuration again as it was read at the start: file, environment and command line.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send>;

/// What a reload needs.
pub struct Reload {
    fs: Arc<FileSystem>,
    reread: Option<Reread>,
    /// What is in force.
    config: Arc<Config>,
    notifier: Notifier,
}

impl Reload {
    /// For a file system in which `config` is in force; `reread` is `None` where no file could have changed.
    pub fn new(fs: &Arc<FileSystem>, reread: Option<Reread>, config: &Arc<Config>, notifier: &Notifier) -> Self {
        Self {
            fs: fs.clone(),
            reread,
            config: config.clone(),
            notifier: notifier.clone(),
        }
    }

    /// Reloads whenever it is asked to, until nobody can ask any more.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(mut self, asked: Receiver<()>) -> Result<(), DaemonError> {
        let reload = move || asked.iter().for_each(|()| self.run());
        let thread = thread::Builder::new().name("reload".to_owned());
        thread.spawn(reload).map_err(DaemonError::Thread)?;
        Ok(())
    }

    fn run(&mut self) {
        let Some(reread) = &self.reread else {
            log::info!("SIGHUP: there is no configuration file to read again");
            return;
        };
        self.notifier.reloading();
        let status = match reread() {
            Ok(read) => {
                self.take(read);
                "Serving"
            }
            Err(text) => {
                log::error!("{text}");
                log::error!("SIGHUP: the configuration is refused, and the one before stays in force");
                "Serving; the configuration was refused, see the log"
            }
        };
        self.notifier.ready();
        self.notifier.status(status);
    }

    fn take(&mut self, read: Config) {
        let (next, waiting) = self.config.reloaded(read);
        if !waiting.is_empty() {
            log::warn!(
                "SIGHUP: changed, and in force from the next start of the daemon on: {}",
                waiting.join(", ")
            );
        }
        self.config = Arc::new(next);
        self.fs.reconfigure(self.config.clone());
        log::info!("SIGHUP: the configuration was read again; its limits are in force");
    }
}
