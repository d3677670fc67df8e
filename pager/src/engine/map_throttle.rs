//! Has threads that map memory wait where there is no room for it.
//!
//! New memory is not the engine's before it was found, and until then its first
//! touches are not faults that could wait: a program that maps small pieces and
//! fills them at once would outrun the engine. So it waits where it maps.

use crate::engine::threads::THREADS;
use crate::sys::thread;
use core::sync::atomic::Ordering::Relaxed;
use tmem_wire::PAGE_SIZE;

/// Less than this is mapped without waiting, as it is not adopted unless there is
/// much of it.
pub const SMALLEST: usize = 16 * PAGE_SIZE;
/// How often, and how long, a thread sleeps. Then it goes on: where servers are
/// slow the budget gives way, and not the program.
const PATIENCE: u32 = 2000;
const NAP_US: u64 = 50;

/// Waits for room. Called by threads of the program that are about to map `len`
/// bytes.
pub fn wait_for_room(len: usize) {
    if len >= SMALLEST || THREADS.throttle.small_too.load(Relaxed) {
        // Whether there is room or not by then.
        thread::sleep_until(|| !THREADS.throttle.full.load(Relaxed), PATIENCE, NAP_US);
    }
}

/// Has threads wait before they map little memory as well.
pub(crate) fn small_too() {
    THREADS.throttle.small_too.store(true, Relaxed);
}

/// Whether small mappings are adopted.
pub(crate) fn takes_small() -> bool {
    THREADS.throttle.small_too.load(Relaxed)
}

/// Has threads wait until it is said whether there is room.
pub(crate) fn wait_for_word() {
    THREADS.throttle.full.store(true, Relaxed);
}

/// Says whether there is room.
pub(crate) fn set_full(full: bool) {
    THREADS.throttle.full.store(full, Relaxed);
}
