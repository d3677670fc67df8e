//! Delays threads that map memory while memory is short.
//!
//! New memory is not registered before the engine finds it, and until then touching it
//! causes no fault that could wait. A program that maps small pieces and fills them at once
//! would outrun the engine. So it waits where it maps.

use crate::engine::threads::THREADS;
use crate::sys::thread;
use core::sync::atomic::Ordering::Relaxed;
use tmem_wire::PAGE_SIZE;

/// Smaller mappings do not wait, since they are not adopted unless there are many of them.
pub const SMALLEST: usize = 16 * PAGE_SIZE;
/// How many naps a thread takes, and their length. Then it goes on: with slow servers the
/// budget is exceeded rather than the program stopped.
const PATIENCE: u32 = 2000;
const NAP_US: u64 = 50;

/// Waits for room. Called by threads of the program that are about to map `len` bytes.
pub fn wait_for_room(len: usize) {
    if len >= SMALLEST || THREADS.throttle.small_too.load(Relaxed) {
        // The thread goes on even if there is no room by then.
        thread::sleep_until(|| !THREADS.throttle.full.load(Relaxed), PATIENCE, NAP_US);
    }
}

/// Has threads wait before small mappings as well.
pub(crate) fn small_too() {
    THREADS.throttle.small_too.store(true, Relaxed);
}

/// Tells whether small mappings are adopted.
pub(crate) fn takes_small() -> bool {
    THREADS.throttle.small_too.load(Relaxed)
}

/// Has threads wait until [`set_full`] is called.
pub(crate) fn wait_for_word() {
    THREADS.throttle.full.store(true, Relaxed);
}

/// Says whether memory is full, so that threads have to wait.
pub(crate) fn set_full(full: bool) {
    THREADS.throttle.full.store(full, Relaxed);
}
