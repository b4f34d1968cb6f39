//! Memory that was freed goes back to the system: glibc keeps it for a program that once needed much,
//! which a daemon does after every `ls -lR` of a large store.

/// Gives freed memory back, as far as the C library can: with others than glibc nothing happens.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time by any thread; it touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
