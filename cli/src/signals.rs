//! How signals were set when this process started, and taking them in a loop.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether SIGPIPE was ignored when this process started. The standard library ignores it
/// before `main`, so this is read earlier.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// Whether SIGCHLD was ignored: then the kernel reports no child's end.
static CHILD_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    PIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Relaxed);
    CHILD_IGNORED.store(is_ignored(libc::SIGCHLD), Relaxed);
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; the structure is one of plain data.
    let handler = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction
    };
    handler == libc::SIG_IGN
}

/// Restores how signals were set when this process started.
pub(crate) fn restore(mask: &libc::sigset_t) -> io::Result<()> {
    let as_before = |was_ignored: &AtomicBool| match was_ignored.load(Relaxed) {
        true => libc::SIG_IGN,
        false => libc::SIG_DFL,
    };
    // SAFETY: all calls may be made between fork and exec.
    let failed = unsafe {
        libc::signal(libc::SIGPIPE, as_before(&PIPE_IGNORED));
        libc::signal(libc::SIGCHLD, as_before(&CHILD_IGNORED));
        libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut())
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Signals from other processes, blocked to be taken with [`take`]. Threads that are started
/// later do not get them either.
pub(crate) struct Blocked {
    pub(crate) outside: libc::sigset_t,
    /// The mask before.
    pub(crate) before: libc::sigset_t,
}

/// Blocks them, and has the kernel report the end of children, also if SIGCHLD was ignored.
pub(crate) fn block() -> Blocked {
    // SAFETY: nobody in this process has a handler of it.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    // These signals report a defect here, which must end this process.
    let own = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` makes a whole set of it, the others change it.
    let outside = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in own {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    };
    let mut before = MaybeUninit::zeroed();
    // SAFETY: valid sets; the old one is zeroed and then written.
    let before = unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &raw const outside, before.as_mut_ptr());
        before.assume_init()
    };
    Blocked { outside, before }
}

/// A pending signal that asks this process to end.
pub(crate) fn asked_to_end() -> Option<libc::c_int> {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: room for the answer; a set of zeros is an empty one.
    let set = unsafe {
        libc::sigpending(set.as_mut_ptr());
        set.assume_init()
    };
    let asks = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
    // SAFETY: a valid set and valid signals.
    let pending = |signal: &libc::c_int| unsafe { libc::sigismember(&raw const set, *signal) } == 1;
    asks.into_iter().find(pending)
}

/// Waits for the next signal of a blocked set.
pub(crate) fn take(set: &libc::sigset_t) -> Option<libc::siginfo_t> {
    let mut info = MaybeUninit::zeroed();
    // SAFETY: a valid set, and room for the answer.
    let signal = unsafe { libc::sigwaitinfo(set, info.as_mut_ptr()) };
    // SAFETY: zeroed, then written by the call.
    (signal > 0).then(|| unsafe { info.assume_init() })
}
