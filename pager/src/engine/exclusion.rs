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
//!
//! A move that keeps the old range mapped (`MREMAP_DONTUNMAP`) is alone. The kernel has
//! moved the pages before it reports the move, and first reports what the move unmaps.
//! Another thread could meanwhile give up or move what is in the old range now, which is
//! nothing, and the engine would read that event first and take it for the moved pages.

#[cfg(test)]
use crate::engine::threads::Exclusion;
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
/// now, without the wait of [`Change::begin`], or of [`Change::begin_alone`].
#[cfg(test)]
pub(crate) fn may_change(is_alone: bool) -> bool {
    let Exclusion { moves, changes, .. } = &THREADS.exclusion;
    THREADS.exclusion.changed.fetch_add(1, Relaxed);
    let may = match is_alone {
        true => moves.is_empty() && moves.shut(),
        false => moves.enter(),
    };
    if may && !changes.enter() {
        end_beside_moves(is_alone);
        return false;
    }
    may
}

/// For the same test: ends such a change.
#[cfg(test)]
pub(crate) fn has_changed(is_alone: bool) {
    THREADS.exclusion.changes.leave();
    end_beside_moves(is_alone);
}

#[cfg(test)]
fn end_beside_moves(is_alone: bool) {
    match is_alone {
        true => THREADS.exclusion.moves.open(),
        false => THREADS.exclusion.moves.leave(),
    }
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

/// How a change excludes moves that keep the old range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BesideMoves {
    /// None is under way.
    Apart,
    /// It is such a move, and no other change is under way.
    Alone,
    /// One was under way for longer than [`PATIENCE`]: perhaps this is a signal handler of
    /// the thread that moves.
    NotExcluded,
}

/// A guard: nothing is zapped while it lives. Hold it only for one system call that changes
/// mappings.
#[derive(Debug)]
pub struct Change(BesideMoves);

impl Change {
    /// Waits for a zap that is under way, for a move that keeps the old range, and while
    /// the engine waits for events.
    pub fn begin() -> Change {
        let moves = &THREADS.exclusion.moves;
        let is_apart = thread::sleep_until(|| moves.enter(), PATIENCE, NAP_US);
        Change::enter(match is_apart {
            true => BesideMoves::Apart,
            false => BesideMoves::NotExcluded,
        })
    }

    /// The same for a move that keeps the old range. Waits for all other changes.
    pub fn begin_alone() -> Change {
        let moves = &THREADS.exclusion.moves;
        if !thread::sleep_until(|| moves.shut(), PATIENCE, NAP_US) {
            return Change::enter(BesideMoves::NotExcluded);
        }
        // Each that is inside ends as soon as the engine has read its events.
        thread::sleep_until(|| moves.is_empty(), PATIENCE, NAP_US);
        Change::enter(BesideMoves::Alone)
    }

    fn enter(beside: BesideMoves) -> Change {
        THREADS.exclusion.changed.fetch_add(1, Relaxed);
        enter(&THREADS.exclusion.changes);
        Change(beside)
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        THREADS.exclusion.changes.leave();
        match self.0 {
            BesideMoves::Apart => THREADS.exclusion.moves.leave(),
            BesideMoves::Alone => THREADS.exclusion.moves.open(),
            BesideMoves::NotExcluded => {}
        }
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
