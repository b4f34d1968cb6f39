//! The first words with the kernel, which are exchanged once in the life of a mount, whoever serves it later.
//!
//! fuser wants to be greeted over the descriptor that it serves. It gets one end of a socket pair with the kernel's
//! greeting in it; its answer goes on to the kernel, or nowhere if an earlier process gave one; then the connection
//! takes the place of the socket, under the same number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use fuser::{InitFlags, KernelConfig};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use crate::sys::descriptors::put_in_place;

/// The kernel takes no smaller buffer than 8 KiB for a request.
const GREETING_BYTES_MAX: usize = 64 * 1024;
/// `FUSE_NOTIFY_RESEND` (linux/fuse.h, since Linux 6.9).
const NOTIFY_RESEND: i32 = 7;
/// Bytes of `struct fuse_out_header`: length, code, number of a request.
const NOTICE_BYTES: u32 = 16;

/// Has `start` make a session over a descriptor that in the end is `live`. `known` is the greeting that an earlier
/// process answered. Returns the session, and the greeting to be kept.
///
/// # Errors
/// Those of `start`; the mount is gone.
pub fn shake_hands<T>(
    live: BorrowedFd<'_>,
    known: Option<Vec<u8>>,
    start: impl FnOnce(OwnedFd) -> io::Result<T>,
) -> io::Result<(T, Vec<u8>)> {
    let is_known = known.is_some();
    let greeting = match known {
        Some(greeting) => greeting,
        None => read_greeting(live)?,
    };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    send(&ours, &greeting, SendFlags::empty())?;
    let number = theirs.as_raw_fd();
    let session = start(theirs);
    let mut answer = vec![0; GREETING_BYTES_MAX];
    let (_, length) = recv(&ours, &mut answer[..], RecvFlags::DONTWAIT)?;
    if !is_known {
        rustix::io::write(live, &answer[..length])?;
    }
    let session = session?;
    put_in_place(live, number)?;
    Ok((session, greeting))
}

fn read_greeting(live: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut greeting = vec![0; GREETING_BYTES_MAX];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(live, &mut greeting[..]))?;
    greeting.truncate(length);
    Ok(greeting)
}

/// Tests take the kernel for an older one.
#[cfg(feature = "fault-points")]
static LACKS_RESEND: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// From now on the kernel is one before Linux 6.9, as far as this process is concerned.
#[cfg(feature = "fault-points")]
pub fn pretend_no_resend() {
    LACKS_RESEND.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Whether the kernel can send again what a process has read that died.
pub fn resends(kernel: &KernelConfig) -> bool {
    #[cfg(feature = "fault-points")]
    if LACKS_RESEND.load(std::sync::atomic::Ordering::Relaxed) {
        return false;
    }
    kernel.capabilities().contains(InitFlags::FUSE_HAS_RESEND)
}

/// Has the kernel send again what an earlier process has read and not answered.
///
/// # Errors
/// EINVAL before Linux 6.9.
pub fn ask_again(live: impl AsFd) -> io::Result<()> {
    #[cfg(feature = "fault-points")]
    if LACKS_RESEND.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(rustix::io::Errno::INVAL.into());
    }
    let mut notice = Vec::with_capacity(NOTICE_BYTES as usize);
    notice.extend_from_slice(&NOTICE_BYTES.to_ne_bytes());
    notice.extend_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    notice.extend_from_slice(&0_u64.to_ne_bytes());
    rustix::io::write(live, &notice)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    /// What fuser does: reads a greeting, answers it, and keeps the descriptor.
    fn answering(fd: OwnedFd) -> io::Result<(OwnedFd, Vec<u8>)> {
        let mut heard = vec![0; 100];
        let length = rustix::io::read(&fd, &mut heard[..])?;
        heard.truncate(length);
        rustix::io::write(&fd, b"answer")?;
        Ok((fd, heard))
    }

    fn received(fd: &OwnedFd) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 100];
        let (_, length) = recv(fd, &mut bytes[..], RecvFlags::DONTWAIT).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    #[test]
    fn the_first_process_passes_greeting_and_answer_on_and_then_speaks_to_the_kernel() {
        let (kernel, live) = pair();
        rustix::io::write(&kernel, b"greeting").unwrap();
        let ((fd, heard), kept) = shake_hands(live.as_fd(), None, answering).unwrap();
        assert_eq!((&heard[..], &kept[..]), (&b"greeting"[..], &b"greeting"[..]));
        assert_eq!(received(&kernel).unwrap(), b"answer");
        rustix::io::write(&fd, b"reply").unwrap();
        assert_eq!(received(&kernel).unwrap(), b"reply");
    }

    #[test]
    fn a_later_process_answers_nobody() {
        let (kernel, live) = pair();
        rustix::io::write(&kernel, b"a request").unwrap();
        let ((fd, heard), _) = shake_hands(live.as_fd(), Some(b"kept".to_vec()), answering).unwrap();
        assert_eq!(heard, b"kept");
        assert_eq!(received(&kernel), None);
        assert_eq!(received(&fd).unwrap(), b"a request", "it waits for the session");
    }

    #[test]
    fn what_the_kernel_is_asked_has_the_form_of_a_notice() {
        let (kernel, live) = pair();
        ask_again(&live).unwrap();
        let notice = received(&kernel).unwrap();
        assert_eq!(notice.len(), 16);
        assert_eq!(notice[..4], 16_u32.to_ne_bytes());
        assert_eq!(notice[4..8], 7_i32.to_ne_bytes());
        assert_eq!(notice[8..], [0; 8]);
    }
}
