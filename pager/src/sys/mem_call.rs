//! The system call by which a thread of the program accesses memory through
//! `/proc/self/mem`.

use core::sync::atomic::AtomicUsize;

/// `pread64(2)`, or `pwrite64(2)` where it `writes`, of `len` bytes at `at`, after which
/// `place` is 0. Nothing of the thread's stack is touched between the two. The kernel's
/// answer.
///
/// # Safety
/// The buffer has room for `len` bytes, and the call may write what is in it.
pub(crate) unsafe fn transfer(
    fd: i32,
    writes: bool,
    buffer: usize,
    len: usize,
    at: usize,
    place: &AtomicUsize,
) -> isize {
    const PREAD64: isize = 17;
    const PWRITE64: isize = 18;
    let mut result = if writes { PWRITE64 } else { PREAD64 };
    // SAFETY: the kernel's convention; the rest is the caller's to answer for. An aligned
    // store is atomic, and not reordered before the call, which is a barrier.
    unsafe {
        core::arch::asm!(
            "syscall",
            "mov qword ptr [r9], 0",
            inlateout("rax") result,
            in("rdi") fd as usize,
            in("rsi") buffer,
            in("rdx") len,
            in("r10") at,
            in("r9") place.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
