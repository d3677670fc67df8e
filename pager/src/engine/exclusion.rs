//! Excludes direct I/O and changes of the address space while a page is zapped, and changes
//! while the engine waits for events.
//!
//! With direct I/O a device writes into the program's memory. If such a page were copied
//! out and zapped meanwhile, what the device writes would be lost. The kernel refuses to
//! move such a page, but not to zap it. So a thread announces a direct read, and nothing is
//! zapped until the read is done.
//!
//! A thread also announces that it is about to unmap or move memory, or to map over it: a
//! zap at that moment could hit the new mapping. Such a thread also waits while the engine
//! waits for all events: the events of several threads may arrive in another order than
//! their changes, so the engine knows where memory is only when no change is under way.

use crate::engine::threads::THREADS;
use crate::gate::Gate;
use crate::sys::thread;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Set while writable memory of the program is zapped. The shim reads it by its symbol.
pub static COPYING: AtomicBool = AtomicBool::new(false);
/// Set while memory is registered, so that changes of it are reported. The shim reads it by
/// its symbol.
pub static REPORTED: AtomicBool = AtomicBool::new(false);

/// Returns how often a thread was about to unmap or move memory, or to map over it, as far
/// as the shim knows.
pub(crate) fn changes() -> u32 {
    THREADS.exclusion.changed.load(Acquire)
}

/// Notes that all pages leave by zaps from now on.
pub(crate) fn copies() {
    COPYING.store(true, Relaxed);
}

/// Resets the flags in a process that was just forked: nothing is registered there yet.
pub(crate) fn reset_after_fork() {
    COPYING.store(false, Relaxed);
    REPORTED.store(false, Relaxed);
}

/// Notes that memory of the program is about to be registered.
pub(crate) fn reports() {
    REPORTED.store(true, Release);
}

/// Tells whether changes of the program's memory are reported.
pub fn are_reported() -> bool {
    REPORTED.load(Acquire)
}

/// Tells whether direct I/O needs a [`DirectIo`].
pub fn is_needed() -> bool {
    COPYING.load(Relaxed)
}

/// Delays threads before they read directly, while memory is short.
pub(crate) fn delay_direct_reads(on: bool) {
    THREADS.exclusion.delays.store(on, Relaxed);
}

/// Tells whether some thread reads directly now.
pub(crate) fn is_read() -> bool {
    !THREADS.exclusion.reads.is_empty()
}

/// Tells whether some thread changes the address space now.
pub(crate) fn is_changed() -> bool {
    !THREADS.exclusion.changes.is_empty()
}

/// For a test that plays the program's threads itself: tells whether a change may begin
/// now, without the wait of [`Change::begin`].
#[cfg(test)]
pub(crate) fn may_change() -> bool {
    THREADS.exclusion.changed.fetch_add(1, Relaxed);
    THREADS.exclusion.changes.enter()
}

/// For the same test: ends such a change.
#[cfg(test)]
pub(crate) fn has_changed() {
    THREADS.exclusion.changes.leave();
}

/// How many naps a thread takes before a direct read, and their length.
const PATIENCE: u32 = 10_000;
const NAP_US: u64 = 50;

/// How often a thread yields before it sleeps. The engine is often done by then.
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

/// A guard: nothing is zapped while it lives. Keep it short, since the budget may be
/// exceeded meanwhile.
#[derive(Debug)]
pub struct DirectIo(());

impl DirectIo {
    /// Waits for a zap that is under way, and for a moment if memory is short.
    pub fn begin() -> DirectIo {
        thread::sleep_until(|| !THREADS.exclusion.delays.load(Relaxed), PATIENCE, NAP_US);
        enter(&THREADS.exclusion.reads);
        DirectIo(())
    }
}

impl Drop for DirectIo {
    fn drop(&mut self) {
        THREADS.exclusion.reads.leave();
    }
}

/// A guard: nothing is zapped while it lives. Hold it only for one system call that changes
/// mappings.
#[derive(Debug)]
pub struct Change(());

impl Change {
    /// Waits for a zap that is under way, and while the engine waits for events.
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

/// A guard: no thread begins to change the address space while it lives. Changes that have
/// begun end once their events are read.
#[derive(Debug)]
pub(crate) struct ChangesBlocked {
    /// No other guard of this kind lives.
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

/// A guard: no thread begins a direct read or a change of the address space while it lives.
/// The owner of the guard waits for those that have begun.
#[derive(Debug)]
pub(crate) struct Zapping {
    _still: ChangesBlocked,
}

impl Zapping {
    pub(crate) fn begin() -> Zapping {
        // Devices write only to memory that the program may write to, so the gate for reads
        // stays open when only read-only pages are zapped.
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
