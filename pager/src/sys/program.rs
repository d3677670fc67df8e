//! The program's process, as the engine's tasks see it.
//!
//! The engine is a process of its own that shares the program's memory, or a thread of the
//! program's process where such a process cannot be. Whatever is about the program's process
//! goes by what is noted here, never by the calling task's own number.
//!
//! Other processes may share the memory as well (`vfork`, `clone` with `CLONE_VM`), and live
//! longer than the program. The kernel has no list of them: each process that `/proc` shows
//! is asked for (`kcmp(2)`, or where that is refused by the size of its address space).

use super::fd::Fd;
use super::mem::{Region, syscall3};
use super::proc::{open_of_process, tasks_of};
use super::roots::open_in_proc;
use super::thread;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use rustix::fs::RawDir;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use tmem_wire::PAGE_SIZE;

/// The program's process; 0 before it is known.
static ID: AtomicU32 = AtomicU32::new(0);
/// Whether the engine is a process of its own.
static APART: AtomicBool = AtomicBool::new(false);
/// The engine's process while it lives: the kernel writes 0 there when it ends.
static ENGINE: AtomicU32 = AtomicU32::new(0);
/// All processes of the engine's that share the memory, [`ENGINE`]'s first; 0 for none.
static TASKS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
/// Which of them goes last when they have ended the program; 0 for none yet.
static LAST: AtomicU32 = AtomicU32::new(0);
/// The program's process in the file tables of those, or -1.
static PIDFD: AtomicI32 = AtomicI32::new(-1);

/// Where the kernel notes the end of the program's first thread, or that it executes another
/// program (`set_tid_address(2)`); 0 where that is not known.
static END: AtomicUsize = AtomicUsize::new(0);

/// Notes that the calling process is the program's, whose engine is about to start. Called by
/// its first thread.
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

/// In a process that was just forked: it has no engine yet.
pub fn reset_after_fork() {
    ID.store(0, Relaxed);
    END.store(0, Relaxed);
    APART.store(false, Relaxed);
    ENGINE.store(0, Relaxed);
    TASKS.iter().for_each(|task| task.store(0, Relaxed));
    LAST.store(0, Relaxed);
    PIDFD.store(-1, Relaxed);
}

/// The number of the program's process, and of its first thread.
pub fn id() -> u32 {
    match ID.load(Relaxed) {
        0 => own_id(),
        id => id,
    }
}

/// Whether the engine is a process of its own.
pub fn is_apart() -> bool {
    APART.load(Acquire)
}

/// Where the kernel notes the engine's process and its end.
pub(super) fn engine_word() -> &'static AtomicU32 {
    &ENGINE
}

/// Whether the engine's process, which was started, has ended.
pub fn has_lost_its_engine() -> bool {
    is_apart() && ENGINE.load(Acquire) == 0
}

/// Called now and then by a task that waits for a lock of the engine's tasks, after so many
/// turns: ends the program where the task that holds it was killed.
pub fn end_if_holder_is_dead(turns: u64) {
    // Nobody holds one for as long, not even on a busy machine.
    const MANY: u64 = 1 << 24;
    if is_task() && (has_lost_its_engine() || turns >= MANY) {
        end_all();
    }
}

fn own_id() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Whether the calling task belongs to a process of the engine's own.
pub(super) fn is_task() -> bool {
    let own = own_id();
    is_apart() && TASKS.iter().any(|task| task.load(Relaxed) == own)
}

/// Has process `pid` count as the engine's `at`th.
pub fn note_task(at: usize, pid: u32) {
    if let Some(task) = TASKS.get(at) {
        task.store(pid, Release);
    }
}

/// Called by the engine's process before all else: keeps a descriptor of the program's.
///
/// # Errors
/// The kernel's; `SRCH` where the program has ended.
pub fn open() -> Result<(), Errno> {
    note_task(0, own_id());
    let fd = pidfd(id())?;
    PIDFD.store(fd.raw(), Release);
    // It stays for as long as the engine does.
    core::mem::forget(fd);
    Ok(())
}

/// A descriptor of a process, in the calling task's file table.
///
/// # Errors
/// The kernel's.
pub fn pidfd(id: u32) -> Result<Fd, Errno> {
    let pid = Pid::from_raw(id as i32).ok_or(Errno::SRCH)?;
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Fd::from(fd).moved_up())
}

/// The descriptor of the program's process in the engine's processes, readable once that
/// has ended.
pub fn raw() -> Option<i32> {
    let raw = PIDFD.load(Acquire);
    (raw >= 0).then_some(raw)
}

