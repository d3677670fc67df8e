//! What a server is told at its start.

use crate::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tmem_config::{Level, check_secret};
use tmem_wire::PAGE_SIZE;

/// The largest slab, in bytes.
const MAX_SLAB: u64 = 1 << 30;

/// Takes the server's messages: how much each matters, and its text.
pub type Log = Arc<dyn Fn(Level, &str) + Send + Sync>;

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
    /// What clients must prove to know.
    pub secret: Option<Vec<u8>>,
    /// The most connections at a time. A quarter of them is for sessions that there are.
    pub max_connections: usize,
    /// The most connections that new sessions of one client machine may have; half of all
    /// when `None`.
    pub max_per_client: Option<usize>,
    /// How long a session outlives its last connection. Twice the time for
    /// which clients try to be back: one that comes late has lost its memory.
    pub grace: Duration,
    /// Whether it is measured how long requests take.
    pub measures: bool,
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
            secret: None,
            max_connections: 2048,
            max_per_client: None,
            grace: Duration::from_secs(10),
            measures: false,
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
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("max_connections", &self.max_connections)
            .field("max_per_client", &self.max_per_client)
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
