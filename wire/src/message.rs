//! Payloads of control messages.

use crate::{DecodeError, MAGIC};
use alloc::vec::Vec;

/// Names a session; whoever knows it may use the session, so it is random and
/// secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// In a HELLO: asks for a new session.
    pub const NEW: SessionId = SessionId([0; 16]);
}

impl core::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // It is a secret: a log may tell sessions apart, not take them over.
        write!(f, "session {:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// Bits of optional behaviour: each side sends what it supports and uses what
/// both do.
pub type Features = u64;

/// In the reply to a HELLO: the server takes connections over RDMA too, on the
/// port of the same number.
pub const FEATURE_RDMA: Features = 1;

/// Pages may be packed ([`Packer`](crate::Packer)).
pub const FEATURE_LZ4: Features = 2;

/// In the reply to a HELLO: the server knows LEAVE.
pub const FEATURE_LEAVE: Features = 4;

/// The client hears what a server asks of it unasked; in the reply to a HELLO: the server knows
/// DRAIN.
pub const FEATURE_NOTICE: Features = 8;

/// `page` of a NOTICE: the server means to end, and gives nothing more. What the client has there
/// is to be moved to others.
pub const NOTICE_DRAIN: u32 = 1;

/// `page` of a NOTICE: slabs in which the client has nothing are wanted by others.
pub const NOTICE_GIVE_BACK: u32 = 2;

/// Payload of a HELLO request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version the client speaks.
    pub min_version: u16,
    /// Newest version the client speaks.
    pub max_version: u16,
    /// What the client supports.
    pub features: Features,
    /// The session to join, or [`SessionId::NEW`], as from a client with a secret: its AUTH
    /// names the session.
    pub session: SessionId,
    /// Fresh random bytes, part of what both sides prove.
    pub nonce: [u8; 16],
}

impl Hello {
    /// Bytes of an encoded HELLO.
    pub const LEN: usize = 48;

    /// The payload.
    pub fn encode(&self) -> [u8; Hello::LEN] {
        let mut b = [0u8; Hello::LEN];
        b[0..4].copy_from_slice(&MAGIC);
        b[4..6].copy_from_slice(&self.min_version.to_le_bytes());
        b[6..8].copy_from_slice(&self.max_version.to_le_bytes());
        b[8..16].copy_from_slice(&self.features.to_le_bytes());
        b[16..32].copy_from_slice(&self.session.0);
        b[32..48].copy_from_slice(&self.nonce);
        b
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] or [`DecodeError::Malformed`].
    pub fn decode(b: &[u8]) -> Result<Hello, DecodeError> {
        let mut r = Reader(b);
        if r.take::<4>()? != MAGIC {
            return Err(DecodeError::Magic);
        }
        let hello = Hello {
            min_version: u16::from_le_bytes(r.take()?),
            max_version: u16::from_le_bytes(r.take()?),
            features: u64::from_le_bytes(r.take()?),
            session: SessionId(r.take()?),
            nonce: r.take()?,
        };
        r.end()?;
        Ok(hello)
    }

    /// The versions that a payload names. Its beginning is the same in all versions.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] or [`DecodeError::Malformed`].
    pub fn versions(b: &[u8]) -> Result<core::ops::RangeInclusive<u16>, DecodeError> {
        let mut r = Reader(b);
        if r.take::<4>()? != MAGIC {
            return Err(DecodeError::Magic);
        }
        let min = u16::from_le_bytes(r.take()?);
        Ok(min..=u16::from_le_bytes(r.take()?))
    }
}

/// Payload of the reply to a HELLO.
///
/// With status `Auth` nothing is told but the version and `challenge`; the reply to the
/// AUTH that follows tells the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// The version both will speak.
    pub version: u16,
    /// What the server supports.
    pub features: Features,
    /// Pages per slab.
    pub slab_pages: u32,
    /// The session now joined.
    pub session: SessionId,
    /// Random at each start of the server: another one means that whatever it
    /// held is gone.
    pub instance: [u8; 16],
    /// Fresh random bytes, part of what both sides prove.
    pub challenge: [u8; 16],
    /// Pages the server can hold.
    pub capacity_pages: u64,
    /// Pages of it not yet granted.
    pub free_pages: u64,
}

