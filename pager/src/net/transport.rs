//! What a connection sends and receives through: a socket, or a script.

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
