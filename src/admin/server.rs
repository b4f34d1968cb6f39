//! Sockets, and the thread that serves them.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::sync::watch;

use super::access::Peer;
use super::{Services, router};
use crate::sys;

/// How long requests that are being answered may hold up the end.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What is listened on.
#[derive(Default)]
pub struct Listeners {
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Listens at a path, whose file gets this mode. What a killed daemon left there is taken away; anything but a socket is
    /// not.
    ///
    /// # Errors
    /// The path is taken, or cannot be made.
    pub fn on_socket(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        use std::os::unix::fs::FileTypeExt;
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("something else is there")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // The path of a socket has 108 bytes at most, that of a store need not.
        let parent = fs::File::open(if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        })?;
        let near = Path::new("/proc/self/fd")
            .join(parent.as_raw_fd().to_string())
            .join(name);
        let listener = UnixListener::bind(&near)?;
        fs::set_permissions(&near, fs::Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        self.unix = Some(listener);
        Ok(())
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// The address is taken.
    pub fn on_address(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        self.tcp = Some(listener);
        Ok(bound)
    }
}

/// The running interface. Dropped: it ends.
pub struct Running {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nobody listens when the thread has ended already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves until the value is dropped.
///
/// # Errors
/// No thread, or no event loop.
pub fn start(services: Arc<Services>, listeners: Listeners) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_name("admin-reader")
        .build()?;
    let (stop, stopped) = watch::channel(false);
    let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(serve(services, listeners, stopped));
        runtime.shutdown_timeout(END_PATIENCE);
    })?;
    Ok(Running {
        stop,
        thread: Some(thread),
    })
}

async fn serve(services: Arc<Services>, listeners: Listeners, stopped: watch::Receiver<bool>) {
    let app = router(services).into_make_service_with_connect_info::<Peer>();
    let ended = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the sender is gone: the end too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let (unix_app, unix_end) = (app.clone(), ended(stopped.clone()));
    let unix = async move {
        let listener = listeners.unix.map(tokio::net::UnixListener::from_std);
        match listener {
            Some(Ok(listener)) => axum::serve(listener, unix_app).with_graceful_shutdown(unix_end).await,
            Some(Err(e)) => Err(e),
            None => Ok(()),
        }
    };
    let tcp_end = ended(stopped.clone());
    let tcp = async move {
        match listeners.tcp.map(tokio::net::TcpListener::from_std) {
            Some(Ok(listener)) => axum::serve(listener, app).with_graceful_shutdown(tcp_end).await,
            Some(Err(e)) => Err(e),
            None => Ok(()),
        }
    };
    let both = async {
        let (unix, tcp) = tokio::join!(unix, tcp);
        for e in [unix.err(), tcp.err()].into_iter().flatten() {
            log::error!("the HTTP interface has ended: {e}; recordings go on");
        }
    };
    let out_of_patience = async {
        ended(stopped).await;
        tokio::time::sleep(END_PATIENCE).await;
    };
    tokio::select! {
        () = both => {}
        () = out_of_patience => {}
    }
}

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        let io = stream.io();
        match io.peer_cred() {
            Ok(peer) => {
                let mut groups = sys::groups::peer_groups(io).unwrap_or_default();
                groups.push(peer.gid());
                Self::Local {
                    uid: peer.uid(),
                    groups,
                }
            }
            // Nobody that is known: let in with a token alone.
            Err(_) => Self::Tcp,
        }
    }
}

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        Self::Tcp
    }
}
