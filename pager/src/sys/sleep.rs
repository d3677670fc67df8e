//! How tasks wait for one another.

use super::confined::is_confined;
use super::now_ns;
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use core::sync::atomic::{AtomicU32, AtomicU64};
use rustix::io::Errno;
use rustix::thread::futex;

/// Until then tasks nap instead of yielding.
static CROWDED_NS: AtomicU64 = AtomicU64::new(0);
/// A yield that took longer than this gave the CPU to a program that has nothing to do with
/// it, and for how long such a program is expected.
const LONG_NS: u64 = 500_000;
const CROWD_NS: u64 = 20_000_000;

/// Lets other threads run that wait for the CPU.
///
/// Who yields gives up what is left of its turn, and without a high priority may have to
/// wait for the whole turn of each program that computes on this CPU. Who sleeps for a moment
/// need not. So it naps for a while where yielding was seen to take long.
pub fn pause() {
    let before = now_ns();
    if before < CROWDED_NS.load(Relaxed) {
        return sleep_us(1);
    }
    rustix::thread::sched_yield();
    let after = now_ns();
    if after.saturating_sub(before) > LONG_NS {
        CROWDED_NS.store(after + CROWD_NS, Relaxed);
    }
}

/// Waits for another task that is nearly done. `turn` counts the calls: the first ones
/// spin.
pub fn await_turn(turn: u32) {
    // Some tenths of a millisecond. Yielding does not give a CPU to a task of lower priority,
    // which the other is once the program has given up the right to a higher one.
    const AWAKE: u32 = 1 << 8;
    const NAP_US: u64 = 50;
    if turn < AWAKE {
        pause();
    } else {
        sleep_us(NAP_US);
    }
}

/// Waits a moment for another task, in a loop that counts no turns: as [`await_turn`], with
/// the calls in a row counted here. For one task of the engine's.
pub fn await_other() {
    static ROW: AtomicU32 = AtomicU32::new(0);
    static LAST_NS: AtomicU64 = AtomicU64::new(0);
    const NEAR_NS: u64 = 50_000;
    let is_next = now_ns() < LAST_NS.load(Relaxed) + NEAR_NS;
    let turn = if is_next { ROW.load(Relaxed) + 1 } else { 0 };
    await_turn(turn);
    ROW.store(turn.min(u32::MAX - 1), Relaxed);
    LAST_NS.store(now_ns(), Relaxed);
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
