//! Whether a seccomp filter limits the system calls of the program or of the engine.

use super::syscall::syscall3;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;

/// The program has a seccomp filter, which may end it if one of its threads makes a call
/// that the program itself would not make.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Makes threads of the program wait without system calls from now on.
pub fn confine() {
    CONFINED.store(true, Relaxed);
}

/// Tells whether the program has installed a seccomp filter.
pub fn is_confined() -> bool {
    CONFINED.load(Relaxed)
}

/// Tells whether the calling task is under a seccomp filter, whoever has installed it.
pub fn is_filtered() -> bool {
    const PR_GET_SECCOMP: usize = 21;
    // SAFETY: prctl(PR_GET_SECCOMP) touches no memory.
    unsafe { syscall3(157, PR_GET_SECCOMP, 0, 0) > 0 }
}

/// The engine of this process is under such a filter, too, as a forked child's is. It was
/// given everything that it needs, and opens nothing.
static OPENS_NOTHING: AtomicBool = AtomicBool::new(false);

/// Says whether the engine must open nothing from now on.
pub fn open_nothing(on: bool) {
    OPENS_NOTHING.store(on, Relaxed);
}

/// Tells whether the engine must open nothing.
pub fn opens_nothing() -> bool {
    OPENS_NOTHING.load(Relaxed)
}
