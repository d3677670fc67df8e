//! System calls that `rustix` has no function for.

/// Makes a system call with three arguments that rustix does not have.
///
/// # Safety
/// As the system call demands.
pub(super) unsafe fn syscall3(nr: usize, a: usize, b: usize, c: usize) -> isize {
    let r: isize;
    // SAFETY: the calling convention of Linux on x86-64. The kernel clobbers rcx and r11.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr as isize => r, in("rdi") a, in("rsi") b,
            in("rdx") c, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    r
}

/// Makes a system call with one argument and four zeros.
///
/// # Safety
/// As the system call demands.
pub(super) unsafe fn syscall_of_one(nr: usize, a: usize) -> isize {
    let r: isize;
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr as isize => r, in("rdi") a,
            in("rsi") 0usize, in("rdx") 0usize, in("r10") 0usize, in("r8") 0usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    r
}
