//! The agent: a process that speaks RDMA with memory servers for the programs
//! of this machine.
//!
//! The engine runs inside other people's programs and cannot use the C library. libibverbs
//! needs the C library, locks and memory of its own. So the engine speaks the protocol of
//! `PROTOCOL.md` with an agent, over a local socket. The agent turns READ and WRITE into
//! one-sided RDMA, for which the server needs no CPU. It passes all other requests on to the
//! server.
//!
//! `tmem run` contains an agent; `tmem agent` is an agent alone.

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

/// Why a server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// RDMA cannot be used on this machine, or the server cannot be reached by it.
    #[error(transparent)]
    Verbs(#[from] tmem_verbs::Error),
    /// The connection to the server broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] tmem_verbs::Status),
    /// The system has no socket, memory or thread.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Checks that RDMA can be used on this machine.
///
/// # Errors
/// Names what is missing, and what to install.
pub fn available() -> Result<(), Error> {
    Ok(tmem_verbs::available()?)
}
