//! What `tmem run` shares with the processes under it. It is asked for at the start, and
//! kept: a program may close its descriptors, use the memory of its environment for
//! something else, or be where nothing can be asked for any more.

use crate::figures;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use tmem_config::{AgentAddr, Handed, family_from_env};
use tmem_pager::stats::Shared;

struct Family {
    at: AgentAddr,
    shared: &'static Shared,
    secret: Option<Vec<u8>>,
    /// For the first engine; those of forked children ask for their own.
    device: Mutex<Option<OwnedFd>>,
}

fn family() -> Option<&'static Family> {
    static FAMILY: OnceLock<Option<Family>> = OnceLock::new();
    FAMILY.get_or_init(join).as_ref()
}

fn join() -> Option<Family> {
    let at = family_from_env()?;
    let handed = Handed::ask(&at).ok()?;
    Some(Family {
        shared: figures::shared(&handed.memory)?,
        at,
        secret: handed.secret,
        device: Mutex::new(handed.device),
    })
}

/// Whether `tmem run` has looked at everything already.
pub(crate) fn is_checked() -> bool {
    family().is_some()
}

/// The memory that all processes share. A forked child has its parent's mapping.
pub(crate) fn shared() -> Option<&'static Shared> {
    family().map(|family| family.shared)
}

/// The secret of the servers, if `tmem run` has one.
pub(crate) fn secret() -> Option<Vec<u8>> {
    family()?.secret.clone()
}

/// An open `/dev/userfaultfd`, for this process's engine.
pub(crate) fn device() -> Option<OwnedFd> {
    let family = family()?;
    let first = family
        .device
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    first.or_else(|| Handed::ask(&family.at).ok()?.device)
}
