//! copy_file_range(2): a read and a write at the destination, charged like one.

use std::cell::RefCell;

use crate::fs::errno::FsResult;
use crate::fs::{Caller, FileSystem, WriteAsked};
use crate::id::Fh;

/// Bytes copied at a time, and at most in one call; the caller asks again for the rest.
const COPY_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static COPY_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyEnd {
    /// Open file.
    pub fh: Fh,
    /// Where in it.
    pub plain_offset: u64,
}

impl FileSystem {
    /// Copies up to `bytes`; returns how many were copied, 0 only at the end of the source.
    ///
    /// # Errors
    /// As read and write.
    pub fn copy_range(&self, from: CopyEnd, to: CopyEnd, bytes: u64, caller: Caller) -> FsResult<usize> {
        let bytes = usize::try_from(bytes).unwrap_or(COPY_BYTES_MAX).min(COPY_BYTES_MAX);
        COPY_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < bytes {
                buffer.resize(bytes, 0);
            }
            let got = self.read(from.fh, from.plain_offset, &mut buffer[..bytes])?;
            if got == 0 {
                return Ok(0);
            }
            let asked = WriteAsked {
                plain_offset: to.plain_offset,
                data: &buffer[..got],
                caller,
                drops_privileges: true,
                from_mapping: false,
                is_repeated: false,
            };
            self.write(to.fh, &asked)
        })
    }
}
