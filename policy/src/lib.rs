//! The decisions of tmem: which page leaves, what is read ahead, how memory is
//! divided, which server gets a page.
//!
//! Every policy is pure: it makes no system call, reads no clock and keeps no
//! global state. Time and measurements are arguments. The engine and the
//! simulator of eviction (`tmem-evict-sim`) use the same code.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod compressed_cache;
pub mod contention;
pub mod cyclic;
pub mod demand;
pub mod engine_cpu;
pub mod eviction;
pub mod indirect;
pub mod placement;
pub mod readahead;
pub mod refault;
pub mod spin;
pub mod standby;
pub mod straddle;
pub mod watermarks;
pub mod zero_fill;
