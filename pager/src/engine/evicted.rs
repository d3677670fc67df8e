//! Whether pages of the program are not in its memory.
//!
//! A forked child must not take what it misses for what never was: so this is said before
//! the first page leaves, by the engine alone, and read by threads that fork.

use crate::engine::threads::THREADS;
use core::sync::atomic::Ordering::Relaxed;

/// Whether this process, or the one it was forked from, has pages that are not
/// in its memory.
pub fn has_evicted() -> bool {
    THREADS.evicted.evicted.load(Relaxed) || THREADS.evicted.lost.load(Relaxed)
}

/// Pages are evicted, or none is.
pub(crate) fn set_evicted(are: bool) {
    THREADS.evicted.evicted.store(are, Relaxed);
}

/// In a test, where one program follows another: nothing is evicted or lost.
#[cfg(test)]
pub(crate) fn reset() {
    THREADS.evicted.evicted.store(false, Relaxed);
    THREADS.evicted.lost.store(false, Relaxed);
}

/// Pages are lost, for good.
pub(crate) fn set_lost() {
    THREADS.evicted.lost.store(true, Relaxed);
}
