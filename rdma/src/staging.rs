//! The agent's memory that the device may access: pages and messages on their way.

use crate::ring::Ring;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tmem_verbs::{Buffer, Domain, Error, Part, Piece};
use tmem_wire::{PAGE_SIZE, RDMA_RECEIVES, RDMA_SEND};

/// The most pages of a request. The engine sends no larger ones.
pub(crate) const MAX_PAGES: u32 = 128;
/// Bytes for pages in each direction: two of the largest requests. Each connection pins
/// this memory.
const PAGES: usize = 2 * MAX_PAGES as usize * PAGE_SIZE;
/// Buffers for messages to the server.
pub(crate) const SENDS: usize = 16;

const READS: usize = 0;
const WRITES: usize = PAGES;
const SEND: usize = WRITES + PAGES;
const RECEIVE: usize = SEND + SENDS * RDMA_SEND;
const LEN: usize = RECEIVE + RDMA_RECEIVES * RDMA_SEND;

/// The registered memory, and which of it is in use.
#[derive(Debug)]
pub(crate) struct Staging {
    buffer: Buffer,
    reads: Ring,
    writes: Ring,
}

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Staging {
    pub(crate) fn new(domain: &Arc<Domain>) -> Result<Staging, Error> {
        Ok(Staging {
            buffer: Buffer::new(domain, LEN)?,
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

    /// Buffer `slot` for messages to the server.
    pub(crate) fn to_server(slot: usize) -> Place {
        Place {
            at: SEND + slot * RDMA_SEND,
            len: RDMA_SEND,
        }
    }

    /// Buffer `slot` for messages from the server.
    pub(crate) fn from_server(slot: usize) -> Place {
        Place {
            at: RECEIVE + slot * RDMA_SEND,
            len: RDMA_SEND,
        }
    }

    /// A place as the device knows it.
    pub(crate) fn piece(&self, place: Place) -> Result<Piece, Error> {
        self.buffer.piece(place.at, place.len)
    }

    /// Copies bytes to the beginning of a place.
    pub(crate) fn put(&mut self, place: Place, bytes: &[u8]) {
        self.buffer
            .put(place.at, &bytes[..bytes.len().min(place.len)]);
    }

    /// Reads bytes from the engine into a place, from its byte `done` on.
    pub(crate) fn receive(
        &mut self,
        place: Place,
        done: usize,
        from: &UnixStream,
    ) -> io::Result<usize> {
        self.buffer.receive(place.at + done, place.len - done, from)
    }

    /// Appends the bytes of a place to `to`.
    pub(crate) fn append_to(&self, to: &mut Vec<u8>, place: Place) {
        self.buffer.append_to(to, place.at, place.len);
    }

    /// Sends parts, of which [`Place::part`] makes those that are here.
    pub(crate) fn send(&self, to: &UnixStream, parts: &[Part<'_>]) -> io::Result<usize> {
        self.buffer.send(to, parts)
    }
}

impl Place {
    /// Its bytes without the first `n`, to be sent.
    pub(crate) fn part(self, n: usize) -> Part<'static> {
        Part::Here(self.at + n, self.len - n)
    }
}
