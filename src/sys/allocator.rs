//! Memory: what was freed goes back to the system, and a request is never read into pages that are not there.
//!
//! glibc keeps freed memory for a program that once needed much, which a daemon does after every `ls -lR` of a large
//! store. And fuser reads requests into a buffer of zeros of 16 MiB, whose pages come into being when the kernel writes to
//! them. If the daemon is killed in that moment the kernel gives up on the page, and answers the request with EIO
//! (`fuse_dev_do_read` in fs/fuse/dev.c): the next daemon never hears of it, and the caller has an error. Pages that are
//! there already, and not swapped out, are written to whatever happens to the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// From here on zeroed memory is taken for a buffer of requests.
const BUFFER_BYTES_MIN: usize = 16 << 20;

/// So much of each buffer is there from the beginning; 0: nothing.
static POPULATED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// From now on so many bytes of a new buffer are there before anything is read into it.
pub fn populate_buffers(bytes: usize) {
    POPULATED_BYTES.store(bytes, Ordering::Relaxed);
}

/// The system's allocator, for programs that serve a mount.
#[derive(Debug)]
pub struct Buffers;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Buffers {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above; what was allocated here was allocated by the system's.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let start = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= BUFFER_BYTES_MIN && !start.is_null() {
            // SAFETY: it was allocated just now, with so many bytes.
            unsafe { populate(start, layout.size()) };
        }
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, size) }
    }
}

/// Has the first pages be there. A system that cannot leaves them to the first writing (before Linux 5.14).
///
/// # Safety
/// `start` begins an allocation of so many bytes.
unsafe fn populate(start: *mut u8, size: usize) {
    let bytes = POPULATED_BYTES.load(Ordering::Relaxed).min(size);
    let page = rustix::param::page_size();
    let before = start.addr() % page;
    if bytes > 0 {
        // SAFETY: only whole pages are named, each with a byte of the allocation in it, and populating changes no byte.
        unsafe {
            libc::madvise(
                start.wrapping_sub(before).cast(),
                before + bytes,
                libc::MADV_POPULATE_WRITE,
            );
        }
    }
}

/// Gives freed memory back, as far as the C library can: with others than glibc nothing happens.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time by any thread; it touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
