//! Memory for a key: a page of its own, locked into RAM, left out of core files, zeroed on drop.
//!
//! The type has no `Debug`, `Clone` or `Serialize`, and must not get them.

use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// What is asked of the kernel for each value; it rounds up to its own page size.
const MAP_BYTES: usize = 4096;

/// `N` secret bytes, at most 4,096.
pub struct LockedBytes<const N: usize> {
    page: NonNull<[u8; N]>,
    is_locked: bool,
}

impl<const N: usize> LockedBytes<N> {
    const FITS: () = assert!(N <= MAP_BYTES, "a secret must fit one page");

    /// `N` zero bytes.
    ///
    /// # Errors
    /// `ENOMEM` when there is no page. A refused `mlock` is no error (see
    /// [`LockedBytes::is_locked`]): without swap it changes nothing.
    pub fn zeroed() -> io::Result<Self> {
        let () = Self::FITS;
        // SAFETY: a null hint without MAP_FIXED touches no mapping that exists.
        let map = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                MAP_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        // SAFETY: the page was mapped above and nothing else knows it.
        let is_locked = unsafe { mlock(map, MAP_BYTES) }.is_ok();
        let page = NonNull::new(map.cast()).expect("mmap answers an address or an error");
        let secret = Self { page, is_locked };
        // SAFETY: as above; the advice changes what a core file holds, not the memory.
        unsafe { madvise(map, MAP_BYTES, Advice::LinuxDontDump) }?;
        Ok(secret)
    }

    /// Whether the page can no longer be swapped out.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// The secret. Never log it, compare it in variable time or copy it to memory of another kind.
    pub fn expose(&self) -> &[u8; N] {
        // SAFETY: the page lives as long as `self`, was zeroed by the kernel, holds N bytes, and
        // no exclusive borrow can exist beside `&self`.
        unsafe { self.page.as_ref() }
    }

    /// The secret, to be filled in.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        // SAFETY: as in `expose`, and `&mut self` makes the borrow exclusive.
        unsafe { self.page.as_mut() }
    }
}

impl<const N: usize> Drop for LockedBytes<N> {
    fn drop(&mut self) {
        self.expose_mut().zeroize();
        // SAFETY: the page was mapped with this length by `zeroed`, and no borrow outlives `self`.
        // An error would leave a zeroed page mapped: nothing to do about it.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), MAP_BYTES) };
    }
}

// SAFETY: the page belongs to this value alone; the pointer is as good in any thread.
unsafe impl<const N: usize> Send for LockedBytes<N> {}
// SAFETY: `&LockedBytes` only gives `&[u8; N]`.
unsafe impl<const N: usize> Sync for LockedBytes<N> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Flags (`VmFlags`) of the mapping that holds `address`.
    fn vm_flags(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|r| r.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:")
                && inside
            {
                return flags.to_owned();
            }
        }
        panic!("no mapping holds the secret")
    }

    #[test]
    fn a_secret_starts_as_zeroes_and_keeps_what_is_put_in() {
        let mut secret = LockedBytes::<32>::zeroed().unwrap();
        assert_eq!(secret.expose(), &[0; 32]);
        secret.expose_mut().copy_from_slice(&[7; 32]);
        assert_eq!(secret.expose(), &[7; 32]);
    }

    #[test]
    fn the_page_is_kept_out_of_core_files_and_swap() {
        let secret = LockedBytes::<32>::zeroed().unwrap();
        let flags = vm_flags(secret.expose().as_ptr().addr());
        assert!(flags.contains(" dd"), "not in core files: {flags}");
        assert_eq!(flags.contains(" lo"), secret.is_locked(), "{flags}");
    }
}
