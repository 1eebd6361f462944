//! The scheduler's memory: one heap of the system's allocator, which goes back to the system once there is nothing to do.
//!
//! Allocators with a heap for each thread and pages for each size keep a page as long as one block in it is used; after hours of
//! work that is most of what a scheduler without tasks has. glibc gives every free page back, wherever it lies.

/// One heap for all threads: what one frees, the next one uses. To be called first of all.
pub(super) fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a setting of the allocator, made before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what is free. Takes ten milliseconds for the heap of 300,000 tasks.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time by any thread, and changes no block in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
