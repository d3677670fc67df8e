//! The program's process, as the engine's tasks see it.
//!
//! The engine is a process of its own that shares the program's memory, or a thread of the
//! program's process if that is not possible. Everything that concerns the program's
//! process uses the numbers noted here, never the calling task's own.

use super::fd::Fd;
use super::syscall::syscall3;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

/// The program's process, or 0 before it is known.
static ID: AtomicU32 = AtomicU32::new(0);
/// Tells whether the engine is a process of its own.
static APART: AtomicBool = AtomicBool::new(false);
/// The engine's process while it lives. The kernel writes 0 there when it ends.
static ENGINE: AtomicU32 = AtomicU32::new(0);
/// The engine's processes that share the memory, that of [`ENGINE`] first; 0 for none.
static TASKS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
/// The one that ends last after they have ended the program; 0 for none yet.
pub(super) static LAST: AtomicU32 = AtomicU32::new(0);
/// The file descriptor of the program's process in their file tables, or -1.
static PIDFD: AtomicI32 = AtomicI32::new(-1);

/// The word where the kernel notes that the program's first thread has ended, or executes
/// another program (`set_tid_address(2)`); 0 if unknown.
static END: AtomicUsize = AtomicUsize::new(0);

/// Notes that the calling process is the program's, and that its engine is about to start.
/// Called by its first thread.
pub fn begin(apart: bool) {
    const PR_GET_TID_ADDRESS: usize = 40;
    let mut end = 0usize;
    if apart {
        // SAFETY: prctl(PR_GET_TID_ADDRESS, &end), which some kernels refuse.
        unsafe { syscall3(157, PR_GET_TID_ADDRESS, (&raw mut end).addr(), 0) };
    }
    END.store(end, Relaxed);
    ENGINE.store(0, Relaxed);
    ID.store(own_id(), Relaxed);
    APART.store(apart, Release);
}

/// Resets everything in a process that was just forked, which has no engine yet.
pub fn reset_after_fork() {
    ID.store(0, Relaxed);
    END.store(0, Relaxed);
    APART.store(false, Relaxed);
    ENGINE.store(0, Relaxed);
    TASKS.iter().for_each(|task| task.store(0, Relaxed));
    LAST.store(0, Relaxed);
    PIDFD.store(-1, Relaxed);
}

/// Returns the number of the program's process, and of its first thread.
pub fn id() -> u32 {
    match ID.load(Relaxed) {
        0 => own_id(),
        id => id,
    }
}

/// Tells whether the engine is a process of its own.
pub fn is_apart() -> bool {
    APART.load(Acquire)
}

/// Returns the word where the kernel notes the engine's process and its end.
pub(super) fn engine_word() -> &'static AtomicU32 {
    &ENGINE
}

/// Tells whether the engine's process was started and has ended.
pub fn has_lost_its_engine() -> bool {
    is_apart() && ENGINE.load(Acquire) == 0
}

/// Returns the number of the calling task's process.
pub(super) fn own_id() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Tells whether the calling task belongs to one of the engine's own processes.
pub(super) fn is_task() -> bool {
    let own = own_id();
    is_apart() && tasks().any(|task| task == own)
}

/// Returns the engine's processes. Some numbers may be 0.
pub(super) fn tasks() -> impl Iterator<Item = u32> {
    TASKS.iter().map(|task| task.load(Acquire))
}

/// Returns the address of the word where the kernel notes that the program's first thread
/// has ended, if it is known.
pub(super) fn end_word() -> Option<usize> {
    Some(END.load(Relaxed)).filter(|end| *end != 0)
}

/// Forgets that word.
pub(super) fn forget_end_word() {
    END.store(0, Relaxed);
}

/// Notes process `pid` as the engine's process number `at`.
pub fn note_task(at: usize, pid: u32) {
    if let Some(task) = TASKS.get(at) {
        task.store(pid, Release);
    }
}

/// Opens a file descriptor of the program's process, and keeps it. Called first of all by
/// the engine's process.
///
/// # Errors
/// Those of the kernel. `SRCH` if the program has ended.
pub fn open() -> Result<(), Errno> {
    note_task(0, own_id());
    let fd = pidfd(id())?;
    PIDFD.store(fd.raw(), Release);
    // It stays open as long as the engine lives.
    core::mem::forget(fd);
    Ok(())
}

/// Opens a file descriptor of a process, in the calling task's file table.
///
/// # Errors
/// Those of the kernel.
pub fn pidfd(id: u32) -> Result<Fd, Errno> {
    let pid = Pid::from_raw(id as i32).ok_or(Errno::SRCH)?;
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Fd::from(fd).moved_up())
}

/// Returns the file descriptor of the program's process, in the engine's processes. It
/// becomes readable when that process has ended.
pub fn raw() -> Option<i32> {
    let raw = PIDFD.load(Acquire);
    (raw >= 0).then_some(raw)
}

/// Returns the file descriptor of the program's process.
pub(super) fn fd<'a>() -> Option<BorrowedFd<'a>> {
    // SAFETY: it is never closed.
    raw().map(|raw| unsafe { BorrowedFd::borrow_raw(raw) })
}

/// Tells whether the program's process has ended with all of its threads.
pub fn has_ended() -> bool {
    fd().is_some_and(|fd| is_readable(fd, Some(0)))
}

/// Waits for up to `ms` milliseconds, or for ever, until the process of `fd` has ended.
/// Returns whether it has.
pub fn is_readable(fd: BorrowedFd<'_>, ms: Option<u32>) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let time = ms.map(|ms| Timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    });
    matches!(rustix::event::poll(&mut poll, time.as_ref()), Ok(1))
}
