//! The agent: a process that speaks RDMA with memory servers for the programs
//! of this machine.
//!
//! The engine lives inside other people's programs, without the C library and
//! on memory that must not move under it; libibverbs needs the C library, locks
//! and memory of its own. So the engine talks to an agent over a local socket,
//! in the words of `PROTOCOL.md`, and the agent turns READ and WRITE into
//! one-sided RDMA, for which the server needs no processor. What it does not
//! know goes on to the server as it is.
//!
//! `tmem run` has an agent within itself; `tmem agent` is one by itself.

mod agent;
mod counts;
mod inbound;
mod keys;
mod outbound;
mod proxy;
mod ring;
mod staging;
mod work;

pub use agent::{Agent, Log};

use std::io;

/// Why there is no way to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// RDMA cannot be used here, or the server not be reached by it.
    #[error(transparent)]
    Verbs(#[from] tmem_verbs::Error),
    /// The connection to the server broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] tmem_verbs::Status),
    /// The system gives no socket, memory or thread.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Whether this machine has what RDMA needs.
///
/// # Errors
/// Names what is missing, and what to install.
pub fn available() -> Result<(), Error> {
    Ok(tmem_verbs::available()?)
}
