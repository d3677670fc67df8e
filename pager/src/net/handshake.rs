//! The greeting at the start of a connection.

use super::reason::Reason;
use super::transport::{Iov, Transport};
use alloc::vec::Vec;
use rustix::io::Errno;
use tmem_wire::auth::Keys;
use tmem_wire::{
    BYE_ID, FEATURE_LZ4, HEADER_LEN, Header, Hello, HelloReply, MAX_CONTROL, Op, SessionId, Status,
    VERSION,
};

/// A greeting under way.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The session to join, as it was told when it was opened; none for a new one.
    known: Option<HelloReply>,
    /// Payload of the HELLO.
    hello: [u8; Hello::LEN],
    /// What is sent and how much of it is.
    out: Vec<u8>,
    sent: usize,
    /// The reply, as far as it has come, and how long it is so far as known.
    reply: Vec<u8>,
    want: usize,
    /// What proves the secret, once the server has asked for that: the AUTH that was sent,
    /// and what its answer has to be proved with.
    proof: Option<(Keys, Vec<u8>)>,
}

impl Handshake {
    /// A greeting that joins the session that is `known` or opens a new one. The nonce is
    /// random; `preface` is sent before. A client with a secret names its session only to
    /// a server that knows it too.
    pub(super) fn new(
        known: Option<HelloReply>,
        secret: Option<&[u8]>,
        nonce: [u8; 16],
        preface: Vec<u8>,
    ) -> Handshake {
        let mut handshake = Handshake {
            known,
            hello: [0; Hello::LEN],
            out: preface,
            sent: 0,
            reply: Vec::new(),
            want: HEADER_LEN,
            proof: None,
        };
        let session = match secret {
            Some(_) => SessionId::NEW,
            None => handshake.session(),
        };
        let hello = Hello {
            min_version: VERSION,
            max_version: VERSION,
            features: FEATURE_LZ4,
            session,
            nonce,
        };
        handshake.hello = hello.encode();
        handshake.say(Op::Hello, &hello.encode());
        handshake
    }

    fn session(&self) -> SessionId {
        self.known.as_ref().map_or(SessionId::NEW, |k| k.session)
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
        t: &mut (impl Transport + ?Sized),
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

    fn send(&mut self, t: &mut (impl Transport + ?Sized)) -> Result<bool, Reason> {
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
    fn receive(&mut self, t: &mut (impl Transport + ?Sized)) -> Result<bool, Reason> {
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
        let op = match self.proof {
            Some(_) => Op::Auth,
            None => Op::Hello,
        };
        if header.reply && header.op == Op::Bye && header.id == BYE_ID {
            return Err(Reason::Status(header.status));
        }
        if !header.reply || header.op != op || header.id != 0 {
            return Err(Reason::Unexpected("no answer to the greeting"));
        }
        let body = core::mem::take(&mut self.reply);
        let body = &body[HEADER_LEN..];
        self.want = HEADER_LEN;
        match (header.status, &self.proof, secret) {
            (Status::Ok, ..) => {
                let reply = self.told(body, secret)?;
                if reply.version != VERSION {
                    return Err(Reason::Version(reply.version));
                }
                if reply.session == SessionId::NEW {
                    return Err(Reason::Unexpected("a session without a name"));
                }
                Ok(Some(reply))
            }
            (Status::Auth, Some(_), _) => Err(Reason::SecretWrong),
            (Status::Auth, None, None) => Err(Reason::SecretWanted),
            (Status::Auth, None, Some(secret)) => {
                // It is all that a server tells before it has proved itself.
                HelloReply::decode(body)?;
                let keys = Keys::new(secret, 0, &self.hello, body);
                let auth = keys.auth(self.session());
                self.out.clear();
                self.sent = 0;
                self.say(Op::Auth, &auth);
                self.proof = Some((keys, auth.to_vec()));
                Ok(None)
            }
            (Status::NoSession, ..) => {
                let told = self.told(body, secret)?;
                let is_new = |k: &HelloReply| k.instance != told.instance;
                Err(match &self.known {
                    Some(known) if is_new(known) => Reason::Restarted,
                    _ => Reason::SessionGone,
                })
            }
            (status, ..) => Err(Reason::Status(status)),
        }
    }

    /// What the server tells of itself, where it has proved to know the secret if there is
    /// one.
    fn told(&self, body: &[u8], secret: Option<&[u8]>) -> Result<HelloReply, Reason> {
        match (&self.proof, secret) {
            (Some((keys, auth)), _) => keys.told(auth, body).ok_or(Reason::NoProof),
            (None, Some(_)) => Err(Reason::NoProof),
            (None, None) => Ok(HelloReply::decode(body)?),
        }
    }
}
