//! Sees to it that a defect of the engine does not hang the program.
//!
//! Were the engine to touch memory that it has evicted, it would wait for
//! itself, and every thread that faults with it. A second thread looks once a
//! second whether the engine had a turn; if not, it asks the kernel what the
//! engine waits for. A fault of its own is counted and ends the program with a
//! message.
//!
//! Nor is the program to go on for ever because of tmem: the kernel keeps a
//! process for as long as any thread is there, also the engine's. Where all the
//! program's own have ended one by one, the process is ended as its first thread
//! was. (That of a later one, which would count where there are several, is not
//! to be had.) Where `tmem run` was killed, the processes under it end as well.

use crate::engine::kernel::Kernel;
use crate::engine::threads::THREADS;
use crate::stats::{Shared, Slot as Figures};
use crate::sys::mem::Region;
use crate::sys::proc::Waits;
use crate::sys::roots::Root;
use crate::sys::{say, thread};
use alloc::boxed::Box;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use rustix::fd::AsRawFd;
use rustix::io::Errno;

/// Between two looks, in microseconds.
const LOOK_US: u64 = 1_000_000;

/// Has the guard be what the program is.
pub(crate) fn follow() {
    let number = THREADS.watchdog.called.fetch_add(1, AcqRel).wrapping_add(1);
    thread::wake_sleeper(&THREADS.watchdog.called);
    // It does nothing else that takes time.
    for turn in 0.. {
        if THREADS.watchdog.came.load(Acquire) == number {
            return;
        }
        thread::await_turn(turn);
    }
}

/// The engine has a turn.
pub(crate) fn turn() {
    THREADS.watchdog.turns.store(
        THREADS.watchdog.turns.load(Relaxed).wrapping_add(1),
        Relaxed,
    );
}

/// Ends a process of whose own threads none is left, as the last of them has ended.
pub(crate) fn follow_the_last(left_with: Option<i32>) {
    match left_with {
        None => {}
        Some(status) if status & 0x7f == 0 => thread::exit_process(status >> 8 & 0xff),
        Some(status) => thread::end_by_signal(status & 0x7f),
    }
}

/// Ends a process whose `tmem run` was killed. With an embedded server its pages are gone,
/// and whoever killed the one has meant the other.
pub(crate) fn follow_the_keeper(shared: Option<&Shared>) {
    let Some(shared) = shared.filter(|s| s.keeper.was_killed()) else {
        return;
    };
    const TEXT: &str = "`tmem run` was killed; the programs under it end with it";
    if shared.told.is_news(TEXT) {
        say::line(TEXT);
    }
    thread::kill_process()
}

struct Guard {
    engine: u32,
    figures: &'static Figures,
    shared: Option<&'static Shared>,
}

/// Starts the guard of the calling thread; its stack.
///
/// # Errors
/// The kernel's.
pub(crate) fn start(
    kernel: &dyn Kernel,
    figures: &'static Figures,
    shared: Option<&'static Shared>,
) -> Result<Region, Errno> {
    let guard = Box::leak(Box::new(Guard {
        engine: crate::sys::thread::id(),
        figures,
        shared,
    }));
    let stack = Region::stack(64 << 10)?;
    // SAFETY: the entry never returns and uses no thread-local storage; its
    // argument lives for ever, and the stack is its own. The calling thread has
    // blocked all signals.
    let spawned = unsafe { kernel.spawn(stack, watch, core::ptr::from_mut(guard).cast()) };
    spawned.inspect_err(|_| stack.unmap())?;
    Ok(stack)
}

unsafe extern "C" fn watch(arg: *mut u8) -> ! {
    // SAFETY: what `start` gave.
    let guard = unsafe { &*arg.cast::<Guard>() };
    // The engine's, of which this is a copy, has `/proc` to look into.
    let proc = Root::Proc.get().map(|fd| fd.as_raw_fd());
    thread::close_all_but([proc.unwrap_or(-1)]);
    let mut seen = THREADS.watchdog.turns.load(Relaxed);
    let mut called = 0;
    loop {
        while !thread::sleep_some(&THREADS.watchdog.called, called, LOOK_US) {
            let number = THREADS.watchdog.called.load(Acquire);
            if number != called {
                crate::engine::calls::credentials::become_as(
                    crate::engine::calls::credentials::whom(),
                );
                called = number;
                THREADS.watchdog.came.store(number, Release);
            }
        }
        follow_the_keeper(guard.shared);
        let turns = THREADS.watchdog.turns.load(Relaxed);
        if turns == seen && Waits::of(guard.engine).is_some_and(|w| w.within(b"handle_userfault")) {
            guard.figures.self_faults.fetch_add(1, Relaxed);
            say::die(
                "a defect of tmem: its engine touched memory that it had evicted; the program \
                 is ended",
            );
        }
        seen = turns;
    }
}
