//! The client's side of the greeting.

use super::GreetingError;
use crate::auth::{AUTH_LEN, Keys};
use crate::{
    BYE_ID, Features, HEADER_LEN, Header, Hello, HelloReply, MAX_CONTROL, Op, SessionId, Status,
    VERSION,
};
use alloc::string::String;
use alloc::vec::Vec;

/// Longer words of a server are not printed, in bytes.
const LONGEST_WORDS: usize = 200;

/// A greeting under way. Send what [`Client::unsent`] gives, receive into [`Client::room`],
/// and say how many bytes that were, until [`Client::received`] has a reply or an error.
///
/// It never asks for bytes beyond the reply that it waits for, so that what follows the
/// greeting stays on the connection.
#[derive(Debug)]
pub struct Client {
    /// The session to join, as the server told it; none for a new one.
    known: Option<HelloReply>,
    /// The lane of the connection, and the payload of its HELLO.
    lane: u32,
    hello: [u8; Hello::LEN],
    /// What is to be sent, and how many bytes of it are.
    out: Vec<u8>,
    sent: usize,
    /// Room for the reply, and how many bytes of it have come.
    reply: Vec<u8>,
    have: usize,
    /// Once the server has asked for a proof: the keys, and the AUTH that was sent.
    proof: Option<(Keys, [u8; AUTH_LEN])>,
}

impl Client {
    /// Begins a greeting that joins the session that is `known`, or opens a new one.
    ///
    /// `preface` is sent before it. Of all connections of a session, the server keeps only the
    /// last of each `lane`, unless that is 0. `features` are those that the client has, and
    /// `nonce` is random. `secret` is the client's, if it has one; the same is given to
    /// [`Client::received`].
    pub fn new(
        known: Option<HelloReply>,
        lane: u32,
        features: Features,
        secret: Option<&[u8]>,
        nonce: [u8; 16],
        preface: Vec<u8>,
    ) -> Client {
        let session = match (secret, &known) {
            (None, Some(known)) => known.session,
            // A session is named only to a server that has proved itself.
            _ => SessionId::NEW,
        };
        let hello = Hello {
            min_version: VERSION,
            max_version: VERSION,
            features,
            session,
            nonce,
        };
        let mut client = Client {
            known,
            lane,
            hello: hello.encode(),
            out: preface,
            sent: 0,
            reply: Vec::new(),
            have: 0,
            proof: None,
        };
        client.say(Op::Hello, &hello.encode());
        client
    }

    /// What is to be sent now.
    pub fn unsent(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Takes note that the first `count` bytes of [`Client::unsent`] were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count.min(self.unsent().len());
    }

