//! Looks at a server from outside: what metrics and health checks show.

use crate::latency::Requests;
use crate::serve::shared::Shared;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tmem_wire::ServerStats;

/// Looks at a server, as long as anybody likes.
#[derive(Clone)]
pub struct Observer(pub(super) Arc<Shared>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Observer {
    /// Returns the server's figures.
    pub fn stats(&self) -> ServerStats {
        self.0.stats()
    }

    /// Returns how long requests took, if that is measured ([`crate::Config::measures`]).
    pub fn requests(&self) -> Vec<Requests> {
        self.0.latency.requests()
    }

    /// Whether new clients are served.
    pub fn takes_clients(&self) -> bool {
        !self.0.closing.load(Ordering::Acquire)
    }
}
