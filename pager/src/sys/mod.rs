//! Thin modules over the kernel. Nearly every `unsafe` system call of the engine is here,
//! and nothing here decides anything.

pub mod anchor;
pub mod area;
pub mod channel;
#[cfg(test)]
pub(crate) mod clock;
pub mod confined;
pub mod core_dump;
pub mod credentials;
pub mod departure;
pub mod descriptors;
pub mod detached;
pub mod errno;
pub mod fd;
pub mod files;
pub mod helper;
pub mod kill;
pub mod mem;
pub(crate) mod mem_call;
pub mod network;
pub mod proc;
pub mod program;
pub mod roots;
pub mod say;
mod scheduling;
pub mod sharers;
mod sleep;
pub mod space;
mod syscall;
pub mod tcp;
pub mod thread;
pub mod timer;
pub mod uffd;
pub mod wait;

use rustix::time::{ClockId, clock_gettime};

/// Returns the monotonic clock in nanoseconds.
pub fn now_ns() -> u64 {
    #[cfg(test)]
    if let Some(ns) = clock::now_ns() {
        return ns;
    }
    clock_ns(ClockId::Monotonic)
}

/// Returns the CPU time of this process, all threads together, in nanoseconds.
fn process_cpu_ns() -> u64 {
    #[cfg(test)]
    if let Some(ns) = clock::now_ns() {
        return ns;
    }
    clock_ns(ClockId::ProcessCPUTime)
}

/// Returns the CPU time of the program in nanoseconds, without that of the calling thread, the
/// engine's. 0 if the kernel does not say.
pub fn program_cpu_ns() -> u64 {
    if !program::is_apart() {
        return process_cpu_ns().saturating_sub(thread_cpu_ns());
    }
    // The clock of another process (`include/linux/posix-timers_types.h`).
    let clock = (!program::id() << 3 | 2) as i32;
    let mut time = [0u64; 2];
    // SAFETY: clock_gettime(clock, time); the kernel writes two words.
    let failed = unsafe { syscall::syscall3(228, clock as usize, &raw mut time as usize, 0) } != 0;
    if failed {
        return 0;
    }
    time[0] * 1_000_000_000 + time[1]
}

/// Returns the CPU time of the calling thread in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    #[cfg(test)]
    if let Some(ns) = clock::now_ns() {
        return ns;
    }
    clock_ns(ClockId::ThreadCPUTime)
}

/// Reads a clock that is never negative.
fn clock_ns(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
