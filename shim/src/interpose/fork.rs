//! Forks: the engine quiesces while the address space is copied, and the child gets an engine.
//! See `tmem_pager::engine::fork`.
//!
//! `fork` of the C library calls the handlers registered here. `_Fork`, and
//! `clone` and `syscall` without shared memory, do not: `_Fork` and `clone` are called
//! through here, and `syscall` uses what is here.
//! `vfork` and `posix_spawn` share the parent's memory until another program is executed, and
//! need nothing.

use super::interpose;
use super::next::{Function, next, next_if_any};
use crate::errno;
use crate::{HEAP, start};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tmem_pager::engine::fork::{self as engine_fork, Found};
use tmem_pager::sys::{kill, thread};

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

/// Whether the handlers are registered.
pub(super) fn is_prepared() -> bool {
    PREPARED.load(Ordering::Acquire)
}

/// Registers the handlers, so that children are paged.
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
pub(super) fn prepare_fork(shares_files: bool) {
    // A signal handler that forked now would wait for itself.
    let mask = thread::block_signals();
    FORKS.take(mask);
    engine_fork::prepare(shares_files);
    touch_streams();
}

pub(super) unsafe extern "C" fn in_parent() {
    engine_fork::parent();
    thread::set_mask(FORKS.give_back());
}

pub(super) unsafe extern "C" fn in_child() {
    let (found, end) = engine_fork::child();
    // SAFETY: this is the only thread of a child that was just forked.
    unsafe { HEAP.reset_after_fork() };
    super::leave::reset_after_fork();
    if is_prepared() {
        match found {
            Found::Manifest(will) => start::start_child(Some(will), end),
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
    kill::kill_process();
}

/// Touches every stream of the C library and its lock: `fork` resets them in the child before
/// the child is paged.
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
}

/// # Safety
/// As for the C library's `_Fork`.
unsafe extern "C" fn own_fork() -> c_int {
    let real = next(Function::Fork);
    let paged = is_prepared();
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
    let copied = flags & libc::CLONE_VM == 0 && is_prepared();
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
