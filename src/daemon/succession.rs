//! From one process of a mount to the next: decides at a start whether a mount is made or taken over, and leaves it with
//! whoever keeps it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::clock::machine_monotonic;
use crate::daemon::DaemonError;
use crate::daemon::inheritance::{self, Inheritance};
use crate::daemon::mount::{MountGuard, MountPlan, Mounted, detach_of_store};
use crate::daemon::notify::{Notifier, provoke_request};
use crate::fs::{Kept, TakenOver};
use crate::fuse::{Drain, Session};

/// So long a process that hands its mount over waits for its last requests: a disk that hangs does not keep the next
/// one from starting.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const DRAIN_PACE: Duration = Duration::from_micros(500);
/// Requests that are provoked at once; one too many is the next process's first.
const PROVOKED_MAX: usize = 16;
/// So many looks without a request of anybody, and one is provoked.
const QUIET_LOOKS: u32 = 6;

/// What was left, and what is going to be.
pub struct Succession {
    /// Memory of open handles; `None` where nobody keeps anything.
    pub kept: Option<Arc<Kept>>,
    /// The connection of the process before, until it is taken.
    connection: Option<OwnedFd>,
    is_taken_over: bool,
    since: Option<Duration>,
}

impl Succession {
    /// Looks at what was left. What is of no use is let go, with its mount.
    ///
    /// # Errors
    /// A mount that nobody can serve any more cannot be taken away.
    pub fn begin(is_kept: bool, left: Option<Inheritance>, plan: &MountPlan) -> Result<Self, DaemonError> {
        if let Some(left) = left {
            match Kept::take_over(left.memory) {
                Ok(kept) if kept.greeting().is_some() => {
                    return Ok(Self {
                        kept: Some(Arc::new(kept)),
                        connection: Some(left.connection),
                        is_taken_over: true,
                        since: left.since,
                    });
                }
                Ok(_) => log::warn!("the last process ended before it served; mounting anew"),
                Err(e) => log::warn!("what the last process left cannot be used: {e}; mounting anew"),
            }
            drop(left.connection);
            detach_of_store(&plan.mount_point, &plan.store)?;
        }
        Ok(Self {
            kept: is_kept
                .then(|| Kept::create().map(Arc::new))
                .transpose()
                .map_err(DaemonError::Data)?,
            connection: None,
            is_taken_over: false,
            since: None,
        })
    }

    /// Makes the mount, or takes it over, has `start` begin its session, and leaves it with whoever keeps it.
    ///
    /// # Errors
    /// The mount, or those of `start`.
    pub fn connect(
        &mut self,
        plan: &MountPlan,
        notifier: &Notifier,
        kept: Option<&Kept>,
        start: impl FnOnce(BorrowedFd<'_>) -> io::Result<Session>,
    ) -> Result<(Session, Arc<MountGuard>), DaemonError> {
        let taken = self
            .connection
            .take()
            .map(|connection| plan.take_over(connection))
            .transpose()?
            .flatten();
        let is_new = taken.is_none();
        let Mounted { fd, guard } = taken.map_or_else(|| plan.mount(), Ok)?;
        let session = start(fd.as_fd()).map_err(DaemonError::Session)?;
        if let (true, Some(kept)) = (is_new, kept)
            && let Err(e) = inheritance::leave(notifier, fd.as_fd(), kept)
        {
            log::warn!("nobody keeps the mount when this process ends: {e}");
        }
        Ok((session, Arc::new(guard)))
    }

    /// Says what was taken over, and how long callers waited.
    pub fn report(&self, taken: TakenOver) {
        if !self.is_taken_over {
            return;
        }
        let TakenOver {
            handles_count,
            lost_count,
        } = taken;
        match self.since {
            Some(since) => log::info!(
                "took the mount over with {handles_count} open files and directories ({lost_count} lost); callers waited for up to {} ms",
                machine_monotonic().saturating_sub(since).as_millis()
            ),
            None => {
                log::info!("took the mount over with {handles_count} open files and directories ({lost_count} lost)");
            }
        }
    }
}

/// Reads no more requests, and comes back when all that were read are answered: the next process begins where this one
/// stops, also where the kernel cannot send a request again. A thread that waits in read(2) can only be had out of there
/// by a request.
pub fn fall_silent(drain: &Drain, mount_point: &Path) {
    drain.begin();
    let begun = machine_monotonic();
    let (mut reading_before, mut quiet_looks) = (usize::MAX, 0_u32);
    while !drain.is_dry() {
        if machine_monotonic().saturating_sub(begun) >= DRAIN_PATIENCE {
            log::warn!(
                "{} requests are not answered yet; the next process goes on with them",
                drain.unanswered_count()
            );
            return;
        }
        let reading = drain.reading_count();
        quiet_looks = if reading == reading_before { quiet_looks + 1 } else { 0 };
        reading_before = reading;
        if quiet_looks > 0 && quiet_looks.is_multiple_of(QUIET_LOOKS) {
            for _ in 0..reading.min(PROVOKED_MAX) {
                provoke_request(mount_point).unwrap_or_else(|e| log::debug!("no request could be provoked: {e}"));
            }
        }
        thread::park_timeout(DRAIN_PACE);
    }
}
