//! The greeting at the start of a connection, as two state machines without input or output:
//! [`Client`] and [`Host`].
//!
//! ```text
//! client                          server
//! HELLO (versions, nonce)   ───▶
//!                           ◀───  Ok: the session           (a server without a secret)
//!                           ◀───  Auth: a challenge         (a server with one)
//! AUTH (proof, session)     ───▶
//!                           ◀───  Ok: the session and the server's proof
//! ```
//!
//! Any other status ends it. A client with a secret names its session only in the AUTH, which a
//! server reads only if it knows the secret too, and goes on with no server that has not
//! proved it.

mod client;
mod host;

pub use client::Client;
pub use host::{Asked, Challenge, First, Host, Refused};

use crate::{DecodeError, Status};
use alloc::string::String;
use thiserror::Error;

/// Why a client's greeting ends without a session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GreetingError {
    /// What came is no message of the protocol.
    #[error("it does not speak tmem's protocol ({0})")]
    Malformed(#[from] DecodeError),
    /// A message of the protocol that makes no sense in a greeting.
    #[error("it broke the protocol: {0}")]
    Unexpected(&'static str),
    /// It speaks this version and none that the client speaks.
    #[error("it speaks version {0} of the protocol, this is version {ours}", ours = crate::VERSION)]
    Version(u16),
    /// It refused with this status, and in these words, if they are fit to be printed.
    #[error("{0}")]
    Refused(Status, Option<String>),
    /// It wants a secret, and the client has none.
    #[error("it wants a secret, and none is configured")]
    SecretWanted,
    /// It knows another secret than the client.
    #[error("it does not accept the secret")]
    SecretWrong,
    /// It did not prove that it knows the client's secret.
    #[error("it does not prove that it knows the secret")]
    NoProof,
    /// It was started anew since the session was opened: what it held is gone.
    #[error("it was restarted, and what it held is gone")]
    Restarted,
    /// It has ended the session that the client wants to join: what it held is gone.
    #[error("it ended the session, and what it held is gone")]
    SessionGone,
}
