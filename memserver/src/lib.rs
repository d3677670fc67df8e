//! A memory server: holds the pages of other machines' programs.
//!
//! [`Server::bind`] listens, [`Server::spawn`] serves in threads of its own,
//! one for each connection. Pages travel between a socket and slab memory
//! without a copy between. The protocol is `tmem-wire`'s.
//!
//! Over RDMA the same bytes come and go in messages, which a pump, a second
//! thread of each such connection, takes from and gives to a socket pair. Pages
//! need neither: the client reads and writes them in place.
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
mod keys;
mod link;
mod memory;
mod one_sided;
mod outbox;
mod pump;
mod rdma;
mod server;
mod sessions;
mod wait;

pub use config::{Config, Log};
pub use error::Error;
pub use server::{Handle, Server};
