//! What goes to the engine.

use crate::staging::{Place, Staging};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;

/// The most pieces of one system call.
const PIECES: usize = 64;

/// Answers in the order in which they go out.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    queue: VecDeque<Part>,
    /// Bytes of the first that are sent.
    sent: usize,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Pages(Place),
}

impl Outbound {
    /// Says `bytes`.
    pub(crate) fn say(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(Part::Bytes(bytes));
    }

    /// Sends pages, whose room is free after.
    pub(crate) fn pages(&mut self, place: Place) {
        self.queue.push_back(Part::Pages(place));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends what the socket takes now; whether it took anything.
    pub(crate) fn flush(&mut self, to: &mut UnixStream, staging: &mut Staging) -> io::Result<bool> {
        let mut any = false;
        while !self.queue.is_empty() {
            let mut pieces = Vec::with_capacity(PIECES);
            let mut skip = self.sent;
            for part in self.queue.iter().take(PIECES) {
                let bytes = match part {
                    Part::Bytes(bytes) => &bytes[..],
                    Part::Pages(place) => staging.bytes(*place),
                };
                pieces.push(IoSlice::new(&bytes[skip..]));
                skip = 0;
            }
            match to.write_vectored(&pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n, staging),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            any = true;
        }
        Ok(any)
    }

    fn advance(&mut self, n: usize, staging: &mut Staging) {
        self.sent += n;
        while let Some(part) = self.queue.front() {
            let len = match part {
                Part::Bytes(bytes) => bytes.len(),
                Part::Pages(place) => place.len,
            };
            if self.sent < len {
                return;
            }
            self.sent -= len;
            if let Some(Part::Pages(place)) = self.queue.pop_front() {
                staging.give(place);
            }
        }
    }
}
