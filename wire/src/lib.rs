//! The protocol between a tmem pager and a memory server, as pure code.
//!
//! Nothing here does input or output: a message is a [`Header`] of
//! [`HEADER_LEN`] bytes and a payload whose length the header gives. `PROTOCOL.md`
//! beside this crate describes it for a second implementation.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod agent;
#[cfg(feature = "auth")]
pub mod auth;
mod error;
#[cfg(feature = "auth")]
pub mod greeting;
mod header;
mod keys;
mod message;
pub mod packed;

pub use agent::Preface;
pub use error::{DecodeError, Status};
pub use header::{HEADER_LEN, Header, Op, PAGE_SIZE};
pub use keys::SlabKey;
pub use message::{
    FEATURE_LEAVE, FEATURE_LZ4, FEATURE_NOTICE, FEATURE_RDMA, Features, Hello, HelloReply,
    NOTICE_DRAIN, NOTICE_GIVE_BACK, ServerStats, SessionId, decode_slab_list, encode_slab_list,
};
pub use packed::{Packer, PageBytes, unpack};

/// The protocol version that this crate speaks.
pub const VERSION: u16 = 2;

/// First bytes of a HELLO payload.
pub const MAGIC: [u8; 4] = *b"TMEM";

/// `page` of a KEYS that asks for reading.
pub const ACCESS_READ: u32 = 0;

/// `page` of a KEYS that asks for reading and writing.
pub const ACCESS_WRITE: u32 = 1;

/// Over RDMA: the most bytes of the stream that one SEND carries, and the bytes
/// of each receive that is posted for it.
pub const RDMA_SEND: usize = 8192;

/// Over RDMA: the receives that each side keeps posted, at least.
pub const RDMA_RECEIVES: usize = 16;

/// The most pages one READ, WRITE or DISCARD may name.
pub const MAX_RUN: u32 = 512;

/// `id` of the BYE that a server sends unasked, before it ends a connection.
pub const BYE_ID: u64 = u64::MAX;

/// `id` of a NOTICE.
pub const NOTICE_ID: u64 = u64::MAX - 1;

/// The most payload bytes of any message that is not a READ reply or a WRITE.
pub const MAX_CONTROL: u32 = 64 * 1024;
