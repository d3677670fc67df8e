//! Calls of threads of the program to the engine.

pub(crate) mod accesses;
pub(crate) mod advice;
pub mod credentials;
pub(crate) mod doorbell;
pub(crate) mod engine_call;
pub(crate) mod lent_pages;
pub(crate) mod mem_file;
pub(crate) mod mincore;
pub(crate) mod relinquish;
