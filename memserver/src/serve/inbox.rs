//! What was received and is not used yet.

use crate::serve::outbox::Outbox;
use crate::serve::socket::{Piece, Socket};
use crate::serve::wait::{Wait, give_way};
use crate::serve::wipe::Wiped;
use std::io;
use std::time::Instant;
use tmem_wire::HEADER_LEN;

/// Bytes of the buffer: many requests without payload, but little of a WRITE,
/// whose payload is copied out of here as far as it came with its header.
const LEN: usize = 1024;

/// A small buffer before the connection.
pub(crate) struct Inbox {
    bytes: Box<Wiped<[u8; LEN]>>,
    start: usize,
    end: usize,
    wait: Wait,
    /// The client means to ask again soon.
    pub(crate) prompt: bool,
    /// When receiving anything fails, until greeted.
    pub(crate) deadline: Option<Instant>,
}

impl Inbox {
    pub(crate) fn new(deadline: Instant) -> Inbox {
        Inbox {
            bytes: Box::new(Wiped([0; LEN])),
            start: 0,
            end: 0,
            wait: Wait::default(),
            prompt: false,
            deadline: Some(deadline),
        }
    }

    /// The next header; `None` at the end of the stream. Before it waits, the
    /// replies in `out` are sent.
    pub(crate) fn header(
        &mut self,
        socket: &Socket,
        out: &mut Outbox,
    ) -> io::Result<Option<[u8; HEADER_LEN]>> {
        while self.end - self.start < HEADER_LEN {
            self.bytes.0.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.more(socket, out, None)? == 0 {
                return Ok(None);
            }
        }
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&self.bytes.0[self.start..self.start + HEADER_LEN]);
        self.start += HEADER_LEN;
        Ok(Some(header))
    }

    /// Receives a payload into memory.
    ///
    /// # Safety
    /// `len` bytes from `to` must be memory that may be written.
    pub(crate) unsafe fn payload(
        &mut self,
        socket: &Socket,
        out: &mut Outbox,
        to: *mut u8,
        len: usize,
    ) -> io::Result<()> {
        let mut done = 0;
        loop {
            let buffered = (len - done).min(self.end - self.start);
            let (from, at) = (self.bytes.0[self.start..].as_ptr(), to.wrapping_add(done));
            // SAFETY: so much is buffered, and the caller vouches for `to`.
            unsafe { std::ptr::copy_nonoverlapping(from, at, buffered) };
            self.start += buffered;
            done += buffered;
            if done == len {
                return Ok(());
            }
            let most = give_way();
            (self.start, self.end) = (0, 0);
            let rest = Piece::new(to.wrapping_add(done), (len - done).min(most));
            match self.more(socket, out, Some(rest))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n.min(rest.len()),
            }
        }
    }

    /// Throws a payload away.
    pub(crate) fn skip(&mut self, socket: &Socket, len: usize) -> io::Result<()> {
        let mut done = len.min(self.end - self.start);
        self.start += done;
        while done < len {
            match socket.skip(len - done)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Receives into `first` and then into the free rest of the buffer; how
    /// many bytes came.
    fn more(
        &mut self,
        socket: &Socket,
        out: &mut Outbox,
        first: Option<Piece>,
    ) -> io::Result<usize> {
        let free = &mut self.bytes.0[self.end..];
        let buffer = Piece::new(free.as_mut_ptr(), free.len());
        let (mut two, mut one);
        let pieces: &mut [Piece] = if let Some(first) = first {
            two = [first, buffer];
            &mut two
        } else {
            one = [buffer];
            &mut one
        };
        if out.has_pages() || out.is_full() {
            out.flush(socket)?;
        }
        let mut got = None;
        if !out.is_empty() {
            // Answers to writes go together, as long as more comes anyway.
            // SAFETY: the buffer is this value's, the caller vouches for `first`.
            got = unsafe { socket.receive(pieces, false)? };
            if got.is_none() {
                out.flush(socket)?;
            }
        }
        let n = match (got, self.deadline) {
            (Some(n), _) => n,
            (None, deadline) => {
                if let Some(deadline) = deadline {
                    socket.wait(deadline)?;
                }
                // SAFETY: as above.
                unsafe { self.wait.receive(socket, pieces, self.prompt)? }
            }
        };
        if n == 0 {
            // A client that has said all it had to say may still listen.
            out.flush(socket)?;
        }
        self.end += n.saturating_sub(first.map_or(0, |p| p.len()));
        Ok(n)
    }
}
