use super::*;
use crate::sys::mem::Region;
use alloc::boxed::Box;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};
use rustix::fd::{AsRawFd, OwnedFd};

/// Memory that the test and the process share.
struct Shared {
    /// The process goes on once this is not 0.
    go: AtomicU32,
    starter: Starter,
    /// The pipe that the process writes to if it does begin.
    pipe: i32,
}

unsafe extern "C" fn begin_late(arg: *mut u8) -> ! {
    // SAFETY: `start` has passed this, and it lives for ever.
    let shared = unsafe { &*arg.cast::<Shared>() };
    while shared.go.load(Acquire) == 0 {
        thread::sleep_unless(&shared.go, 0);
    }
    begin(shared.starter);
    // SAFETY: write(pipe, one byte).
    unsafe { crate::sys::syscall::syscall3(1, shared.pipe as usize, arg.addr(), 1) };
    thread::exit()
}

/// Returns a process that has not begun yet, and the reading end of its pipe.
fn start() -> (&'static Shared, Helper, OwnedFd) {
    let (from, to) = rustix::pipe::pipe().unwrap();
    let shared = Box::leak(Box::new(Shared {
        go: AtomicU32::new(0),
        starter: Starter::this(),
        pipe: to.as_raw_fd(),
    }));
    let arg = core::ptr::from_ref(shared).cast_mut().cast();
    let stack = Region::stack(64 << 10).unwrap();
    let mask = thread::block_signals();
    // SAFETY: the entry never returns and uses no thread-local storage, its argument lives
    // for ever, and nobody else uses the stack.
    let helper = unsafe { Helper::spawn(stack, begin_late, arg) }.unwrap();
    thread::set_mask(mask);
    // The process shares this file table.
    std::mem::forget(to);
    (shared, helper, from)
}

/// Lets the process go on. Returns whether it has begun; otherwise it has ended at once.
fn has_begun(shared: &Shared, helper: Helper, from: &OwnedFd) -> bool {
    shared.go.store(1, Release);
    thread::wake_sleeper(&shared.go);
    helper.join();
    // SAFETY: it was forgotten, for this moment.
    drop(unsafe { <OwnedFd as rustix::fd::FromRawFd>::from_raw_fd(shared.pipe) });
    rustix::io::read(from, &mut [0u8; 2]).unwrap() == 1
}

#[test]
fn one_whose_starter_is_there_begins() {
    let (shared, helper, from) = start();
    assert!(has_begun(shared, helper, &from));
}

#[test]
fn one_that_begins_after_its_starter_has_ended_ends_as_well() {
    // A thread that ends while its process goes on, as an engine's thread does at an
    // `execve`.
    let (shared, helper, from) = std::thread::spawn(start).join().unwrap();
    let Starter { process, thread } = shared.starter;
    // A thread can be joined shortly before it has ended.
    while thread::is_there(process, thread) {
        thread::pause();
    }
    assert!(!has_begun(shared, helper, &from));
}
