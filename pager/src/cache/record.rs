//! The header of a compressed copy.

use tmem_policy::PageNumber;

/// Bytes of a header.
pub(super) const HEADER: usize = 24;

/// What a copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) page: PageNumber,
    pub(super) digest: u64,
    pub(super) when: u32,
    /// Bytes of the compressed page.
    pub(super) len: usize,
}

impl Record {
    /// Writes the header to the beginning of `to`.
    pub(super) fn write(&self, to: &mut [u8]) {
        to[..8].copy_from_slice(&self.page.get().to_ne_bytes());
        to[8..16].copy_from_slice(&self.digest.to_ne_bytes());
        to[16..20].copy_from_slice(&self.when.to_ne_bytes());
        to[20..24].copy_from_slice(&(self.len as u32).to_ne_bytes());
    }

    /// Reads a header. Returns `None` if there is none.
    pub(super) fn read(from: &[u8]) -> Option<Record> {
        let (page, rest) = from.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (when, rest) = rest.split_first_chunk()?;
        let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        (len > 0).then(|| Record {
            page: PageNumber::new(u64::from_ne_bytes(*page)),
            digest: u64::from_ne_bytes(*digest),
            when: u32::from_ne_bytes(*when),
            len,
        })
    }
}
