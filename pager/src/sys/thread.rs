//! Threads that the program's C library does not know.

use super::mem::Region;
use core::arch::naked_asm;
use rustix::io::Errno;

const CLONE_VM: usize = 0x100;
const CLONE_SIGHAND: usize = 0x800;
const CLONE_THREAD: usize = 0x1_0000;
const CLONE_SYSVSEM: usize = 0x4_0000;

/// Starts a thread on `stack` that runs `entry(arg)` and never returns.
///
/// It is made by `clone(2)` alone: the C library keeps no record of it, so
/// that nothing of the C library (thread lists, `setuid` broadcasts, stacks in
/// its cache) waits for it. It has a file table and a working directory of its
/// own, and *no thread-local storage of its own*: it runs with the caller's
/// thread pointer and must never use it. Signals must be blocked by the caller
/// around this, for the new thread inherits its mask.
///
/// Returns the new thread's id.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `entry` never returns, uses no thread-local storage, and `arg` is valid for
/// it; `stack` is used by nobody else.
pub unsafe fn spawn(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    let flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    // SAFETY: by the caller; the top of the stack is aligned to 16 as the
    // region is to pages.
    let r = unsafe { clone_onto(flags, stack.end(), entry, arg) };
    if r < 0 {
        Err(Errno::from_raw_os_error(-(r as i32)))
    } else {
        Ok(r as i32)
    }
}

#[unsafe(naked)]
unsafe extern "C" fn clone_onto(
    flags: usize,
    stack_top: usize,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> isize {
    // rdx and rcx come in as entry and arg; the system call clobbers rcx, so
    // they wait in callee-saved registers, which the child inherits.
    naked_asm!(
        "push rbx",
        "push r12",
        "mov rbx, rdx",
        "mov r12, rcx",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r12",
        "call rbx",
        "ud2",
        "2:",
        "pop r12",
        "pop rbx",
        "ret",
    )
}

/// Blocks every signal for the calling thread and returns the mask before.
pub fn block_signals() -> u64 {
    set_mask(u64::MAX)
}

/// Sets the calling thread's signal mask.
pub fn set_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0u64;
    // SAFETY: rt_sigprocmask(SETMASK, &mask, &old, 8): both are 8 bytes.
    let r: isize;
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") 14isize => r, in("rdi") SIG_SETMASK,
            in("rsi") &raw const mask, in("rdx") &raw mut old, in("r10") 8usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    debug_assert!(r == 0);
    old
}

/// Ends the whole process at once by SIGKILL.
pub fn kill_process() -> ! {
    loop {
        let me = rustix::process::getpid();
        // It fails for nobody; the loop is for the type.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
