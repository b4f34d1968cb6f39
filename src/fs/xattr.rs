//! Extended attributes: those of users and the access control lists, as the backing file system keeps
//! them.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use crate::fs::acl::is_list;
use crate::fs::errno::{Errno, FsResult};
use crate::fs::figures::is_figure;
use crate::fs::quota_xattr::QuotaName;
use crate::fs::{Caller, FileSystem, c_name};
use crate::store::tree::{get_xattr, list_xattr, remove_xattr, set_xattr};

/// Longest list that Linux gives.
const LIST_BYTES_MAX: usize = 65_536;
/// Largest value that Linux takes.
const VALUE_BYTES_MAX: usize = 65_536;

impl FileSystem {
    /// Whether an extended attribute of this name is one that the mount keeps for its users.
    pub fn keeps_attribute(name: &OsStr) -> bool {
        is_shown(name.as_bytes())
    }

    /// setxattr(2); `flags` as there.
    ///
    /// # Errors
    /// EOPNOTSUPP for names of other kinds; see [`QuotaName`] for those that are kept for the file system itself.
    pub fn setxattr(&self, number: u64, name: &OsStr, value: &[u8], flags: i32, caller: Caller) -> FsResult<()> {
        let node = self.node(number)?;
        if let Some(quota) = QuotaName::of(name) {
            return self.set_quota(&node, quota, value, flags, caller);
        }
        let plain_name = ordinary(name)?;
        node.with_path(&self.tree, |fd| {
            set_xattr(fd, &plain_name, value, flags.cast_unsigned())
        })?;
        if is_list(name) {
            self.list_was_set(&node, caller)?;
        }
        Ok(())
    }

    /// getxattr(2); `bytes_max` 0 asks for the size.
    ///
    /// # Errors
    /// ENODATA, ERANGE; EOPNOTSUPP for names of other kinds.
    pub fn getxattr(&self, number: u64, name: &OsStr, bytes_max: usize) -> FsResult<XattrAnswer> {
        if is_figure(number) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(quota) = QuotaName::of(name) {
            let text = self.quota_value(&self.node(number)?, quota)?;
            return sized(text.into_bytes(), bytes_max);
        }
        if !is_shown(name.as_bytes()) {
            // No more than setting one is: `ls -l` then asks for labels of security once, not for each file.
            return Err(Errno::EOPNOTSUPP);
        }
        let (node, name) = (self.node(number)?, c_name(name)?);
        answer(bytes_max, |buffer| {
            node.with_path(&self.tree, |fd| get_xattr(fd, &name, buffer))
        })
    }

    /// listxattr(2); `bytes_max` 0 asks for the size.
    ///
    /// # Errors
    /// ERANGE.
    pub fn listxattr(&self, number: u64, bytes_max: usize) -> FsResult<XattrAnswer> {
        if is_figure(number) {
            return sized(Vec::new(), bytes_max);
        }
        let node = self.node(number)?;
        let mut all = vec![0; LIST_BYTES_MAX];
        let bytes = node.with_path(&self.tree, |fd| list_xattr(fd, &mut all))?;
        let shown: Vec<u8> = all[..bytes]
            .split_inclusive(|&byte| byte == 0)
            .filter(|name| is_shown(name.strip_suffix(b"\0").unwrap_or(name)))
            .flatten()
            .copied()
            .collect();
        sized(shown, bytes_max)
    }

    /// removexattr(2).
    ///
    /// # Errors
    /// ENODATA; the others as for setting.
    pub fn removexattr(&self, number: u64, name: &OsStr, caller: Caller) -> FsResult<()> {
        let node = self.node(number)?;
        if let Some(quota) = QuotaName::of(name) {
            return self.remove_quota(&node, quota, caller);
        }
        let name = ordinary(name)?;
        node.with_path(&self.tree, |fd| remove_xattr(fd, &name))
    }
}

/// A value, or how large it is.
pub enum XattrAnswer {
    /// The size that was asked for.
    Size(usize),
    /// The bytes.
    Value(Vec<u8>),
}

fn answer(bytes_max: usize, mut read: impl FnMut(&mut [u8]) -> FsResult<usize>) -> FsResult<XattrAnswer> {
    let mut value = vec![
        0;
        if bytes_max == 0 {
            VALUE_BYTES_MAX
        } else {
            bytes_max.min(VALUE_BYTES_MAX)
        }
    ];
    let bytes = read(&mut value)?;
    if bytes_max == 0 {
        return Ok(XattrAnswer::Size(bytes));
    }
    value.truncate(bytes);
    Ok(XattrAnswer::Value(value))
}

/// A value that is known, in the size that was asked for.
fn sized(value: Vec<u8>, bytes_max: usize) -> FsResult<XattrAnswer> {
    match bytes_max {
        0 => Ok(XattrAnswer::Size(value.len())),
        max if value.len() > max => Err(Errno(libc::ERANGE)),
        _ => Ok(XattrAnswer::Value(value)),
    }
}

/// Names of which the mount knows: no others lead to the backing inode.
fn is_shown(name: &[u8]) -> bool {
    let name = OsStr::from_bytes(name);
    QuotaName::of(name).is_none() && (name.as_bytes().starts_with(b"user.") || is_list(name))
}

fn ordinary(name: &OsStr) -> FsResult<CString> {
    if is_shown(name.as_bytes()) {
        c_name(name)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}
