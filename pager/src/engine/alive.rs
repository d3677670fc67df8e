//! Whether there is an engine, and what threads of the program need of one that may not
//! page yet.

use crate::engine::threads::THREADS;
use crate::sys::{program, thread};
use core::sync::atomic::Ordering;

/// How often, and how long, a thread sleeps that waits for that.
const PATIENCE: u32 = 20_000;
const NAP_US: u64 = 50;

/// Has the engine open all that it will need, and waits for that. Called by a thread
/// of the program that is about to make opening anything harder.
pub fn have_all() {
    if !THREADS.alive.has_all.load(Ordering::Acquire) {
        THREADS.alive.wanted_now.store(true, Ordering::Release);
        // Whether it has by then or not.
        thread::sleep_until(
            || THREADS.alive.has_all.load(Ordering::Acquire),
            PATIENCE,
            NAP_US,
        );
    }
}

/// Whether the program has made opening anything harder.
pub(crate) fn is_confined() -> bool {
    THREADS.alive.wanted_now.load(Ordering::Relaxed)
}

/// Has an engine that watches look at once; whether there is an engine.
pub(crate) fn poke() -> bool {
    let is_set = THREADS.alive.alive.load(Ordering::Acquire);
    let alive = is_set && !program::has_lost_its_engine();
    if alive {
        THREADS.alive.poked.fetch_add(1, Ordering::AcqRel);
        // A call that the program does not make itself may end it.
        if !thread::is_confined() {
            thread::wake_sleeper(&THREADS.alive.poked);
        }
    }
    alive
}

/// The engine has what it needs, or will not need anything.
pub(crate) fn has_all() {
    THREADS.alive.has_all.store(true, Ordering::Release);
}

/// Whether that was said.
pub(crate) fn is_said() -> bool {
    THREADS.alive.has_all.load(Ordering::Relaxed)
}

/// Whether somebody waits until the engine has all.
pub(crate) fn is_wanted_now() -> bool {
    THREADS.alive.wanted_now.load(Ordering::Acquire)
}

/// There is an engine, or it has ended.
pub(crate) fn set_alive(is: bool) {
    THREADS.alive.alive.store(is, Ordering::Release);
}

/// How often the engine was poked.
pub(crate) fn pokes() -> u32 {
    THREADS.alive.poked.load(Ordering::Acquire)
}

/// Sleeps for so many microseconds, or until the engine is poked once more; whether the
/// program is there still.
pub(crate) fn sleep_unless_poked(pokes: u32, us: u64) -> bool {
    program::sleep(&THREADS.alive.poked, pokes, us)
}
