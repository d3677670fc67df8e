//! Memory of the agent that the device may use: pages on their way, and the
//! pieces of the stream.

use crate::ring::Ring;
use std::io;
use std::sync::Arc;
use tmem_verbs::{Access, Domain, Error, Piece, Region};
use tmem_wire::{PAGE_SIZE, RDMA_RECEIVES, RDMA_SEND};

/// The most pages of a request: those of this project's engine have no more.
pub(crate) const MAX_PAGES: u32 = 128;
/// Bytes for pages in each direction: two of the largest requests. What is
/// registered is pinned, for each connection.
const PAGES: usize = 2 * MAX_PAGES as usize * PAGE_SIZE;
/// Pieces of the stream that can be on their way to the server.
pub(crate) const SENDS: usize = 16;

const READS: usize = 0;
const WRITES: usize = PAGES;
const SEND: usize = WRITES + PAGES;
const RECEIVE: usize = SEND + SENDS * RDMA_SEND;
const LEN: usize = RECEIVE + RDMA_RECEIVES * RDMA_SEND;

/// The memory, registered, and what of it is in use.
#[derive(Debug)]
pub(crate) struct Staging {
    // Before the mapping, which it registers.
    region: Region,
    map: Mapping,
    reads: Ring,
    writes: Ring,
}

/// Where pages are, in the direction of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Staging {
    pub(crate) fn new(domain: &Arc<Domain>) -> Result<Staging, Error> {
        let map = Mapping::new(LEN).map_err(|error| Error::Call {
            call: "mmap",
            error,
        })?;
        let access = Access {
            local_write: true,
            ..Access::default()
        };
        // SAFETY: the mapping outlives the region, which is dropped before.
        let region = unsafe { domain.register(map.0, LEN, access)? };
        Ok(Staging {
            region,
            map,
            reads: Ring::new(PAGES),
            writes: Ring::new(PAGES),
        })
    }

    /// Room for pages from the server.
    pub(crate) fn take_read(&mut self, len: usize) -> Option<Place> {
        let at = self.reads.take(len)? + READS;
        Some(Place { at, len })
    }

    /// Room for pages to the server.
    pub(crate) fn take_write(&mut self, len: usize) -> Option<Place> {
        let at = self.writes.take(len)? + WRITES;
        Some(Place { at, len })
    }

    /// The room is free again.
    pub(crate) fn give(&mut self, place: Place) {
        if place.at < WRITES {
            self.reads.give(place.at - READS);
        } else {
            self.writes.give(place.at - WRITES);
        }
    }

    /// The buffer of a piece of the stream to the server.
    pub(crate) fn send(slot: usize) -> Place {
        Place {
            at: SEND + slot * RDMA_SEND,
            len: RDMA_SEND,
        }
    }

    /// The buffer of a piece of the stream from the server.
    pub(crate) fn receive(slot: usize) -> Place {
        Place {
            at: RECEIVE + slot * RDMA_SEND,
            len: RDMA_SEND,
        }
    }

    /// What the device is told of a place.
    pub(crate) fn piece(&self, place: Place) -> Result<Piece, Error> {
        self.region.piece(place.at, place.len)
    }

    /// The bytes of a place. The device writes only to places that were given
    /// to it, and these are not looked at before it is done.
    pub(crate) fn bytes(&self, place: Place) -> &[u8] {
        assert!(place.at + place.len <= LEN);
        // SAFETY: within the mapping, as just seen.
        unsafe { std::slice::from_raw_parts(self.map.0.add(place.at), place.len) }
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self, place: Place) -> &mut [u8] {
        assert!(place.at + place.len <= LEN);
        // SAFETY: within the mapping, as just seen; `self` is borrowed whole.
        unsafe { std::slice::from_raw_parts_mut(self.map.0.add(place.at), place.len) }
    }
}

/// Anonymous memory.
#[derive(Debug)]
struct Mapping(*mut u8, usize);

// SAFETY: the memory belongs to whoever has this.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping(at.cast(), len))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing borrows it any more.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}
