//! Packed pages: LZ4 blocks (block format, <https://lz4.org>), for networks that are
//! slower than a processor packs.
//!
//! A packed payload is the length of each page, 2 bytes each, and then the pages, one
//! after another. A page of length 4096 is there as it is, one of length 0 is zeros,
//! and any other is an LZ4 block of 4096 bytes.

use crate::{DecodeError, PAGE_SIZE};
use alloc::vec::Vec;
use lz4_flex::block;

/// Bytes of a page's length.
const LENGTH: usize = 2;

/// A packed payload is no larger than this share of its pages, or not worth it: in
/// eighths.
const WORTH: usize = 7;

/// So many pages are looked at before it is given up.
const TRIED: usize = 4;

/// Bytes that the block of one page may need while it is made.
pub const ROOM: usize = block::get_maximum_output_size(PAGE_SIZE);

/// A page.
pub type PageBytes = [u8; PAGE_SIZE];

/// Packs a page into the beginning of `to`, which has [`ROOM`] bytes; how many it takes.
/// `None` when it does not get smaller.
pub fn pack_page(page: &PageBytes, to: &mut [u8]) -> Option<usize> {
    block::compress_into(page, to)
        .ok()
        .filter(|len| *len < PAGE_SIZE)
}

/// Unpacks a page; whether the bytes were those of one. If not, it may hold anything.
pub fn unpack_page(packed: &[u8], page: &mut PageBytes) -> bool {
    block::decompress_into(packed, page).is_ok_and(|n| n == PAGE_SIZE)
}

/// The least and the most bytes of a packed payload of `count` pages.
pub(crate) fn packed_len(count: u32) -> core::ops::RangeInclusive<u64> {
    let count = u64::from(count);
    let lengths = count * LENGTH as u64;
    lengths..=lengths + count * PAGE_SIZE as u64
}

/// Packs pages.
pub struct Packer {
    packed: Vec<u8>,
    count: usize,
    done: usize,
}

impl core::fmt::Debug for Packer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {} pages packed", self.done, self.count)
    }
}

impl Packer {
    /// For `count` pages, of which none is added yet.
    pub fn new(count: usize) -> Packer {
        Packer {
            packed: alloc::vec![0; count * LENGTH],
            count,
            done: 0,
        }
    }

    /// As [`Packer::new`], with room for all pages from the start: nowhere are copies left of
    /// what was packed before it grew.
    pub fn in_place(count: usize) -> Packer {
        let mut packed = Vec::with_capacity(count * (LENGTH + PAGE_SIZE) + ROOM);
        packed.resize(count * LENGTH, 0);
        Packer {
            packed,
            count,
            done: 0,
        }
    }

    /// What was packed so far, of no use but to be wiped.
    pub fn into_bytes(self) -> Vec<u8> {
        self.packed
    }

    /// Adds the next page. False when the pages so far do not get smaller: the others
    /// need not be tried.
    pub fn add(&mut self, page: &PageBytes) -> bool {
        let at = self.packed.len();
        self.packed.resize(at + ROOM, 0);
        // The length of a block says that it is one.
        let len = pack_page(page, &mut self.packed[at..]).unwrap_or_else(|| {
            self.packed[at..at + PAGE_SIZE].copy_from_slice(page);
            PAGE_SIZE
        });
        self.packed.truncate(at + len);
        self.added(len);
        self.done != TRIED || self.is_worth_it()
    }

    /// Adds a page of zeros.
    pub fn add_zeros(&mut self) {
        self.added(0);
    }

    /// The payload, when all pages were added and it is worth it.
    pub fn finish(self) -> Option<Vec<u8>> {
        self.is_whole().then_some(self.packed)
    }

    /// Whether all pages were added and it is worth it.
    pub fn is_whole(&self) -> bool {
        self.done == self.count && self.is_worth_it()
    }

    fn added(&mut self, len: usize) {
        let at = self.done * LENGTH;
        self.packed[at..at + LENGTH].copy_from_slice(&(len as u16).to_le_bytes());
        self.done += 1;
    }

    fn is_worth_it(&self) -> bool {
        let plain = self.done * PAGE_SIZE;
        self.packed.len() - (self.count - self.done) * LENGTH <= plain / 8 * WORTH
    }
}

