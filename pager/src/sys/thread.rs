//! Threads that the program's C library does not know.

pub use super::descriptors::close_all_but;
pub use super::scheduling::{Cpus, cpus, hurry, hurry_most, put_on, run_on};
pub use super::sleep::{
    await_other, await_turn, pause, rest, rest_us, sleep_some, sleep_unless, sleep_until, sleep_us,
    wake_sleeper,
};

use super::mem::Region;
use super::program;
use super::sleep::sleep_until_cleared;
use super::syscall::syscall3;
use core::arch::naked_asm;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use core::sync::atomic::{AtomicU32, AtomicUsize};
use rustix::io::Errno;

const CLONE_VM: usize = 0x100;
const CLONE_FILES: usize = 0x400;
const CLONE_SIGHAND: usize = 0x800;
const CLONE_THREAD: usize = 0x1_0000;
const CLONE_SYSVSEM: usize = 0x4_0000;
const CLONE_SETTLS: usize = 0x8_0000;
const CLONE_UNTRACED: usize = 0x80_0000;
const CLONE_PARENT_SETTID: usize = 0x10_0000;
const CLONE_CHILD_CLEARTID: usize = 0x20_0000;

/// Bytes at the top of a stack that stand in for thread-local storage.
const TLS: usize = 4096;

/// Starts a thread on `stack` that runs `entry(arg)` and never returns. Returns its number.
///
/// It is made by `clone(2)` alone. The C library has no record of it, so nothing of the C
/// library waits for it (lists of threads, broadcasts of `setuid`, cached stacks). It has
/// its own file table and working directory, and *no thread-local storage*: its thread
/// pointer leads to zeros, so in the worst case it reads zeros, and never the program's
/// data. The caller must have blocked all signals, since the new thread inherits its mask.
///
/// # Errors
/// Those of the kernel.
///
/// # Safety
/// `entry` never returns, uses no thread-local storage, and accepts `arg`. Nobody else uses
/// `stack`.
pub unsafe fn spawn(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    note(&stack);
    let flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;
    // SAFETY: the caller's promise is the same.
    unsafe { start(flags, stack, entry, arg, &NOWHERE) }
}

/// Starts a process that shares memory and file descriptors with this one, otherwise as
/// [`spawn`]. It does not stop when this process is stopped. No signal announces its end,
/// and only `waitpid` with `__WCLONE` or `__WALL` reports it.
///
/// # Errors
/// Those of the kernel.
///
/// # Safety
/// As for [`spawn`].
pub(super) unsafe fn spawn_process(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    let flags = CLONE_VM | CLONE_FILES | CLONE_UNTRACED | CLONE_SETTLS;
    // SAFETY: the caller's promise is the same.
    unsafe { start(flags, stack, entry, arg, &NOWHERE) }
}

/// Starts a process that sends its parent `signal` when it ends, and waits until it uses
/// the memory no more.
///
/// `CLONE_VFORK` would wait as well. But a debugger is told of the end of such a wait even
/// where it was not told of its beginning (`CLONE_UNTRACED`), and lldb then inserts its
/// breakpoints twice.
///
/// # Errors
/// Those of the kernel.
///
/// # Safety
/// As for [`spawn`].
pub(super) unsafe fn run_between(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
    signal: usize,
) -> Result<i32, Errno> {
    let flags = CLONE_VM | CLONE_FILES | CLONE_UNTRACED | CLONE_SETTLS | signal;
    let lives = AtomicU32::new(0);
    // SAFETY: the caller's promise is the same.
    let started = unsafe { start(flags | TELLS, stack, entry, arg, &lives) };
    if started.is_ok() {
        sleep_until_cleared(&lives);
    }
    started
}

/// Starts a process of the engine's own, with a copy of the caller's file table.
///
/// # Errors
/// Those of the kernel.
///
/// # Safety
/// As for [`spawn`].
pub(crate) unsafe fn spawn_apart(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    note(&stack);
    // SAFETY: the caller's promise is the same.
    unsafe {
        start(
            CLONE_VM | CLONE_UNTRACED | CLONE_SETTLS,
            stack,
            entry,
            arg,
            &NOWHERE,
        )
    }
}

/// Starts the engine's first process. The kernel stores its number where `program` wants
/// it.
///
/// # Errors
/// Those of the kernel.
///
/// # Safety
/// As for [`spawn`].
pub(super) unsafe fn spawn_engine(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    note(&stack);
    let flags = TELLS | CLONE_VM | CLONE_UNTRACED | CLONE_SETTLS;
    // SAFETY: the caller's promise is the same.
    unsafe { start(flags, stack, entry, arg, program::engine_word()) }
}

/// Has the kernel store a task's number while the task lives, and 0 when it ends.
const TELLS: usize = CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

/// Stands where no number is stored.
static NOWHERE: AtomicU32 = AtomicU32::new(0);

