//! Groups by name, as the machine knows them (files, LDAP or whatever else `nsswitch.conf` names).

use std::ffi::CString;
use std::io;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_root_is_found_and_one_that_is_not_there_is_none() {
        assert_eq!(group_number("root").unwrap(), Some(0));
        assert_eq!(group_number("no-such-group-here").unwrap(), None);
        assert!(group_number("a\0b").is_err());
    }
}
