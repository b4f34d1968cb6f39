//! Opens the interface for programs where the configuration says. Without it recordings go on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::admin::{Listeners, Running, Services, start};
use crate::config::{Admin, AdminSocket};
use crate::daemon::layout::StorePaths;

/// Where the socket is, and its mode; `None`: nowhere. A store is closed to others with all that is in it. Elsewhere
/// everybody may come, and who it is decides.
fn socket(admin: &Admin, store: &StorePaths) -> Option<(PathBuf, u32)> {
    match &admin.socket {
        AdminSocket::InStore => Some((store.admin_socket(), 0o600)),
        AdminSocket::At(path) => Some((path.clone(), 0o666)),
        AdminSocket::Off => None,
    }
}

/// The interface, or `None` and a line in the log.
pub fn open(admin: &Admin, store: &StorePaths, services: Services) -> Option<Interface> {
    let mut listeners = Listeners::default();
    let mut socket_path = None;
    if let Some((path, mode)) = socket(admin, store) {
        match listeners.on_socket(&path, mode) {
            Ok(()) => {
                log::info!("programs are answered at {}", path.display());
                socket_path = Some(path);
            }
            Err(e) => log::error!(
                "{}: cannot listen ({e}); recordings go on; set `admin.socket` to another path or \"none\"",
                path.display()
            ),
        }
    }
    if let Some(address) = admin.listen {
        match listeners.on_address(address) {
            Ok(bound) => log::info!("programs are answered at http://{bound}"),
            Err(e) => {
                log::error!("{address}: cannot listen ({e}); recordings go on; set `admin.listen` to another address");
            }
        }
        if admin.tokens.is_empty() {
            log::warn!(
                "{address}: nobody can ask there: the configuration has no `admin.tokens`; `tallyfs token` makes one"
            );
        }
    }
    match start(Arc::new(services), listeners) {
        Ok(running) => Some(Interface {
            _running: running,
            socket_path,
        }),
        Err(e) => {
            log::error!("the interface for programs cannot be started: {e}; recordings go on");
            None
        }
    }
}

/// Dropped: nobody is answered any more, and the socket is gone.
pub struct Interface {
    _running: Running,
    /// Ours alone: what stood in the way of listening stays.
    socket_path: Option<PathBuf>,
}

impl Drop for Interface {
    fn drop(&mut self) {
        if let Some(path) = &self.socket_path {
            // Somebody may have taken it away.
            let _ = std::fs::remove_file(path);
        }
    }
}
