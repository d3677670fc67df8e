//! Keeps apart two kinds of work: what many threads do now and then, and what
//! one thread does.
//!
//! Its atomics come from the crate's root, so that a test can put ones there
//! that try every interleaving.

use crate::atomic::{AtomicU32, Ordering};

/// The gate is shut; the other bits count who is inside.
const SHUT: u32 = 1 << 31;

/// Threads go in and out as long as it is open. One thread, always the same,
/// shuts it; it is alone once nobody is inside.
#[derive(Debug)]
pub(crate) struct Gate(pub(crate) AtomicU32);

impl Gate {
    /// Goes in, unless the gate is shut.
    pub(crate) fn enter(&self) -> bool {
        if self.0.fetch_add(1, Ordering::AcqRel) & SHUT == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Comes out again.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Lets nobody in any more; whether it was open before. Who is inside stays
    /// as long as it likes.
    pub(crate) fn shut(&self) -> bool {
        self.0.fetch_or(SHUT, Ordering::AcqRel) & SHUT == 0
    }

    /// Whether nobody is inside, or just finds it shut. That stays so as long as
    /// it is shut.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & !SHUT == 0
    }

    /// Lets threads in again.
    pub(crate) fn open(&self) {
        self.0.fetch_and(!SHUT, Ordering::AcqRel);
    }

    /// In a process that was just forked: nobody else is there.
    pub(crate) fn reset_after_fork(&self) {
        self.0.store(0, Ordering::Release);
    }
}
