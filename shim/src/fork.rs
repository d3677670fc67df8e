//! Forks: has the engine hold while the address space is copied, and starts an
//! engine in the child, see `tmem_pager::engine::fork`.
//!
//! `fork` of the C library calls the handlers registered here. `_Fork`, and
//! `clone` and `syscall` without shared memory, do not, so they are called
//! through here.
//! `vfork` and `posix_spawn` share the parent's memory until they execute
//! something, and need nothing.

use crate::errno;
use crate::next::{Function, NEXT, interpose, next, next_if_any};
use crate::{HEAP, start};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tmem_pager::engine::apart::Change;
use tmem_pager::engine::credentials;
use tmem_pager::engine::fork::{self as engine_fork, Found};
use tmem_pager::sys::thread;

static PREPARED: AtomicBool = AtomicBool::new(false);

/// Held by the thread that forks, from before the fork to after it.
static FORKS: Lock = Lock {
    taken: AtomicU32::new(0),
    mask: UnsafeCell::new(0),
};

struct Lock {
    taken: AtomicU32,
    /// The signals that the holder had blocked.
    mask: UnsafeCell<u64>,
}

// SAFETY: `mask` is used by the holder only.
unsafe impl Sync for Lock {}

impl Lock {
    fn take(&self, mask: u64) {
        while self.taken.swap(1, Ordering::Acquire) != 0 {
            thread::sleep_unless(&self.taken, 1);
        }
        // SAFETY: the lock is held.
        unsafe { *self.mask.get() = mask };
    }

    /// What was given to `take`.
    fn give_back(&self) -> u64 {
        // SAFETY: the lock is held.
        let mask = unsafe { *self.mask.get() };
        self.taken.store(0, Ordering::Release);
        thread::wake_sleeper(&self.taken);
        mask
    }
}

/// Sees to it that children are looked after.
pub(crate) fn prepare() {
    if !PREPARED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handlers are of this library, which is never unloaded. It
        // fails only when memory is out, and then forks go on as they would.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    }
}

unsafe extern "C" fn before() {
    prepare_fork(false);
}

/// What has to be done before a fork; whether the child has the same file table.
fn prepare_fork(shares_files: bool) {
    // A handler that forked would wait for itself.
    let mask = thread::block_signals();
    FORKS.take(mask);
    engine_fork::prepare(shares_files);
    touch_streams();
}

unsafe extern "C" fn in_parent() {
    engine_fork::parent();
    thread::set_mask(FORKS.give_back());
}

unsafe extern "C" fn in_child() {
    let (found, end) = engine_fork::child();
    // SAFETY: this is the only thread of a child that was just forked.
    unsafe { HEAP.begin_anew() };
    crate::leave::begin_anew();
    if PREPARED.load(Ordering::Acquire) {
        match found {
            Found::Will(will) => start::start_child(Some(will), end),
            Found::Something => cannot_go_on("a fork that was not prepared"),
            Found::Everything => start::start_child(None, end),
        }
    }
    engine_fork::taken_over(end);
    thread::set_mask(FORKS.give_back());
}

/// Ends a child that would read wrong data.
pub(crate) fn cannot_go_on(reason: &str) -> ! {
    start::say(&format!(
        "{reason}; the child of a program with memory on servers cannot go on and is ended"
    ));
    thread::kill_process();
}

/// Reads from every stream of the C library's, and from its lock: `fork` resets
/// them in the child before that can be paged.
fn touch_streams() {
    /// Where `_chain` and `_lock` are in glibc's `struct _IO_FILE`, which is
    /// part of its binary interface.
    const CHAIN: usize = 0x68;
    const LOCK: usize = 0x88;
    // SAFETY: of the C library, which has these since its version 2.2.5; where
    // it has not, nothing is done.
    unsafe {
        let found = [
            Function::IoListAll,
            Function::IoListLock,
            Function::IoListUnlock,
        ];
        let [Some(all), Some(lock), Some(unlock)] = found.map(next_if_any) else {
            return;
        };
        let call = |f: usize| std::mem::transmute::<usize, unsafe extern "C" fn()>(f)();
        call(lock);
        let mut stream = *(all as *const usize);
        while stream != 0 {
            let lock = ((stream + LOCK) as *const usize).read_volatile();
            if lock != 0 {
                (lock as *const u8).read_volatile();
            }
            stream = ((stream + CHAIN) as *const usize).read_volatile();
        }
        call(unlock);
    }
}

