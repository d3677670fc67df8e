//! Where a page lies in the tier.

use super::log::SEGMENT;
use tmem_wire::PAGE_SIZE;

/// Alignment of records, in bytes.
pub(super) const UNIT: usize = 16;

/// Where a page lies in the tier, in one word. The default is that it lies nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry(u64);

const OFFSET_BITS: u32 = (SEGMENT / UNIT).ilog2();
const LEN_BITS: u32 = PAGE_SIZE.ilog2() + 1;
const SEGMENT_BITS: u32 = 32;
const THERE: u64 = 1 << 63;

const _: () = assert!(OFFSET_BITS + LEN_BITS + SEGMENT_BITS < 63);

impl Entry {
    /// A record in `segment` that begins at byte `offset`, a multiple of [`UNIT`]. The page
    /// takes `len` bytes after the header, at most a page.
    pub(super) fn new(segment: u32, offset: usize, len: usize) -> Entry {
        let offset = (offset / UNIT) as u64;
        let len = (len as u64) << OFFSET_BITS;
        Entry(THERE | u64::from(segment) << (OFFSET_BITS + LEN_BITS) | len | offset)
    }

    /// Tells whether the page lies anywhere.
    pub(super) fn is_there(self) -> bool {
        self.0 & THERE != 0
    }

    /// Returns the segment.
    pub(super) fn segment(self) -> u32 {
        (self.0 >> (OFFSET_BITS + LEN_BITS)) as u32
    }

    /// Returns the offset of the record, in bytes.
    pub(super) fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * UNIT
    }

    /// Returns the bytes that the page takes after the header: those of a page if it is not
    /// compressed.
    pub(super) fn len(self) -> usize {
        ((self.0 >> OFFSET_BITS) & ((1 << LEN_BITS) - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_it_was_made_of() {
        assert!(!Entry::default().is_there());
        for segment in [0, 1, u32::MAX] {
            for offset in [0, UNIT, SEGMENT - UNIT] {
                for len in [1, PAGE_SIZE - 1, PAGE_SIZE] {
                    let entry = Entry::new(segment, offset, len);
                    let parts = (entry.segment(), entry.offset(), entry.len());
                    assert!(entry.is_there());
                    assert_eq!(parts, (segment, offset, len));
                }
            }
        }
    }
}
