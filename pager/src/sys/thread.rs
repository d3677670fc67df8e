//! Threads that the program's C library does not know.

use super::mem::Region;
use super::program;
use core::arch::naked_asm;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use rustix::io::Errno;
use rustix::thread::futex;

const CLONE_VM: usize = 0x100;
const CLONE_FILES: usize = 0x400;
const CLONE_SIGHAND: usize = 0x800;
const CLONE_THREAD: usize = 0x1_0000;
const CLONE_SYSVSEM: usize = 0x4_0000;
const CLONE_SETTLS: usize = 0x8_0000;
const CLONE_UNTRACED: usize = 0x80_0000;
const CLONE_VFORK: usize = 0x4000;
const CLONE_PARENT_SETTID: usize = 0x10_0000;
const CLONE_CHILD_CLEARTID: usize = 0x20_0000;

/// Bytes at the top of a stack that stand in for thread-local storage.
const TLS: usize = 4096;

/// Starts a thread on `stack` that runs `entry(arg)` and never returns.
///
/// It is made by `clone(2)` alone: the C library keeps no record of it, so
/// that nothing of the C library (thread lists, `setuid` broadcasts, stacks in
/// its cache) waits for it. It has a file table and a working directory of its
/// own, and *no thread-local storage*: its thread pointer leads to zeros, so
/// that at the worst it reads zeros and never what is the program's. Signals
/// must be blocked by the caller around this, for the new thread inherits its
/// mask.
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
    note(&stack);
    let flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;
    // SAFETY: by the caller.
    unsafe { start(flags, stack, entry, arg) }
}

/// The same as a process of its own, which shares memory and descriptors with this
/// one. Stops of this process do not reach it. Only `waitpid` with `__WCLONE` or
/// `__WALL` tells of it, and no signal.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`spawn`].
pub(super) unsafe fn spawn_process(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    let flags = CLONE_VM | CLONE_FILES | CLONE_UNTRACED | CLONE_SETTLS;
    // SAFETY: by the caller.
    unsafe { start(flags, stack, entry, arg) }
}

/// The same, waits until it has ended, and has it send its parent `signal` when it ends.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`spawn`].
pub(super) unsafe fn run_between(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
    signal: usize,
) -> Result<i32, Errno> {
    let flags = CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_UNTRACED | CLONE_SETTLS;
    // SAFETY: by the caller.
    unsafe { start(flags | signal, stack, entry, arg) }
}

/// Starts a process of the engine's own, with a copy of the caller's file table.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`spawn`].
pub(crate) unsafe fn spawn_apart(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    note(&stack);
    // SAFETY: by the caller.
    unsafe { start(CLONE_VM | CLONE_UNTRACED | CLONE_SETTLS, stack, entry, arg) }
}

/// The same of the engine's first, whose number the kernel keeps where `program` wants it.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`spawn`].
pub(super) unsafe fn spawn_engine(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    note(&stack);
    let flags = CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    let flags = flags | CLONE_VM | CLONE_UNTRACED | CLONE_SETTLS;
    // SAFETY: by the caller.
    unsafe { start(flags, stack, entry, arg) }
}

