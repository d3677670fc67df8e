//! Why a server cannot start.

use crate::store::files::FilesError;
use std::io;
use thiserror::Error;

/// Why a server cannot start, with what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The address to listen on means nothing.
    #[error("cannot listen on `{listen}`: {error}; give HOST:PORT, as in 0.0.0.0:7070")]
    Address {
        /// The address as given.
        listen: String,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {error}{}", remedy(.error))]
    Listen {
        /// The address as given.
        listen: String,
        /// What the system says.
        error: io::Error,
    },
    /// The capacity holds no page.
    #[error("a capacity of {0} bytes holds no page; give at least 4096 bytes")]
    Capacity(u64),
    /// The kernel has no range of addresses of that size, or does not commit
    /// to it.
    #[error("the system does not let this process have {capacity} bytes: {error}; give less")]
    Reserve {
        /// The capacity as given.
        capacity: u64,
        /// What the system says.
        error: io::Error,
    },
    /// The slab size is none.
    #[error(
        "slabs of {0} bytes are not possible; give a multiple of 4K, at least 4K and at most 1G"
    )]
    SlabSize(u64),
    /// What another server has left, or its folder, cannot be used.
    #[error("{at}: {error}")]
    Files {
        /// Where it is.
        at: String,
        /// Why not.
        error: FilesError,
    },
    /// The server that runs does not hand itself over.
    #[error("the server that listens there cannot be taken over: {0}; it goes on")]
    TakeOver(io::Error),
    /// The limit on memory of a client allows no slab.
    #[error("a client may have less than a slab of {0} bytes: give more, or smaller slabs")]
    ClientMemory(u64),
    /// The limit on sessions of a client allows none.
    #[error("a limit of 0 sessions allows none; give at least 1")]
    ClientSessions,
    /// The limit on connections allows none.
    #[error("a limit of 0 connections allows none; give at least 1")]
    MaxConnections,
    /// The secret can be guessed.
    #[error("the secret is refused: {0}")]
    Secret(String),
    /// RDMA was asked for and is not to be had.
    #[error(transparent)]
    Rdma(#[from] tmem_verbs::Error),
    /// Something that every server needs was refused by the system.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; end what listens there, or take another port",
        io::ErrorKind::AddrNotAvailable => "; give an address of this machine, or 0.0.0.0 for all",
        io::ErrorKind::PermissionDenied => "; take a port above 1023",
        _ => "",
    }
}
