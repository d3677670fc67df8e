//! The server's side of the greeting.

use crate::auth::Keys;
use crate::{Features, Header, Hello, HelloReply, Op, SessionId, Status, VERSION};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A server that waits for a client's HELLO.
#[derive(Debug)]
pub struct Host<'a> {
    secret: Option<&'a [u8]>,
}

/// What a client's HELLO leads to.
#[derive(Debug)]
pub enum First {
    /// The server has no secret, and knows what is asked.
    Asked(Asked),
    /// The server has one: this payload is to be sent with [`Status::Auth`].
    Challenge(Challenge, [u8; HelloReply::LEN]),
}

/// A client of which a proof was asked.
#[derive(Debug)]
pub struct Challenge {
    keys: Keys,
    lane: u32,
    features: Features,
}

/// What a client asks for, once it may.
#[derive(Debug)]
pub struct Asked {
    /// The session to join; [`SessionId::NEW`] for a new one.
    pub session: SessionId,
    /// Which of its session's connections this is.
    pub lane: u32,
    /// What the client supports.
    pub features: Features,
    /// What the reply is proved with: the keys, and the AUTH that it answers.
    proof: Option<(Keys, Vec<u8>)>,
}

/// Why a greeting is refused: the status, and the words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Status, pub String);

impl<'a> Host<'a> {
    /// A server with this secret, or with none.
    pub fn new(secret: Option<&'a [u8]>) -> Host<'a> {
        Host { secret }
    }

    /// Judges the first request of a connection. `random` are fresh random bytes for a
    /// challenge.
    ///
    /// # Errors
    /// [`Refused`] where it is no HELLO, or of no version that this server speaks.
    pub fn hello(&self, header: &Header, body: &[u8], random: [u8; 16]) -> Result<First, Refused> {
        let bad = |text: &dyn ToString| Refused(Status::BadRequest, text.to_string());
        if header.op != Op::Hello {
            return Err(bad(&"the first request must be a HELLO"));
        }
        let versions = Hello::versions(body).map_err(|e| bad(&e))?;
        if !versions.contains(&VERSION) {
            let text = format!("this server speaks version {VERSION} only");
            return Err(Refused(Status::BadVersion, text));
        }
        let hello = Hello::decode(body).map_err(|e| bad(&e))?;
        let lane = header.slab;
        let Some(secret) = self.secret else {
            return Ok(First::Asked(Asked {
                session: hello.session,
                lane,
                features: hello.features,
                proof: None,
            }));
        };
        let reply = HelloReply {
            version: VERSION,
            features: 0,
            slab_pages: 0,
            session: SessionId::NEW,
            instance: [0; 16],
            challenge: random,
            capacity_pages: 0,
            free_pages: 0,
        };
        let reply = reply.encode();
        let keys = Keys::new(secret, lane, body, &reply);
        let challenge = Challenge {
            keys,
            lane,
            features: hello.features,
        };
        Ok(First::Challenge(challenge, reply))
    }
}

impl Challenge {
    /// Judges the request that follows a challenge. `Ok(None)` for a proof that is wrong,
    /// which is to be answered with [`Status::Auth`].
    ///
    /// # Errors
    /// [`Refused`] where it is no AUTH.
    pub fn answered(self, header: &Header, body: Vec<u8>) -> Result<Option<Asked>, Refused> {
        if header.op != Op::Auth {
            let text = "this server wants an AUTH now".to_owned();
            return Err(Refused(Status::BadRequest, text));
        }
        Ok(self.keys.session(&body).map(|session| Asked {
            session,
            lane: self.lane,
            features: self.features,
            proof: Some((self.keys, body)),
        }))
    }
}

impl Asked {
    /// The payload of a reply that tells something of this server, with its proof where one
    /// was asked for.
    pub fn reply(&self, reply: &HelloReply) -> Vec<u8> {
        match &self.proof {
            Some((keys, auth)) => keys.reply(auth, reply).to_vec(),
            None => reply.encode().to_vec(),
        }
    }
}
