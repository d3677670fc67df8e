//! Replies that are not sent yet.

use crate::link::{Link, Piece};
use crate::memory::Slab;
use crate::sessions::bytes;
use std::io;
use std::sync::Arc;
use tmem_wire::{HEADER_LEN, Header, PAGE_SIZE, Packer, Status};

/// Replies held back at most, before they are sent.
const MAX_REPLIES: usize = 64;

/// Bytes held back at most.
const MAX_BYTES: usize = 1 << 20;

/// What pages that nobody stored are sent from.
static ZEROS: [u8; 16 * PAGE_SIZE] = [0; 16 * PAGE_SIZE];

/// Replies that are not sent yet, their pages still in their slabs.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Headers and small payloads, one after another.
    heads: Vec<u8>,
    parts: Vec<Part>,
    /// Keeps the memory of the pages.
    slabs: Vec<Arc<Slab>>,
    pieces: Vec<Piece>,
    replies: usize,
    bytes: usize,
}

enum Part {
    /// So many bytes of `heads`.
    Head(usize),
    /// Pages.
    Pages(Piece),
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.replies == 0
    }

    /// Whether pages are among it, which must be sent before they change.
    pub(crate) fn has_pages(&self) -> bool {
        !self.slabs.is_empty()
    }

    /// Whether it must be sent before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.replies >= MAX_REPLIES || self.bytes >= MAX_BYTES
    }

    /// Adds a reply with a payload of its own.
    pub(crate) fn reply(&mut self, request: &Header, status: Status, payload: &[u8]) {
        self.head(&request.reply(status, payload.len() as u32));
        self.body(payload);
    }

    fn body(&mut self, payload: &[u8]) {
        self.heads.extend_from_slice(payload);
        if let Some(Part::Head(len)) = self.parts.last_mut() {
            *len += payload.len();
        }
        self.bytes += payload.len();
    }

    /// Adds a reply that says no.
    pub(crate) fn refusal(&mut self, request: &Header, status: Status) {
        self.reply(request, status, status.to_string().as_bytes());
    }

    /// Adds the pages that a READ asks for, all within the slab.
    pub(crate) fn pages(&mut self, request: &Header, slab: Arc<Slab>) {
        self.head(&request.reply(Status::Ok, bytes(request.count) as u32));
        for run in slab.runs(request.page, request.page + request.count) {
            let mut left = bytes(run.end - run.start);
            if run.set {
                let piece = Piece::new(slab.page(run.start), left);
                self.parts.push(Part::Pages(piece));
                continue;
            }
            while left > 0 {
                let len = left.min(ZEROS.len());
                self.parts
                    .push(Part::Pages(Piece::new(ZEROS.as_ptr(), len)));
                left -= len;
            }
        }
        self.bytes += bytes(request.count);
        if !self.slabs.last().is_some_and(|s| Arc::ptr_eq(s, &slab)) {
            self.slabs.push(slab);
        }
    }

    /// Adds the pages that a READ asks for packed, if they get smaller by it; whether
    /// they did.
    pub(crate) fn packed(&mut self, request: &Header, slab: &Slab) -> bool {
        let mut packer = Packer::new(request.count as usize);
        for run in slab.runs(request.page, request.page + request.count) {
            for page in run.start..run.end {
                if !run.set {
                    packer.add_zeros();
                } else if !packer.add(&slab.copy(page)) {
                    return false;
                }
            }
        }
        let Some(payload) = packer.finish() else {
            return false;
        };
        self.head(&Header {
            packed: true,
            ..request.reply(Status::Ok, payload.len() as u32)
        });
        self.body(&payload);
        true
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, link: &Link) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        for part in &self.parts {
            self.pieces.push(match part {
                Part::Head(len) => {
                    at += len;
                    Piece::new(self.heads[at - len..].as_ptr(), *len)
                }
                Part::Pages(piece) => *piece,
            });
        }
        // SAFETY: the pieces are of `heads`, of zeros, and of slabs that are
        // held here.
        let sent = unsafe { link.send(&mut self.pieces) };
        self.heads.clear();
        self.parts.clear();
        self.slabs.clear();
        self.pieces.clear();
        (self.replies, self.bytes) = (0, 0);
        sent
    }

    fn head(&mut self, header: &Header) {
        self.heads.extend_from_slice(&header.encode());
        // Neighbours are one piece.
        if let Some(Part::Head(len)) = self.parts.last_mut() {
            *len += HEADER_LEN;
        } else {
            self.parts.push(Part::Head(HEADER_LEN));
        }
        self.replies += 1;
        self.bytes += HEADER_LEN;
    }
}
