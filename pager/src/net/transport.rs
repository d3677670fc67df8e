//! What a connection sends and receives through: a socket, or a script.

use crate::sys::fd::Fd;
use crate::sys::wait::Interest;
use alloc::boxed::Box;
use core::fmt::Debug;
use core::net::SocketAddr;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// A piece of memory, with the layout of the kernel's `iovec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Iov {
    pub(super) base: usize,
    pub(super) len: usize,
}

impl Iov {
    /// Where each of its pages begins.
    pub(super) fn pages(&self) -> impl Iterator<Item = usize> + use<> {
        (self.base..self.base + self.len).step_by(PAGE_SIZE)
    }
}

const _: () = assert!(
    size_of::<Iov>() == size_of::<rustix::io::IoSlice<'_>>()
        && align_of::<Iov>() == align_of::<rustix::io::IoSlice<'_>>()
);

/// The most pieces that one call takes (`UIO_MAXIOV`).
pub(super) const MAX_IOV: usize = 1024;

/// A stream of bytes in both directions that never blocks.
pub(super) trait Transport {
    /// Sends from the front of `iov`; returns how many bytes.
    ///
    /// # Errors
    /// `EAGAIN` when nothing can be sent now.
    ///
    /// # Safety
    /// Each piece is memory that may be read.
    unsafe fn send(&mut self, iov: &[Iov]) -> Result<usize, Errno>;

    /// Receives into `iov` from its front; returns how many bytes, 0 at the end
    /// of the stream.
    ///
    /// # Errors
    /// `EAGAIN` when nothing has come.
    ///
    /// # Safety
    /// Each piece is memory that may be written.
    unsafe fn recv(&mut self, iov: &mut [Iov]) -> Result<usize, Errno>;
}

/// What a stream is ready for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// A stream to a server, which may still be connecting.
pub(super) trait Stream: Transport + Debug {
    /// How the attempt to connect ended, once the stream is writable.
    ///
    /// # Errors
    /// Why there is no connection.
    fn connected(&self) -> Result<(), Errno>;

    /// What to wait for, and with `write` also until it can be written.
    fn interest(&self, write: bool) -> Interest;

    /// What it is ready for, where that is known without asking the kernel.
    fn ready(&self) -> Option<Ready>;

    /// The descriptor, for another process; none where there is none.
    fn into_fd(self: Box<Self>) -> Option<Fd>;
}

/// How servers are reached: by sockets, or in tests by a model of servers.
pub(super) trait Network: Debug {
    /// Begins to connect. `timeout_ms` is how long sent data may stay unacknowledged.
    ///
    /// # Errors
    /// Why that cannot be begun.
    fn connect(&self, to: &SocketAddr, timeout_ms: u32) -> Result<Box<dyn Stream>, Errno>;

    /// Connects to an agent on this machine by the name of its socket.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn agent(&self, name: &[u8]) -> Result<Box<dyn Stream>, Errno>;
}
