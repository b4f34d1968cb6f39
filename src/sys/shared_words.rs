//! Words of memory that outlive this process: an anonymous file (memfd) of fixed size, mapped, whose descriptor somebody
//! else keeps.
//!
//! The file is sealed against being cut shorter before it is mapped, so no access can fail.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const WORD_BYTES: usize = size_of::<AtomicU64>();
/// Neither shorter nor longer, and that for good.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Mapped words.
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
    file: OwnedFd,
}

impl SharedWords {
    /// `count` words, all 0. Memory is taken for those that are written.
    ///
    /// # Errors
    /// As memfd_create(2) and mmap(2).
    pub fn create(name: &CStr, count: usize) -> io::Result<Self> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, (count * WORD_BYTES) as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::open(file)
    }

    /// The words of an earlier process.
    ///
    /// # Errors
    /// `InvalidData` when it is not such a file; as mmap(2).
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let is_fixed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        let bytes = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let count = bytes / WORD_BYTES;
        if !is_fixed || count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no memory file of fixed size",
            ));
        }
        // SAFETY: a null hint without MAP_FIXED touches no mapping that exists.
        let map = unsafe {
            mmap(
                ptr::null_mut(),
                count * WORD_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let start = NonNull::new(map.cast()).expect("mmap answers an address or an error");
        Ok(Self { start, count, file })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds so many words, is aligned to a page, lives as long as `self`, cannot lose its
        // pages since the file is sealed against shrinking, and whoever shares it is only ever given atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this length by `open`, and no borrow outlives `self`. An error would
        // leave it mapped: nothing to do about it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.count * WORD_BYTES) };
    }
}

// SAFETY: the mapping belongs to this value; the pointer is as good in any thread.
unsafe impl Send for SharedWords {}
// SAFETY: `&SharedWords` only gives atomics and a borrowed descriptor.
unsafe impl Sync for SharedWords {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_writes_another_one_reads_after_it_is_gone() {
        let first = SharedWords::create(c"test", 1000).unwrap();
        assert!(first.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        first.words()[999].store(7, Ordering::Release);
        let kept = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let second = SharedWords::open(kept).unwrap();
        assert_eq!(second.words().len(), 1000);
        assert_eq!(second.words()[999].load(Ordering::Acquire), 7);
        assert!(ftruncate(second.as_fd(), 8).is_err(), "nobody can take pages away");
    }

    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(SharedWords::open(file.into()).is_err());
        let loose = memfd_create(c"loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&loose, 4096).unwrap();
        assert!(SharedWords::open(loose).is_err(), "it could be cut shorter under us");
    }
}