/// Hands each of `count` packed pages to `page`.
///
/// # Errors
/// [`DecodeError::Malformed`]; some pages may have been handed on by then.
pub fn unpack(
    payload: &[u8],
    count: usize,
    mut page: impl FnMut(usize, &PageBytes),
) -> Result<(), DecodeError> {
    let malformed = DecodeError::Malformed;
    let (lengths, mut rest) = payload.split_at_checked(count * LENGTH).ok_or(malformed)?;
    let mut room = [0; PAGE_SIZE];
    for (i, len) in lengths.as_chunks::<LENGTH>().0.iter().enumerate() {
        let len = usize::from(u16::from_le_bytes(*len));
        let (bytes, more) = rest.split_at_checked(len).ok_or(malformed)?;
        rest = more;
        match len {
            0 => room.fill(0),
            PAGE_SIZE => room.copy_from_slice(bytes),
            _ => {
                if len > PAGE_SIZE || !unpack_page(bytes, &mut room) {
                    return Err(malformed);
                }
            }
        }
        page(i, &room);
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A page that gets smaller the fewer `kinds` of words there are.
    fn page(seed: u64, kinds: u64) -> PageBytes {
        let mut state = seed;
        let mut page = [0; PAGE_SIZE];
        for word in page.as_chunks_mut::<8>().0 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let value = (state >> 33) % kinds;
            *word = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        }
        page
    }

    fn pack(pages: &[Option<PageBytes>]) -> Option<Vec<u8>> {
        let mut packer = Packer::new(pages.len());
        for page in pages {
            match page {
                Some(page) if !packer.add(page) => return None,
                Some(_) => {}
                None => packer.add_zeros(),
            }
        }
        packer.finish()
    }

    fn any_page() -> impl Strategy<Value = Option<PageBytes>> {
        prop_oneof![
            Just(None),
            Just(Some([0xff; PAGE_SIZE])),
            (any::<u64>(), 1u64..100).prop_map(|(seed, kinds)| Some(page(seed, kinds))),
            any::<u64>().prop_map(|seed| Some(page(seed, u64::MAX))),
        ]
    }

    proptest! {
        #[test]
        fn pages_come_back_as_they_were(pages in prop::collection::vec(any_page(), 1..20)) {
            let Some(packed) = pack(&pages) else { return Ok(()) };
            prop_assert!(packed_len(pages.len() as u32).contains(&(packed.len() as u64)));
            prop_assert!(packed.len() <= pages.len() * PAGE_SIZE / 8 * WORTH);
            let mut seen = 0;
            unpack(&packed, pages.len(), |i, page| {
                assert!(*page == pages[i].unwrap_or([0; PAGE_SIZE]));
                seen += 1;
            }).unwrap();
            prop_assert_eq!(seen, pages.len());
        }

        #[test]
        fn any_bytes_are_refused_or_are_whole_pages(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            count in 0usize..20,
        ) {
            let mut seen = 0;
            let all = unpack(&bytes, count, |_, _| seen += 1);
            prop_assert!(all.is_err() || seen == count);
        }

        #[test]
        fn what_was_changed_is_refused_or_still_whole_pages(
            seed in any::<u64>(),
            at in any::<prop::sample::Index>(),
            bits in 1u8..,
        ) {
            let mut packed = pack(&[Some(page(seed, 9)), None, Some(page(!seed, 50))]).unwrap();
            let at = at.index(packed.len());
            packed[at] ^= bits;
            let mut seen = 0;
            let all = unpack(&packed, 3, |_, _| seen += 1);
            prop_assert!(all.is_err() || seen == 3);
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_given_up_soon() {
        let random = page(1, u64::MAX);
        let mut packer = Packer::new(100);
        assert_eq!((0..100).position(|_| !packer.add(&random)), Some(TRIED - 1));
        assert!(packer.finish().is_none());
    }

    #[test]
    fn pages_of_many_kinds_are_worth_it_together() {
        let pages: Vec<_> = (0..16).map(|i| Some(page(i, 1 + i * 8))).collect();
        assert!(pack(&pages).unwrap().len() < 16 * PAGE_SIZE / 2);
    }

    #[test]
    fn too_few_pages_and_too_many_bytes_are_refused() {
        let packed = pack(&[Some(page(1, 5)), Some(page(2, 5))]).unwrap();
        assert!(unpack(&packed, 2, |_, _| {}).is_ok());
        for wrong in [
            &packed[..packed.len() - 1],
            &[&packed[..], &[0]].concat(),
            &[],
        ] {
            let error = unpack(wrong, 2, |_, _| {});
            assert_eq!(error, Err(DecodeError::Malformed));
        }
    }
}