/// Starts a task that runs `entry(arg)` on `stack`. With [`TELLS`], `number` is the place of
/// its number.
///
/// # Safety
/// As for [`spawn`].
unsafe fn start(
    flags: usize,
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
    number: &AtomicU32,
) -> Result<i32, Errno> {
    let top = stack.end() - TLS;
    let tls = top + TLS / 2;
    // SAFETY: within the stack, which nobody uses yet. The first word of a thread's control
    // block is its own address. The second points to the thread-local variables of
    // libraries. If these are used after all, as a panic does, they are the calling
    // thread's.
    unsafe {
        *(tls as *mut usize) = tls;
        *(tls as *mut usize).add(1) = variables();
    }
    // SAFETY: the caller's promise; the top of the stack is aligned to 16 bytes, as the
    // region is to pages.
    let r = unsafe { clone_onto(flags, top, entry, arg, tls, number) };
    if r < 0 {
        Err(Errno::from_raw_os_error(-(r as i32)))
    } else {
        Ok(r as i32)
    }
}

/// Start and end of the stacks of such threads.
static STACKS: [[AtomicUsize; 2]; 4] = [const { [const { AtomicUsize::new(0) }; 2] }; 4];
static NOTED: AtomicUsize = AtomicUsize::new(0);

fn note(stack: &Region) {
    // A guard that is started again has the same stack.
    if STACKS
        .iter()
        .any(|[start, _]| start.load(Acquire) == stack.start)
    {
        return;
    }
    // There is room for an engine, its guards and a zap worker, and no more are started. A
    // further one would count as the program's.
    if let Some([start, end]) = STACKS.get(NOTED.fetch_add(1, AcqRel)) {
        start.store(stack.start, Release);
        end.store(stack.end(), Release);
    }
}

/// Tells whether the calling thread is one of the engine's.
pub fn is_own() -> bool {
    let here = 0u8;
    let at = (&raw const here).addr();
    let within =
        |[start, end]: &[AtomicUsize; 2]| (start.load(Acquire)..end.load(Acquire)).contains(&at);
    STACKS.iter().any(within)
}

/// Returns how many threads of the engine the program's process has.
pub fn own() -> usize {
    match program::is_apart() {
        true => 0,
        false => NOTED.load(Acquire),
    }
}

/// Forgets the engine's threads, in a process that was just forked and does not have them.
pub fn none_is_own() {
    for [start, end] in &STACKS {
        end.store(0, Release);
        start.store(0, Release);
    }
    NOTED.store(0, Release);
}

/// Returns the address of the calling thread's thread-local variables of libraries: the
/// second word of its control block by the System V ABI for x86-64.
fn variables() -> usize {
    let at: usize;
    // SAFETY: every thread of the C library has a control block.
    unsafe { core::arch::asm!("mov {}, fs:[8]", out(reg) at, options(nostack, readonly)) };
    at
}

#[unsafe(naked)]
unsafe extern "C" fn clone_onto(
    flags: usize,
    stack_top: usize,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
    tls: usize,
    number: &AtomicU32,
) -> isize {
    // The system call wants the thread pointer in r8. The entry and its argument come in
    // rdx and rcx. The system call changes rcx, so both move to callee-saved registers,
    // which the child inherits. r9 is the address for the number, for flags that ask for
    // it.
    naked_asm!(
        "push rbx",
        "push r12",
        "mov rbx, rdx",
        "mov r12, rcx",
        "mov rdx, r9",
        "mov r10, r9",
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

/// Blocks every signal for the calling thread, and returns the previous mask.
pub fn block_signals() -> u64 {
    set_mask(u64::MAX)
}

/// Sets the calling thread's signal mask, and returns the previous one.
pub fn set_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0u64;
    let r: isize;
    // SAFETY: rt_sigprocmask(SETMASK, &mask, &old, 8). Both masks have 8 bytes.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") 14isize => r, in("rdi") SIG_SETMASK,
            in("rsi") &raw const mask, in("rdx") &raw mut old, in("r10") 8usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    debug_assert!(r == 0);
    old
}

/// Returns the calling thread's number.
pub fn id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// Tells whether thread `tid` of a process exists.
pub fn is_there(process: u32, tid: u32) -> bool {
    const ESRCH: isize = -3;
    // SAFETY: tgkill(process, tid, no signal) touches no memory.
    unsafe { syscall3(234, process as usize, tid as usize, 0) != ESRCH }
}

/// Sets the calling thread's list of robust futexes, which the kernel walks when the thread
/// ends.
///
/// # Safety
/// `list` is a `struct robust_list_head` whose entries lead back to it, and stays in place
/// as long as the thread lives. The C library does not know the thread.
pub unsafe fn set_robust_list(list: usize) {
    const LEN: usize = 3 * size_of::<usize>();
    // SAFETY: the caller's promise is the same. If the kernel does not have this call, a
    // thread that has ended counts until the program ends.
    unsafe { syscall3(273, list, LEN, 0) };
}

/// Returns the first thread of the calling thread's process.
pub fn leader() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Ends the calling thread. Its stack stays mapped.
pub fn exit() -> ! {
    loop {
        // SAFETY: exit(0) of this thread alone.
        unsafe { syscall3(60, 0, 0, 0) };
    }
}