interpose! {
    /// `_Fork` as the C library has it, with what a fork needs.
    _Fork => Fork, own_fork;
    /// `clone`, with what a fork needs where memory is not shared.
    clone => Clone, own_clone;
    /// `syscall`, with what calls need that this library has to do with.
    syscall => Syscall, syscall_if_ours;
}

/// # Safety
/// As for the C library's `_Fork`.
unsafe extern "C" fn own_fork() -> c_int {
    let real = next(Function::Fork);
    let paged = PREPARED.load(Ordering::Acquire);
    // SAFETY: the C library's function of that name; the handlers are called
    // as they are meant to be.
    unsafe {
        if paged {
            before();
        }
        let pid = std::mem::transmute::<usize, unsafe extern "C" fn() -> c_int>(real)();
        let errno = errno::get();
        match pid {
            _ if !paged => {}
            0 => in_child(),
            _ => in_parent(),
        }
        errno::set(errno);
        pid
    }
}

/// What a cloned child runs.
struct Start {
    entry: extern "C" fn(*mut c_void) -> c_int,
    arg: *mut c_void,
}

extern "C" fn begin(start: *mut c_void) -> c_int {
    // SAFETY: what `clone` gave, in the child's copy of the parent's stack.
    let Start { entry, arg } = unsafe { start.cast::<Start>().read() };
    // SAFETY: a child that was just forked.
    unsafe { in_child() };
    entry(arg)
}

/// # Safety
/// As for the C library's `clone`.
unsafe extern "C" fn own_clone(
    entry: Option<extern "C" fn(*mut c_void) -> c_int>,
    stack: *mut c_void,
    flags: c_int,
    arg: *mut c_void,
    parent_tid: *mut c_void,
    tls: *mut c_void,
    child_tid: *mut c_void,
) -> c_int {
    type Real = unsafe extern "C" fn(
        Option<extern "C" fn(*mut c_void) -> c_int>,
        *mut c_void,
        c_int,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
    ) -> c_int;
    // SAFETY: the C library's function of that name, with what it takes.
    let real = unsafe { std::mem::transmute::<usize, Real>(next(Function::Clone)) };
    let copied = flags & libc::CLONE_VM == 0 && PREPARED.load(Ordering::Acquire);
    let (true, Some(wanted)) = (copied, entry) else {
        // SAFETY: by the caller.
        return unsafe { real(entry, stack, flags, arg, parent_tid, tls, child_tid) };
    };
    let mut start = Start { entry: wanted, arg };
    let arg = (&raw mut start).cast();
    prepare_fork(flags & libc::CLONE_FILES != 0);
    // SAFETY: by the caller; `start` is there, in a copy, when the child begins.
    unsafe {
        let pid = real(Some(begin), stack, flags, arg, parent_tid, tls, child_tid);
        let errno = errno::get();
        in_parent();
        errno::set(errno);
        pid
    }
}

/// Goes on with [`own_syscall`] where the call is one that this library has to do with, and
/// else jumps to the next function: a child that the call makes may come back on a stack of
/// its own, or on the caller's.
#[unsafe(naked)]
unsafe extern "C" fn syscall_if_ours() {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 8",
        "call {is_ours}",
        "add rsp, 8",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jnz {own}",
        "jmp qword ptr [rip + {next} + {at}]",
        is_ours = sym is_ours,
        own = sym own_syscall,
        next = sym NEXT,
        at = const Function::Syscall as usize * size_of::<usize>(),
    )
}

