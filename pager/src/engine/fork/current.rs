//! The manifest of the fork under way, which the engine keeps true until it is done.

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

/// Takes it back once the fork is done.
pub(crate) fn withdraw() -> Option<Box<ForkManifest>> {
    let manifest = THREADS.fork.manifest.swap(null_mut(), SeqCst);
    // SAFETY: null, or what `publish` was given; nobody else in this process uses it.
    (!manifest.is_null()).then(|| unsafe { Box::from_raw(manifest) })
}

/// What the process that was just forked inherits.
pub(crate) fn inherited() -> Option<&'static ForkManifest> {
    let manifest = THREADS.fork.manifest.swap(null_mut(), SeqCst);
    // SAFETY: null, or what the parent's engine made and leaves alone until its
    // fork has returned. This process has a copy of its own, which stays.
    unsafe { manifest.as_ref() }
}

/// Reports are about to be read.
pub(crate) fn batch_begins() {
    if let Some(manifest) = current() {
        manifest.batch_begins();
    }
}

/// They have been followed.
pub(crate) fn batch_ends() {
    if let Some(manifest) = current() {
        manifest.batch_ends();
    }
}

/// Strikes what the program gives up from the manifest.
pub(crate) fn strike_given_up(event: Msg) {
    match event {
        Msg::Remove { start, end } => strike(&Change::Discarded(start..end)),
        Msg::Unmap { start, end } => strike(&Change::Unmapped(start..end)),
        Msg::Remap { .. } | Msg::Fault { .. } | Msg::Fork { .. } | Msg::Unknown(_) => {}
    }
}

/// Notes a change of the program's memory in the manifest.
pub(crate) fn strike(change: &Change) {
    let manifest = THREADS.fork.manifest.load(SeqCst);
    // SAFETY: as `current`; the entries are this thread's to change.
    if let Some(manifest) = unsafe { manifest.as_mut() } {
        manifest.strike(change);
    }
}

/// The manifest of a fork that is under way.
pub(crate) fn current<'a>() -> Option<&'a ForkManifest> {
    // SAFETY: null, or what `publish` was given; the engine, whose thread this is, is
    // the one to free it.
    unsafe { THREADS.fork.manifest.load(SeqCst).as_ref() }
}
