//! What threads that fork and the engine tell each other.

use crate::engine::threads::THREADS;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Memory that is on its way to another address has its own beyond this one in
/// a manifest: higher than any of a program's.
pub(crate) const LIMBO: usize = 1 << 60;

/// Where the engine is with a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    Idle,
    /// What has left is being written.
    Draining,
    /// Servers are asked for children.
    Sharing,
    /// The manifest is made.
    Holding,
}

/// A fork begins, or is done; the number by which the engine's answer is known.
pub(crate) fn next() -> u32 {
    THREADS.fork.forking.fetch_add(1, SeqCst)
}

/// The number of the fork under way, which is odd, or an even one without any.
pub(crate) fn number() -> u32 {
    THREADS.fork.forking.load(SeqCst)
}

/// The number of the fork that the engine holds for; 0 for none.
pub(crate) fn held() -> u32 {
    THREADS.fork.held.load(SeqCst)
}

/// The engine holds for this fork, or (0) for none any more.
pub(crate) fn set_held(number: u32) {
    THREADS.fork.held.store(number, SeqCst);
}

/// Whether this process was forked from another that has an engine.
pub(crate) fn is_child() -> bool {
    THREADS.fork.is_child.load(Relaxed)
}

/// This process was forked from another that has an engine.
pub(crate) fn set_child() {
    THREADS.fork.is_child.store(true, Relaxed);
}

/// Whether pages may be shared with another process, from which the kernel
/// does not move them.
pub(crate) fn has_been() -> bool {
    THREADS.fork.forking.load(Relaxed) > 0 || THREADS.fork.is_child.load(Relaxed)
}

/// Whether some thread is forking.
pub(crate) fn is_under_way() -> bool {
    THREADS.fork.forking.load(SeqCst) % 2 == 1
}
