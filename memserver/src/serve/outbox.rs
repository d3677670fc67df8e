//! Replies that are not sent yet.

use crate::serve::socket::{Piece, Socket};
use crate::serve::wipe::Wiped;
use crate::store::sessions::bytes;
use crate::store::slab::Slab;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tmem_wire::packed::ROOM;
use tmem_wire::{HEADER_LEN, Header, PAGE_SIZE, Packer, PageBytes, Status};

/// The most replies that are collected before they are sent.
const MAX_REPLIES: usize = 64;

/// The most bytes that are collected before they are sent.
const MAX_BYTES: usize = 1 << 20;

/// Room that is kept for headers and small payloads, in bytes.
const HEADS: usize = 64 << 10;

/// The contents of pages that were never stored.
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
    /// This many bytes of `heads`.
    Head(usize),
    /// Pages.
    Pages(Piece),
    /// Compressed pages, and their part of the limit on them.
    Packed(
        Wiped<Vec<u8>>,
        #[expect(dead_code, reason = "given back when dropped")] Ration,
    ),
}

/// Limits the bytes of compressed pages that all connections hold until clients receive them.
/// Beyond the limit pages are sent as they are, from their slabs.
#[derive(Debug)]
pub(crate) struct Rations {
    held: AtomicU64,
    most: u64,
}

/// A part of the limit, given back when dropped.
struct Ration(Arc<Rations>, u64);

impl Rations {
    pub(crate) fn new(most: u64) -> Arc<Rations> {
        let held = AtomicU64::new(0);
        Arc::new(Rations { held, most })
    }

    fn take(self: &Arc<Rations>, bytes: u64) -> Option<Ration> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let ration = Ration(self.clone(), bytes);
        // Given back at once if it is too much.
        (before + bytes <= self.most).then_some(ration)
    }
}

impl Drop for Ration {
    fn drop(&mut self) {
        self.0.held.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.replies == 0
    }

    /// Whether it has pages, which must be sent before they change.
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

    /// Adds a reply that refuses a request.
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

    /// Adds the pages that a READ asks for, compressed, if that makes them smaller and the limit
    /// allows it. Returns whether it did.
    pub(crate) fn packed(&mut self, request: &Header, slab: &Slab, rations: &Arc<Rations>) -> bool {
        let Some(ration) = rations.take(bytes(request.count) as u64) else {
            return false;
        };
        let mut packer = Packer::in_place(request.count as usize);
        let all = pack(&mut packer, request, slab);
        let is_whole = all && packer.is_whole();
        let mut bytes = packer.into_bytes();
        let len = bytes.len();
        // Compressing the last page has used bytes beyond the end. They are zeroed.
        bytes.resize((len + ROOM).min(bytes.capacity()), 0);
        bytes.truncate(len);
        let payload = Wiped(bytes);
        if !is_whole {
            return false;
        }
        self.head(&Header {
            packed: true,
            ..request.reply(Status::Ok, len as u32)
        });
        self.bytes += len;
        self.parts.push(Part::Packed(payload, ration));
        true
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<()> {
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
                Part::Packed(payload, _) => Piece::new(payload.0.as_ptr(), payload.0.len()),
            });
        }
        // SAFETY: the pieces are of `heads`, of zeros, of packed pages, and of slabs that
        // are held here.
        let sent = unsafe { socket.send(&mut self.pieces) };
        self.heads.clear();
        self.heads.shrink_to(HEADS);
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

/// Compresses pages until that is not worth it. Returns whether all were compressed.
fn pack(packer: &mut Packer, request: &Header, slab: &Slab) -> bool {
    let mut copy: Box<Wiped<PageBytes>> = Box::new(Wiped([0; PAGE_SIZE]));
    for run in slab.runs(request.page, request.page + request.count) {
        for page in run.start..run.end {
            if !run.set {
                packer.add_zeros();
                continue;
            }
            slab.copy(page, &mut copy.0);
            if !packer.add(&copy.0) {
                return false;
            }
        }
    }
    true
}
