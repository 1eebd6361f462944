//! An allocator that counts, if asked to: what a process has allocated and not freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Counting takes a locked instruction, which waits for everything that is being written: not while time is measured.
static COUNTS: AtomicBool = AtomicBool::new(false);

/// The system's allocator, as the scheduler's, counting while a [`Count`] is there.
#[derive(Debug, Clone, Copy)]
pub struct Counting;

/// While it is there, the process counts.
#[derive(Debug)]
pub struct Count(());

impl Count {
    /// Begins to count.
    pub fn begin() -> Count {
        COUNTS.store(true, Ordering::Relaxed);
        Count(())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        COUNTS.store(false, Ordering::Relaxed);
    }
}

/// Bytes allocated and not freed while counting: differences mean something, the figure itself does not. 0 where
/// [`Counting`] is not the global allocator.
pub fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

fn count(added: usize, removed: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        LIVE.fetch_add(added.wrapping_sub(removed), Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise about `layout` is what `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the pointer came from `System` with this layout, and the caller vouches for the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
