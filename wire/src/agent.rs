//! What a client says first to an agent: a process that speaks RDMA for it.
//!
//! An agent is reached over a local socket. After the preface, what is said is
//! what a memory server would be told over TCP.

use crate::DecodeError;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

const MAGIC: [u8; 4] = *b"TMAG";

/// To which server a connection to an agent is meant to lead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    /// Proves that the client may use the agent.
    pub token: [u8; 16],
    /// Where the server listens for RDMA.
    pub server: SocketAddr,
}

impl core::fmt::Debug for Preface {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The token is a secret.
        write!(f, "preface to {}", self.server)
    }
}

impl Preface {
    /// Bytes of an encoded preface.
    pub const LEN: usize = 40;

    /// The preface as it is sent.
    pub fn encode(&self) -> [u8; Preface::LEN] {
        let ip = match self.server.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut b = [0u8; Preface::LEN];
        b[0..4].copy_from_slice(&MAGIC);
        b[4..6].copy_from_slice(&self.server.port().to_le_bytes());
        b[8..24].copy_from_slice(&ip.octets());
        b[24..40].copy_from_slice(&self.token);
        b
    }

    /// Reads what [`Preface::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] or [`DecodeError::ReservedNotZero`].
    pub fn decode(b: &[u8; Preface::LEN]) -> Result<Preface, DecodeError> {
        if b[0..4] != MAGIC {
            return Err(DecodeError::Magic);
        }
        if b[6..8] != [0, 0] {
            return Err(DecodeError::ReservedNotZero);
        }
        let (mut ip, mut token) = ([0; 16], [0; 16]);
        ip.copy_from_slice(&b[8..24]);
        token.copy_from_slice(&b[24..40]);
        let ip = Ipv6Addr::from(ip).to_canonical();
        let port = u16::from_le_bytes([b[4], b[5]]);
        Ok(Preface {
            token,
            server: SocketAddr::new(ip, port),
        })
    }
}
