//! Descriptors by number: those that a process inherits, and one that takes another one's place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes inherited descriptors over, once in the life of a process; they are closed on exec from now on. `None` for
/// one that is not open, and for all of them at the second call.
pub fn take_inherited(numbers: &[RawFd]) -> Vec<Option<OwnedFd>> {
    let is_first = !TAKEN.swap(true, Ordering::SeqCst);
    let is_repeated = |at: usize| numbers[..at].contains(&numbers[at]);
    let take = |(at, &number)| {
        if !is_first || number <= libc::STDERR_FILENO || is_repeated(at) {
            return None;
        }
        // SAFETY: F_SETFD on a number that is not open fails and does nothing else.
        let rc = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        if rc < 0 {
            return None;
        }
        // SAFETY: it is open, was passed to this process by number, and is taken here once: nothing else owns it.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    };
    numbers.iter().enumerate().map(take).collect()
}

/// What `number` stood for is closed, and from now on it stands for what `live` has open.
///
/// # Errors
/// As dup3(2).
pub fn put_in_place(live: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: both are open for the call; the owner of `number` keeps a descriptor that is open under that number.
    let rc = unsafe { libc::dup3(live.as_raw_fd(), number, libc::O_CLOEXEC) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn inherited_descriptors_are_taken_once() {
        let (reader, _writer) = io::pipe().unwrap();
        let number = OwnedFd::from(reader).into_raw_fd();
        let taken = take_inherited(&[number, number, 1]);
        assert_eq!(taken[0].as_ref().unwrap().as_raw_fd(), number);
        assert!(taken[1].is_none() && taken[2].is_none());
        assert!(take_inherited(&[number])[0].is_none());
    }

    #[test]
    fn a_number_stands_for_something_else() {
        let (old, _old_writer) = io::pipe().unwrap();
        let (new, mut writer) = io::pipe().unwrap();
        put_in_place(new.as_fd(), old.as_raw_fd()).unwrap();
        drop(new);
        writer.write_all(b"x").unwrap();
        let mut byte = [0];
        (&old).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