fn fd<'a>() -> Option<BorrowedFd<'a>> {
    // SAFETY: it is never closed.
    raw().map(|raw| unsafe { BorrowedFd::borrow_raw(raw) })
}

/// Whether the program's process has ended, all of its threads.
pub fn has_ended() -> bool {
    fd().is_some_and(|fd| is_readable(fd, Some(0)))
}

/// Waits until the process that `fd` stands for has ended, for so many milliseconds or for
/// ever; whether it has.
pub fn is_readable(fd: BorrowedFd<'_>, ms: Option<u32>) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let time = ms.map(|ms| Timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    });
    matches!(rustix::event::poll(&mut poll, time.as_ref()), Ok(1))
}

/// One word to wait for (`struct futex_waitv`).
#[repr(C)]
struct Awaited {
    value: u64,
    word: u64,
    flags: u32,
    reserved: u32,
}

/// Sleeps as [`thread::sleep_some`] does, in the engine; whether the program is there still.
pub fn sleep(word: &AtomicU32, value: u32, us: u64) -> bool {
    const FUTEX_WAITV: usize = 449;
    const U32: u32 = 2;
    const PRIVATE: u32 = 128;
    let end = END.load(Relaxed);
    if !is_apart() || end == 0 {
        thread::sleep_some(word, value, us);
        return !has_ended();
    }
    let awaited = |value: u32, word: usize, flags| Awaited {
        value: value.into(),
        word: word as u64,
        flags: U32 | flags,
        reserved: 0,
    };
    let two = [
        awaited(value, core::ptr::from_ref(word).addr(), PRIVATE),
        awaited(id(), end, 0),
    ];
    let until = super::now_ns() + us * 1000;
    let until = [until / 1_000_000_000, until % 1_000_000_000];
    let result: isize;
    // SAFETY: futex_waitv(&two, 2, 0, &until, CLOCK_MONOTONIC), which reads what it is given.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") FUTEX_WAITV => result,
            in("rdi") two.as_ptr(), in("rsi") two.len(), in("rdx") 0usize,
            in("r10") until.as_ptr(), in("r8") 1usize,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    let over = -(Errno::TIMEDOUT.raw_os_error() as isize);
    if result == 0 || result == over || word.load(Acquire) != value {
        return true;
    }
    // Its first thread alone has ended, or the kernel does not know the call (before 5.16):
    // the program is looked at now and then.
    END.store(0, Relaxed);
    !has_left()
}

/// Whether the program's process does without the memory: it has ended, or executes another
/// program. False where that is not known.
pub fn has_left() -> bool {
    has_ended() || uses_memory() == Some(false)
}

/// Whether the program's process is there, and nothing says what memory it uses.
pub fn is_unknown() -> bool {
    !has_ended() && uses_memory().is_none()
}

/// Whether a thread of the program's process uses the calling task's memory.
fn uses_memory() -> Option<bool> {
    any_shares(id())
}

/// Whether a thread of process `pid` uses the calling task's memory; none where that is not
/// known.
fn any_shares(pid: u32) -> Option<bool> {
    let mut found = shares(pid);
    // Its first thread may have ended before the others, and uses no memory then.
    if found == Some(false) && size_pages(pid) == Some(0) {
        tasks_of(pid, |tid| match (shares(tid), found) {
            (Some(false), _) | (_, Some(true)) => {}
            (other, _) => found = other,
        });
    }
    found
}

/// Whether task `tid` uses the calling task's memory; none where that is not known.
fn shares(tid: u32) -> Option<bool> {
    const KCMP: usize = 312;
    const KCMP_VM: usize = 1;
    let own = thread::id() as usize;
    // SAFETY: kcmp(own, tid, KCMP_VM) touches no memory.
    match unsafe { syscall3(KCMP, own, tid as usize, KCMP_VM) } {
        0 => Some(true),
        result if result > 0 => Some(false),
        result if result == -(Errno::SRCH.raw_os_error() as isize) => Some(false),
        _ => grows_alike(tid),
    }
}

/// The same where the kernel does not say: the address space of `tid` is as large as the
/// calling task's, and grows with it.
fn grows_alike(tid: u32) -> Option<bool> {
    const GROWTH: [usize; 2] = [3, 5];
    let alike = || {
        // Another thread may change it between the two looks.
        for _ in 0..4 {
            let own = size_pages(thread::id())?;
            if size_pages(tid)? == own {
                return Some(own > 0);
            }
        }
        Some(false)
    };
    for pages in GROWTH {
        if !alike()? {
            return Some(false);
        }
        let region = Region::anywhere(pages * PAGE_SIZE).ok()?;
        let grown = alike();
        region.unmap();
        if !grown? {
            return Some(false);
        }
    }
    Some(true)
}

