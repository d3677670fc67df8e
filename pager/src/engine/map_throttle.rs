//! Has threads that map memory wait where there is no room for it.
//!
//! New memory is not the engine's before it was found, and until then its first
//! touches are not faults that could wait: a program that maps small pieces and
//! fills them at once would outrun the engine. So it waits where it maps.

use crate::engine::Engine;
use crate::sys::thread;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use tmem_wire::PAGE_SIZE;

/// More is resident than there may be, and it will become less; or it is not
/// known how much there is.
static FULL: AtomicBool = AtomicBool::new(false);

/// Less than this is mapped without waiting, as it is not adopted unless there is
/// much of it.
pub const SMALLEST: usize = 16 * PAGE_SIZE;
/// There is.
static SMALL_TOO: AtomicBool = AtomicBool::new(false);
/// How often, and how long, a thread sleeps. Then it goes on: where servers are
/// slow the budget gives way, and not the program.
const PATIENCE: u32 = 2000;
const NAP_US: u64 = 50;

/// Waits for room. Called by threads of the program that are about to map `len`
/// bytes.
pub fn wait_for_room(len: usize) {
    if len >= SMALLEST || SMALL_TOO.load(Relaxed) {
        // Whether there is room or not by then.
        thread::sleep_until(|| !FULL.load(Relaxed), PATIENCE, NAP_US);
    }
}

/// In a process that was just forked: its own engine will see.
pub(crate) fn begin_anew() {
    FULL.store(false, Relaxed);
    SMALL_TOO.store(false, Relaxed);
}

/// Has threads wait before they map little memory as well.
pub(crate) fn small_too() {
    SMALL_TOO.store(true, Relaxed);
}

/// Has threads wait until it is said whether there is room.
pub(crate) fn wait_for_word() {
    FULL.store(true, Relaxed);
}

impl Engine {
    /// Says whether there is room.
    pub(crate) fn tell_of_room(&self) {
        let full = self.is_over() && (self.growth.is_unseen || self.can_shrink());
        FULL.store(full, Relaxed);
    }

    /// Whether more is resident than there may be.
    pub(crate) fn is_over(&self) -> bool {
        self.resident() > self.budget.throttle
    }
}