/// Starts what runs `entry(arg)` on `stack`.
///
/// # Safety
/// As [`spawn`].
unsafe fn start(
    flags: usize,
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32, Errno> {
    let top = stack.end() - TLS;
    let tls = top + TLS / 2;
    // SAFETY: within the stack, which nobody uses yet. The first word of a
    // thread's control block is its own address. The second says where
    // thread-local variables of libraries are: were they used after all, as they
    // are by a panic, then those of the calling thread.
    unsafe {
        *(tls as *mut usize) = tls;
        *(tls as *mut usize).add(1) = variables();
    }
    // SAFETY: by the caller; the top of the stack is aligned to 16 as the
    // region is to pages.
    let r = unsafe { clone_onto(flags, top, entry, arg, tls, program::engine_word()) };
    if r < 0 {
        Err(Errno::from_raw_os_error(-(r as i32)))
    } else {
        Ok(r as i32)
    }
}

/// The stacks of such threads: where each begins and ends.
static STACKS: [[AtomicUsize; 2]; 4] = [const { [const { AtomicUsize::new(0) }; 2] }; 4];
static NOTED: AtomicUsize = AtomicUsize::new(0);

fn note(stack: &Region) {
    // Of a guard that begins again it is the same.
    if STACKS
        .iter()
        .any(|[start, _]| start.load(Acquire) == stack.start)
    {
        return;
    }
    // An engine, its guards and one that zaps; more are not begun. One that was
    // would count as the program's.
    if let Some([start, end]) = STACKS.get(NOTED.fetch_add(1, AcqRel)) {
        start.store(stack.start, Release);
        end.store(stack.end(), Release);
    }
}

/// Whether the calling thread is one of the engine's.
pub fn is_own() -> bool {
    let here = 0u8;
    let at = (&raw const here).addr();
    let within =
        |[start, end]: &[AtomicUsize; 2]| (start.load(Acquire)..end.load(Acquire)).contains(&at);
    STACKS.iter().any(within)
}

/// How many such threads there are in the program's process.
pub fn own() -> usize {
    match program::is_apart() {
        true => 0,
        false => NOTED.load(Acquire),
    }
}

/// Ends the process, all of its threads, with this status.
pub fn exit_process(status: i32) -> ! {
    loop {
        // SAFETY: exit_group(status) touches no memory.
        unsafe { super::mem::syscall3(231, status as usize, 0, 0) };
    }
}

/// Ends the process by this signal, whatever the program has it do. There is no
/// thread of the program any more.
pub fn end_by_signal(signal: i32) -> ! {
    // Handler (the default), flags, restorer and mask.
    let default = [0usize; 4];
    // SAFETY: rt_sigaction(signal, &default, null, 8), which reads what it is given.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") 13usize => _, in("rdi") signal as usize,
            in("rsi") default.as_ptr(), in("rdx") 0usize, in("r10") 8usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    set_mask(0);
    // SAFETY: kill(process, signal) touches no memory.
    unsafe { super::mem::syscall3(62, leader() as usize, signal as usize, 0) };
    kill_process()
}

/// In a process that was just forked: such threads are not there.
pub fn none_is_own() {
    for [start, end] in &STACKS {
        end.store(0, Release);
        start.store(0, Release);
    }
    NOTED.store(0, Release);
}

/// Where the calling thread's thread-local variables of libraries are (the
/// second word of its control block by the System V ABI for x86-64).
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
    // r8 holds the thread pointer, as the system call wants it. rdx and rcx come in as entry
    // and arg; the system call clobbers rcx, so they wait in callee-saved registers, which the
    // child inherits. r9 is where the number goes, for flags that ask for that.
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

/// Blocks every signal for the calling thread and returns the mask before.
pub fn block_signals() -> u64 {
    set_mask(u64::MAX)
}

/// Sets the calling thread's signal mask.
pub fn set_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0u64;
    let r: isize;
    // SAFETY: rt_sigprocmask(SETMASK, &mask, &old, 8): both are 8 bytes.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") 14isize => r, in("rdi") SIG_SETMASK,
            in("rsi") &raw const mask, in("rdx") &raw mut old, in("r10") 8usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    debug_assert!(r == 0);
    old
}

/// The calling thread's number.
pub fn id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// Lets other threads run that wait for this processor.
pub fn pause() {
    rustix::thread::sched_yield();
}

/// Waits for somebody who is about to be done, for the `turn`th time: at first awake.
pub fn await_turn(turn: u32) {
    // Some milliseconds: who is waited for does not get a processor by being given way.
    const AWAKE: u32 = 1 << 12;
    const NAP_US: u64 = 50;
    if turn < AWAKE {
        pause();
    } else {
        sleep_us(NAP_US);
    }
}

/// Sleeps for so many microseconds.
pub fn sleep_us(us: u64) {
    // Woken early is as good.
    let _ = rustix::thread::nanosleep(&timespec(us));
}

/// The program has set a filter of system calls, which may end it where one of its
/// threads made any other than it would by itself.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// Has threads of the program wait without system calls from now on.
pub fn confine() {
    CONFINED.store(true, Relaxed);
}

/// Whether the program has set a filter of system calls.
pub fn is_confined() -> bool {
    CONFINED.load(Relaxed)
}

/// Whether the calling task is under a filter of system calls, whoever has set it.
pub fn is_filtered() -> bool {
    const PR_GET_SECCOMP: usize = 21;
    // SAFETY: prctl(PR_GET_SECCOMP) touches no memory.
    unsafe { super::mem::syscall3(157, PR_GET_SECCOMP, 0, 0) > 0 }
}

