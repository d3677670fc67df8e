//! Thin modules over the kernel. Nearly every `unsafe` system call of the engine is here,
//! and nothing here decides anything.

pub mod anchor;
pub mod area;
pub mod channel;
#[cfg(test)]
pub(crate) mod clock;
pub mod confined;
pub mod credentials;
pub mod departure;
pub mod descriptors;
pub mod detached;
pub mod errno;
pub mod fd;
pub mod helper;
pub mod kill;
pub mod mem;
pub(crate) mod mem_call;
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

/// Returns the CPU time of the process, all threads together, in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    #[cfg(test)]
    if let Some(ns) = clock::now_ns() {
        return ns;
    }
    clock_ns(ClockId::ProcessCPUTime)
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
