//! What a sealed file needs of the file below it: eight calls and two hints, so that tests can bring their own.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

use crate::store::fault_points::{self, Call};

/// One backing file. Offsets and sizes are sealed ones.
pub trait Backing: Send + Sync {
    /// Reads until `buffer` is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// As read(2).
    fn read_at(&self, buffer: &mut [u8], sealed_offset: u64) -> io::Result<usize>;

    /// Fills `buffer` when that needs no disk; `false` when it does, or when nobody can tell: then
    /// nothing is said about what is in the buffer.
    ///
    /// # Errors
    /// As read(2).
    fn read_cached(&self, _buffer: &mut [u8], _sealed_offset: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Starts to bring a range into memory that will be asked for soon. A hint, which may do nothing.
    fn fetch(&self, _sealed_offset: u64, _bytes: u64) {}

    /// One write; may be short, as write(2).
    ///
    /// # Errors
    /// As write(2).
    fn write_at(&self, bytes: &[u8], sealed_offset: u64) -> io::Result<usize>;

    /// Sets the size, up or down.
    ///
    /// # Errors
    /// As ftruncate(2).
    fn set_size(&self, sealed_size: u64) -> io::Result<()>;

    /// The size.
    ///
    /// # Errors
    /// As fstat(2).
    fn size(&self) -> io::Result<u64>;

    /// Makes content and size durable.
    ///
    /// # Errors
    /// As fdatasync(2). What was written since the last good call may be lost.
    fn sync_data(&self) -> io::Result<()>;

    /// Gives the pages of a range back; the size stays.
    ///
    /// # Errors
    /// As fallocate(2) with `PUNCH_HOLE`.
    fn punch(&self, sealed_offset: u64, bytes: u64) -> io::Result<()>;

    /// First offset at or after `sealed_offset` that has data, `None` when there is none.
    ///
    /// # Errors
    /// As lseek(2) with `SEEK_DATA`.
    fn next_data(&self, sealed_offset: u64) -> io::Result<Option<u64>>;

    /// First hole at or after `sealed_offset`; the end of the file counts as one.
    ///
    /// # Errors
    /// As lseek(2) with `SEEK_HOLE`.
    fn next_hole(&self, sealed_offset: u64) -> io::Result<u64>;
}

impl Backing for File {
    fn read_at(&self, buffer: &mut [u8], sealed_offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let most = fault_points::movable(Call::Read, buffer.len() - done)?;
            match FileExt::read_at(self, &mut buffer[done..done + most], sealed_offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_cached(&self, buffer: &mut [u8], sealed_offset: u64) -> io::Result<bool> {
        let most = fault_points::movable(Call::Read, buffer.len())?;
        let mut parts = [IoSliceMut::new(&mut buffer[..most])];
        // Any refusal, such as by a file system that cannot tell, is left to the read that follows.
        let got = rustix::io::preadv2(self, &mut parts, sealed_offset, ReadWriteFlags::NOWAIT);
        Ok(got.is_ok_and(|bytes| bytes == buffer.len()))
    }

    fn fetch(&self, sealed_offset: u64, bytes: u64) {
        let _ = rustix::fs::fadvise(self, sealed_offset, NonZeroU64::new(bytes), Advice::WillNeed);
    }

    fn write_at(&self, bytes: &[u8], sealed_offset: u64) -> io::Result<usize> {
        let most = fault_points::movable(Call::Write, bytes.len())?;
        loop {
            match FileExt::write_at(self, &bytes[..most], sealed_offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn set_size(&self, sealed_size: u64) -> io::Result<()> {
        fault_points::pass(Call::SetSize)?;
        Ok(rustix::fs::ftruncate(self, sealed_size)?)
    }

    fn size(&self) -> io::Result<u64> {
        fault_points::pass(Call::Stat)?;
        Ok(self.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        fault_points::pass(Call::Sync)?;
        File::sync_data(self)
    }

    fn punch(&self, sealed_offset: u64, bytes: u64) -> io::Result<()> {
        fault_points::pass(Call::Punch)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(self, flags, sealed_offset, bytes)?)
    }

    fn next_data(&self, sealed_offset: u64) -> io::Result<Option<u64>> {
        fault_points::pass(Call::Stat)?;
        match rustix::fs::seek(self, SeekFrom::Data(sealed_offset)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn next_hole(&self, sealed_offset: u64) -> io::Result<u64> {
        fault_points::pass(Call::Stat)?;
        Ok(rustix::fs::seek(self, SeekFrom::Hole(sealed_offset))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_from_memory_in_part_is_not_taken_for_all_of_it() {
        let file = tempfile::tempfile().expect("a file");
        let content: Vec<u8> = (0..5_000_u32).map(|n| n as u8).collect();
        FileExt::write_all_at(&file, &content, 0).expect("written");
        let mut page = [0xee; 4_096];
        // Where the file system can tell, all of it is there.
        if file.read_cached(&mut page, 0).expect("an answer") {
            assert!(page[..] == content[..4_096]);
        }
        assert!(
            !file.read_cached(&mut page, 4_096).expect("an answer"),
            "904 bytes are no page"
        );
        assert!(
            !file.read_cached(&mut page, 8_192).expect("an answer"),
            "nothing is no page"
        );
    }
}
