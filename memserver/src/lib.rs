//! A memory server: holds the pages of other machines' programs.
//!
//! [`Server::bind`] listens, [`Server::spawn`] serves in threads of its own,
//! one for each connection. Pages travel between a socket and slab memory
//! without a copy between. The protocol is `tmem-wire`'s.
//!
//! Granted slabs never exceed the capacity. Beside them a server needs a bit
//! for each page and owner, and for each connection a thread with a stack of
//! 256 KiB, of which little is touched, and buffers of a few KiB.

mod bitmap;
mod config;
mod conn;
mod error;
mod greeting;
mod inbox;
mod link;
mod memory;
mod outbox;
mod server;
mod sessions;
mod wait;

pub use config::{Config, Log};
pub use error::Error;
pub use server::{Handle, Server};
