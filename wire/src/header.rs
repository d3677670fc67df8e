//! The fixed header of every message.

use crate::packed::packed_len;
use crate::{DecodeError, MAX_CONTROL, MAX_RUN, Status};

/// Bytes of a page, the unit that the protocol moves.
pub const PAGE_SIZE: usize = 4096;

/// Bytes of an encoded [`Header`].
pub const HEADER_LEN: usize = 32;

/// What a message asks for, or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Opens a session on this connection, or joins one.
    Hello = 1,
    /// Answers the challenge of a server that wants a secret.
    Auth = 2,
    /// Asks for slabs.
    Grant = 3,
    /// Gives slabs back.
    Release = 4,
    /// Reads a run of pages.
    Read = 5,
    /// Writes a run of pages.
    Write = 6,
    /// Says that the contents of a run of pages are no longer wanted.
    Discard = 7,
    /// Makes a second session that shares every slab of this one.
    Share = 8,
    /// Asks for an answer, nothing more.
    Ping = 9,
    /// Asks for the server's figures.
    Stats = 10,
    /// Ends the session at once, without the grace of a lost connection. From a server,
    /// unasked and with a status: it ends the connection.
    Bye = 11,
    /// Asks where a slab lies for one-sided access; only on a connection over
    /// RDMA.
    Keys = 12,
    /// Says that the client is about to end: if its connections are closed before it asks
    /// for anything else, the session ends with the last of them.
    Leave = 13,
    /// From a server, unasked: it asks something of the client ([`NOTICE_ID`](crate::NOTICE_ID)).
    Notice = 14,
    /// Has the server give no more memory, and end once it holds nothing.
    Drain = 15,
}

impl Op {
    /// Every operation.
    pub const ALL: [Op; 15] = [
        Op::Hello,
        Op::Auth,
        Op::Grant,
        Op::Release,
        Op::Read,
        Op::Write,
        Op::Discard,
        Op::Share,
        Op::Ping,
        Op::Stats,
        Op::Bye,
        Op::Keys,
        Op::Leave,
        Op::Notice,
        Op::Drain,
    ];

    fn from_u8(v: u8) -> Option<Op> {
        Op::ALL.into_iter().find(|op| *op as u8 == v)
    }
}

/// The header of a request or of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked or answered.
    pub op: Op,
    /// Whether this is a reply.
    pub reply: bool,
    /// In a request: the client waits awake for the answer, and means to ask
    /// again soon after. In a reply it says nothing.
    pub prompt: bool,
    /// In a WRITE and in an `Ok` reply to READ: its pages are packed
    /// ([`Packer`](crate::Packer)). In a READ: those of the reply may be. Elsewhere it
    /// says nothing.
    pub packed: bool,
    /// Outcome; `Ok` in requests.
    pub status: Status,
    /// Bytes of payload that follow.
    pub len: u32,
    /// Chosen by the client, echoed by the server.
    pub id: u64,
    /// Slab that READ, WRITE, DISCARD and KEYS address.
    pub slab: u32,
    /// First page within the slab; the access wanted in a KEYS,
    /// [`ACCESS_READ`](crate::ACCESS_READ) or [`ACCESS_WRITE`](crate::ACCESS_WRITE).
    pub page: u32,
    /// Pages of the run; slabs wanted in a GRANT.
    pub count: u32,
}

const FLAG_REPLY: u8 = 1;
const FLAG_PROMPT: u8 = 2;
const FLAG_PACKED: u8 = 4;

impl Header {
    /// A request without payload; the other fields are zero.
    pub const fn request(op: Op, id: u64) -> Header {
        Header {
            op,
            reply: false,
            prompt: false,
            packed: false,
            status: Status::Ok,
            len: 0,
            id,
            slab: 0,
            page: 0,
            count: 0,
        }
    }

    /// The reply to `self` with `status` and `len` bytes of payload.
    pub const fn reply(&self, status: Status, len: u32) -> Header {
        Header {
            reply: true,
            prompt: false,
            packed: false,
            status,
            len,
            ..*self
        }
    }

    /// The header as it goes over the network.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0u8; HEADER_LEN];
        b[0] = self.op as u8;
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        b[1] = flag(self.reply, FLAG_REPLY)
            | flag(self.prompt, FLAG_PROMPT)
            | flag(self.packed, FLAG_PACKED);
        b[2..4].copy_from_slice(&(self.status as u16).to_le_bytes());
        b[4..8].copy_from_slice(&self.len.to_le_bytes());
        b[8..16].copy_from_slice(&self.id.to_le_bytes());
        b[16..20].copy_from_slice(&self.slab.to_le_bytes());
        b[20..24].copy_from_slice(&self.page.to_le_bytes());
        b[24..28].copy_from_slice(&self.count.to_le_bytes());
        b
    }

    /// Reads a header and checks everything that can be checked without
    /// knowing the session: the operation, the flags, and that the payload
    /// length is one that this operation may have.
    ///
    /// # Errors
    /// A [`DecodeError`] says which field is wrong. The connection cannot be
    /// used any further then, since the payload's end is unknown.
    pub fn decode(b: &[u8; HEADER_LEN]) -> Result<Header, DecodeError> {
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let op = Op::from_u8(b[0]).ok_or(DecodeError::UnknownOp(b[0]))?;
        if b[1] & !(FLAG_REPLY | FLAG_PROMPT | FLAG_PACKED) != 0 {
            return Err(DecodeError::UnknownFlags(b[1]));
        }
        if u32_at(28) != 0 {
            return Err(DecodeError::ReservedNotZero);
        }
        let status = u16::from_le_bytes([b[2], b[3]]);
        let status = Status::from_u16(status).ok_or(DecodeError::UnknownStatus(status))?;
        if b[1] & FLAG_REPLY == 0 && status != Status::Ok {
            return Err(DecodeError::RequestStatus(status as u16));
        }
        let mut id = [0u8; 8];
        id.copy_from_slice(&b[8..16]);
        let header = Header {
            op,
            reply: b[1] & FLAG_REPLY != 0,
            prompt: b[1] & FLAG_PROMPT != 0,
            packed: b[1] & FLAG_PACKED != 0,
            status,
            len: u32_at(4),
            id: u64::from_le_bytes(id),
            slab: u32_at(16),
            page: u32_at(20),
            count: u32_at(24),
        };
        header.check_len()?;
        Ok(header)
    }

    fn check_len(&self) -> Result<(), DecodeError> {
        let carries_pages = matches!(
            (self.op, self.reply, self.status),
            (Op::Write, false, _) | (Op::Read, true, Status::Ok)
        );
        if carries_pages {
            if self.count == 0 || self.count > MAX_RUN {
                return Err(DecodeError::RunLength(self.count));
            }
            let plain = u64::from(self.count) * PAGE_SIZE as u64;
            let may_have = if self.packed {
                packed_len(self.count)
            } else {
                plain..=plain
            };
            if !may_have.contains(&u64::from(self.len)) {
                return Err(DecodeError::PayloadLength(self.len));
            }
        } else if self.len > MAX_CONTROL {
            return Err(DecodeError::PayloadLength(self.len));
        }
        Ok(())
    }
}
