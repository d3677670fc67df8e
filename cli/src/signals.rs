//! Signals of this process as it was started, and taking them in a loop.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether SIGPIPE was ignored when this process started: the standard
/// library ignores it before `main`, so it has to be looked at earlier.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; the structure is one of plain data.
    let handler = unsafe {
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction
    };
    PIPE_IGNORED.store(handler == libc::SIG_IGN, Relaxed);
}

/// Gives the calling process back what it was started with.
pub(crate) fn restore(mask: &libc::sigset_t) -> io::Result<()> {
    let pipe = if PIPE_IGNORED.load(Relaxed) {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: both calls may be made between fork and exec.
    let failed = unsafe {
        libc::signal(libc::SIGPIPE, pipe);
        libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut())
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Signals that come from the outside, to be taken with [`take`].
pub(crate) fn outside() -> libc::sigset_t {
    // A defect here must end this process, so these stay as they are.
    let own = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` makes a whole set of it, the others change it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in own {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks a set; the mask before.
pub(crate) fn block(set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: valid sets; the old one is zeroed and then written.
    unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, set, before.as_mut_ptr());
        before.assume_init()
    }
}

/// Waits for the next signal of a blocked set.
pub(crate) fn take(set: &libc::sigset_t) -> Option<libc::siginfo_t> {
    let mut info = MaybeUninit::zeroed();
    // SAFETY: a valid set, and room for the answer.
    let signal = unsafe { libc::sigwaitinfo(set, info.as_mut_ptr()) };
    // SAFETY: zeroed, then written by the call.
    (signal > 0).then(|| unsafe { info.assume_init() })
}
