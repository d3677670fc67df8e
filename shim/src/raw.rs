//! System calls without the C library.

use core::ffi::c_long;

/// A system call without the C library.
///
/// # Safety
/// As for the system call itself.
pub(crate) unsafe fn raw_syscall(number: c_long, args: [usize; 6]) -> isize {
    let mut result = number as isize;
    // SAFETY: the kernel's convention; the rest is the caller's to answer for.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}
