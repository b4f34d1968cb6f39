//! Groups by name, as the machine knows them (files, LDAP or whatever else `nsswitch.conf` names).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Longest entry that is read: groups with tens of thousands of members.
const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Number of the group with this name; `None` when there is none.
///
/// # Errors
/// As getgrnam(3).
pub fn group_number(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut buffer = vec![0_u8; 4096];
    loop {
        // SAFETY: `group` is plain data, for which all zeros is a value.
        let mut group: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = std::ptr::null_mut();
        // SAFETY: all pointers are to live values of ours; the buffer has the length that is given.
        let code = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut group,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        match code {
            0 if found.is_null() => return Ok(None),
            0 => return Ok(Some(group.gr_gid)),
            libc::ERANGE if buffer.len() < ENTRY_BYTES_MAX => buffer.resize(buffer.len() * 4, 0),
            libc::ENOENT | libc::ESRCH => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Most groups that Linux gives a process.
const GROUPS_MAX: usize = 65_536;

/// Supplementary groups of whoever connected a Unix socket, as of then.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let wanted = groups.len() * size_of::<u32>();
        let mut bytes = libc::socklen_t::try_from(wanted).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the buffer has `bytes` bytes, any of which may be written; both pointers live through the call.
        let code = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        if code == 0 {
            groups.truncate(bytes as usize / size_of::<u32>());
            return Ok(groups);
        }
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX => groups.resize(GROUPS_MAX, 0),
            e => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_peer_are_those_of_its_process() {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        let mut told = peer_groups(&here).unwrap();
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
        drop(there);
    }

    #[test]
    fn the_group_of_root_is_found_and_one_that_is_not_there_is_none() {
        assert_eq!(group_number("root").unwrap(), Some(0));
        assert_eq!(group_number("no-such-group-here").unwrap(), None);
        assert!(group_number("a\0b").is_err());
    }
}
