//! The decisions of tmem: which page leaves, what is read ahead, how memory is divided,
//! which server gets a page.
//!
//! Every policy is pure: it makes no system call, reads no clock and keeps no global state. Time
//! and measurements are arguments. Each file says what it decides, its source, and invariants
//! that property tests hold it to. The engine and the simulator of eviction (`tmem-evict-sim`)
//! run the same code; `cargo bench -p tmem-benches --bench parts` measures it.
//!
//! | question | policy |
//! |---|---|
//! | Which page leaves next? | [`eviction`], with [`cyclic`] for loops and [`refault`] for hot pages |
//! | What is read ahead of a fault? | [`readahead`], [`indirect`], [`straddle`] |
//! | How many zero pages does a fault on new memory get? | [`zero_fill`] |
//! | When do pages leave, when do threads wait, how is the budget divided? | [`watermarks`], with [`demand`] |
//! | How large is a budget that follows the machine? | [`auto_budget`] |
//! | How does a budget that the user lowers take effect? | [`glide`] |
//! | How much memory would the program need? | [`working_set`] |
//! | How long is the standby list? | [`standby`] |
//! | How much memory holds compressed copies? | [`compressed_cache`] |
//! | Which server gets a page? | [`placement`] |
//! | Which of several servers is asked for a page, and when is another asked too? | [`replica`] |
//! | Does the engine spin or sleep, and on which CPU does it run? | [`spin`], [`engine_cpu`] |
//! | Do several threads ask for pages at once? | [`contention`] |
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod auto_budget;
pub mod compressed_cache;
pub mod contention;
pub mod cyclic;
pub mod demand;
pub mod engine_cpu;
pub mod eviction;
pub mod glide;
pub mod indirect;
mod page_number;
pub mod placement;
pub mod readahead;
pub mod refault;
pub mod replica;
pub mod spin;
pub mod standby;
pub mod straddle;
pub mod watermarks;
pub mod working_set;
pub mod zero_fill;

pub use page_number::PageNumber;
