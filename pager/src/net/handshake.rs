//! The greeting at the start of a connection, over a transport that does not wait.

use super::reason::Reason;
use super::transport::{Iov, Transport};
use alloc::vec::Vec;
use rustix::io::Errno;
use tmem_wire::greeting::{Client, GreetingError};
use tmem_wire::{FEATURE_LZ4, FEATURE_NOTICE, HelloReply, Status};

/// A greeting under way.
#[derive(Debug)]
pub(super) struct Handshake(Client);

impl Handshake {
    /// Begins a greeting that joins the session that is `known` or opens a new one. The server
    /// ends the session's former connection of that `lane`. The nonce is random; `preface` is
    /// sent before.
    pub(super) fn new(
        known: Option<HelloReply>,
        lane: u32,
        secret: Option<&[u8]>,
        nonce: [u8; 16],
        preface: Vec<u8>,
    ) -> Handshake {
        let features = match preface.is_empty() {
            true => FEATURE_LZ4 | FEATURE_NOTICE,
            // The agent expects nothing that was not asked for.
            false => FEATURE_LZ4,
        };
        Handshake(Client::new(known, lane, features, secret, nonce, preface))
    }

    /// Tells whether there is anything to send.
    pub(super) fn unsent(&self) -> bool {
        !self.0.unsent().is_empty()
    }

    /// Goes on as far as the transport lets it; the reply when it is complete.
    ///
    /// # Errors
    /// Those of the transport other than `EAGAIN`, and what the server says or breaks.
    pub(super) fn drive(
        &mut self,
        t: &mut (impl Transport + ?Sized),
        secret: Option<&[u8]>,
    ) -> Result<Option<HelloReply>, Reason> {
        loop {
            let unsent = self.0.unsent();
            if !unsent.is_empty() {
                let piece = Iov {
                    base: unsent.as_ptr() as usize,
                    len: unsent.len(),
                };
                // SAFETY: the piece is what `unsent` gave, which nothing changes meanwhile.
                match unsafe { t.send(&[piece]) } {
                    Ok(count) => self.0.sent(count),
                    Err(Errno::AGAIN) => return Ok(None),
                    Err(e) => return Err(e.into()),
                }
                continue;
            }
            let room = self.0.room();
            let mut piece = [Iov {
                base: room.as_mut_ptr() as usize,
                len: room.len(),
            }];
            // SAFETY: the piece is what `room` gave, which nothing else uses meanwhile.
            match unsafe { t.recv(&mut piece) } {
                Ok(0) => return Err(Reason::Closed),
                Ok(count) => {
                    if let Some(reply) = self.0.received(count, secret)? {
                        return Ok(Some(reply));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl From<GreetingError> for Reason {
    fn from(error: GreetingError) -> Reason {
        match error {
            GreetingError::Malformed(e) => Reason::Protocol(e),
            GreetingError::Unexpected(what) => Reason::Unexpected(what),
            GreetingError::Version(version) => Reason::Version(version),
            GreetingError::Refused(Status::Limit, words) => {
                Reason::no_place(words.as_deref().unwrap_or_default())
            }
            GreetingError::Refused(status, _) => Reason::Status(status),
            GreetingError::SecretWanted => Reason::SecretWanted,
            GreetingError::SecretWrong => Reason::SecretWrong,
            GreetingError::NoProof => Reason::NoProof,
            GreetingError::Restarted => Reason::Restarted,
            GreetingError::SessionGone => Reason::SessionGone,
        }
    }
}
