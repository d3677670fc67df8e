//! One request, from the call that makes it to its answer.

use super::Lane;
use super::transport::Iov;
use crate::sys::mem;
use alloc::vec::Vec;
use tmem_wire::{HEADER_LEN, Header, Op, PAGE_SIZE, Packer, PageBytes};

/// The memory that a request sends from or receives into.
#[derive(Debug, Default)]
pub(super) enum Payload {
    /// None.
    #[default]
    None,
    /// One piece of page frames.
    One(Iov),
    /// Several pieces of page frames.
    Many(Vec<Iov>),
    /// Bytes of its own.
    Bytes(Bytes),
}

/// Bytes whose memory goes back to the kernel: megabytes of pages may wait packed at one
/// time, and none at all later, and what the heap kept of it would be missing from the
/// program's budget for ever.
#[derive(Debug)]
pub(super) struct Bytes(Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: the vector's own memory, of which nobody reads anything any more.
        unsafe { mem::give_back(self.0.as_ptr().addr(), self.0.capacity()) };
    }
}

impl Payload {
    /// The frames at `addresses`, neighbours taken together.
    pub(super) fn frames(addresses: &[usize]) -> Payload {
        let mut pieces: Vec<Iov> = Vec::new();
        let mut now = Iov { base: 0, len: 0 };
        for &base in addresses {
            if now.len > 0 && now.base.wrapping_add(now.len) == base {
                now.len += PAGE_SIZE;
                continue;
            }
            if now.len > 0 {
                pieces.push(now);
            }
            now = Iov {
                base,
                len: PAGE_SIZE,
            };
        }
        match (pieces.is_empty(), now.len) {
            (true, 0) => Payload::None,
            (true, _) => Payload::One(now),
            (false, _) => {
                pieces.push(now);
                Payload::Many(pieces)
            }
        }
    }

    /// The same pages packed, if they are frames and get smaller by it.
    ///
    /// # Safety
    /// The frames can be read.
    unsafe fn packed(&self) -> Option<Payload> {
        let mut packer = Packer::new(self.len() / PAGE_SIZE);
        let each = |pieces: &[Iov]| {
            pieces.iter().flat_map(Iov::pages).all(|base| {
                // SAFETY: a page of a frame, by the caller.
                packer.add(unsafe { &*(base as *const PageBytes) })
            })
        };
        let all = self.with(each);
        let bytes = packer.finish().filter(|_| all)?;
        Some(Payload::Bytes(bytes.into()))
    }

    /// The same once more; frames are named again, not copied.
    pub(super) fn copied(&self) -> Payload {
        match self {
            Payload::None => Payload::None,
            Payload::One(piece) => Payload::One(*piece),
            Payload::Many(pieces) => Payload::Many(pieces.clone()),
            Payload::Bytes(bytes) => Payload::Bytes(bytes.0.clone().into()),
        }
    }

    /// Where the `nth` page of frames begins.
    pub(super) fn page(&self, nth: usize) -> Option<usize> {
        let mut skip = nth * PAGE_SIZE;
        self.with(|pieces| {
            pieces.iter().find_map(|piece| {
                if skip < piece.len {
                    return Some(piece.base + skip);
                }
                skip -= piece.len;
                None
            })
        })
    }

    /// Bytes of its own.
    pub(super) fn own_bytes(&self) -> &[u8] {
        match self {
            Payload::Bytes(bytes) => &bytes.0,
            _ => &[],
        }
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        self.with(|pieces| pieces.iter().map(|p| p.len).sum())
    }

    /// Appends the pieces beyond the first `skip` bytes.
    pub(super) fn push_to(&self, skip: usize, out: &mut Vec<Iov>) {
        let mut skip = skip;
        self.with(|pieces| {
            for p in pieces {
                let cut = skip.min(p.len);
                skip -= cut;
                if cut < p.len {
                    out.push(Iov {
                        base: p.base + cut,
                        len: p.len - cut,
                    });
                }
            }
        });
    }

    /// How many pieces.
    pub(super) fn pieces(&self) -> usize {
        self.with(<[Iov]>::len)
    }

    fn with<R>(&self, f: impl FnOnce(&[Iov]) -> R) -> R {
        match self {
            Payload::None => f(&[]),
            Payload::One(piece) => f(core::slice::from_ref(piece)),
            Payload::Many(pieces) => f(pieces),
            Payload::Bytes(bytes) => f(&[Iov {
                base: bytes.0.as_ptr() as usize,
                len: bytes.0.len(),
            }]),
        }
    }
}

