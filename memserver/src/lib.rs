//! A memory server: holds the pages of other machines' programs.
//!
//! [`Server::bind`] listens, [`Server::spawn`] serves in threads of its own,
//! one for each connection. Pages travel between a socket and slab memory
//! without a copy between. The protocol is `tmem-wire`'s.
//!
//! Over RDMA the same bytes come and go in messages, which a relay, a second
//! thread of each such connection, takes from and gives to a socket pair. Pages
//! need neither: the client reads and writes them in place.
//!
//! Granted slabs never exceed the capacity. Beside them a server needs
//! - a bit for each page and owner, and some 160 bytes for each slab and owner. What
//!   children of sessions need of that is a sixteenth of the capacity at most, of each client
//!   half of that. Of a slab with several owners, 4 bytes for each page;
//! - for each connection a thread with a stack of 256 KiB, of which little is touched, and
//!   buffers: a few KiB, and up to 64 KiB for a message without pages, as much for packed
//!   pages that come in, and 1 MiB for replies without pages that the client does not take;
//! - for packed pages that go out, a 64th of the capacity: beyond that they go unpacked,
//!   out of their slabs.
//!
//! Buffers that held pages are wiped. What one client can have of connections and sessions
//! is limited (`serve::connection_limits`, `store::sessions`), and some are set aside for those who are in.

mod bearable;
mod client;
mod config;
mod error;
mod handover;
mod latency;
mod rdma;
mod serve;
mod store;
mod systemd;

pub use bearable::{bearable_connections, descriptors};
pub use config::{Backing, Config, Log};
pub use error::Error;
pub use handover::Inherited;
pub use latency::Requests;
pub use serve::observer::Observer;
pub use serve::server::{Control, Handle, Server};
pub use serve::shared::Ending;
pub use store::files::{FilesError, FolderError, TableError};
pub use systemd::Manager;
