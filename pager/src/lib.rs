//! The paging engine of tmem.
//!
//! The engine lives inside the program that it pages. It is `no_std`, since the standard
//! library would tie it to the program's C library: its allocator, thread-local storage and
//! locks may lie in memory that the engine itself has evicted. See `ARCHITECTURE.md`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// Atomics for [`gate`] and [`inbox`], which a test replaces.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
}
#[doc(hidden)]
pub mod bench;
mod cache;
mod digest;
pub mod engine;
pub mod family;
pub mod filters;
mod frame_number;
mod frames;
mod gate;
mod inbox;
pub mod keeper;
pub mod live;
pub mod maps;
pub mod names;
pub mod net;
pub mod own;
mod page_set;
mod pages;
mod pool;
mod ranges;
mod raw_calls;
mod server_id;
pub mod slots;
pub mod stats;
pub mod sys;
mod tier;
pub mod told;
mod when;

pub use server_id::ServerId;
pub use when::When;