/// The engine of this process is under such a filter as well, as a forked child's is. It has
/// been given what it needs, and opens nothing.
static OPENS_NOTHING: AtomicBool = AtomicBool::new(false);

/// Has the engine open nothing from now on.
pub fn open_nothing(on: bool) {
    OPENS_NOTHING.store(on, Relaxed);
}

/// Whether the engine is to open nothing.
pub fn opens_nothing() -> bool {
    OPENS_NOTHING.load(Relaxed)
}

/// Sleeps for so many microseconds, in a thread of the program.
pub fn rest_us(us: u64) {
    // What the processor takes for a hint differs; it is no measure of time.
    const HINTS_PER_US: u64 = 20;
    if CONFINED.load(Relaxed) {
        (0..us * HINTS_PER_US).for_each(|_| core::hint::spin_loop());
    } else {
        sleep_us(us);
    }
}

/// Lets other threads run, in a thread of the program.
pub fn rest() {
    if CONFINED.load(Relaxed) {
        rest_us(1);
    } else {
        pause();
    }
}

/// Sleeps for `us` microseconds up to `most` times until `done` says so; whether
/// it did. In a thread of the program.
pub fn sleep_until(done: impl Fn() -> bool, most: u32, us: u64) -> bool {
    for _ in 0..most {
        if done() {
            return true;
        }
        rest_us(us);
    }
    false
}

/// Sleeps until [`wake_sleeper`] unless `word` is not `value`. Wakes up early
/// now and then.
pub fn sleep_unless(word: &AtomicU32, value: u32) {
    // What it was is looked at again by the caller.
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
}

/// The same for so many microseconds at the most; whether they were over.
pub fn sleep_some(word: &AtomicU32, value: u32, us: u64) -> bool {
    let time = timespec(us);
    futex::wait(word, futex::Flags::PRIVATE, value, Some(&time)) == Err(Errno::TIMEDOUT)
}

fn timespec(us: u64) -> rustix::thread::Timespec {
    rustix::thread::Timespec {
        tv_sec: (us / 1_000_000) as i64,
        tv_nsec: (us % 1_000_000 * 1000) as i64,
    }
}

/// Wakes who sleeps on `word`.
pub fn wake_sleeper(word: &AtomicU32) {
    // It fails for no word that is mapped.
    let _ = futex::wake(word, futex::Flags::PRIVATE, u32::MAX >> 1);
}

/// Ends the calling thread. Its stack stays mapped.
pub fn exit() -> ! {
    loop {
        // SAFETY: exit(0) of this thread alone.
        unsafe { super::mem::syscall3(60, 0, 0, 0) };
    }
}

/// How many descriptors the file table has room for of the thread that has forked this
/// process; 0 where that is not known.
static TABLE: AtomicUsize = AtomicUsize::new(0);
/// The engine and its guard have no more of their own.
const OWN_DESCRIPTORS: usize = 1024;

/// Tells the child of a fork to come for how many descriptors its file table has room.
pub fn note_table(size: usize) {
    TABLE.store(size, Relaxed);
}

/// Closes every descriptor of the calling thread's file table but those of `kept` that are
/// not negative. Under a filter of system calls only calls are made that are older than
/// filters.
pub fn close_all_but<const N: usize>(mut kept: [i32; N]) {
    kept.sort_unstable();
    let table = TABLE.load(Relaxed);
    let one_by_one = is_confined() && table > 0;
    let close = |from: usize, to: usize| {
        if one_by_one {
            for fd in from..=to.min(table.max(OWN_DESCRIPTORS)) {
                // SAFETY: close(fd); the caller has no other descriptor yet.
                unsafe { super::mem::syscall3(3, fd, 0, 0) };
            }
        } else if from <= to {
            // SAFETY: close_range(from, to, 0); the caller has no other descriptor yet.
            unsafe { super::mem::syscall3(436, from, to, 0) };
        }
    };
    let mut from = 0;
    for kept in kept.into_iter().filter_map(|fd| usize::try_from(fd).ok()) {
        if kept > from {
            close(from, kept - 1);
        }
        from = from.max(kept + 1);
    }
    close(from, u32::MAX as usize);
}

