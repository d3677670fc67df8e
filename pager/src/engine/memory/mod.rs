//! Where each page of the program is, and what the program does to its address space.

pub(crate) mod events;
pub(crate) mod remap;
pub(crate) mod tcb;
pub(crate) mod transit;
