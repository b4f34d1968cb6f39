//! A umask of one thread alone: the daemon's is empty, because callers bring their own, and programs that it starts
//! must not inherit that.

use std::io;

use rustix::fs::Mode;
use rustix::thread::UnshareFlags;

/// From here on this thread, and what it starts, has a umask and a working directory of its own.
///
/// # Errors
/// The system's; nothing has changed then.
pub fn own_umask(mask: Mode) -> io::Result<()> {
    // Only sharing of descriptors makes the call unsafe, of which nothing changes here.
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of UnshareFlags::FILES alone"
    )]
    rustix::thread::unshare(UnshareFlags::FS)?;
    rustix::process::umask(mask);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_umask_of_one_thread_is_not_that_of_others() {
        let process = rustix::process::umask(Mode::empty());
        rustix::process::umask(process);
        let inside = thread::spawn(|| {
            own_umask(Mode::RWXG | Mode::RWXO).unwrap();
            rustix::process::umask(Mode::empty())
        });
        assert_eq!(inside.join().unwrap(), Mode::RWXG | Mode::RWXO);
        assert_eq!(rustix::process::umask(process), process);
    }
}
