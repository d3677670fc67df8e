//! The requests of one connection: sent in order, many at once, answered in
//! any order.

use super::Lane;
use super::reason::Reason;
use super::request::Request;
use super::transport::{Iov, MAX_IOV, Transport};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use rustix::io::Errno;
use tmem_wire::{BYE_ID, HEADER_LEN, Header, NOTICE_ID, Op, PAGE_SIZE, Status, unpack};

/// The most requests that one system call sends.
const BATCH: usize = 64;
/// About how many bytes one system call sends.
const BATCH_BYTES: usize = 256 << 10;
/// What is read beyond the payload in hand: two replies of one page. Larger
/// runs go straight to their frames.
const BUFFER: usize = 2 * (HEADER_LEN + PAGE_SIZE);

/// Pages that travelled packed, and the bytes that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Pages.
    pub pages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Packed {
    pub(super) fn add(&mut self, other: Packed) {
        self.pages += other.pages;
        self.bytes += other.bytes;
    }
}

/// The queue of requests and where sending and receiving stand in it.
#[derive(Debug)]
pub(super) struct Pipeline {
    queue: VecDeque<Request>,
    /// The name on the wire of the first request in the queue; the others
    /// follow on.
    first_id: u64,
    /// How many of the queue are sent.
    sent: usize,
    /// How many bytes of the next one are.
    sent_bytes: usize,
    /// Requests that have ended with all those before them.
    ended: u64,
    receiving: Receiving,
    buffer: Vec<u8>,
    /// The part of `buffer` that is not looked at yet.
    from: usize,
    to: usize,
    headers: Vec<[u8; HEADER_LEN]>,
    iov: Vec<Iov>,
    packed: Packed,
    /// What the server has asked for unasked, a bit for each.
    notices: u32,
}

/// What the next bytes received are.
#[derive(Debug)]
enum Receiving {
    Header,
    /// Pages for the request of this name, of which `done` bytes have come.
    Pages {
        id: u64,
        done: usize,
    },
    Body {
        header: Header,
        body: Vec<u8>,
    },
}

/// What becomes of an answer: the request, its status, the reply's body.
pub(super) trait Answers: FnMut(&Request, Status, &[u8]) -> Result<(), Reason> {}
impl<F: FnMut(&Request, Status, &[u8]) -> Result<(), Reason>> Answers for F {}

impl Pipeline {
    pub(super) fn new() -> Pipeline {
        Pipeline {
            queue: VecDeque::new(),
            first_id: 1,
            sent: 0,
            sent_bytes: 0,
            ended: 0,
            receiving: Receiving::Header,
            buffer: alloc::vec![0; BUFFER],
            from: 0,
            to: 0,
            headers: Vec::with_capacity(BATCH),
            iov: Vec::new(),
            packed: Packed::default(),
            notices: 0,
        }
    }

    /// Queues a request.
    pub(super) fn push(&mut self, request: Request) {
        if request.op == Op::Write && request.packed {
            self.packed.add(Packed {
                pages: u64::from(request.count),
                bytes: request.payload.len() as u64,
            });
        }
        self.queue.push_back(request);
    }

    /// Whether there is anything to send.
    pub(super) fn unsent(&self) -> bool {
        self.sent < self.queue.len()
    }

    /// Whether a request has begun to be sent and not ended.
    pub(super) fn amid_request(&self) -> bool {
        self.sent_bytes > 0
    }

    /// How many requests have ended, with all those before them: grows where the
    /// oldest is answered.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// What travelled packed.
    pub(super) fn packed(&self) -> Packed {
        self.packed
    }

    /// Takes what the server has asked for unasked.
    pub(super) fn take_notices(&mut self) -> u32 {
        core::mem::take(&mut self.notices)
    }

    /// Whether a request of `lane` is not answered.
    pub(super) fn has(&self, lane: Lane) -> bool {
        self.queue.iter().any(|r| r.lane == lane && !r.done)
    }

    /// Whether any answer is awaited.
    pub(super) fn waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes every request that was not answered, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Request> {
        self.reset();
        core::mem::take(&mut self.queue)
            .into_iter()
            .filter(|r| !r.done)
    }

    /// Begins anew on another connection: everything that is not answered is
    /// sent again, in order. What a later answer proves to have been done is
    /// answered with `Ok` instead: to do it again would undo the later.
    pub(super) fn restart(&mut self, mut on: impl Answers) -> Result<(), Reason> {
        // From the last to the first, since what is proved proves in its turn.
        let mut proved = Vec::new();
        for i in (0..self.queue.len()).rev() {
            let earlier = &self.queue[i];
            let later = || {
                self.queue
                    .range(i + 1..)
                    .any(|r| r.done && r.conflicts(earlier))
            };
            if !earlier.done && later() {
                self.queue[i].done = true;
                proved.push(i);
            }
        }
        for i in proved.into_iter().rev() {
            on(&self.queue[i], Status::Ok, &[])?;
        }
        self.reset();
        self.queue.retain(|r| !r.done);
        Ok(())
    }

