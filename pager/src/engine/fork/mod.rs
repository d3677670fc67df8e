//! Forks: how a child learns where the pages are that are not in its memory.
//!
//! The kernel gives a child a copy of the parent's memory, without the userfaultfd, the
//! engine and the connections. Evicted pages would read as zeros. So a thread that forks
//! first asks the engine to *quiesce*. Nothing leaves the program any more, all evicted
//! pages are written to servers, each server makes a child of the session that shares all
//! slabs ([`Op::Share`]), and the engine writes a [`ForkManifest`] into memory that the
//! child inherits. The child's engine starts from it (`inherit`) before the program goes
//! on.
//!
//! The engine serves faults until the kernel has copied the address space: the C library
//! takes its locks before that, and they may be in evicted memory, or held by threads that
//! wait for pages. The manifest stays true meanwhile:
//!
//! - A page that the engine installs either is in the child's memory, or was installed
//!   after the copy: the kernel lets nothing into memory while it copies it. What is in the
//!   child's memory counts, and the manifest is for the rest.
//! - Pages that the program gives up are struck from the manifest. The thread goes on as
//!   soon as its event is read, and the fork may wait for it. So the child sees from
//!   [`ForkManifest::batch`] whether an event was read and not yet struck, and finds the
//!   change in the log, which parent and child share.
//! - An `munmap` whose event was not read when the address space was copied may have come
//!   before the copy (and another mapping may be there), or after it. Nothing tells which.
//!   The pages are lost to the child: touching one raises SIGBUS instead of reading zeros.
//!
//! A process that is forked without the engine's knowledge, by a system call of the
//! program's own, must not read zeros either. So adopted memory is copied only while the
//! engine is quiescent. Such a process ends by SIGSEGV when it touches memory that it does
//! not have.
//!
//! After the fork neither process writes to the shared slabs. Changed pages go to other
//! slabs, and a shared slab without used pages is given back.
//!
//! [`Op::Share`]: tmem_wire::Op::Share

pub(crate) mod child;
pub(crate) mod current;
pub(crate) mod detector;
pub(crate) mod handover;
pub(crate) mod manifest;
pub(crate) mod quiesce;
pub(crate) mod state;

use crate::engine::calls::doorbell::ring;
use crate::engine::evicted::{has_evicted, set_evicted};
use crate::engine::threads::bell::{QUIESCE, RESUME};
use crate::sys::channel::End;
use crate::sys::mem;
pub use handover::{await_children, taken_over};
pub use manifest::ForkManifest;
pub use state::merges;

/// Asks the engine to quiesce, and returns when it has. Called by the thread that forks,
/// with signals blocked. Only one thread may do so at a time. `shares_files` says that the
/// child will use the same file table, not a copy.
pub fn prepare(shares_files: bool) {
    if !shares_files {
        handover::offer();
    }
    let number = state::next() + 1;
    ring(QUIESCE, number / 2, || state::quiescent_for() == number);
}

/// Has the engine resume in the parent after a fork.
pub fn parent() {
    let number = state::next();
    ring(RESUME, number / 2, || state::quiescent_for() != number);
    handover::withdraw();
}

/// What a process finds that was just forked.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Part of its memory is on servers.
    Manifest(&'static ForkManifest),
    /// All of its memory is present.
    Everything,
    /// Part of its memory is missing, and nothing tells where it is.
    Something,
}

/// Returns what the process that was just forked finds, and the end of the connection to
/// its parent's engine that its own is to use. Called once, by its only thread, before
/// anything else of this crate.
pub fn child() -> (Found, Option<End>) {
    let number = state::number();
    let was_quiescent = number % 2 == 1 && state::quiescent_for() == number;
    state::set_child();
    mem::new_is_locked(false);
    let manifest = current::inherited();
    crate::engine::reset_after_fork();
    let end = handover::inherited();
    if let Some(manifest) = manifest {
        return (Found::Manifest(manifest), end);
    }
    if !was_quiescent && has_evicted() {
        return (Found::Something, end);
    }
    // The parent's flag does not concern the child.
    set_evicted(false);
    (Found::Everything, end)
}
