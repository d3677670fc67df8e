//! The limit of open files of `tmem run` itself, whose embedded server has one for each
//! connection. Programs begin with the limit that there was.

use std::io;
use std::sync::OnceLock;

/// The limit before it was raised.
static BEFORE: OnceLock<libc::rlimit> = OnceLock::new();

/// Raises the limit as far as it may be. Where that fails, the server has fewer connections.
pub(crate) fn raise() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes the structure that it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: setrlimit reads the structure that it is given.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        // What the first call finds counts.
        let _ = BEFORE.set(limit);
    }
}

/// Gives a process that is about to become a program the limit that there was. Makes nothing
/// but a system call.
pub(crate) fn restore() -> io::Result<()> {
    let Some(limit) = BEFORE.get() else {
        return Ok(());
    };
    // SAFETY: setrlimit reads the structure that it is given.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
