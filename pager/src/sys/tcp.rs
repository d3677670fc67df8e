//! TCP connections that never leave this machine.

use core::net::SocketAddr;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, getpeername, getsockname, sockopt};

/// There is no network to share between two ends of the same machine, and no rate to
/// find out: what does least serves best. `reno` is part of every kernel, and any user
/// may have it.
const CONGESTION: &str = "reno";

/// Spares a connection whose ends are on one machine what some kinds of congestion
/// control do for a network (BBR paces what it sends, by timers). Others stay as the
/// system has them.
pub fn spare_loopback(fd: impl AsFd) {
    if is_loopback(fd.as_fd()) == Ok(true) {
        // It works without.
        let _ = sockopt::set_tcp_congestion(fd, CONGESTION);
    }
}

fn is_loopback(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let ip = |name: SocketAddrAny| SocketAddr::try_from(name).map(|addr| addr.ip());
    let peer = getpeername(fd)?.ok_or(Errno::NOTCONN)?;
    Ok(ip(peer)? == ip(getsockname(fd)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_stays_on_the_machine_is_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        for end in [&near, &far] {
            spare_loopback(end);
            assert_eq!(sockopt::tcp_congestion(end).unwrap(), CONGESTION);
        }
        assert_eq!(is_loopback(listener.as_fd()), Err(Errno::NOTCONN));
    }
}