impl HelloReply {
    /// Bytes of an encoded reply.
    pub const LEN: usize = 84;

    /// The payload.
    pub fn encode(&self) -> [u8; HelloReply::LEN] {
        let mut b = [0u8; HelloReply::LEN];
        b[0..4].copy_from_slice(&MAGIC);
        b[4..6].copy_from_slice(&self.version.to_le_bytes());
        b[8..16].copy_from_slice(&self.features.to_le_bytes());
        b[16..20].copy_from_slice(&self.slab_pages.to_le_bytes());
        b[20..36].copy_from_slice(&self.session.0);
        b[36..52].copy_from_slice(&self.instance);
        b[52..68].copy_from_slice(&self.challenge);
        b[68..76].copy_from_slice(&self.capacity_pages.to_le_bytes());
        b[76..84].copy_from_slice(&self.free_pages.to_le_bytes());
        b
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] or [`DecodeError::Malformed`].
    pub fn decode(b: &[u8]) -> Result<HelloReply, DecodeError> {
        let mut r = Reader(b);
        if r.take::<4>()? != MAGIC {
            return Err(DecodeError::Magic);
        }
        let version = u16::from_le_bytes(r.take()?);
        if r.take::<2>()? != [0, 0] {
            return Err(DecodeError::ReservedNotZero);
        }
        let reply = HelloReply {
            version,
            features: u64::from_le_bytes(r.take()?),
            slab_pages: u32::from_le_bytes(r.take()?),
            session: SessionId(r.take()?),
            instance: r.take()?,
            challenge: r.take()?,
            capacity_pages: u64::from_le_bytes(r.take()?),
            free_pages: u64::from_le_bytes(r.take()?),
        };
        r.end()?;
        Ok(reply)
    }
}

/// Payload of the reply to STATS: the figures of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Pages the server can hold.
    pub capacity_pages: u64,
    /// Pages granted as slabs.
    pub granted_pages: u64,
    /// Pages whose contents are held now.
    pub stored_pages: u64,
    /// Sessions, with or without a connection.
    pub sessions: u64,
    /// Connections.
    pub connections: u64,
    /// Pages read since the start.
    pub pages_read: u64,
    /// Pages written since the start.
    pub pages_written: u64,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
}

impl ServerStats {
    /// Bytes of encoded figures.
    pub const LEN: usize = 64;

    /// The payload.
    pub fn encode(&self) -> [u8; ServerStats::LEN] {
        let mut b = [0u8; ServerStats::LEN];
        let fields = [
            self.capacity_pages,
            self.granted_pages,
            self.stored_pages,
            self.sessions,
            self.connections,
            self.pages_read,
            self.pages_written,
            self.uptime_ms,
        ];
        for (at, v) in b.chunks_exact_mut(8).zip(fields) {
            at.copy_from_slice(&v.to_le_bytes());
        }
        b
    }

    /// Reads a payload. Later versions may append figures, which are skipped.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when it is too short.
    pub fn decode(b: &[u8]) -> Result<ServerStats, DecodeError> {
        let mut r = Reader(b);
        let mut next = || r.take().map(u64::from_le_bytes);
        Ok(ServerStats {
            capacity_pages: next()?,
            granted_pages: next()?,
            stored_pages: next()?,
            sessions: next()?,
            connections: next()?,
            pages_read: next()?,
            pages_written: next()?,
            uptime_ms: next()?,
        })
    }
}

/// Payload of a RELEASE, and of the reply to a GRANT: slab numbers.
pub fn encode_slab_list(slabs: &[u32]) -> Vec<u8> {
    slabs.iter().flat_map(|s| s.to_le_bytes()).collect()
}

/// Reads what [`encode_slab_list`] wrote.
///
/// # Errors
/// [`DecodeError::Malformed`] when the length is no multiple of four.
pub fn decode_slab_list(b: &[u8]) -> Result<Vec<u32>, DecodeError> {
    if !b.len().is_multiple_of(4) {
        return Err(DecodeError::Malformed);
    }
    Ok(b.chunks_exact(4)
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect())
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed)
        }
    }
}
