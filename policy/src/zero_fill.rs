//! Zero-fill-ahead: decides how many pages to fill with zeros at a fault on new memory.
//!
//! It is like fault-around for files in Linux (`mm/memory.c`): memory that is filled in
//! order is filled ahead in growing pieces. Programs also free a block and get one at the
//! same place again. Memory that was filled in order a moment ago is filled in one piece
//! when it is touched again.
//!
//! Invariants, tested below:
//! - a fault gets at least one page and at most `LARGEST`;
//! - pages that fault in no order get one page each.

use crate::PageNumber;

/// The most streams that are followed.
const STREAMS: usize = 16;
/// The most pages of one fault.
const LARGEST: usize = 256;
/// Factor by which the pages grow each time that a stream goes on.
const GROWTH: usize = 4;

/// The streams in which memory is being filled.
#[derive(Debug, Default)]
pub struct ZeroFillAhead {
    /// The most recent first.
    streams: [Stream; STREAMS],
}

/// Pages that are filled in order.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The first page, and the one after the last.
    start: PageNumber,
    next: PageNumber,
    /// Pages of the last fault; 0 in an unused entry.
    size: usize,
}

impl ZeroFillAhead {
    /// Decides how many pages from `page` on to fill at a fault there.
    pub fn size(&mut self, page: PageNumber) -> usize {
        let find = |fits: &dyn Fn(&Stream) -> bool| self.streams.iter().position(fits);
        let known = find(&|s| s.next == page && s.size > 0);
        let again = || find(&|s| (s.start..s.next).contains(&page));
        let found = known.or_else(again);
        self.streams[..=found.unwrap_or(STREAMS - 1)].rotate_right(1);
        let stream = &mut self.streams[0];
        let size = match (known, found) {
            (Some(_), _) => stream.size * GROWTH,
            (None, Some(_)) => stream.next - page,
            (None, None) => 1,
        };
        let size = size.min(LARGEST);
        if known.is_none() {
            stream.start = page;
        }
        stream.next = page + size;
        stream.size = size;
        size
    }

    /// Notes that only `n` pages were filled at the fault on `page`, for which
    /// [`ZeroFillAhead::size`] returned `size`. Other threads may have faulted since.
    pub fn filled(&mut self, page: PageNumber, size: usize, n: usize) {
        let end = page + size;
        let ends_there = |s: &&mut Stream| s.size == size && s.next == end;
        if let Some(stream) = self.streams.iter_mut().find(ends_there) {
            stream.next = page + n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(number: u64) -> PageNumber {
        PageNumber::new(number)
    }

    #[test]
    fn what_was_filled_before_is_filled_at_one_go_and_once() {
        let mut fills = ZeroFillAhead::default();
        for (at, size) in [(100, 1), (101, 4), (105, 16)] {
            assert_eq!(fills.size(p(at)), size);
        }
        fills.filled(p(105), 16, 8);
        assert_eq!(fills.size(p(102)), 11);
        assert_eq!(fills.size(p(113)), 44);
        // These pages are not touched in order any more.
        assert_eq!(fills.size(p(104)), 53);
        assert_eq!(fills.size(p(103)), 1);
    }

    #[test]
    fn streams_grow_while_they_go_on_and_do_not_disturb_one_another() {
        let mut fills = ZeroFillAhead::default();
        assert_eq!(fills.size(p(10)), 1);
        assert_eq!(fills.size(p(1000)), 1);
        assert_eq!(fills.size(p(11)), 4);
        assert_eq!(fills.size(p(1001)), 4);
        assert_eq!(fills.size(p(15)), 16);
        // Only half of it could be filled. The stream goes on from there.
        fills.filled(p(15), 16, 8);
        assert_eq!(fills.size(p(23)), 64);
        assert_eq!(fills.size(p(500)), 1);
        assert_eq!((fills.size(p(87)), fills.size(p(343))), (256, 256));
    }

    #[test]
    fn what_is_filled_late_is_of_the_stream_of_its_own_fault() {
        let mut fills = ZeroFillAhead::default();
        assert_eq!((fills.size(p(10)), fills.size(p(11))), (1, 4));
        // This fault has to wait, and another thread's comes in between.
        assert_eq!(fills.size(p(1000)), 1);
        fills.filled(p(11), 4, 2);
        assert_eq!(fills.size(p(1001)), 4);
        assert_eq!(fills.size(p(13)), 16);
    }

    #[test]
    fn what_is_filled_after_its_stream_was_forgotten_changes_no_other() {
        let mut fills = ZeroFillAhead::default();
        assert_eq!(fills.size(p(10)), 1);
        (1..=STREAMS as u64).for_each(|i| assert_eq!(fills.size(p(i * 1000)), 1));
        fills.filled(p(10), 1, 1);
        (1..=STREAMS as u64).for_each(|i| assert_eq!(fills.size(p(i * 1000 + 1)), 4));
    }

    proptest! {
        #[test]
        fn a_fault_gets_from_one_page_to_the_most(
            faults in prop::collection::vec((0u64..600, 0usize..300), 0..300),
        ) {
            let mut fills = ZeroFillAhead::default();
            for (page, n) in faults {
                let size = fills.size(p(page));
                prop_assert!((1..=LARGEST).contains(&size), "{}", size);
                if (1..=size).contains(&n) {
                    fills.filled(p(page), size, n);
                }
            }
        }

        #[test]
        fn pages_apart_get_one_each_and_pages_in_order_are_filled_in_few_faults(
            first in 0u64..1 << 40, gap in 2u64..1000, n in 1u64..5000,
        ) {
            let mut fills = ZeroFillAhead::default();
            prop_assert!((0..100).all(|i| fills.size(p(first + i * gap)) == 1));
            let (start, mut at, mut faults) = (1 << 50, 1u64 << 50, 0);
            while at < start + n {
                at += fills.size(p(at)) as u64;
                faults += 1;
            }
            // 1 + 4 + 16 + 64 pages, and then 256 at each fault.
            prop_assert!(faults <= 4 + n.div_ceil(LARGEST as u64), "{}", faults);
        }
    }
}
