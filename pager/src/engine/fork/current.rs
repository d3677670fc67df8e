//! The manifest of the fork under way. The engine keeps it true until the fork is done.

use crate::engine::fork::manifest::{Change, ForkManifest};
use crate::engine::threads::THREADS;
use crate::sys::uffd::Msg;
use alloc::boxed::Box;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::SeqCst;

/// Publishes a manifest to the child that is forked next.
pub(crate) fn publish(manifest: Box<ForkManifest>) {
    THREADS.fork.manifest.store(Box::into_raw(manifest), SeqCst);
}

/// Withdraws the manifest after the fork.
pub(crate) fn withdraw() -> Option<Box<ForkManifest>> {
    let manifest = THREADS.fork.manifest.swap(null_mut(), SeqCst);
    // SAFETY: null, or what `publish` was given. Nothing else in this process uses it.
    (!manifest.is_null()).then(|| unsafe { Box::from_raw(manifest) })
}

/// Returns the manifest in a process that was just forked.
pub(crate) fn inherited() -> Option<&'static ForkManifest> {
    let manifest = THREADS.fork.manifest.swap(null_mut(), SeqCst);
    // SAFETY: null, or what the parent's engine made and does not touch until its fork has
    // returned. This process has a copy of its own, which is never freed.
    unsafe { manifest.as_ref() }
}

/// Notes that events are about to be read.
pub(crate) fn batch_begins() {
    if let Some(manifest) = current() {
        manifest.batch_begins();
    }
}

/// Notes that these events have been followed.
pub(crate) fn batch_ends() {
    if let Some(manifest) = current() {
        manifest.batch_ends();
    }
}

/// Strikes pages that the program gives up from the manifest.
pub(crate) fn strike_given_up(event: Msg) {
    match event {
        Msg::Remove { start, end } => strike(&Change::Discarded(start..end)),
        Msg::Unmap { start, end } => strike(&Change::Unmapped(start..end)),
        Msg::Remap { .. } | Msg::Fault { .. } | Msg::Fork { .. } | Msg::Unknown(_) => {}
    }
}

/// Applies a change of the program's memory to the manifest.
pub(crate) fn strike(change: &Change) {
    let manifest = THREADS.fork.manifest.load(SeqCst);
    // SAFETY: as in `current`. Only this thread changes the entries.
    if let Some(manifest) = unsafe { manifest.as_mut() } {
        manifest.strike(change);
    }
}

/// Returns the manifest of the fork under way.
pub(crate) fn current<'a>() -> Option<&'a ForkManifest> {
    // SAFETY: null, or what `publish` was given. Only the engine frees it, and this is the
    // engine's thread.
    unsafe { THREADS.fork.manifest.load(SeqCst).as_ref() }
}
