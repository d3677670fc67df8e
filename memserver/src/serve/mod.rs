//! Connections: who is let in, what each asks for, and what it is answered.

pub(crate) mod attempts;
pub(crate) mod client_thread;
pub(crate) mod compressed;
pub(crate) mod connection;
pub(crate) mod connection_limits;
pub(crate) mod greeting;
pub(crate) mod inbox;
pub(crate) mod observer;
pub(crate) mod outbox;
pub(crate) mod requests;
pub(crate) mod server;
pub(crate) mod shared;
pub(crate) mod socket;
pub(crate) mod wait;
pub(crate) mod wipe;
