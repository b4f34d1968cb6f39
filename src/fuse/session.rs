//! A served mount: what is negotiated with the kernel, and the threads that answer it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use fuser::{Config, INodeNo, InitFlags, KernelConfig, Notifier, SessionACL};

use crate::fs::{FileSystem, Kept};
use crate::fuse::adapter::Adapter;
use crate::fuse::handshake::{ask_again, shake_hands};
use crate::fuse::readers::{Drain, Readers};
use crate::fuse::unanswered;
use crate::metrics::RequestTimes;
use crate::sys::allocator::populate_buffers;

/// Largest read or write in one request.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// What the kernel writes into a buffer for the largest request: its headers are in the page before.
const BUFFER_BYTES: usize = REQUEST_BYTES_MAX as usize + (16 << 10);
/// Read-aheads and other background requests that the kernel may have under way.
const BACKGROUND_REQUESTS_MAX: u16 = 64;

/// What is asked of the kernel where it has it. Never the write-back cache: it acknowledges bytes
/// that a limit will not take. Nor truncation by the open request: that empties the file before the
/// kernel refuses the open of a running program.
const WANTED: InitFlags = InitFlags::FUSE_PARALLEL_DIROPS
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_POSIX_ACL)
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_ASYNC_DIO);

/// Negotiates; called once, before any request.
pub fn negotiate(kernel: &mut KernelConfig) -> io::Result<()> {
    if !kernel
        .capabilities()
        .contains(InitFlags::FUSE_HANDLE_KILLPRIV_V2 | InitFlags::FUSE_BIG_WRITES)
    {
        return Err(io::Error::other(
            "this kernel's FUSE is too old; Linux 5.15 or newer is needed",
        ));
    }
    let _ = kernel.add_capabilities(WANTED & kernel.capabilities());
    let _ = kernel.set_max_write(REQUEST_BYTES_MAX);
    let _ = kernel.set_max_background(BACKGROUND_REQUESTS_MAX);
    let _ = kernel.set_time_granularity(std::time::Duration::from_nanos(1));
    Ok(())
}

/// A mount that is ready to be served.
pub struct Session {
    inner: fuser::Session<Adapter>,
    drain: Drain,
}

impl Session {
    /// Shakes hands with the kernel over the descriptor of a fresh mount, or goes on where an earlier process stopped, of
    /// which `kept` tells; `times` are where requests are counted.
    ///
    /// # Errors
    /// When the kernel is too old or the mount is gone already.
    pub fn start(
        fd: BorrowedFd<'_>,
        fs: &Arc<FileSystem>,
        threads: usize,
        times: Arc<RequestTimes>,
        kept: Option<&Kept>,
    ) -> io::Result<Self> {
        let mut config = Config::default();
        config.n_threads = Some(threads);
        if kept.is_some() {
            populate_buffers(BUFFER_BYTES);
        }
        // Who may ask is the kernel's business (allow_other, default_permissions).
        let readers = Readers::new(threads, fd.try_clone_to_owned()?, times)?;
        let drain = readers.drain();
        let adapter = Adapter::new(fs.clone(), threads, readers);
        let known = kept.and_then(Kept::greeting);
        let earlier = known.as_ref().and(fs.kept());
        let (inner, greeting) = shake_hands(fd, known, |socket| {
            fuser::Session::from_fd(adapter, socket, SessionACL::All, config)
        })?;
        match (earlier, kept) {
            (Some(earlier), _) => {
                if let Err(e) = ask_again(fd) {
                    unanswered::end(fd, fs, earlier, &e);
                }
            }
            (None, Some(kept)) => kept.set_greeting(&greeting),
            (None, None) => {}
        }
        Ok(Self { inner, drain })
    }

    /// Ends the reading of requests before somebody else serves the mount; to be had before it runs.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Tells the kernel what the daemon changed by itself.
    pub fn invalidator(&self) -> Invalidator {
        Invalidator(self.inner.notifier())
    }

    /// Answers requests until the file system is unmounted.
    ///
    /// # Errors
    /// When the connection breaks otherwise.
    pub fn run(self) -> io::Result<()> {
        match self.inner.run() {
            // A request was being read in the moment in which the mount went: the end, as ENODEV is.
            Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            ended => ended,
        }
    }
}

/// Takes back what the kernel was told. Never to be used from inside a request.
pub struct Invalidator(Notifier);

impl Invalidator {
    /// A name in a directory is no longer what it was.
    pub fn forget_name(&self, parent: u64, name: &OsStr) {
        match self.0.inval_entry(INodeNo(parent), name) {
            Ok(()) => {}
            // The kernel did not have it in mind.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => log::warn!("the kernel could not be told that a name is gone: {e}"),
        }
    }
}
