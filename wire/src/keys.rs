//! Payload of the reply to KEYS: where a slab lies for one-sided access.

use crate::{DecodeError, message::Reader};

/// Where a slab lies in the server's memory, and the key to it.
///
/// It is good on the connection over which it was asked for, and until the
/// slab is released.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlabKey {
    /// Address of the slab's first page on the server.
    pub address: u64,
    /// The remote key.
    pub key: u32,
    /// Whether it allows writing too.
    pub write: bool,
}

impl core::fmt::Debug for SlabKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The key is nobody else's business.
        f.debug_struct("SlabKey")
            .field("write", &self.write)
            .finish_non_exhaustive()
    }
}

impl SlabKey {
    /// Bytes of an encoded key.
    pub const LEN: usize = 16;

    /// The payload.
    pub fn encode(&self) -> [u8; SlabKey::LEN] {
        let mut b = [0u8; SlabKey::LEN];
        b[0..8].copy_from_slice(&self.address.to_le_bytes());
        b[8..12].copy_from_slice(&self.key.to_le_bytes());
        b[12..16].copy_from_slice(&u32::from(self.write).to_le_bytes());
        b
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] when the length is wrong, or the access is
    /// neither reading nor reading and writing.
    pub fn decode(b: &[u8]) -> Result<SlabKey, DecodeError> {
        let mut r = Reader(b);
        let key = SlabKey {
            address: u64::from_le_bytes(r.take()?),
            key: u32::from_le_bytes(r.take()?),
            write: match u32::from_le_bytes(r.take()?) {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Malformed),
            },
        };
        r.end()?;
        Ok(key)
    }
}
