//! Answers to the engine.

use crate::staging::{Place, Staging};
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use tmem_verbs::Part;

/// The most buffers of one system call.
const PIECES: usize = 64;

/// Answers in the order in which they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    queue: VecDeque<Answer>,
    /// Bytes of the first answer that are sent.
    sent: usize,
}

#[derive(Debug)]
enum Answer {
    Bytes(Vec<u8>),
    Pages(Place),
}

impl Outbound {
    /// Queues a message.
    pub(crate) fn say(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(Answer::Bytes(bytes));
    }

    /// Queues pages. Their room is free when they are sent.
    pub(crate) fn pages(&mut self, place: Place) {
        self.queue.push_back(Answer::Pages(place));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends as much as the socket takes. Returns whether it took anything.
    pub(crate) fn flush(&mut self, to: &UnixStream, staging: &mut Staging) -> io::Result<bool> {
        let mut any = false;
        while !self.queue.is_empty() {
            let mut pieces = Vec::with_capacity(PIECES);
            let mut skip = self.sent;
            for answer in self.queue.iter().take(PIECES) {
                pieces.push(match answer {
                    Answer::Bytes(bytes) => Part::Bytes(&bytes[skip..]),
                    Answer::Pages(place) => place.part(skip),
                });
                skip = 0;
            }
            match staging.send(to, &pieces) {
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
        while let Some(answer) = self.queue.front() {
            let len = match answer {
                Answer::Bytes(bytes) => bytes.len(),
                Answer::Pages(place) => place.len,
            };
            if self.sent < len {
                return;
            }
            self.sent -= len;
            if let Some(Answer::Pages(place)) = self.queue.pop_front() {
                staging.give(place);
            }
        }
    }
}