/// Ends the calling thread's process at once by SIGKILL; called by a process of the engine's
/// own, the program and all that share its memory.
pub fn kill_process() -> ! {
    if program::is_task() {
        program::end_all();
    }
    loop {
        let me = rustix::process::getpid();
        // It fails for nobody; the loop is for the type.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}

/// Whether thread `tid` of a process is there.
pub fn is_there(process: u32, tid: u32) -> bool {
    const ESRCH: isize = -3;
    // SAFETY: tgkill(process, tid, no signal) touches no memory.
    unsafe { super::mem::syscall3(234, process as usize, tid as usize, 0) != ESRCH }
}

/// Says where the calling thread's list of robust futexes is, which the kernel goes
/// through when the thread ends.
///
/// # Safety
/// `list` is a `struct robust_list_head` whose entries lead back to it, and stays where
/// it is for as long as the thread lives. The C library does not know the thread.
pub unsafe fn set_robust_list(list: usize) {
    const LEN: usize = 3 * size_of::<usize>();
    // SAFETY: by the caller. Where the kernel has no such thing, who has ended is
    // counted for as long as the program runs.
    unsafe { super::mem::syscall3(273, list, LEN, 0) };
}

/// A set of processors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpus([u64; 16]);

impl Cpus {
    /// The one of that number.
    pub fn one(cpu: u32) -> Cpus {
        let mut set = Cpus::default();
        if let Some(word) = set.0.get_mut(cpu as usize / 64) {
            *word = 1 << (cpu % 64);
        }
        set
    }
}

/// The first thread of the calling thread's process.
pub fn leader() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// The processors that the calling thread may run on.
pub fn cpus() -> Cpus {
    let mut set = Cpus::default();
    // SAFETY: sched_getaffinity(0, size, &set). A kernel that knows of more
    // processors refuses, and leaves the set empty.
    unsafe { super::mem::syscall3(204, 0, size_of::<Cpus>(), &raw mut set as usize) };
    set
}

/// Has the calling thread run on these processors only, if it may; an empty
/// set is refused by the kernel.
pub fn run_on(set: &Cpus) {
    put_on(0, set);
}

/// The same for thread `tid`.
pub fn put_on(tid: u32, set: &Cpus) {
    let size = size_of::<Cpus>();
    // SAFETY: sched_setaffinity(tid, size, &set).
    unsafe { super::mem::syscall3(203, tid as usize, size, &raw const *set as usize) };
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Slices of a thread that is to run soon (Linux 6.12).
const SLICE_NS: u64 = 100_000;
const SCHED_RR: u32 = 2;
const RESET_ON_FORK: u64 = 1;

/// What this thread starts is scheduled as usual. Only a user with more rights may take
/// that back, so it is asked for each time: else who may only give up a priority could not.
fn schedule(attr: SchedAttr) -> bool {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        flags: RESET_ON_FORK,
        ..attr
    };
    // SAFETY: sched_setattr(0, &attr, 0), whose argument says its size.
    unsafe { super::mem::syscall3(314, 0, &raw const attr as usize, 0) == 0 }
}

/// Has the calling thread run soon after it is woken, as far as this user may
/// ask for that: a higher weight, and short slices. It is no real-time thread any more.
pub fn hurry() {
    // The last is what it has, which nobody is refused. The kernel tells 20 less that.
    // SAFETY: getpriority(PRIO_PROCESS, 0).
    let own = 20 - unsafe { super::mem::syscall3(140, 0, 0, 0) } as i32;
    [-20, 0, own].into_iter().any(|nice| {
        schedule(SchedAttr {
            nice,
            runtime: SLICE_NS,
            ..SchedAttr::default()
        })
    });
}

/// Has the calling thread run at once when it is woken, before all threads that are
/// not real-time ones, if this user may ask for that; else as [`hurry`]. For a thread
/// that sleeps nearly all the time: [`pause`] gives way to no other then.
///
/// A weight counts within a group of processes. On a busy machine the group of a
/// session may wait for a processor for a tenth of a second, with all that is in it.
pub fn hurry_most() {
    // Before all else: what a thread has had too much of its processor is kept while it is a
    // real-time one, as a time of the virtual clock of its weight at the beginning. Were that
    // weight less than the one it has when it stops being one, a tenth of a millisecond would
    // have it wait for ten.
    hurry();
    schedule(SchedAttr {
        policy: SCHED_RR,
        priority: 1,
        ..SchedAttr::default()
    });
}