    fn reset(&mut self) {
        // Names are not used twice.
        self.first_id += self.queue.len() as u64;
        (self.sent, self.sent_bytes) = (0, 0);
        (self.from, self.to) = (0, 0);
        self.receiving = Receiving::Header;
    }

    /// Sends up to about `budget` bytes of what is queued; returns whether more
    /// can be sent at once.
    ///
    /// # Errors
    /// Those of the transport, other than `EAGAIN`.
    pub(super) fn send(
        &mut self,
        t: &mut (impl Transport + ?Sized),
        budget: usize,
    ) -> Result<bool, Reason> {
        let mut left = budget;
        while self.unsent() {
            if left == 0 {
                return Ok(true);
            }
            let bytes = self.gather();
            // SAFETY: the pieces are the headers and bodies gathered here, and
            // frames that the caller keeps until the request is answered.
            let sent = match unsafe { t.send(&self.iov) } {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(e) => return Err(e.into()),
            };
            self.advance(sent);
            if sent < bytes {
                return Ok(false);
            }
            left = left.saturating_sub(sent);
        }
        Ok(true)
    }

    /// Collects the pieces to send next; returns their bytes.
    fn gather(&mut self) -> usize {
        self.headers.clear();
        self.iov.clear();
        let mut bytes = 0;
        let mut skip = self.sent_bytes;
        for (i, request) in self.queue.iter().enumerate().skip(self.sent) {
            let pieces = 1 + if request.op == Op::Read {
                0
            } else {
                request.payload.pieces()
            };
            let full = self.headers.len() == BATCH || self.iov.len() + pieces > MAX_IOV;
            if bytes >= BATCH_BYTES || (bytes > 0 && full) {
                break;
            }
            // The list never grows beyond its capacity, so that its elements
            // stay where they are.
            self.headers
                .push(request.header(self.first_id + i as u64).encode());
            let header = self.headers.last().map_or(0, |h| h.as_ptr() as usize);
            let cut = skip.min(HEADER_LEN);
            if cut < HEADER_LEN {
                self.iov.push(Iov {
                    base: header + cut,
                    len: HEADER_LEN - cut,
                });
            }
            if request.op != Op::Read {
                request.payload.push_to(skip - cut, &mut self.iov);
            }
            bytes += request.wire_len() - skip;
            skip = 0;
        }
        bytes
    }

    fn advance(&mut self, sent: usize) {
        self.sent_bytes += sent;
        while let Some(request) = self.queue.get(self.sent)
            && self.sent_bytes >= request.wire_len()
        {
            self.sent_bytes -= request.wire_len();
            self.sent += 1;
        }
    }

    /// Receives up to about `budget` bytes and hands the answers in them to
    /// `on`; returns whether anything came.
    ///
    /// # Errors
    /// Those of the transport other than `EAGAIN`, the end of the stream,
    /// anything that is no answer to a request sent, and those of `on`.
    pub(super) fn receive(
        &mut self,
        t: &mut (impl Transport + ?Sized),
        budget: usize,
        mut on: impl Answers,
    ) -> Result<bool, Reason> {
        let mut got = 0;
        while got < budget {
            self.iov.clear();
            if let Receiving::Pages { id, done } = self.receiving {
                // All that was buffered has been handed on by now.
                let index = self.index(id).ok_or(NO_REQUEST)?;
                self.queue[index].payload.push_to(done, &mut self.iov);
            }
            if let Receiving::Body { header, body } = &mut self.receiving {
                // As above.
                let missing = header.len as usize - body.len();
                body.reserve_exact(missing);
                self.iov.push(Iov {
                    base: body.spare_capacity_mut().as_mut_ptr() as usize,
                    len: missing,
                });
            }
            let direct: usize = self.iov.iter().map(|p| p.len).sum();
            if self.from > 0 {
                self.buffer.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            }
            let room = &mut self.buffer[self.to..];
            self.iov.push(Iov {
                base: room.as_mut_ptr() as usize,
                len: room.len(),
            });
            let asked = direct + room.len();
            // SAFETY: the pieces are this buffer, what a body has to spare, and frames
            // that the caller of the READ keeps for it.
            let n = match unsafe { t.recv(&mut self.iov) } {
                Ok(0) => return Err(Reason::Closed),
                Ok(n) => n,
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(e.into()),
            };
            got += n;
            match &mut self.receiving {
                Receiving::Header => {}
                Receiving::Pages { done, .. } => *done += n.min(direct),
                // SAFETY: so many bytes of what it had to spare were received.
                Receiving::Body { body, .. } => unsafe {
                    body.set_len(body.len() + n.min(direct));
                },
            }
            self.to += n.saturating_sub(direct);
            self.parse(&mut on)?;
            if n < asked {
                break;
            }
        }
        Ok(got > 0)
    }

