//! Connecting to a listener.

use crate::abi;
use crate::addr::to_c;
use crate::connection::Connection;
use crate::error::Error;
use crate::library::library;
use crate::limits::Limits;
use crate::manager::{Channel, Endpoint, Happened};
use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// Private data that fits into a request to connect.
const MOST_PRIVATE: usize = 56;

/// The InfiniBand connection manager's refusal when nothing listens on the port.
const NO_SUCH_SERVICE: c_int = 8;

impl Connection {
    /// Connects with a listener; blocks at most for `timeout`. The listener sees
    /// `private`, of which 56 bytes fit, and may answer with
    /// [`Connection::private_data`].
    ///
    /// # Errors
    ///
    /// Those of [`available`](crate::available), and [`Error::NobodyListens`],
    /// [`Error::Refused`], [`Error::Unreachable`], [`Error::TimedOut`],
    /// [`Error::PrivateData`].
    pub fn connect(
        addr: SocketAddr,
        timeout: Duration,
        limits: &Limits,
        private: &[u8],
    ) -> Result<Connection, Error> {
        Connection::connect_with(addr, timeout, limits, private, |_| Ok(()))
    }

    /// Connects, with something that is to be done before the other end can send
    /// anything: receives posted in it are in time. A message that comes before
    /// its receive is sent again, later.
    ///
    /// # Errors
    ///
    /// As for [`Connection::connect`], and those of `prepare`.
    pub fn connect_with(
        addr: SocketAddr,
        timeout: Duration,
        limits: &Limits,
        private: &[u8],
        prepare: impl FnOnce(&mut Connection) -> Result<(), Error>,
    ) -> Result<Connection, Error> {
        check_private(private, MOST_PRIVATE)?;
        let library = library()?;
        let call = &library.manager;
        let endpoint = Endpoint::new(library)?;
        let until = Until {
            addr,
            timeout,
            since: Instant::now(),
        };

        let step = "looking for its device";
        let mut to = to_c(addr);
        let to = (&raw mut to).cast();
        let millis = until.millis();
        // SAFETY: the id is there, and the address is of the kind that it says.
        let begun = unsafe { (call.rdma_resolve_addr)(endpoint.raw(), null_mut(), to, millis) };
        until.begun(begun, step)?;
        until.wait(endpoint.events(), abi::EVENT_ADDR_RESOLVED, step)?;

        let step = "looking for a way";
        // SAFETY: the id is there.
        let begun = unsafe { (call.rdma_resolve_route)(endpoint.raw(), until.millis()) };
        until.begun(begun, step)?;
        until.wait(endpoint.events(), abi::EVENT_ROUTE_RESOLVED, step)?;

        let mut connection = Connection::build(endpoint, limits)?;
        prepare(&mut connection)?;

        let step = "waiting for its answer";
        let mut param = connection.param(private);
        let id = connection.endpoint.raw();
        // SAFETY: the id is there, and the private data outlives the call.
        let begun = unsafe { (call.rdma_connect)(id, &raw mut param) };
        until.begun(begun, step)?;
        let events = connection.endpoint.events();
        let established = until.wait(events, abi::EVENT_ESTABLISHED, step)?;
        let private = established.private_data();
        drop(established);
        connection.private = private;
        connection.pair.hurry();
        Ok(connection)
    }
}

/// Fails for more private data than fits.
pub(crate) fn check_private(private: &[u8], most: usize) -> Result<(), Error> {
    if private.len() <= most {
        return Ok(());
    }
    Err(Error::PrivateData {
        len: private.len(),
        most,
    })
}

/// The address to connect with, and how long that may take.
struct Until {
    addr: SocketAddr,
    timeout: Duration,
    since: Instant,
}

impl Until {
    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.since.elapsed())
    }

    /// The time left, rounded up: with none left the kernel would wait for ever.
    fn millis(&self) -> c_int {
        c_int::try_from(self.left().as_millis() + 1).unwrap_or(c_int::MAX)
    }

    /// Fails if a step could not even begin.
    fn begun(&self, result: c_int, step: &'static str) -> Result<(), Error> {
        if result == 0 {
            return Ok(());
        }
        Err(Error::Unreachable {
            addr: self.addr,
            step,
            error: io::Error::last_os_error(),
        })
    }

    /// Waits until a step ends.
    fn wait(&self, events: &Channel, want: c_int, step: &'static str) -> Result<Happened, Error> {
        loop {
            if let Some(happened) = events.next()? {
                return if happened.kind() == want {
                    Ok(happened)
                } else {
                    Err(self.failure(&happened, step))
                };
            }
            if self.left().is_zero() {
                return Err(Error::TimedOut {
                    addr: self.addr,
                    step,
                });
            }
            let mut fd = libc::pollfd {
                fd: events.fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one descriptor, as said. Whether it is interrupted or the
            // time is up, the loop looks.
            unsafe { libc::poll(&raw mut fd, 1, self.millis()) };
        }
    }

    /// The error for an event that was not expected.
    fn failure(&self, happened: &Happened, step: &'static str) -> Error {
        let addr = self.addr;
        let status = happened.status();
        match (happened.kind(), status) {
            (abi::EVENT_DEVICE_REMOVAL, _) => Error::DeviceRemoved,
            (abi::EVENT_REJECTED, NO_SUCH_SERVICE) => Error::NobodyListens { addr },
            // The connection manager of iWARP reports it so.
            (abi::EVENT_REJECTED, status) if status == -libc::ECONNREFUSED => {
                Error::NobodyListens { addr }
            }
            (abi::EVENT_REJECTED, reason) => Error::Refused { addr, reason },
            _ if status == -libc::ETIMEDOUT => Error::TimedOut { addr, step },
            _ => Error::Unreachable {
                addr,
                step,
                error: io::Error::from_raw_os_error(status.wrapping_neg()),
            },
        }
    }
}
