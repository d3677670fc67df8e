//! What `tmem run` shares with the processes under it. Each asks for it at its start, and
//! keeps it: later a program may close its descriptors, overwrite its environment, or be
//! where `tmem run` cannot be reached.

use crate::{environment, figures, start};
use std::os::fd::OwnedFd;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, OnceLock, PoisonError};
use tmem_config::{FAMILY_TOLD, FAMILY_VARIABLE, Handed, family_from_env};
use tmem_pager::stats::Shared;
use tmem_pager::told::Told;

struct Family {
    shared: &'static Shared,
    secret: Option<Vec<u8>>,
    /// `tmem run` takes orphans in.
    is_near: bool,
    /// For the first engine; those of forked children get it from their parents'.
    device: Mutex<Option<OwnedFd>>,
}

fn family() -> Option<&'static Family> {
    static FAMILY: OnceLock<Option<Family>> = OnceLock::new();
    FAMILY.get_or_init(join).as_ref()
}

fn join() -> Option<Family> {
    let at = family_from_env()?;
    let Ok(handed) = Handed::ask(&at) else {
        out_of_reach();
        return None;
    };
    Some(Family {
        shared: figures::shared(&handed.memory)?,
        secret: handed.secret,
        is_near: handed.is_near,
        device: Mutex::new(handed.device),
    })
}

/// What has been said, if `tmem run` cannot be reached and an ancestor has said so already:
/// then no memory is shared that tells more.
static ENOUGH: Told = Told::closed();
static WAS_TOLD: AtomicBool = AtomicBool::new(false);

fn out_of_reach() {
    let value = std::env::var(FAMILY_VARIABLE).unwrap_or_default();
    if value.ends_with(FAMILY_TOLD) {
        WAS_TOLD.store(true, Relaxed);
        return;
    }
    start::say(
        "`tmem run` has ended or cannot be reached from here (another network namespace?): \
         programs from here on have a budget each, and may run without paging with no word \
         on it",
    );
    let value = format!("{value}{FAMILY_TOLD}");
    // SAFETY: only the constructor comes here; nothing of the program has run.
    unsafe { environment::replace(FAMILY_VARIABLE, value.as_bytes()) };
}

/// What the user has been told by processes of the same family.
pub(crate) fn told() -> Option<&'static Told> {
    match family() {
        Some(family) => Some(&family.shared.told),
        None => WAS_TOLD.load(Relaxed).then_some(&ENOUGH),
    }
}

/// Whether `tmem run` has looked at everything already.
pub(crate) fn is_checked() -> bool {
    family().is_some()
}

/// The memory that all processes share. A forked child has its parent's mapping.
pub(crate) fn shared() -> Option<&'static Shared> {
    family().map(|family| family.shared)
}

/// Whether `tmem run` takes orphans in, and makes nothing of it.
pub(crate) fn takes_orphans() -> bool {
    family().is_some_and(|family| family.is_near)
}

/// Whether a process of the family has asked for orphans, or may have.
pub(crate) fn takes_orphans_itself() -> bool {
    shared().is_some_and(|shared| shared.has_reaper.load(Acquire) != 0)
}

/// The calling process is about to ask for orphans, also those of programs that it executes.
pub(crate) fn has_reaper() {
    if let Some(shared) = shared() {
        shared.has_reaper.store(1, Release);
    }
}

/// The secret of the servers, if `tmem run` has one.
pub(crate) fn secret() -> Option<Vec<u8>> {
    family()?.secret.clone()
}

/// An open `/dev/userfaultfd`, for the first engine of this process or of its parent.
pub(crate) fn device() -> Option<OwnedFd> {
    let device = &family()?.device;
    device.lock().unwrap_or_else(PoisonError::into_inner).take()
}
