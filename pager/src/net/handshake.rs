//! The greeting at the start of a connection.

use super::reason::Reason;
use super::transport::{Iov, Transport};
use alloc::vec::Vec;
use rustix::io::Errno;
use tmem_wire::{
    FEATURE_LZ4, HEADER_LEN, Header, Hello, HelloReply, MAX_CONTROL, Op, SessionId, Status,
    VERSION, auth,
};

/// A greeting under way.
#[derive(Debug)]
pub(super) struct Handshake {
    nonce: [u8; 16],
    /// What is sent and how much of it is.
    out: Vec<u8>,
    sent: usize,
    /// The reply, as far as it has come, and how long it is so far as known.
    reply: Vec<u8>,
    want: usize,
    /// Whether the proof is sent.
    proved: bool,
}

impl Handshake {
    /// A greeting that joins `session` or opens a new one. The nonce is random;
    /// `preface` is sent before.
    pub(super) fn new(session: SessionId, nonce: [u8; 16], preface: Vec<u8>) -> Handshake {
        let hello = Hello {
            min_version: VERSION,
            max_version: VERSION,
            features: FEATURE_LZ4,
            session,
            nonce,
        };
        let mut handshake = Handshake {
            nonce,
            out: preface,
            sent: 0,
            reply: Vec::new(),
            want: HEADER_LEN,
            proved: false,
        };
        handshake.say(Op::Hello, &hello.encode());
        handshake
    }

    /// Whether there is anything to send.
    pub(super) fn unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Goes on as far as the transport lets it; the reply when it is complete.
    ///
    /// # Errors
    /// Those of the transport other than `EAGAIN`, and what the server says or
    /// breaks.
    pub(super) fn drive(
        &mut self,
        t: &mut impl Transport,
        secret: Option<&[u8]>,
    ) -> Result<Option<HelloReply>, Reason> {
        loop {
            if !self.send(t)? || !self.receive(t)? {
                return Ok(None);
            }
            if let Some(reply) = self.replied(secret)? {
                return Ok(Some(reply));
            }
        }
    }

    fn say(&mut self, op: Op, payload: &[u8]) {
        let header = Header {
            len: payload.len() as u32,
            ..Header::request(op, 0)
        };
        self.out.extend_from_slice(&header.encode());
        self.out.extend_from_slice(payload);
    }

    fn send(&mut self, t: &mut impl Transport) -> Result<bool, Reason> {
        while self.unsent() {
            let rest = &self.out[self.sent..];
            let piece = Iov {
                base: rest.as_ptr() as usize,
                len: rest.len(),
            };
            // SAFETY: the piece is the rest of `out`.
            match unsafe { t.send(&[piece]) } {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    /// Receives no more than the reply, whose bytes may come one by one.
    fn receive(&mut self, t: &mut impl Transport) -> Result<bool, Reason> {
        loop {
            let have = self.reply.len();
            if have == self.want {
                if have > HEADER_LEN {
                    return Ok(true);
                }
                let header = self.header()?;
                if header.len == 0 {
                    return Ok(true);
                }
                if header.len > MAX_CONTROL {
                    return Err(Reason::Unexpected("a greeting too long"));
                }
                self.want += header.len as usize;
                continue;
            }
            self.reply.resize(self.want, 0);
            let rest = &mut self.reply[have..];
            let mut piece = [Iov {
                base: rest.as_mut_ptr() as usize,
                len: rest.len(),
            }];
            // SAFETY: the piece is the end of `reply`.
            let got = unsafe { t.recv(&mut piece) };
            self.reply.truncate(have + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => return Err(Reason::Closed),
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn header(&self) -> Result<Header, Reason> {
        let bytes = self.reply.first_chunk::<HEADER_LEN>();
        Ok(Header::decode(
            bytes.ok_or(Reason::Unexpected("a greeting cut short"))?,
        )?)
    }

    /// A whole reply has come.
    fn replied(&mut self, secret: Option<&[u8]>) -> Result<Option<HelloReply>, Reason> {
        let header = self.header()?;
        let op = if self.proved { Op::Auth } else { Op::Hello };
        if !header.reply || header.op != op || header.id != 0 {
            return Err(Reason::Unexpected("no answer to the greeting"));
        }
        let body = core::mem::take(&mut self.reply);
        let body = &body[HEADER_LEN..];
        self.want = HEADER_LEN;
        match header.status {
            Status::Ok => {
                let reply = HelloReply::decode(body)?;
                if reply.version != VERSION {
                    return Err(Reason::Version(reply.version));
                }
                if reply.session == SessionId::NEW {
                    return Err(Reason::Unexpected("a session without a name"));
                }
                Ok(Some(reply))
            }
            Status::Auth if self.proved => Err(Reason::SecretWrong),
            Status::Auth => {
                let secret = secret.ok_or(Reason::SecretWanted)?;
                let challenge = HelloReply::decode(body)?.challenge;
                self.proved = true;
                self.out.clear();
                self.sent = 0;
                self.say(Op::Auth, &auth::proof(secret, &challenge, &self.nonce));
                Ok(None)
            }
            Status::NoSession => Err(Reason::SessionGone),
            status => Err(Reason::Status(status)),
        }
    }
}
