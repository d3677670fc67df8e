//! What a server is told at its start.

use crate::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tmem_config::{Level, check_secret};
use tmem_wire::PAGE_SIZE;

/// The largest slab, in bytes.
const MAX_SLAB: u64 = 1 << 30;

/// Takes the server's messages: how much each matters, and its text.
pub type Log = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// Where the memory of slabs is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// In this process, and gone with it.
    #[default]
    Private,
    /// In files without a name, which another process can take over.
    Unnamed,
    /// In files of this folder, which a server that is started later takes up. It must be on a
    /// tmpfs.
    Folder(PathBuf),
}

/// What a server is told at its start.
#[derive(Clone)]
pub struct Config {
    /// Where to listen, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where to listen for RDMA too: an address of an RDMA device. Port 0 takes
    /// that of `listen`, or a free one where that is taken.
    pub rdma: Option<SocketAddr>,
    /// The most memory that slabs may have in all, in bytes.
    pub capacity: u64,
    /// Bytes of each slab, a multiple of 4096; no larger than the capacity is
    /// used.
    pub slab_size: u64,
    /// Where the memory of slabs is.
    pub backing: Backing,
    /// What clients must prove to know.
    pub secret: Option<Vec<u8>>,
    /// The most connections at a time. A quarter of them is for sessions that there are.
    pub max_connections: usize,
    /// The most connections that new sessions of one client machine may have; half of all
    /// when `None`.
    pub max_per_client: Option<usize>,
    /// The most memory that slabs of one client machine may have, in bytes; any when `None`.
    pub client_memory: Option<u64>,
    /// The most sessions of one client machine, beside forked children; four for each connection
    /// that it may have when `None`.
    pub client_sessions: Option<usize>,
    /// Nothing is granted while less than this is available on this machine, in bytes.
    pub reserve: u64,
    /// How long a session outlives its last connection. Twice the time for
    /// which clients try to be back: one that comes late has lost its memory.
    pub grace: Duration,
    /// Where messages go; nowhere when `None`.
    pub log: Option<Log>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: "127.0.0.1:7070".to_owned(),
            rdma: None,
            capacity: 1 << 30,
            slab_size: 16 << 20,
            backing: Backing::Private,
            secret: None,
            max_connections: 2048,
            max_per_client: None,
            client_memory: None,
            client_sessions: None,
            reserve: 0,
            grace: Duration::from_secs(10),
            log: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("rdma", &self.rdma)
            .field("capacity", &self.capacity)
            .field("slab_size", &self.slab_size)
            .field("backing", &self.backing)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("max_connections", &self.max_connections)
            .field("max_per_client", &self.max_per_client)
            .field("client_memory", &self.client_memory)
            .field("client_sessions", &self.client_sessions)
            .field("reserve", &self.reserve)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// How many slabs of how many pages.
    pub(crate) fn slabs(&self) -> Result<(u64, u32), Error> {
        let page = PAGE_SIZE as u64;
        let size = self.slab_size;
        if size == 0 || !size.is_multiple_of(page) || size > MAX_SLAB {
            return Err(Error::SlabSize(size));
        }
        let pages = self.capacity / page;
        if pages == 0 {
            return Err(Error::Capacity(self.capacity));
        }
        let slab_pages = (size / page).min(pages);
        Ok((pages / slab_pages, slab_pages as u32))
    }

    /// Refuses what cannot be served.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.client_memory.is_some_and(|most| most < self.slab_size) {
            return Err(Error::ClientMemory(self.slab_size));
        }
        if self.client_sessions == Some(0) {
            return Err(Error::ClientSessions);
        }
        if self.max_connections == 0 || self.max_per_client == Some(0) {
            return Err(Error::MaxConnections);
        }
        match &self.secret {
            Some(secret) => check_secret(secret).map_err(Error::Secret),
            None => Ok(()),
        }
    }

    /// The most connections of one client machine's new sessions.
    pub(crate) fn per_client(&self) -> usize {
        let half = self.max_connections.div_ceil(2);
        self.max_per_client.unwrap_or(half)
    }

    /// Says something.
    pub(crate) fn say(&self, level: Level, text: &str) {
        if let Some(log) = &self.log {
            log(level, text);
        }
    }
}