/// Whether a system call is one that this library has to do with.
///
/// # Safety
/// The arguments are that call's.
unsafe extern "C" fn is_ours(number: c_long, a: usize, b: usize) -> bool {
    match number {
        libc::SYS_prctl => a as c_int == libc::PR_SET_SECCOMP,
        libc::SYS_fork | libc::SYS_clone | libc::SYS_clone3 => {
            // SAFETY: by the caller.
            unsafe { forks(number, a, b).0 }
        }
        libc::SYS_seccomp
        | libc::SYS_mincore
        | libc::SYS_munmap
        | libc::SYS_mremap
        | libc::SYS_mmap
        | libc::SYS_madvise
        | libc::SYS_mlockall
        | libc::SYS_ioctl
        | libc::SYS_vmsplice
        | libc::SYS_setsockopt
        | libc::SYS_io_uring_setup
        | libc::SYS_io_uring_register => true,
        number => crate::credentials::may_give_up(number),
    }
}

/// Whether a system call copies the address space and has the child come back here, and the
/// flags of `clone` that it is made with.
///
/// # Safety
/// The arguments are that call's.
unsafe fn forks(number: c_long, a: usize, b: usize) -> (bool, u64) {
    match number {
        libc::SYS_fork => (true, 0),
        // With a stack of its own the child does not come back here.
        libc::SYS_clone => (a & libc::CLONE_VM as usize == 0 && b == 0, a as u64),
        libc::SYS_clone3 if b >= 48 => {
            // SAFETY: by the caller: a `struct clone_args` of `b` bytes.
            let arg = |at: usize| unsafe { ((a as *const u64).wrapping_add(at)).read() };
            (arg(0) & libc::CLONE_VM as u64 == 0 && arg(5) == 0, arg(0))
        }
        _ => (false, 0),
    }
}

/// `syscall`, with what a fork needs where it is one, and kept apart from zaps
/// where it unmaps or empties memory. Filters and `mincore` see `filter`, `look`.
///
/// # Safety
/// As for the C library's `syscall`.
unsafe extern "C" fn own_syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let b = match number {
        libc::SYS_seccomp => crate::filter::for_whom(a, b),
        libc::SYS_prctl if a as c_int == libc::PR_SET_SECCOMP => {
            thread::confine();
            b
        }
        _ => b,
    };
    crate::lend::before(number, b, c);
    if number == libc::SYS_mincore {
        // SAFETY: by the caller.
        return unsafe { crate::look::own_mincore(a as *mut c_void, b, c as *mut u8).into() };
    }
    if crate::credentials::may_give_up(number) {
        credentials::given_up();
    }
    // SAFETY: by the caller.
    let (forks, flags) = unsafe { forks(number, a, b) };
    let shares_files = flags & libc::CLONE_FILES as u64 != 0;
    let forks = forks && PREPARED.load(Ordering::Acquire);
    let changes = match number {
        libc::SYS_munmap | libc::SYS_mremap => true,
        libc::SYS_mmap => crate::unmap::maps_over(d as c_int),
        libc::SYS_madvise => crate::unmap::empties(c as c_int),
        _ => false,
    };
    let _change = changes.then(Change::begin);
    // SAFETY: by the caller; the handlers are called as they are meant to be.
    let result = unsafe {
        if forks {
            prepare_fork(shares_files);
        }
        let call = || raw_syscall(number, [a, b, c, d, e, f]);
        let result = match number {
            libc::SYS_ioctl => crate::own::ceding(b, c, call),
            libc::SYS_mlockall => crate::lock::lock_all(a as c_int),
            libc::SYS_io_uring_register => crate::rings::registering(b, c, d, call),
            _ => call(),
        };
        if number == libc::SYS_madvise && result == 0 {
            crate::unmap::advised(a, b, c as c_int);
        }
        match result {
            _ if !forks => {}
            0 => in_child(),
            _ => in_parent(),
        }
        result
    };
    if (-4095..0).contains(&result) {
        errno::set(-result as c_int);
        return -1;
    }
    result as c_long
}

/// A system call without the C library.
///
/// # Safety
/// That of the call.
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
