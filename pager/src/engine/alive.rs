//! Whether there is an engine, and what threads of the program need of an engine that does
//! not page yet.

use crate::engine::threads::THREADS;
use crate::sys::{confined, departure, program, thread};
use core::sync::atomic::Ordering;

/// How many naps a thread takes while it waits for the engine to be set up, and their
/// length.
const PATIENCE: u32 = 20_000;
const NAP_US: u64 = 50;

/// Has the engine open every file that it will need, and waits for it. Called by a thread
/// of the program that is about to restrict the opening of files.
pub fn have_all() {
    if !THREADS.alive.has_all.load(Ordering::Acquire) {
        THREADS.alive.wanted_now.store(true, Ordering::Release);
        // The caller goes on in either case.
        thread::sleep_until(
            || THREADS.alive.has_all.load(Ordering::Acquire),
            PATIENCE,
            NAP_US,
        );
    }
}

/// Tells whether the program has restricted the opening of files.
pub(crate) fn is_confined() -> bool {
    THREADS.alive.wanted_now.load(Ordering::Relaxed)
}

/// Has an engine that is still watching look at memory at once. Returns whether there is an
/// engine.
pub(crate) fn poke() -> bool {
    let is_set = THREADS.alive.alive.load(Ordering::Acquire);
    let alive = is_set && !program::has_lost_its_engine();
    if alive {
        THREADS.alive.poked.fetch_add(1, Ordering::AcqRel);
        // Under a seccomp filter, a system call that the program itself does not make may
        // end it.
        if !confined::is_confined() {
            thread::wake_sleeper(&THREADS.alive.poked);
        }
    }
    alive
}

/// Notes that the engine has opened all that it needs, or will never need anything.
pub(crate) fn has_all() {
    THREADS.alive.has_all.store(true, Ordering::Release);
}

/// Tells whether [`has_all`] was called.
pub(crate) fn is_said() -> bool {
    THREADS.alive.has_all.load(Ordering::Relaxed)
}

/// Tells whether a thread waits until the engine has opened all that it needs.
pub(crate) fn is_wanted_now() -> bool {
    THREADS.alive.wanted_now.load(Ordering::Acquire)
}

/// Notes that there is an engine, or that it has ended.
pub(crate) fn set_alive(is: bool) {
    THREADS.alive.alive.store(is, Ordering::Release);
}

/// Returns how often the engine was poked.
pub(crate) fn pokes() -> u32 {
    THREADS.alive.poked.load(Ordering::Acquire)
}

/// Sleeps for `us` microseconds, or until the engine is poked once more. Returns whether
/// the program still exists.
pub(crate) fn sleep_unless_poked(pokes: u32, us: u64) -> bool {
    departure::sleep(&THREADS.alive.poked, pokes, us)
}
