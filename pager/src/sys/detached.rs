//! Starts a process that shares the caller's memory but is not its child, so that nobody
//! who waits for children learns of it.
//!
//! A process in between starts it and ends at once. The orphan then goes to a process that
//! adopts orphans: the first process of the system, or a nearer one that has asked for it
//! (a *subreaper*). That process would be told of its end.

use super::mem::Region;
use super::syscall::syscall3;
use super::{confined, program, thread};
use core::sync::atomic::Ordering::{Acquire, Release};
use core::sync::atomic::{AtomicBool, AtomicI32};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// Bytes of the stack of the process in between.
const BETWEEN: usize = 16 << 10;

/// The inode of the first PID namespace (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xeffffffc;

/// This process, or one that it was forked from, adopts orphans.
static HAS_REAPER: AtomicBool = AtomicBool::new(false);

/// Notes that the calling process is about to adopt orphans, or may be.
pub fn has_reaper() {
    HAS_REAPER.store(true, Release);
}

/// Tells whether a process that does not expect it would be told of a child that outlives
/// the program.
pub fn is_told_of_orphans() -> bool {
    HAS_REAPER.load(Acquire)
}

/// Tells whether the calling process is in the first PID namespace.
pub fn is_in_first_namespace() -> bool {
    rustix::fs::statat(CWD, c"/proc/self/ns/pid", AtFlags::empty())
        .is_ok_and(|stat| stat.st_ino == FIRST_NAMESPACE)
}

/// Tells whether an orphan would go to a process that expects strange children: `tmem run`,
/// if that adopts orphans (`takes`), the first process of the system, or the session's.
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
    // Before Linux 6 a seccomp filter that ended the process in between would end the
    // program.
    may && (!confined::is_filtered() || major_version() >= 6)
}

/// Returns the first number of the kernel's version.
fn major_version() -> u32 {
    let name = rustix::system::uname();
    let first = name.release().to_bytes().split(|b| *b == b'.').next();
    let number = first.and_then(|text| core::str::from_utf8(text).ok()?.parse().ok());
    number.unwrap_or(0)
}

/// Arguments of the process in between.
struct Between {
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
    /// The result of `clone`.
    result: AtomicI32,
}

unsafe extern "C" fn between(arg: *mut u8) -> ! {
    // SAFETY: `spawn` has passed this, and waits.
    let it = unsafe { &*arg.cast::<Between>() };
    if confined::is_filtered() {
        try_calls();
    }
    // SAFETY: the caller of `spawn` promises the same.
    let started = unsafe { thread::spawn_engine(it.stack, it.entry, it.arg) };
    let result = started.unwrap_or_else(|error| -error.raw_os_error());
    it.result.store(result, Release);
    thread::exit()
}

/// Makes the system calls that only an engine's process makes. If the program was started
/// under a seccomp filter that forbids them, the filter ends the process in between, and no
/// such engine is started.
fn try_calls() {
    const CALLS: [usize; 5] = [
        // kcmp, unshare, futex_waitv, pidfd_open, setpgid: with these arguments they are
        // refused, or do nothing.
        312, 272, 449, 434, 109,
    ];
    for number in CALLS {
        let nobody = match number {
            272 => 0,
            _ => usize::MAX,
        };
        // SAFETY: without such a process, or with nothing to do, they touch no memory.
        unsafe { syscall3(number, nobody, nobody, nobody) };
    }
}

/// Starts the engine's process on `stack`. It runs `entry(arg)` with a copy of the caller's
/// file table. All signals are blocked in it, as they must be in the caller.
///
/// # Errors
/// Those of the kernel.
///
/// # Safety
/// As for [`thread::spawn`]. The stack is larger than 64 KiB.
pub unsafe fn spawn(
    stack: Region,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<u32, Errno> {
    // The engine will use this part of the stack only long after the other process has
    // ended.
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
    // SAFETY: the caller's promise is the same. `it` lives until the process has ended.
    let started = unsafe { thread::run_between(lower, between, arg, unseen.signal()) };
    let pid = Pid::from_raw(started?).ok_or(Errno::SRCH)?;
    // Waits also for a child that ends without a signal (`__WALL`).
    const ALL: WaitOptions = WaitOptions::from_bits_retain(0x4000_0000);
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), ALL) {}
    drop(unseen);
    match it.result.load(Acquire) {
        error @ i32::MIN..0 => Err(Errno::from_raw_os_error(-error)),
        // The process was killed before it could start the engine.
        0 => Err(Errno::PERM),
        pid => {
            let_it_look(pid);
            Ok(pid as u32)
        }
    }
}

/// Lets the engine do what a debugger may do, if only named processes may (Yama's
/// `ptrace_scope`): the engine borrows the program's standard error.
fn let_it_look(pid: i32) {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    // SAFETY: prctl(PR_SET_PTRACER, pid), which fails if the kernel does not have it.
    unsafe { syscall3(157, PR_SET_PTRACER, pid as usize, 0) };
}

const SIGCHLD: usize = 17;

/// A guard: while it lives, children that end leave nothing behind, neither a status nor
/// their resource usage (`RUSAGE_CHILDREN`). Used only if there are no other children.
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

    /// Returns the signal that a child must send when it ends.
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

/// Tells whether the process has any child, including one that has ended.
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

/// Tells whether a signal is pending that would be discarded.
fn is_pending() -> bool {
    let mut pending = u64::MAX;
    // SAFETY: rt_sigpending(&pending, 8).
    unsafe { syscall3(127, (&raw mut pending).addr(), 8, 0) };
    pending >> (SIGCHLD - 1) & 1 != 0
}

/// Calls `rt_sigaction` for SIGCHLD.
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

/// Prepares the engine's process itself: it gets no signals that are sent to the program's
/// process group.
///
/// It does not get a session of its own: the kernel may divide the CPU between sessions
/// (autogroup), and the engine yields to threads of the program.
pub fn begin() -> Result<(), Errno> {
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::thread::set_name(c"tmem-engine");
    program::open()
}
