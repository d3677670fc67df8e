//! Forks: what a child is told of the pages that are not in its memory.
//!
//! The kernel gives a child the parent's memory as it is, without the
//! userfaultfd, the engine and the connections: evicted pages would read as
//! zeros. So a thread that forks first asks the engine to *hold*: nothing
//! leaves the program any more, all that has left is written to servers, each
//! server makes a child of the session that shares all slabs ([`Op::Share`]),
//! and the engine writes a [`ForkManifest`] into memory that the child inherits. The
//! child's engine begins with it (`inherit`) before the program goes on.
//!
//! The engine goes on serving faults until the kernel has copied the address
//! space: the C library takes its locks between the two, which may be in
//! evicted memory, or held by threads that wait for pages. What it does
//! meanwhile leaves the manifest true:
//!
//! - A page that it puts into the program is in the child, or was copied before:
//!   the kernel lets nothing into memory that it is copying. What is in
//!   the child's memory counts; the manifest does for the rest.
//! - What the program gives up is struck from the manifest. Its thread goes on as
//!   soon as the report is read, and may be what the fork waits for: so the
//!   child sees from [`ForkManifest::batch`] whether a report was read and not yet
//!   struck, and gets it from the manifest's log, which parent and
//!   child share.
//! - An `munmap` that nobody had read of when the address space was copied may
//!   have made room for another mapping there, or have come after. Which of it
//!   cannot be told: the pages concerned are lost to the child, and touching
//!   one is no zero but SIGBUS.
//!
//! A process that is forked without the engine's knowledge, by a system call of
//! the program's own, is to read no zeros either: what is adopted is not copied
//! but while the engine holds. Such a process ends by SIGSEGV when it touches
//! memory that it does not have.
//!
//! From the fork on nobody writes to the shared slabs: what changes goes to
//! others, and slabs in which nothing is left are given back.
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
use crate::engine::threads::bell::{GO_ON, HOLD};
use crate::sys::channel::End;
use crate::sys::mem;
pub use handover::taken_over;
pub use manifest::ForkManifest;

/// Asks the engine to hold, and returns when it does. Called by the thread that
/// forks, with signals blocked; only one thread may do so at a time. `shares_files` says
/// that the child is to have its very file table, and not a copy.
pub fn prepare(shares_files: bool) {
    if !shares_files {
        handover::offer();
    }
    let number = state::next() + 1;
    ring(HOLD, number / 2, || state::held() == number);
}

/// Has the engine go on, after a fork, in the parent.
pub fn parent() {
    let number = state::next();
    ring(GO_ON, number / 2, || state::held() != number);
    handover::withdraw();
}

/// What a process that was just forked finds.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Some of its memory is on servers.
    Manifest(&'static ForkManifest),
    /// All of its memory.
    Everything,
    /// Not all of it, and nobody has told where the rest is.
    Something,
}

/// What the process that was just forked finds, and the end of the connection to its
/// parent's engine that its own is to have. Called once, by its only thread, before
/// anything else of this crate.
pub fn child() -> (Found, Option<End>) {
    let number = state::number();
    let was_held = number % 2 == 1 && state::held() == number;
    state::set_child();
    mem::new_is_locked(false);
    let manifest = current::inherited();
    crate::engine::reset_after_fork();
    let end = handover::inherited();
    if let Some(manifest) = manifest {
        return (Found::Manifest(manifest), end);
    }
    if !was_held && has_evicted() {
        return (Found::Something, end);
    }
    // What the parent has elsewhere is not for the child.
    set_evicted(false);
    (Found::Everything, end)
}
