//! What the program must not do while a page of it is zapped, or while the
//! engine waits for reports.
//!
//! With direct input a device writes into memory of the program. A page that is
//! copied out and zapped meanwhile would lose what the device wrote. A move is
//! refused by the kernel for such a page; a zap is not. So a thread that is
//! about to read directly says so, and nothing is zapped until it is done.
//!
//! A thread that unmaps or moves memory, or maps other memory over it, says so
//! too: were something new there by the time of the zap, the zap would be its.
//! Nor does such a thread begin while the engine waits until it has been told
//! of all that was changed: the reports of several threads may come in another
//! order than their changes, and only what has come to rest is certain.

use crate::engine::threads::THREADS;
use crate::gate::Gate;
use crate::sys::thread;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Whether memory that the program may write to is zapped.
pub static COPYING: AtomicBool = AtomicBool::new(false);
/// Whether memory of the program is registered, and changes of it are reported.
pub static REPORTED: AtomicBool = AtomicBool::new(false);

/// How often a thread has been about to unmap or move memory, or to map other memory
/// over it, as far as the shim knows.
pub(crate) fn changes() -> u32 {
    THREADS.exclusion.changed.load(Acquire)
}

/// All pages leave by zaps from now on.
pub(crate) fn copies() {
    COPYING.store(true, Relaxed);
}

/// In a process that was just forked: nothing is registered yet, and nothing leaves.
pub(crate) fn reset_after_fork() {
    COPYING.store(false, Relaxed);
    REPORTED.store(false, Relaxed);
}

/// Memory of the program is about to be registered.
pub(crate) fn reports() {
    REPORTED.store(true, Release);
}

/// Whether changes of the program's memory are reported.
pub fn are_reported() -> bool {
    REPORTED.load(Acquire)
}

/// Whether direct input needs a [`DirectIo`].
pub fn is_needed() -> bool {
    COPYING.load(Relaxed)
}

/// Has threads wait before they read directly, because memory is short.
pub(crate) fn hold(on: bool) {
    THREADS.exclusion.hold.store(on, Relaxed);
}

/// Whether some thread reads directly now.
pub(crate) fn is_read() -> bool {
    !THREADS.exclusion.reads.is_empty()
}

/// Whether some thread changes the address space now.
pub(crate) fn is_changed() -> bool {
    !THREADS.exclusion.changes.is_empty()
}

/// In a test, where a thread of the program is none of its own: whether it may change the
/// address space now, as [`Change::begin`] waits for.
#[cfg(test)]
pub(crate) fn may_change() -> bool {
    THREADS.exclusion.changed.fetch_add(1, Relaxed);
    THREADS.exclusion.changes.enter()
}

/// In a test: such a change is over.
#[cfg(test)]
pub(crate) fn has_changed() {
    THREADS.exclusion.changes.leave();
}

/// How often, and how long, a thread that wants to read waits.
const PATIENCE: u32 = 10_000;
const NAP_US: u64 = 50;

/// How often a thread lets others run before it sleeps: the engine is often
/// done by then.
const YIELDS: u32 = 8;

fn enter(gate: &Gate) {
    let mut tries = 0;
    while !gate.enter() {
        tries += 1;
        if tries <= YIELDS {
            thread::rest();
        } else {
            thread::rest_us(NAP_US);
        }
    }
}

/// As long as this lives, nothing is zapped. It is to be short: meanwhile the
/// budget is not kept.
#[derive(Debug)]
pub struct DirectIo(());

impl DirectIo {
    /// Waits for a zap that is under way, and for a moment where memory is
    /// short.
    pub fn begin() -> DirectIo {
        thread::sleep_until(|| !THREADS.exclusion.hold.load(Relaxed), PATIENCE, NAP_US);
        enter(&THREADS.exclusion.reads);
        DirectIo(())
    }
}

impl Drop for DirectIo {
    fn drop(&mut self) {
        THREADS.exclusion.reads.leave();
    }
}

/// As long as this lives, nothing is zapped. It is to be no longer than a system
/// call that unmaps memory.
#[derive(Debug)]
pub struct Change(());

impl Change {
    /// Waits for a zap that is under way, and while the engine waits for
    /// reports.
    pub fn begin() -> Change {
        THREADS.exclusion.changed.fetch_add(1, Relaxed);
        enter(&THREADS.exclusion.changes);
        Change(())
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        THREADS.exclusion.changes.leave();
    }
}

/// As long as this lives, no thread begins to change the address space. Those
/// that were at it end, if their reports are read.
#[derive(Debug)]
pub(crate) struct ChangesBlocked {
    /// No other of these lives.
    outermost: bool,
}

impl ChangesBlocked {
    pub(crate) fn begin() -> ChangesBlocked {
        ChangesBlocked {
            outermost: THREADS.exclusion.changes.shut(),
        }
    }
}

impl Drop for ChangesBlocked {
    fn drop(&mut self) {
        if self.outermost {
            THREADS.exclusion.changes.open();
        }
    }
}

/// As long as this lives, no thread begins to read directly or to change the
/// address space; who is at it is waited for by its owner.
#[derive(Debug)]
pub(crate) struct Zapping {
    _still: ChangesBlocked,
}

impl Zapping {
    pub(crate) fn begin() -> Zapping {
        // What the program may only read, no device is made to write to.
        if is_needed() {
            THREADS.exclusion.reads.shut();
        }
        Zapping {
            _still: ChangesBlocked::begin(),
        }
    }
}

impl Drop for Zapping {
    fn drop(&mut self) {
        THREADS.exclusion.reads.open();
    }
}
