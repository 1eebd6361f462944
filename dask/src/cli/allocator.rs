//! Memory that was freed goes back to the system once there is nothing to do.
//!
//! mimalloc keeps a heap for each thread, and only a thread itself can tidy its own: each one does so before it next waits.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often it was asked for.
static ASKED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How often it had been asked for when this thread last did it.
    static DONE: Cell<usize> = const { Cell::new(0) };
}

/// Asks each thread that calls [`before_waiting`] to give back what it has freed.
pub(super) fn give_back() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

/// Gives back what this thread has freed, if that was asked for since it last did. Takes milliseconds for a large heap.
pub(super) fn before_waiting() {
    let asked = ASKED.load(Ordering::Relaxed);
    if DONE.replace(asked) != asked {
        // SAFETY: it may be called at any time by any thread; it looks at the heap of the calling thread, and changes no block in use.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}
