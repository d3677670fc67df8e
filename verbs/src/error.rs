//! What can go wrong.

use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// What went wrong, and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A library is not installed.
    #[error(
        "RDMA needs {name}, which cannot be loaded: {reason}; \
         on Debian: apt-get install libibverbs1 librdmacm1 ibverbs-providers"
    )]
    Library {
        /// The library.
        name: &'static str,
        /// What the dynamic linker says.
        reason: String,
    },
    /// The libraries find no device.
    #[error(
        "no RDMA device: `rdma link` lists those of the kernel; \
         their drivers for programs are in Debian's package ibverbs-providers"
    )]
    NoDevice,
    /// The kernel's connection manager cannot be used.
    #[error(
        "RDMA connections cannot be made: {0}; /dev/infiniband/rdma_cm is needed, \
         from the kernel module rdma_ucm"
    )]
    Manager(#[source] io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr} for RDMA: {error}{}", whose(.error))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's.
        #[source]
        error: io::Error,
    },
    /// The address cannot be reached.
    #[error("cannot reach {addr} by RDMA, {step}: {error}")]
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// The system's.
        #[source]
        error: io::Error,
    },
    /// The machine answers, and nothing listens on the port.
    #[error("nobody listens on {addr} for RDMA connections")]
    NobodyListens {
        /// The address.
        addr: SocketAddr,
    },
    /// The other end does not want the connection.
    #[error("{addr} refuses the RDMA connection (reason {reason})")]
    Refused {
        /// The address.
        addr: SocketAddr,
        /// The connection manager's reason. 28 means that the program refused.
        reason: i32,
    },
    /// The time is up.
    #[error("no RDMA connection with {addr} in time: was still {step}")]
    TimedOut {
        /// The address.
        addr: SocketAddr,
        /// What was being done.
        step: &'static str,
    },
    /// The device is gone, or is about to be.
    #[error("the RDMA device has been removed")]
    DeviceRemoved,
    /// More private data than fits.
    #[error("{len} bytes of private data do not fit, {most} do")]
    PrivateData {
        /// Bytes given.
        len: usize,
        /// Bytes that fit.
        most: usize,
    },
    /// More pieces than one work can have.
    #[error("{0} pieces are too many for one work, which has at most {max}", max = crate::MAX_PIECES)]
    Pieces(usize),
    /// A piece that is not inside its region.
    #[error("{len} bytes at {offset} are not inside a region of {size} bytes")]
    Bounds {
        /// Where the piece would begin.
        offset: usize,
        /// How long it would be.
        len: usize,
        /// The region's size.
        size: usize,
    },
    /// Memory that cannot be registered.
    #[error("cannot pin {len} bytes for RDMA: {error}{}", remedy(.error, *.limit))]
    Pin {
        /// How many bytes.
        len: usize,
        /// The process's limit on locked memory, if it has one.
        limit: Option<u64>,
        /// The system's.
        #[source]
        error: io::Error,
    },
    /// A queue did not take some work. ENOMEM means that the queue is full.
    #[error("the queue took {posted} of the works given: {error}")]
    Post {
        /// How many works it took before. These are under way.
        posted: usize,
        /// The system's.
        #[source]
        error: io::Error,
    },
    /// Anything else.
    #[error("{call}: {error}")]
    Call {
        /// The function that failed.
        call: &'static str,
        /// The system's.
        #[source]
        error: io::Error,
    },
}

impl Error {
    /// The last failure of a function that sets errno.
    pub(crate) fn call(call: &'static str) -> Error {
        Error::Call {
            call,
            error: io::Error::last_os_error(),
        }
    }
}

/// What to do when an address cannot be listened on.
fn whose(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::EADDRNOTAVAIL) => "; it has to be an RDMA device's address",
        _ => "",
    }
}

/// What to do when memory cannot be pinned.
fn remedy(error: &io::Error, limit: Option<u64>) -> String {
    match limit {
        Some(limit) if error.raw_os_error() == Some(libc::ENOMEM) => format!(
            "; this process may lock {limit} bytes: `ulimit -l unlimited`, \
             or LimitMEMLOCK=infinity in its systemd unit"
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_locked_memory_is_said_with_its_remedy() {
        let pin = |errno, limit| {
            let error = io::Error::from_raw_os_error(errno);
            Error::Pin {
                len: 1 << 20,
                limit,
                error,
            }
            .to_string()
        };
        let text = pin(libc::ENOMEM, Some(65536));
        assert!(text.contains("may lock 65536 bytes"), "{text}");
        assert!(text.contains("ulimit -l unlimited"), "{text}");
        assert!(text.contains("LimitMEMLOCK=infinity"), "{text}");
        assert!(!pin(libc::ENOMEM, None).contains("ulimit"));
        assert!(!pin(libc::EINVAL, Some(65536)).contains("ulimit"));
    }
}
