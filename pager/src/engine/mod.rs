//! The engine: one thread in the program's process that serves the program's page faults.
//!
//! | module | what it does |
//! |---|---|
//! | `start` | watches the program until its memory nears the budget, then begins |
//! | `wait` | waits for faults, answers and the clock |
//! | `cpu_placement` | chooses the CPU of the engine's thread, and whether it spins or sleeps |
//! | `kernel` | calls the kernel |
//! | `memory` | follows where each page is, and what the program does to its address space |
//! | `fault` | serves faults |
//! | `read_in` | reads pages from servers, also ahead of the program |
//! | `reclaim` | takes pages out of the program |
//! | `writeback` | finds remote memory for evicted pages and writes them |
//! | `servers` | follows what servers grant, answer and fail to do |
//! | `adopt` | finds memory to page and registers it |
//! | `unpaged` | measures memory that cannot be paged |
//! | `budget_share` | computes this process's share of a budget that several processes share |
//! | `control` | does what the user asks while the program runs, and measures how long it waits |
//! | `fork` | tells a forked child where its pages are |
//! | `calls` | answers what threads of the program ask of the engine |
//! | `exclusion` | keeps changes of the address space, and direct I/O, apart from zaps |
//! | `map_throttle` | delays threads that map memory while memory is short |
//! | `model` | tests only: plays kernel, program and servers, and compares with a plain map |
//! | `watchdog` | ends the program where a defect of the engine would hang it, or its end show zeros |
//! | `core_dump` | tells when a core file lacks pages |
//! | `program_end` | ends the engine's process after the program |
//!
//! The engine has no locks: only its own thread touches its data. Other threads of the
//! process see the statistics and the fields of `threads::THREADS`, all of which are
//! atomics.

mod adopt;
mod alive;
mod budget_share;
mod calls;
mod completions;
mod control;
mod core_dump;
mod cpu_placement;
mod event_loop;
mod evicted;
pub mod exclusion;
mod fault;
pub mod fork;
mod kernel;
pub mod map_throttle;
mod memory;
#[cfg(test)]
mod model;
mod program_end;
mod read_in;
mod reclaim;
mod servers;
mod settings;
mod start;
mod threads;
mod unpaged;
mod upkeep;
mod wait;
mod watchdog;
mod writeback;
mod zero_fill;

pub use adopt::{adopt_all, adopt_now};
pub use alive::have_all;
pub use calls::accesses::Access;
pub use calls::advice::{Ask, ask};
pub use calls::credentials;
pub use calls::mem_file::populate;
pub use calls::mincore::pages_there;
pub use calls::relinquish::{Relinquished, relinquish};
pub use evicted::has_evicted;
pub use reclaim::lending;
pub use reclaim::zap_worker::leave;
pub use settings::{
    LocalSettings, PAGED, PENDING, Path, Redundancy, ReportSettings, ServerSettings, Settings,
    StartSettings, UNPAGED,
};
pub use start::run;
pub use tmem_policy::watermarks::{copies_bytes, pool_bytes};

use crate::sys;

/// Resets everything that lies in a static, in a process that was just forked.
fn reset_after_fork() {
    threads::THREADS.reset_after_fork();
    exclusion::reset_after_fork();
    sys::anchor::reset_after_fork();
    sys::program::reset_after_fork();
    sys::roots::reset_after_fork();
    sys::thread::none_is_own();
}