    /// Where bytes that come are to be put; not empty before the greeting is over.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.reply[self.have..]
    }

    /// Takes in the first `count` bytes of [`Client::room`]. The reply of the server once the
    /// greeting is over; until then there may be more to send.
    ///
    /// # Errors
    /// A [`GreetingError`] says why there is no session. The connection is of no use then.
    pub fn received(
        &mut self,
        count: usize,
        secret: Option<&[u8]>,
    ) -> Result<Option<HelloReply>, GreetingError> {
        self.have += count.min(self.reply.len() - self.have);
        if self.have < self.reply.len() {
            return Ok(None);
        }
        let header = self.header()?;
        if self.have == HEADER_LEN && header.len > 0 {
            if header.len > MAX_CONTROL {
                return Err(GreetingError::Unexpected("a greeting too long"));
            }
            self.reply.resize(HEADER_LEN + header.len as usize, 0);
            return Ok(None);
        }
        self.replied(&header, secret)
    }

    fn header(&self) -> Result<Header, GreetingError> {
        match self.reply.first_chunk::<HEADER_LEN>() {
            Some(bytes) => Ok(Header::decode(bytes)?),
            None => Err(GreetingError::Unexpected("a greeting cut short")),
        }
    }

    fn say(&mut self, op: Op, payload: &[u8]) {
        let slab = match op {
            Op::Hello => self.lane,
            _ => 0,
        };
        let header = Header {
            slab,
            len: payload.len() as u32,
            ..Header::request(op, 0)
        };
        self.out.extend_from_slice(&header.encode());
        self.out.extend_from_slice(payload);
        self.reply.clear();
        self.reply.resize(HEADER_LEN, 0);
        self.have = 0;
    }

    /// Judges a whole reply.
    fn replied(
        &mut self,
        header: &Header,
        secret: Option<&[u8]>,
    ) -> Result<Option<HelloReply>, GreetingError> {
        let reply = core::mem::take(&mut self.reply);
        self.have = 0;
        let body = &reply[HEADER_LEN..];
        let op = match self.proof {
            Some(_) => Op::Auth,
            None => Op::Hello,
        };
        if header.reply && header.op == Op::Bye && header.id == BYE_ID {
            return Err(GreetingError::Refused(header.status, words(body)));
        }
        if !header.reply || header.op != op || header.id != 0 {
            return Err(GreetingError::Unexpected("no answer to the greeting"));
        }
        match (header.status, &self.proof, secret) {
            (Status::Ok, ..) => {
                let reply = self.told(body, secret)?;
                if reply.version != VERSION {
                    return Err(GreetingError::Version(reply.version));
                }
                if reply.session == SessionId::NEW {
                    return Err(GreetingError::Unexpected("a session without a name"));
                }
                Ok(Some(reply))
            }
            (Status::Auth, Some(_), _) => Err(GreetingError::SecretWrong),
            (Status::Auth, None, None) => Err(GreetingError::SecretWanted),
            (Status::Auth, None, Some(secret)) => {
                // It is all that a server tells before it has proved itself.
                HelloReply::decode(body)?;
                let keys = Keys::new(secret, self.lane, &self.hello, body);
                let known = self.known.as_ref();
                let auth = keys.auth(known.map_or(SessionId::NEW, |known| known.session));
                self.out.clear();
                self.sent = 0;
                self.say(Op::Auth, &auth);
                self.proof = Some((keys, auth));
                Ok(None)
            }
            (Status::NoSession, ..) => {
                let told = self.told(body, secret)?;
                let is_new = |known: &HelloReply| known.instance != told.instance;
                Err(match &self.known {
                    Some(known) if is_new(known) => GreetingError::Restarted,
                    _ => GreetingError::SessionGone,
                })
            }
            (status, ..) => Err(GreetingError::Refused(status, words(body))),
        }
    }

    /// What the server tells of itself, if it has proved to know the secret, where there is
    /// one.
    fn told(&self, body: &[u8], secret: Option<&[u8]>) -> Result<HelloReply, GreetingError> {
        match (&self.proof, secret) {
            (Some((keys, auth)), _) => keys.told(auth, body).ok_or(GreetingError::NoProof),
            (None, Some(_)) => Err(GreetingError::NoProof),
            (None, None) => Ok(HelloReply::decode(body)?),
        }
    }
}

#[cfg(feature = "std")]
impl Client {
    /// Greets the server at the other end of `stream`, which is waited for.
    ///
    /// # Errors
    /// Those of the stream; and where the server gives no session,
    /// [`std::io::ErrorKind::Other`] around a [`GreetingError`].
    pub fn greet(
        mut self,
        stream: &mut (impl std::io::Read + std::io::Write),
        secret: Option<&[u8]>,
    ) -> std::io::Result<HelloReply> {
        use std::io::{Error, ErrorKind};
        loop {
            let unsent = self.unsent().len();
            if unsent > 0 {
                stream.write_all(self.unsent())?;
                self.sent(unsent);
            }
            let count = match stream.read(self.room()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(reply) = self.received(count, secret).map_err(Error::other)? {
                return Ok(reply);
            }
        }
    }
}

/// The words of a server, if they are fit to be printed.
fn words(body: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(body).ok()?;
    let fit = !text.is_empty() && text.len() <= LONGEST_WORDS && !text.contains(char::is_control);
    fit.then(|| text.into())
}
