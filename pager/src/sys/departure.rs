//! Finds out whether the program has left its memory: it has ended, or executes another
//! program.

use super::sharers::any_shares;
use super::{program, sleep};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Acquire;
use rustix::io::Errno;

/// Tells whether the program's process does not use the memory any more: it has ended, or
/// executes another program. Returns false if that is unknown.
pub fn has_left() -> bool {
    program::has_ended() || uses_memory() == Some(false)
}

/// Tells whether the program's process exists, but it is unknown which memory it uses.
pub fn is_unknown() -> bool {
    !program::has_ended() && uses_memory().is_none()
}

/// Tells whether a thread of the program's process uses the calling task's memory, if that
/// is known.
fn uses_memory() -> Option<bool> {
    any_shares(program::id())
}

/// One word to wait for (`struct futex_waitv`).
#[repr(C)]
struct Awaited {
    value: u64,
    word: u64,
    flags: u32,
    reserved: u32,
}

/// Sleeps as [`sleep::sleep_some`] does, in the engine. Returns whether the program still
/// exists.
pub fn sleep(word: &AtomicU32, value: u32, us: u64) -> bool {
    const FUTEX_WAITV: usize = 449;
    const U32: u32 = 2;
    const PRIVATE: u32 = 128;
    let Some(end) = program::end_word().filter(|_| program::is_apart()) else {
        sleep::sleep_some(word, value, us);
        return !program::has_ended();
    };
    let awaited = |value: u32, word: usize, flags| Awaited {
        value: value.into(),
        word: word as u64,
        flags: U32 | flags,
        reserved: 0,
    };
    let two = [
        awaited(value, core::ptr::from_ref(word).addr(), PRIVATE),
        awaited(program::id(), end, 0),
    ];
    let until = super::now_ns() + us * 1000;
    let until = [until / 1_000_000_000, until % 1_000_000_000];
    let result: isize;
    // SAFETY: futex_waitv(&two, 2, 0, &until, CLOCK_MONOTONIC), which only reads its
    // arguments.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") FUTEX_WAITV => result,
            in("rdi") two.as_ptr(), in("rsi") two.len(), in("rdx") 0usize,
            in("r10") until.as_ptr(), in("r8") 1usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    let over = -(Errno::TIMEDOUT.raw_os_error() as isize);
    if result == 0 || result == over || word.load(Acquire) != value {
        return true;
    }
    // Only the first thread has ended, or the kernel does not have this call (before 5.16).
    // From now on the program is checked regularly.
    program::forget_end_word();
    !has_left()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_program_that_runs_uses_its_memory() {
        assert_eq!(super::uses_memory(), Some(true));
    }
}
