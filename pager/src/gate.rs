//! A gate between two kinds of work: what many threads do from time to time, and what one
//! thread does alone.
//!
//! The atomics come from the crate's root, so that a test can replace them by loom's, which
//! try every interleaving.

use crate::atomic::{AtomicU32, Ordering};

/// Set while the gate is shut. The other bits count the threads inside.
const SHUT: u32 = 1 << 31;

/// A gate. Threads enter and leave while it is open. One thread shuts it, and is alone once
/// it is empty.
#[derive(Debug)]
pub(crate) struct Gate(pub(crate) AtomicU32);

impl Gate {
    /// Enters, unless the gate is shut. Returns whether it was open.
    pub(crate) fn enter(&self) -> bool {
        if self.0.fetch_add(1, Ordering::AcqRel) & SHUT == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Leaves.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Shuts the gate: nobody enters any more. Threads inside stay as long as they like.
    /// Returns whether it was open: where several threads shut a gate, it is the caller's then.
    pub(crate) fn shut(&self) -> bool {
        self.0.fetch_or(SHUT, Ordering::AcqRel) & SHUT == 0
    }

    /// Tells whether no thread is inside. While the gate is shut that stays true.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & !SHUT == 0
    }

    /// Opens the gate.
    pub(crate) fn open(&self) {
        self.0.fetch_and(!SHUT, Ordering::AcqRel);
    }

    /// Resets the gate in a process that was just forked, where no other thread exists.
    pub(crate) fn reset_after_fork(&self) {
        self.0.store(0, Ordering::Release);
    }
}
