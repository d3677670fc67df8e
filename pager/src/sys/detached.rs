//! Starts a process that shares the caller's memory and is no child of the caller's: whoever
//! waits for children is told nothing of it, whatever it asks for.
//!
//! A process between the two starts it and ends at once, so that it is given to the process
//! that takes orphans in: the first of the system, or a nearer one that has asked for them
//! (a *subreaper*), which would be told of its end.

use super::mem::{Region, syscall3};
use super::program;
use super::thread;
use core::sync::atomic::Ordering::{Acquire, Release};
use core::sync::atomic::{AtomicBool, AtomicI32};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// Bytes of the stack of the process between.
const BETWEEN: usize = 16 << 10;

/// The inode of the first namespace of processes (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xeffffffc;

/// A process of the program's, this one or one that it was forked from, takes orphans in.
static HAS_REAPER: AtomicBool = AtomicBool::new(false);

/// The calling process is about to take orphans in, or may be.
pub fn has_reaper() {
    HAS_REAPER.store(true, Release);
}

/// Whether the end of what outlives the program would be told to somebody who may make
/// something of it.
pub fn is_told_of_orphans() -> bool {
    HAS_REAPER.load(Acquire)
}

/// Whether the calling process is in the first namespace of processes.
pub fn is_in_first_namespace() -> bool {
    rustix::fs::statat(CWD, c"/proc/self/ns/pid", AtFlags::empty())
        .is_ok_and(|stat| stat.st_ino == FIRST_NAMESPACE)
}

/// Whether an orphan would go to a process that takes its end for nothing strange: `tmem run`,
/// if that `takes` orphans in, the first process of the system, or what a session has for that.
pub fn may_be(takes: bool) -> bool {
    const PR_GET_CHILD_SUBREAPER: usize = 37;
    let mut reaps = 0i32;
    // SAFETY: prctl(PR_GET_CHILD_SUBREAPER, &reaps).
    unsafe { syscall3(157, PR_GET_CHILD_SUBREAPER, (&raw mut reaps).addr(), 0) };
    let is_first = rustix::process::getpid().as_raw_nonzero().get() == 1;
    let elsewhere = takes || is_in_first_namespace();
    if !elsewhere || is_first || reaps != 0 {
        has_reaper();
    }
    let may = !HAS_REAPER.load(Acquire);
    // Before, a filter of system calls that ended the process between ended the program.
    may && (!thread::is_filtered() || major_version() >= 6)
}

/// The first number of the kernel's version.
fn major_version() -> u32 {
    let name = rustix::system::uname();
    let first = name.release().to_bytes().split(|b| *b == b'.').next();
    let number = first.and_then(|text| core::str::from_utf8(text).ok()?.parse().ok());
    number.unwrap_or(0)
}

/// What the process between is given.
struct Between {
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
    /// What `clone` has returned.
    result: AtomicI32,
}

unsafe extern "C" fn between(arg: *mut u8) -> ! {
    // SAFETY: what `spawn` gave, which waits.
    let it = unsafe { &*arg.cast::<Between>() };
    if thread::is_filtered() {
        try_calls();
    }
    // SAFETY: by the caller of `spawn`.
    let started = unsafe { thread::spawn_engine(it.stack, it.entry, it.arg) };
    let result = started.unwrap_or_else(|error| -error.raw_os_error());
    it.result.store(result, Release);
    thread::exit()
}

/// Makes calls that only an engine makes that is a process of its own. A filter of system
/// calls that the program was started under may end the process between for them, and no
/// engine is started then.
fn try_calls() {
    const CALLS: [usize; 5] = [
        // kcmp, unshare, futex_waitv, pidfd_open, setpgid: they are refused, or do nothing.
        312, 272, 449, 434, 109,
    ];
    for number in CALLS {
        let nobody = match number {
            272 => 0,
            _ => usize::MAX,
        };
        // SAFETY: with no such process, or nothing to do, they touch no memory.
        unsafe { syscall3(number, nobody, nobody, nobody) };
    }
}

