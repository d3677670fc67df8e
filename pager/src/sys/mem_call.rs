//! The system call by which a thread of the program accesses memory through
//! `/proc/self/mem`.

use core::sync::atomic::AtomicUsize;

/// Makes a `pread64(2)` (or `pwrite64(2)`, if `writes`) of `len` bytes at `at`, and then
/// sets `place` to 0, without touching the thread's stack in between. Returns the kernel's
/// answer.
///
/// # Safety
/// The buffer has room for `len` bytes, and the call may write its contents.
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
    // SAFETY: the kernel's calling convention is kept; the caller promises the rest. An
    // aligned store is atomic, and not reordered before the call, which is a barrier.
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
