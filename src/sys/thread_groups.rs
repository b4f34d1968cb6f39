//! The supplementary groups of another thread: FUSE names the caller's thread and its first group alone.

use std::fs;
use std::io;

/// Groups of the thread with this number, without the first one. The thread waits for its answer, so
/// its number is not used again meanwhile.
///
/// # Errors
/// `ENOENT` when there is no such thread or `/proc` does not show it.
pub fn thread_groups(thread: u32) -> io::Result<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    Ok(parse(&status))
}

/// The numbers in the line `Groups:` of proc(5); none when there is no such line.
fn parse(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let words = line.unwrap_or_default().split_ascii_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_their_line() {
        assert_eq!(
            parse("Gid:\t1\t2\nGroups:\t4 20 4294967294 \nNgid:\t9\n"),
            [4, 20, 4_294_967_294]
        );
        assert!(parse("Groups:\t\nNgid:\t0\n").is_empty());
        assert!(parse("Name:\tx\n").is_empty());
    }

    #[test]
    fn a_thread_that_is_not_there_is_an_error() {
        let own = rustix::process::getpid().as_raw_nonzero().get().cast_unsigned();
        assert!(thread_groups(own).is_ok());
        assert!(thread_groups(u32::MAX).is_err());
    }
}
