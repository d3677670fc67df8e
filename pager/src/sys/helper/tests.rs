use super::*;
use crate::sys::mem::Region;
use alloc::boxed::Box;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};
use rustix::fd::{AsRawFd, OwnedFd};

/// What the test and the process share.
struct Shared {
    /// The process goes on once this is not 0.
    go: AtomicU32,
    starter: Starter,
    /// What the process writes to when it has begun all the same.
    pipe: i32,
}

unsafe extern "C" fn begin_late(arg: *mut u8) -> ! {
    // SAFETY: what `start` gave.
    let shared = unsafe { &*arg.cast::<Shared>() };
    while shared.go.load(Acquire) == 0 {
        thread::sleep_unless(&shared.go, 0);
    }
    begin(shared.starter);
    // SAFETY: write(pipe, one byte).
    unsafe { crate::sys::mem::syscall3(1, shared.pipe as usize, arg.addr(), 1) };
    thread::exit()
}

/// A process that has not begun yet, and the end of the pipe that it may write to.
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
    // SAFETY: the entry never returns and uses no thread-local storage, what it is given
    // stays, and nobody else is on the stack.
    let helper = unsafe { Helper::spawn(stack, begin_late, arg) }.unwrap();
    thread::set_mask(mask);
    // The process shares this table of descriptors.
    std::mem::forget(to);
    (shared, helper, from)
}

/// Lets it go on; whether it has begun, or ended at once.
fn has_begun(shared: &Shared, helper: Helper, from: &OwnedFd) -> bool {
    shared.go.store(1, Release);
    thread::wake_sleeper(&shared.go);
    helper.join();
    // SAFETY: it was forgotten, for this.
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
    // A thread that ends and leaves its process, as an engine's does at an `execve`.
    let (shared, helper, from) = std::thread::spawn(start).join().unwrap();
    let Starter { process, thread } = shared.starter;
    // To be joined comes somewhat before that.
    while thread::is_there(process, thread) {
        thread::pause();
    }
    assert!(!has_begun(shared, helper, &from));
}
