//! Proof of a shared secret: client and server each show that they know it, on this
//! connection, and neither sends it.
//!
//! Both derive a key from the secret and the whole greeting so far (both nonces, the
//! versions, the lane). A proof names the role of its side, so that neither can be
//! reflected, and is good on this connection only, since the nonces are fresh. The
//! client proves first: a server that answered strangers with proofs would let them
//! try secrets at home. What the client has to say beyond that it knows the secret,
//! the name of its session, is masked, and only a server that knows the secret can
//! read it.

use crate::{HelloReply, SessionId};
use core::fmt;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a proof.
pub const PROOF_LEN: usize = 32;

/// Bytes of an AUTH's payload: the client's proof and the masked session.
pub const AUTH_LEN: usize = PROOF_LEN + 16;

/// Bytes of the reply to an AUTH that was right: a [`HelloReply`] and the server's proof.
pub const AUTH_REPLY_LEN: usize = HelloReply::LEN + PROOF_LEN;

/// What both sides derive from the secret for one connection.
pub struct Keys {
    client: Mark,
    server: Mark,
    mask: [u8; 16],
}

type Mark = [u8; PROOF_LEN];

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys")
    }
}

impl Keys {
    /// The keys of the connection that was greeted so: the lane and payload of its
    /// HELLO, and the payload of the reply that asks for a proof.
    pub fn new(secret: &[u8], lane: u32, hello: &[u8], reply: &[u8]) -> Keys {
        let key = mac(
            secret,
            &[b"tmem 2 greeting", &lane.to_le_bytes(), hello, reply],
        );
        let mut mask = [0; 16];
        mask.copy_from_slice(&mac(&key, &[b"session"])[..16]);
        Keys {
            client: mac(&key, &[b"client"]),
            server: mac(&key, &[b"server"]),
            mask,
        }
    }

    /// The client's AUTH, which asks for `session`.
    pub fn auth(&self, session: SessionId) -> [u8; AUTH_LEN] {
        let mut auth = [0; AUTH_LEN];
        let (proof, masked) = auth.split_at_mut(PROOF_LEN);
        masked.copy_from_slice(&self.masked(session.0));
        proof.copy_from_slice(&mac(&self.client, &[masked]));
        auth
    }

    /// The session that an AUTH asks for, if its sender knows the secret.
    pub fn session(&self, auth: &[u8]) -> Option<SessionId> {
        let (proof, masked) = auth.split_at_checked(PROOF_LEN)?;
        let session = SessionId(self.masked(masked.try_into().ok()?));
        verify(&self.client, &[masked], proof).then_some(session)
    }

    /// The reply to `auth`, which was right.
    pub fn reply(&self, auth: &[u8], reply: &HelloReply) -> [u8; AUTH_REPLY_LEN] {
        let mut out = [0; AUTH_REPLY_LEN];
        let (told, proof) = out.split_at_mut(HelloReply::LEN);
        told.copy_from_slice(&reply.encode());
        proof.copy_from_slice(&mac(&self.server, &[auth, told]));
        out
    }

    /// What the reply to `auth` tells, if its sender knows the secret.
    pub fn told(&self, auth: &[u8], reply: &[u8]) -> Option<HelloReply> {
        let (told, proof) = reply.split_at_checked(HelloReply::LEN)?;
        let proved = verify(&self.server, &[auth, told], proof);
        HelloReply::decode(told).ok().filter(|_| proved)
    }

    fn masked(&self, session: [u8; 16]) -> [u8; 16] {
        core::array::from_fn(|i| session[i] ^ self.mask[i])
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Mark {
    fed(key, parts).finalize().into_bytes().into()
}

/// Whether `given` is the code, compared in constant time.
fn verify(key: &[u8], parts: &[&[u8]], given: &[u8]) -> bool {
    fed(key, parts).verify_slice(given).is_ok()
}

/// The parts one after another: each but the last is of a length that its place gives.
fn fed(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the error type exists for other MACs.
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    parts.iter().for_each(|part| mac.update(part));
    mac
}