/// Pages of address space of a task.
fn size_pages(tid: u32) -> Option<u64> {
    let file = open_of_process(tid, "statm")?;
    let mut text = [0; 32];
    let len = rustix::io::read(&file, &mut text[..]).ok()?;
    let first = text[..len].split(|b| *b == b' ').next()?;
    core::str::from_utf8(first).ok()?.parse().ok()
}

/// Calls `found` with each process that uses the calling task's memory and is not one of
/// the engine's; how many there were.
pub fn each_sharer(mut found: impl FnMut(u32)) -> usize {
    let mut count = 0;
    each_number(c".", |pid| {
        let is_own = TASKS.iter().any(|task| task.load(Acquire) == pid);
        if !is_own && any_shares(pid) == Some(true) {
            count += 1;
            found(pid);
        }
    });
    count
}

/// Calls `found` with each number that is a name in a folder below `/proc`.
pub(super) fn each_number(folder: &core::ffi::CStr, mut found: impl FnMut(u32)) {
    let Ok(folder) = open_in_proc(folder) else {
        return;
    };
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&folder, &mut space);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_str();
        if let Some(number) = name.ok().and_then(|name| name.parse().ok()) {
            found(number);
        }
    }
}

/// Whether no other task uses the calling one's memory, whatever `/proc` shows: the kernel
/// lets a task stop sharing memory only where it does not.
pub fn is_alone() -> bool {
    const UNSHARE: usize = 272;
    const CLONE_VM: usize = 0x100;
    // SAFETY: unshare(CLONE_VM) does nothing where it succeeds.
    unsafe { syscall3(UNSHARE, CLONE_VM, 0, 0) == 0 }
}

/// Ends the program and all processes that share its memory by SIGKILL, and then the calling
/// task: it keeps the userfaultfd open until nobody is left who could read zeros. Takes
/// nothing from the heap, whose lock may have been held by a task that was killed.
pub(super) fn end_all() -> ! {
    const NAP_US: u64 = 500;
    // One that is begun while the list is read shows in the next.
    const LOOKS: u32 = 2;
    let mut looks = 0;
    while looks < LOOKS {
        let left = has_left();
        if let Some(fd) = fd().filter(|_| !left) {
            // One that may not be ended waits for its memory for ever.
            let _ = rustix::process::pidfd_send_signal(fd, Signal::KILL);
        }
        let sharers = each_sharer(kill);
        if left && sharers == 0 {
            looks += 1;
        } else {
            looks = 0;
            thread::sleep_us(NAP_US);
        }
    }
    // One of the engine's tasks goes last, when the kernel says that nobody else uses the
    // memory, whatever `/proc` shows.
    let own = own_id();
    while is_last(own) && !is_alone() {
        for task in TASKS.iter().map(|task| task.load(Acquire)) {
            if task != own && shares(task) == Some(true) {
                kill(task);
            }
        }
        thread::sleep_us(NAP_US);
    }
    thread::exit()
}

/// Whether process `own` of the engine's is the one that goes last: the first that asks, and
/// another where that was killed.
fn is_last(own: u32) -> bool {
    let last = LAST.load(Acquire);
    if last != own && (last == 0 || shares(last) != Some(true)) {
        let _ = LAST.compare_exchange(last, own, AcqRel, Relaxed);
    }
    LAST.load(Acquire) == own
}

/// Ends a process, if there is one and it may be ended.
fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_with_the_same_memory_is_told_from_others_in_both_ways() {
        let own = thread::id();
        std::thread::spawn(move || {
            // A thread of the process, as another with its memory would be.
            assert_eq!((shares(own), grows_alike(own)), (Some(true), Some(true)));
        })
        .join()
        .unwrap();
        // The first process of the system; and none.
        assert_eq!((shares(1), grows_alike(1)), (Some(false), Some(false)));
        assert_eq!(shares(u32::MAX >> 1), Some(false));
        assert_eq!(grows_alike(u32::MAX >> 1), None);
        assert_eq!(uses_memory(), Some(true));
    }

    #[test]
    fn memory_is_not_used_by_one_task_alone_while_there_is_another() {
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || ends.recv());
        assert!(!is_alone());
        drop(end);
        assert!(thread.join().unwrap().is_err());
    }
}
