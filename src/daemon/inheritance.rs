//! What the process before this one left with whoever keeps it: the connection to the kernel, and the memory of open
//! handles. The keeper is systemd's descriptor store, or [`super::keeper`].
//!
//! Only with both is a mount taken over. What is left of one alone is let go, and the mount is made anew.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::daemon::notify::Notifier;
use crate::sys::descriptors::take_inherited;

/// Name of the connection in the descriptor store.
pub const CONNECTION: &str = "tallyfs-connection";
/// Name of the memory of open handles.
pub const MEMORY: &str = "tallyfs-memory";
/// What our own keeper passes: the numbers of both, and when the last process ended, in nanoseconds of the monotonic
/// clock; with commas between them.
pub const VARIABLE: &str = "TALLYFS_KEPT";
/// Tests set it, to have the kernel taken for one before Linux 6.9.
#[cfg(feature = "fault-points")]
const WITHOUT_RESEND: &str = "TALLYFS_WITHOUT_RESEND";
/// systemd's descriptors begin behind standard error (`sd_listen_fds(3)`).
const LISTEN_FDS_START: i32 = 3;

/// What was left.
#[derive(Debug)]
pub struct Inheritance {
    /// /dev/fuse, with the mount behind it.
    pub connection: OwnedFd,
    /// The memory of open handles.
    pub memory: OwnedFd,
    /// When nobody served any more, by the monotonic clock, where that is known.
    pub since: Option<Duration>,
}

impl Inheritance {
    /// What the environment says was passed to this process; its descriptors are this process's from now on.
    pub fn take(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<Self> {
        #[cfg(feature = "fault-points")]
        if environment(WITHOUT_RESEND).is_some() {
            crate::fuse::pretend_no_resend();
        }
        let text = |name| environment(name)?.into_string().ok();
        let (connection, memory, since) = match text(VARIABLE) {
            Some(told) => by_keeper(&told)?,
            None => by_systemd(&text("LISTEN_PID")?, &text("LISTEN_FDS")?, &text("LISTEN_FDNAMES")?)?,
        };
        let mut taken = take_inherited(&[connection, memory]).into_iter();
        Some(Self {
            connection: taken.next()??,
            memory: taken.next()??,
            since,
        })
    }
}

type Numbers = (i32, i32, Option<Duration>);

fn by_keeper(told: &str) -> Option<Numbers> {
    let mut parts = told.split(',');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (connection, memory, since_ns) = (number()?, number()?, number()?);
    Some((
        connection.try_into().ok()?,
        memory.try_into().ok()?,
        Some(Duration::from_nanos(since_ns)),
    ))
}

fn by_systemd(pid: &str, count: &str, names: &str) -> Option<Numbers> {
    if pid.parse() != Ok(std::process::id()) {
        return None;
    }
    let count: usize = count.parse().ok()?;
    let number = |wanted| {
        let at = names.split(':').take(count).position(|name| name == wanted)?;
        Some(LISTEN_FDS_START + i32::try_from(at).ok()?)
    };
    Some((number(CONNECTION)?, number(MEMORY)?, None))
}

/// Leaves both with the keeper, for the process after this one.
///
/// # Errors
/// It could not be told.
pub fn leave(notifier: &Notifier, connection: BorrowedFd<'_>, memory: &impl AsFd) -> io::Result<()> {
    for name in [CONNECTION, MEMORY] {
        notifier.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])?;
    }
    notifier.send(&format!("FDSTORE=1\nFDNAME={MEMORY}"), &[memory.as_fd()])?;
    notifier.send(&format!("FDSTORE=1\nFDNAME={CONNECTION}"), &[connection])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_keeper_tells_numbers_and_the_moment() {
        assert_eq!(by_keeper("5,7,1500"), Some((5, 7, Some(Duration::from_nanos(1500)))));
        for told in ["", "5", "5,7", "5,x,1", "99999999999,7,1"] {
            assert_eq!(by_keeper(told), None, "{told}");
        }
    }

    #[test]
    fn systemd_tells_names_in_the_order_of_numbers() {
        let pid = std::process::id().to_string();
        let names = format!("other:{MEMORY}:{CONNECTION}");
        assert_eq!(by_systemd(&pid, "3", &names), Some((5, 4, None)));
        assert_eq!(by_systemd(&pid, "2", &names), None, "the third is not passed");
        assert_eq!(by_systemd("1", "3", &names), None, "for another process");
        assert_eq!(by_systemd(&pid, "1", CONNECTION), None, "one alone is of no use");
    }
}