    /// Looks at everything buffered.
    fn parse(&mut self, on: &mut impl Answers) -> Result<(), Reason> {
        loop {
            let buffered = &self.buffer[self.from..self.to];
            match &mut self.receiving {
                Receiving::Header => {
                    let Some(bytes) = buffered.first_chunk::<HEADER_LEN>() else {
                        return Ok(());
                    };
                    let header = Header::decode(bytes)?;
                    self.from += HEADER_LEN;
                    self.begin(&header, on)?;
                }
                &mut Receiving::Pages { id, done } => {
                    let index = self.index(id).ok_or(NO_REQUEST)?;
                    let copied = self.copy_out(index, done);
                    let done = done + copied;
                    self.receiving = Receiving::Pages { id, done };
                    if done < self.queue[index].payload.len() {
                        return Ok(());
                    }
                    self.receiving = Receiving::Header;
                    self.answered(index, Status::Ok, &[], on)?;
                }
                Receiving::Body { header, body } => {
                    let missing = header.len as usize - body.len();
                    let n = missing.min(buffered.len());
                    body.extend_from_slice(&buffered[..n]);
                    self.from += n;
                    if n < missing {
                        return Ok(());
                    }
                    let (header, body) = (*header, core::mem::take(body));
                    self.receiving = Receiving::Header;
                    let index = self.index(header.id).ok_or(NO_REQUEST)?;
                    if header.op == Op::Read && header.status == Status::Ok {
                        self.unpack(index, &body)?;
                        self.answered(index, Status::Ok, &[], on)?;
                    } else {
                        self.answered(index, header.status, &body, on)?;
                    }
                }
            }
        }
    }

    /// A reply's header has come.
    fn begin(&mut self, header: &Header, on: &mut impl Answers) -> Result<(), Reason> {
        if !header.reply {
            return Err(Reason::Unexpected("a request where a reply was due"));
        }
        if header.op == Op::Bye && header.id == BYE_ID {
            // The server ends the connection of its own accord, and says why.
            return Err(Reason::Status(header.status));
        }
        if header.op == Op::Notice && header.id == NOTICE_ID && header.len == 0 {
            // Those of later servers are none of this client's business.
            self.notices |= 1u32.checked_shl(header.page).unwrap_or(0);
            return Ok(());
        }
        let index = self.index(header.id).ok_or(NO_REQUEST)?;
        let request = &self.queue[index];
        let amid = index == self.sent && self.sent_bytes > 0;
        if amid && header.status != Status::Ok {
            // The server gives up on the connection within a request.
            return Err(Reason::Status(header.status));
        }
        if request.done || index >= self.sent {
            return Err(NO_REQUEST);
        }
        if header.op != request.op {
            return Err(Reason::Unexpected(
                "an answer to another operation than was asked for",
            ));
        }
        let has_pages = header.op == Op::Read && header.status == Status::Ok;
        if has_pages {
            if header.count != request.count {
                return Err(Reason::Unexpected(
                    "another number of pages than was asked for",
                ));
            }
            if header.packed && !request.packed {
                return Err(Reason::Unexpected("packed pages, unasked"));
            }
        }
        if has_pages && !header.packed {
            self.receiving = Receiving::Pages {
                id: header.id,
                done: 0,
            };
        } else if header.len > 0 {
            self.receiving = Receiving::Body {
                header: *header,
                body: Vec::new(),
            };
        } else {
            self.answered(index, header.status, &[], on)?;
        }
        Ok(())
    }

    /// Unpacks to where the READ wants its pages.
    fn unpack(&mut self, index: usize, body: &[u8]) -> Result<(), Reason> {
        let request = &self.queue[index];
        self.iov.clear();
        request.payload.push_to(0, &mut self.iov);
        let mut frames = self.iov.iter().flat_map(Iov::pages);
        unpack(body, request.count as usize, |_, page| {
            if let Some(frame) = frames.next() {
                // SAFETY: a page of the frames that the caller of the READ keeps for it.
                unsafe {
                    core::ptr::copy_nonoverlapping(page.as_ptr(), frame as *mut u8, PAGE_SIZE);
                }
            }
        })?;
        self.packed.add(Packed {
            pages: u64::from(request.count),
            bytes: body.len() as u64,
        });
        Ok(())
    }

    /// Copies buffered bytes to where the READ wants those from `done` on.
    fn copy_out(&mut self, index: usize, done: usize) -> usize {
        self.iov.clear();
        self.queue[index].payload.push_to(done, &mut self.iov);
        let start = self.from;
        for piece in &self.iov {
            let n = piece.len.min(self.to - self.from);
            let bytes = self.buffer[self.from..self.from + n].as_ptr();
            // SAFETY: the piece is part of frames that the caller of the READ
            // keeps for it, which are not this buffer.
            unsafe { core::ptr::copy_nonoverlapping(bytes, piece.base as *mut u8, n) };
            self.from += n;
        }
        self.from - start
    }

    fn index(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        (index < self.queue.len()).then_some(index)
    }

    fn answered(
        &mut self,
        index: usize,
        status: Status,
        body: &[u8],
        on: &mut impl Answers,
    ) -> Result<(), Reason> {
        let request = &mut self.queue[index];
        request.done = true;
        let result = on(request, status, body);
        while self.queue.front().is_some_and(|r| r.done) {
            self.queue.pop_front();
            self.first_id += 1;
            self.ended += 1;
            self.sent -= 1;
        }
        result
    }
}

const NO_REQUEST: Reason = Reason::Unexpected("an answer to no request");
