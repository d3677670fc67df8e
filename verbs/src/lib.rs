//! RDMA for tmem: reliable connections, whose ends send messages to each other, and read and
//! write each other's memory without the other's CPU.
//!
//! The C libraries libibverbs and librdmacm are opened at run time, so that the
//! same binary runs where they are missing: [`available`] tells whether RDMA
//! can be used, and what is missing.
//!
//! A [`Listener`] or [`Connection::connect`] makes a [`Connection`], which has a
//! protection [`Domain`] of its own: a key of one connection's [`Region`] is
//! worth nothing on another connection. Work is posted and its [`Completion`]s
//! are polled; nothing here blocks but [`Connection::connect`]. Two file
//! descriptors of a connection tell when to look: one for completions, after
//! [`Connection::arm`], one for [`Event`]s.
//!
//! A connection belongs to one thread at a time, and may move between threads.
//! Memory may be registered and given up by any thread.

mod abi;
mod addr;
mod available;
mod buffer;
mod completion;
mod connect;
mod connection;
mod device;
mod error;
mod event;
mod library;
mod limits;
mod listener;
mod manager;
mod memory;
mod pair;
mod queue;
mod work;

pub use available::available;
pub use buffer::{Buffer, Part};
pub use completion::{Completion, Kind, Status};
pub use connection::Connection;
pub use error::Error;
pub use event::Event;
pub use limits::Limits;
pub use listener::{Incoming, Listener};
pub use memory::{Access, Domain, Piece, Region};
pub use work::{MAX_PIECES, Op, Pieces, Work};
