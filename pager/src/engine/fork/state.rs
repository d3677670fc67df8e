//! State of a fork, which threads that fork and the engine tell each other.

use crate::engine::threads::THREADS;
use crate::sys::mem;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// In a manifest, memory that is being moved has its address plus this: higher than any
/// address of a program.
pub(crate) const LIMBO: usize = 1 << 60;

/// The stage of a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    Idle,
    /// Evicted pages are being written.
    Draining,
    /// Servers are being asked for children.
    Sharing,
    /// The manifest was written, and nothing changes until the fork is done.
    Quiescent,
}

/// Begins or ends a fork. Returns its previous number.
pub(crate) fn next() -> u32 {
    THREADS.fork.forking.fetch_add(1, SeqCst)
}

/// Returns the number of forks begun and ended: odd while a fork is under way.
pub(crate) fn number() -> u32 {
    THREADS.fork.forking.load(SeqCst)
}

/// Returns the number of the fork for which the engine is quiescent, or 0.
pub(crate) fn quiescent_for() -> u32 {
    THREADS.fork.quiescent_for.load(SeqCst)
}

/// Sets the number of the fork for which the engine is quiescent. 0 means none.
pub(crate) fn set_quiescent_for(number: u32) {
    THREADS.fork.quiescent_for.store(number, SeqCst);
}

/// Tells whether this process was forked from another that has an engine.
pub(crate) fn is_child() -> bool {
    THREADS.fork.is_child.load(Relaxed)
}

/// Notes that this process was forked from another that has an engine.
pub(crate) fn set_child() {
    THREADS.fork.is_child.store(true, Relaxed);
}

/// Tells whether pages may be shared with another process. The kernel does not move shared
/// pages.
pub(crate) fn has_been() -> bool {
    THREADS.fork.forking.load(Relaxed) > 0 || THREADS.fork.is_child.load(Relaxed)
}

/// Notes that the program has asked the kernel to merge equal pages (KSM).
pub fn merges() {
    THREADS.fork.merges.store(true, Relaxed);
}

/// Tells whether pages may be shared with others: with those of another process, or with
/// equal ones that the kernel has merged them with. The kernel moves neither.
pub(crate) fn may_share() -> bool {
    has_been() || THREADS.fork.merges.load(Relaxed) || mem::merges_all()
}

/// Tells whether a thread is forking.
pub(crate) fn is_under_way() -> bool {
    THREADS.fork.forking.load(SeqCst) % 2 == 1
}
