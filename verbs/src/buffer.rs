//! Registered memory of this process, for sending and receiving.

use crate::error::Error;
use crate::memory::{Access, Domain, Piece, Region};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::{fmt, io};

/// Zeroed memory that the device of a connection may read and write, and the
/// other end may not. It is pinned until it is dropped.
///
/// The device may write to it at any time, so there are no references to it: bytes are
/// copied, by this process or by the kernel. Bytes that are copied while the device writes
/// them may be old or new.
pub struct Buffer {
    // Before the mapping, which it registers.
    region: Region,
    map: Mapping,
}

/// What [`Buffer::send`] sends.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Bytes of the buffer: where they begin, and how many.
    Here(usize, usize),
}

/// The most parts that [`Buffer::send`] looks at.
const PARTS: usize = 64;

impl Buffer {
    /// Makes a buffer of `len` bytes, not 0.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`], or [`Error::Call`] when there is no memory.
    pub fn new(domain: &Arc<Domain>, len: usize) -> Result<Buffer, Error> {
        let map = Mapping::new(len).map_err(|error| Error::Call {
            call: "mmap",
            error,
        })?;
        let access = Access {
            local_write: true,
            ..Access::default()
        };
        // SAFETY: the mapping outlives the region, which is dropped before, and
        // there are never references to it.
        let region = unsafe { domain.register(map.0, len, access)? };
        Ok(Buffer { region, map })
    }

    /// A part of it, for the device.
    ///
    /// # Errors
    ///
    /// [`Error::Bounds`] if it is not inside.
    pub fn piece(&self, offset: usize, len: usize) -> Result<Piece, Error> {
        self.region.piece(offset, len)
    }

    /// The address of a part.
    ///
    /// # Panics
    ///
    /// If it is not inside.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.map.1), "outside");
        self.map.0.wrapping_add(offset)
    }

    /// Copies `bytes` to where `offset` is.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: inside the mapping, of which there are no references.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Appends a copy of a part to `to`.
    ///
    /// # Panics
    ///
    /// If the part is not inside.
    pub fn append_to(&self, to: &mut Vec<u8>, offset: usize, len: usize) {
        let from = self.at(offset, len);
        to.reserve(len);
        // SAFETY: inside the mapping, and there is room for so many.
        unsafe {
            to.as_mut_ptr()
                .add(to.len())
                .copy_from_nonoverlapping(from, len);
            to.set_len(to.len() + len);
        }
    }

    /// Receives from a socket into a part: how many bytes, 0 at the end.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// If the part is not inside.
    pub fn receive(&mut self, offset: usize, len: usize, from: &impl AsFd) -> io::Result<usize> {
        let to = self.at(offset, len);
        let socket = from.as_fd().as_raw_fd();
        // SAFETY: inside the mapping, of which there are no references.
        length(unsafe { libc::recv(socket, to.cast(), len, 0) })
    }

    /// Sends parts to a socket, one after the other: how many bytes it took.
    /// Only the first 64 parts are looked at.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// If a part is not inside.
    pub fn send(&self, to: &impl AsFd, parts: &[Part<'_>]) -> io::Result<usize> {
        let mut pieces = [libc::iovec {
            iov_base: null_mut(),
            iov_len: 0,
        }; PARTS];
        for (piece, part) in pieces.iter_mut().zip(parts) {
            let (base, len) = match *part {
                Part::Bytes(bytes) => (bytes.as_ptr().cast_mut(), bytes.len()),
                Part::Here(offset, len) => (self.at(offset, len), len),
            };
            piece.iov_base = base.cast();
            piece.iov_len = len;
        }
        // SAFETY: all zeros is a message without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = parts.len().min(PARTS);
        let socket = to.as_fd().as_raw_fd();
        // SAFETY: the pieces are borrowed, or inside the mapping.
        length(unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) })
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.region.fmt(f)
    }
}

/// What a system call returned.
fn length(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Anonymous memory.
struct Mapping(*mut u8, usize);

// SAFETY: the memory belongs to whoever has this.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at an address of the kernel's choice.
        let at = unsafe { libc::mmap(null_mut(), len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping(at.cast(), len))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no device has it any more.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}
