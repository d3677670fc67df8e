//! How tasks wait for one another.

use super::confined::is_confined;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Acquire;
use rustix::io::Errno;
use rustix::thread::futex;

/// Yields the CPU to other threads that wait for it.
pub fn pause() {
    rustix::thread::sched_yield();
}

/// Waits for another task that is nearly done. `turn` counts the calls: the first ones
/// spin.
pub fn await_turn(turn: u32) {
    // Some milliseconds, since yielding does not give the other task a CPU.
    const AWAKE: u32 = 1 << 12;
    const NAP_US: u64 = 50;
    if turn < AWAKE {
        pause();
    } else {
        sleep_us(NAP_US);
    }
}

/// Sleeps for `us` microseconds.
pub fn sleep_us(us: u64) {
    // Waking early does no harm.
    let _ = rustix::thread::nanosleep(&timespec(us));
}

/// Sleeps for `us` microseconds, in a thread of the program.
pub fn rest_us(us: u64) {
    // The duration of a spin hint depends on the CPU, so this is only a rough measure.
    const HINTS_PER_US: u64 = 20;
    if is_confined() {
        (0..us * HINTS_PER_US).for_each(|_| core::hint::spin_loop());
    } else {
        sleep_us(us);
    }
}

/// Yields to other threads, in a thread of the program.
pub fn rest() {
    if is_confined() {
        rest_us(1);
    } else {
        pause();
    }
}

/// Sleeps up to `most` times for `us` microseconds until `done` returns true. Returns
/// whether it did. Called in a thread of the program.
pub fn sleep_until(done: impl Fn() -> bool, most: u32, us: u64) -> bool {
    for _ in 0..most {
        if done() {
            return true;
        }
        rest_us(us);
    }
    false
}

/// Sleeps until [`wake_sleeper`], unless `word` is not `value`. May wake up early.
pub fn sleep_unless(word: &AtomicU32, value: u32) {
    // The caller checks the word again.
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
}

/// Sleeps until the kernel has stored 0 in a word (`CLONE_CHILD_CLEARTID`).
pub(super) fn sleep_until_cleared(word: &AtomicU32) {
    loop {
        match word.load(Acquire) {
            0 => return,
            // The kernel's own wake is not a private one.
            value => _ = futex::wait(word, futex::Flags::empty(), value, None),
        }
    }
}

/// Sleeps for at most `us` microseconds, otherwise as [`sleep_unless`]. Returns whether the
/// time is over.
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

/// Wakes all tasks that sleep on `word`.
pub fn wake_sleeper(word: &AtomicU32) {
    // It fails for no word that is mapped.
    let _ = futex::wake(word, futex::Flags::PRIVATE, u32::MAX >> 1);
}
