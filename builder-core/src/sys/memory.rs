//! What the allocator keeps of memory that was freed.
//!
//! The build process holds the most between two commands, when it works out and writes a layer. While a command runs it
//! waits, and memory that it keeps for nothing is taken from the command. glibc keeps a lot by default: an arena a thread,
//! and blocks of up to 32 MiB once blocks of that size were freed (`mallopt(3)`, `M_MMAP_THRESHOLD`). Other C libraries give
//! back by themselves.
#![allow(unsafe_code, reason = "the C library's allocator is tuned through its own calls")]

/// Makes the allocator return memory early; for a process that is this library's alone.
pub(crate) fn return_early() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls set a number of the allocator, whatever it has allocated before, and refuse what they do not
    // take.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives what is free back to the kernel now.
pub(crate) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it looks at free memory only, under the locks of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}
