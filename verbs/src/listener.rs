//! Listening for connections.

use crate::abi;
use crate::addr::to_c;
use crate::connect::check_private;
use crate::connection::Connection;
use crate::error::Error;
use crate::library::library;
use crate::limits::Limits;
use crate::manager::Endpoint;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr::{NonNull, null};
use std::{fmt, io};

/// Private data that fits into the answer to a request.
const MOST_PRIVATE: usize = 196;

/// Listens for connections.
pub struct Listener {
    endpoint: Endpoint,
    addr: SocketAddr,
}

impl Listener {
    /// Listens on an RDMA device's address, or on all with 0.0.0.0. The kernel
    /// keeps at most `backlog` requests that were not yet taken.
    ///
    /// # Errors
    ///
    /// Those of [`available`](crate::available), and [`Error::Listen`].
    pub fn bind(addr: SocketAddr, backlog: i32) -> Result<Listener, Error> {
        let library = library()?;
        let endpoint = Endpoint::new(library)?;
        let call = &library.manager;
        let mut at = to_c(addr);
        // SAFETY: the id is there, and the address is of the kind that it says.
        let listens = unsafe {
            (call.rdma_bind_addr)(endpoint.raw(), (&raw mut at).cast()) == 0
                && (call.rdma_listen)(endpoint.raw(), backlog) == 0
        };
        if !listens {
            let error = io::Error::last_os_error();
            return Err(Error::Listen { addr, error });
        }
        let addr = endpoint.local().unwrap_or(addr);
        Ok(Listener { endpoint, addr })
    }

    /// The address, with the port that the kernel chose if none was given.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Readable when somebody connects.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.endpoint.events().fd()
    }

    /// The next request to connect, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceRemoved`], after which nothing comes any more, or
    /// [`Error::Call`] or [`Error::Manager`] when a request could not be taken.
    #[expect(
        clippy::should_implement_trait,
        reason = "there is no end of requests, and not having one now is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Incoming>, Error> {
        while let Some(happened) = self.endpoint.events().next()? {
            match happened.kind() {
                abi::EVENT_CONNECT_REQUEST => {}
                abi::EVENT_DEVICE_REMOVAL => return Err(Error::DeviceRemoved),
                _ => continue,
            }
            let Some(id) = NonNull::new(happened.id()) else {
                continue;
            };
            let private = happened.private_data();
            let reads = happened.reads();
            drop(happened);
            // SAFETY: the id of a request, taken once, with its event
            // acknowledged.
            let endpoint = unsafe { Endpoint::take(self.endpoint.library(), id) }?;
            return Ok(Some(Incoming {
                endpoint,
                private,
                reads,
            }));
        }
        Ok(None)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// A request to connect. Dropped, it is refused.
pub struct Incoming {
    endpoint: Endpoint,
    private: Vec<u8>,
    /// The reads that the other end allows, and those that it wants.
    reads: (u8, u8),
}

impl Incoming {
    /// What the other end sent along. The network may have added zero bytes at
    /// its end, up to 56.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private
    }

    /// The other end's address.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.endpoint.peer()
    }

    /// Accepts. The other end sees `private`, of which 196 bytes fit. The
    /// connection is there for sending after [`Event::Established`].
    ///
    /// [`Event::Established`]: crate::Event::Established
    ///
    /// # Errors
    ///
    /// [`Error::PrivateData`], [`Error::Call`].
    pub fn accept(self, limits: &Limits, private: &[u8]) -> Result<Connection, Error> {
        self.accept_with(limits, private, |_| Ok(()))
    }

    /// Accepts, with something that is to be done before the other end can send
    /// anything: receives posted in it are in time. A message that comes before
    /// its receive is sent again, later.
    ///
    /// # Errors
    ///
    /// As for [`Incoming::accept`], and those of `prepare`.
    pub fn accept_with(
        self,
        limits: &Limits,
        private: &[u8],
        prepare: impl FnOnce(&mut Connection) -> Result<(), Error>,
    ) -> Result<Connection, Error> {
        check_private(private, MOST_PRIVATE)?;
        let mut connection = Connection::build(self.endpoint, limits)?;
        connection.private = self.private;
        prepare(&mut connection)?;
        let mut param = connection.param(private);
        let (allowed, wanted) = self.reads;
        param.initiator_depth = param.initiator_depth.min(allowed);
        param.responder_resources = param.responder_resources.min(wanted);
        let accept = connection.endpoint.library().manager.rdma_accept;
        // SAFETY: the id is there and has a queue pair, and the private data
        // outlives the call.
        if unsafe { accept(connection.endpoint.raw(), &raw mut param) } != 0 {
            return Err(Error::call("rdma_accept"));
        }
        connection.pair.hurry();
        Ok(connection)
    }

    /// Refuses.
    pub fn reject(self) {
        let reject = self.endpoint.library().manager.rdma_reject;
        // SAFETY: the id is there. Where it fails, the other end has gone.
        unsafe { reject(self.endpoint.raw(), null(), 0) };
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}