/// Starts the engine's process on `stack`, which runs `entry(arg)` with a copy of the
/// caller's file table and all signals blocked, as they are to be here.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`thread::spawn`]; the stack is larger than 64 KiB.
pub unsafe fn spawn(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<u32, Errno> {
    // The engine is far from there when the other has ended.
    let lower = Region {
        len: stack.len / 4,
        ..stack
    };
    debug_assert!(lower.len >= BETWEEN);
    let it = Between {
        stack,
        entry,
        arg,
        result: AtomicI32::new(0),
    };
    let unseen = Unseen::begin();
    let arg = (&raw const it).cast_mut().cast();
    // SAFETY: by the caller; `it` is there until the process has ended.
    let started = unsafe { thread::run_between(lower, between, arg, unseen.signal()) };
    let pid = Pid::from_raw(started?).ok_or(Errno::SRCH)?;
    // What ends without a signal takes this to be waited for (`__WALL`).
    const ALL: WaitOptions = WaitOptions::from_bits_retain(0x4000_0000);
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), ALL) {}
    drop(unseen);
    match it.result.load(Acquire) {
        error @ i32::MIN..0 => Err(Errno::from_raw_os_error(-error)),
        // It was ended before.
        0 => Err(Errno::PERM),
        pid => {
            let_it_look(pid);
            Ok(pid as u32)
        }
    }
}

/// Lets the engine do what a debugger may do, where only those that are named may
/// (`ptrace_scope` of Yama): it borrows the program's standard error.
fn let_it_look(pid: i32) {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    // SAFETY: prctl(PR_SET_PTRACER, pid), which is refused where there is no such thing.
    unsafe { syscall3(157, PR_SET_PTRACER, pid as usize, 0) };
}

const SIGCHLD: usize = 17;

/// While it lives, children of the process that end leave nothing to wait for: neither a
/// status nor what they have used (`RUSAGE_CHILDREN`). Only where there are no others.
struct Unseen {
    before: Option<[usize; 4]>,
}

impl Unseen {
    fn begin() -> Unseen {
        let before = (!has_children() && !is_pending()).then(|| {
            const IGNORE: [usize; 4] = [1, 0, 0, 0];
            let mut before = [0; 4];
            action(Some(&IGNORE), Some(&mut before));
            before
        });
        Unseen { before }
    }

    /// The signal that a child is to end with.
    fn signal(&self) -> usize {
        self.before.map_or(0, |_| SIGCHLD)
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            action(Some(before), None);
        }
    }
}

/// Whether the process has any child, also one that has ended.
fn has_children() -> bool {
    const WAITID: usize = 247;
    const P_ALL: usize = 0;
    // WNOHANG, WEXITED, WNOWAIT and __WALL.
    const HOW: usize = 1 | 4 | 0x100_0000 | 0x4000_0000;
    let result: isize;
    // SAFETY: waitid(P_ALL, 0, null, HOW, null) touches no memory.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") WAITID => result, in("rdi") P_ALL,
            in("rsi") 0usize, in("rdx") 0usize, in("r10") HOW, in("r8") 0usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result != -(Errno::CHILD.raw_os_error() as isize)
}

/// Whether a signal waits that would be thrown away.
fn is_pending() -> bool {
    let mut pending = u64::MAX;
    // SAFETY: rt_sigpending(&pending, 8).
    unsafe { syscall3(127, (&raw mut pending).addr(), 8, 0) };
    pending >> (SIGCHLD - 1) & 1 != 0
}

/// `rt_sigaction` of SIGCHLD.
fn action(new: Option<&[usize; 4]>, old: Option<&mut [usize; 4]>) {
    let new = new.map_or(core::ptr::null(), |new| new.as_ptr());
    let old = old.map_or(core::ptr::null_mut(), |old| old.as_mut_ptr());
    // SAFETY: rt_sigaction(SIGCHLD, new, old, 8), each null or a `struct sigaction`.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") 13usize => _, in("rdi") SIGCHLD,
            in("rsi") new, in("rdx") old, in("r10") 8usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
}

/// Called by the process itself: no signal to the program's process group reaches it.
///
/// Not a session of its own: the kernel may share CPUs out among those (autogroup), and the
/// engine gives way to threads of the program.
pub fn begin() -> Result<(), Errno> {
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::thread::set_name(c"tmem-engine");
    program::open()
}