/// A request that was made and not answered, or answered before earlier ones.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) op: Op,
    /// Waited for awake.
    pub(super) prompt: bool,
    /// A READ whose answer may be packed, or a WRITE whose payload is.
    pub(super) packed: bool,
    /// The lane that it was asked for on.
    pub(super) lane: Lane,
    /// The caller's name for it.
    pub(super) token: u64,
    pub(super) slab: u32,
    pub(super) page: u32,
    pub(super) count: u32,
    /// Source of a WRITE or RELEASE, destination of a READ.
    pub(super) payload: Payload,
    /// Answered.
    pub(super) done: bool,
    /// Attempts that the server failed at.
    pub(super) tries: u8,
}

impl Request {
    /// A request of the bulk lane without pages.
    pub(super) fn new(op: Op) -> Request {
        Request {
            op,
            prompt: false,
            packed: false,
            lane: Lane::Bulk,
            token: 0,
            slab: 0,
            page: 0,
            count: 0,
            payload: Payload::None,
            done: false,
            tries: 0,
        }
    }

    /// Packs the pages of a WRITE, if they get smaller by it, and lets those of a READ come
    /// packed.
    ///
    /// # Safety
    /// The frames of a WRITE can be read.
    pub(super) unsafe fn pack(&mut self) {
        match self.op {
            Op::Read => self.packed = true,
            Op::Write => {
                // SAFETY: by the caller.
                if let Some(payload) = unsafe { self.payload.packed() } {
                    self.payload = payload;
                    self.packed = true;
                }
            }
            _ => {}
        }
    }

    /// Bytes that follow its header.
    pub(super) fn body_len(&self) -> usize {
        if self.op == Op::Read {
            0
        } else {
            self.payload.len()
        }
    }

    /// Bytes that it puts on the wire.
    pub(super) fn wire_len(&self) -> usize {
        HEADER_LEN + self.body_len()
    }

    /// Its header, under the name `id`.
    pub(super) fn header(&self, id: u64) -> Header {
        Header {
            slab: self.slab,
            page: self.page,
            count: self.count,
            len: self.body_len() as u32,
            prompt: self.prompt,
            packed: self.packed,
            ..Header::request(self.op, id)
        }
    }

    /// Page bytes that it moves.
    pub(super) fn page_bytes(&self) -> usize {
        match self.op {
            Op::Read | Op::Write => self.count as usize * PAGE_SIZE,
            _ => 0,
        }
    }

    /// Whether it changes pages.
    fn changes(&self) -> bool {
        matches!(self.op, Op::Write | Op::Discard)
    }

    /// Whether both change some page.
    pub(super) fn conflicts(&self, other: &Request) -> bool {
        let end = |r: &Request| u64::from(r.page) + u64::from(r.count);
        self.changes()
            && other.changes()
            && self.slab == other.slab
            && u64::from(self.page) < end(other)
            && u64::from(other.page) < end(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::Proc;

    /// Pages from `at` on that have memory.
    fn resident(at: usize, pages: usize) -> usize {
        let mut runs = Vec::new();
        let proc = Proc::open().unwrap();
        proc.occupied(at, at + pages * PAGE_SIZE, &mut runs)
            .unwrap();
        runs.iter().map(|run| run.end - run.start).sum::<usize>() / PAGE_SIZE
    }

    #[test]
    fn memory_of_packed_pages_is_given_back_and_that_of_its_neighbours_kept() {
        // Of a size that the heap keeps when it is freed.
        const PAGES: usize = 24;
        let before = alloc::boxed::Box::new([1u8; 100]);
        let payload = Payload::Bytes(alloc::vec![2u8; PAGES * PAGE_SIZE].into());
        let after = alloc::boxed::Box::new([3u8; 100]);
        let mut pieces = Vec::new();
        payload.push_to(0, &mut pieces);
        let first = pieces[0].base.next_multiple_of(PAGE_SIZE);
        assert_eq!(resident(first, PAGES - 1), PAGES - 1);
        drop(payload);
        assert!(resident(first, PAGES - 1) <= 1);
        assert!(before.iter().all(|b| *b == 1) && after.iter().all(|b| *b == 3));
    }
}
