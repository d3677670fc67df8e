//! TCP connections that never leave this machine.

use core::net::SocketAddr;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, getpeername, getsockname, sockopt};

/// Within one machine there is no network to share and no rate to discover, so the simplest
/// algorithm is best. `reno` is part of every kernel, and available to every user.
const CONGESTION: &str = "reno";

/// Switches congestion control off as far as possible on a connection within this machine.
/// Some algorithms slow it down (BBR paces with timers). Other connections keep the
/// system's setting.
pub fn spare_loopback(fd: impl AsFd) {
    if is_loopback(fd.as_fd()) == Ok(true) {
        // Without it the connection works, too.
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
