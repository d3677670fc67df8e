//! Sockets by raw system calls.

use super::transport::{Iov, Network, Ready, Stream, Transport};
use crate::sys::fd::Fd;
use crate::sys::tcp;
use crate::sys::wait::Interest;
use alloc::boxed::Box;
use core::net::SocketAddr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, RawFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    ipproto, sockopt,
};

/// A socket, of TCP or to an agent, that never blocks.
#[derive(Debug)]
pub(super) struct Sock {
    fd: Fd,
    /// No other socket has this number.
    serial: u64,
}

/// Sockets made so far.
static MADE: AtomicU64 = AtomicU64::new(0);

impl Sock {
    /// Begins to connect; the socket becomes writable when that has ended, and
    /// [`Sock::connected`] tells how. `timeout_ms` is how long sent data may
    /// stay unacknowledged by the peer's kernel.
    fn connect(to: &SocketAddr, timeout_ms: u32) -> Result<Sock, Errno> {
        let family = if to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        let sock = Sock {
            fd: Fd::from(fd).moved_up(),
            serial: MADE.fetch_add(1, Relaxed) + 1,
        };
        sockopt::set_tcp_nodelay(sock.fd(), true)?;
        sockopt::set_socket_keepalive(sock.fd(), true)?;
        sockopt::set_tcp_keepidle(sock.fd(), Duration::from_secs(10))?;
        sockopt::set_tcp_keepintvl(sock.fd(), Duration::from_secs(5))?;
        sockopt::set_tcp_keepcnt(sock.fd(), 3)?;
        sockopt::set_tcp_user_timeout(sock.fd(), timeout_ms)?;
        match rustix::net::connect(sock.fd(), to) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(sock),
            Err(e) => Err(e),
        }
    }

    /// Connects to an agent by the name of its socket in the abstract
    /// namespace; it is writable at once.
    fn agent(name: &[u8]) -> Result<Sock, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let sock = Sock {
            fd: Fd::from(fd).moved_up(),
            serial: MADE.fetch_add(1, Relaxed) + 1,
        };
        let to = SocketAddrUnix::new_abstract_name(name)?;
        rustix::io::retry_on_intr(|| rustix::net::connect(sock.fd(), &to))?;
        Ok(sock)
    }

    /// A socket that the engine of the parent process began to connect.
    pub(super) fn inherited(fd: Fd) -> Sock {
        Sock {
            fd: fd.moved_up(),
            serial: MADE.fetch_add(1, Relaxed) + 1,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Servers are reached by sockets.
#[derive(Debug)]
pub(super) struct Sockets;

impl Network for Sockets {
    fn connect(&self, to: &SocketAddr, timeout_ms: u32) -> Result<Box<dyn Stream>, Errno> {
        Ok(Box::new(Sock::connect(to, timeout_ms)?))
    }

    fn agent(&self, name: &[u8]) -> Result<Box<dyn Stream>, Errno> {
        Ok(Box::new(Sock::agent(name)?))
    }
}

impl Stream for Sock {
    fn connected(&self) -> Result<(), Errno> {
        sockopt::socket_error(self.fd())??;
        tcp::spare_loopback(self.fd());
        Ok(())
    }

    fn interest(&self, write: bool) -> Interest {
        Interest {
            fd: self.fd.raw(),
            serial: self.serial,
            write,
        }
    }

    fn ready(&self) -> Option<Ready> {
        None
    }

    fn into_fd(self: Box<Self>) -> Option<Fd> {
        Some(self.fd)
    }
}

impl Transport for Sock {
    unsafe fn send(&mut self, iov: &[Iov]) -> Result<usize, Errno> {
        // SAFETY: `Iov` has the layout of `iovec`, as `IoSlice` has; the caller
        // vouches for the memory.
        let iov =
            unsafe { core::slice::from_raw_parts(iov.as_ptr().cast::<IoSlice<'_>>(), iov.len()) };
        let none = &mut SendAncillaryBuffer::default();
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                self.fd(),
                iov,
                none,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
        })
    }

    unsafe fn recv(&mut self, iov: &mut [Iov]) -> Result<usize, Errno> {
        // SAFETY: as in `send`; `IoSliceMut` has that layout too.
        let iov = unsafe {
            core::slice::from_raw_parts_mut(iov.as_mut_ptr().cast::<IoSliceMut<'_>>(), iov.len())
        };
        rustix::io::retry_on_intr(|| rustix::io::readv(self.fd(), iov))
    }
}

/// Asks the kernel about many sockets at once.
#[derive(Debug, Default)]
pub(super) struct Poller(alloc::vec::Vec<PollFd<'static>>);

impl Poller {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a descriptor, which must stay open until [`Poller::poll`] returned.
    pub(super) fn add(&mut self, raw: RawFd, write: bool) {
        // SAFETY: the number is only used by `poll`, before which the socket is
        // not closed; `clear` forgets it.
        let fd = unsafe { BorrowedFd::borrow_raw(raw) };
        let write = if write {
            PollFlags::OUT
        } else {
            PollFlags::empty()
        };
        self.0
            .push(PollFd::from_borrowed_fd(fd, PollFlags::IN | write));
    }

    /// Asks, without waiting. On an error nothing is ready.
    pub(super) fn poll(&mut self) -> bool {
        !self.0.is_empty()
            && rustix::event::poll(
                &mut self.0,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            )
            .is_ok_and(|n| n > 0)
    }

    /// What the `nth` socket added is ready for. An error or an end counts as
    /// both, since reading or writing reports it.
    pub(super) fn ready(&self, nth: usize) -> Ready {
        let Some(fd) = self.0.get(nth) else {
            return Ready::default();
        };
        let events = fd.revents();
        let broken = events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        Ready {
            read: broken || events.contains(PollFlags::IN),
            write: broken || events.contains(PollFlags::OUT),
        }
    }
}
