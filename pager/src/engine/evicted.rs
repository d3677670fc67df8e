//! A flag for threads that fork: the program has pages that are not in its memory.
//!
//! A forked child must not read zeros where a page of its parent is missing. So the engine
//! sets the flag before the first page leaves, and threads that fork read it.

use crate::engine::threads::THREADS;
use core::sync::atomic::Ordering::Relaxed;

/// Tells whether this process, or the one that it was forked from, has pages that are not
/// in its memory.
pub fn has_evicted() -> bool {
    THREADS.evicted.evicted.load(Relaxed) || THREADS.evicted.lost.load(Relaxed)
}

/// Notes whether pages are evicted.
pub(crate) fn set_evicted(are: bool) {
    THREADS.evicted.evicted.store(are, Relaxed);
}

/// Clears both flags, in a test that plays one program after another.
#[cfg(test)]
pub(crate) fn reset() {
    THREADS.evicted.evicted.store(false, Relaxed);
    THREADS.evicted.lost.store(false, Relaxed);
}

/// Notes that pages are lost. They stay lost.
pub(crate) fn set_lost() {
    THREADS.evicted.lost.store(true, Relaxed);
}
