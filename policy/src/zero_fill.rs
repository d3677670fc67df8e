//! Where the program fills memory in order, so that zeros can be put ahead of
//! it.
//!
//! Programs give up a block and get one at the same place: what was filled in
//! order a moment ago is filled at one go when it begins to be filled again.

/// Streams that are followed.
const STREAMS: usize = 16;
/// The most pages put ahead of one.
const LARGEST: usize = 256;

/// Memory that is being filled, stream by stream; most recent first.
#[derive(Debug, Default)]
pub struct ZeroFillAhead {
    streams: [Stream; STREAMS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Where it began, and the page that goes on.
    start: u64,
    next: u64,
    /// Pages filled last time.
    size: usize,
}

impl ZeroFillAhead {
    /// How many pages to fill at a fault on `page`: four times as many each time
    /// that a stream goes on where it ended, or all that one has filled before.
    pub fn size(&mut self, page: u64) -> usize {
        let find = |fits: &dyn Fn(&Stream) -> bool| self.streams.iter().position(fits);
        let known = find(&|s| s.next == page && s.size > 0);
        let anew = || find(&|s| (s.start..s.next).contains(&page));
        let found = known.or_else(anew);
        self.streams[..=found.unwrap_or(STREAMS - 1)].rotate_right(1);
        let stream = &mut self.streams[0];
        let size = match (known, found) {
            (Some(_), _) => stream.size * 4,
            (None, Some(_)) => (stream.next - page) as usize,
            (None, None) => 1,
        };
        let size = size.min(LARGEST);
        if known.is_none() {
            stream.start = page;
        }
        stream.next = page + size as u64;
        stream.size = size;
        size
    }

    /// Only `n` pages were filled at the fault on `page`, for which [`ZeroFillAhead::size`] said
    /// `size`. Other threads may have faulted since.
    pub fn filled(&mut self, page: u64, size: usize, n: usize) {
        let end = page + size as u64;
        let ends_there = |s: &&mut Stream| s.size == size && s.next == end;
        if let Some(stream) = self.streams.iter_mut().find(ends_there) {
            stream.next = page + n as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_before_is_filled_at_one_go_and_once() {
        let mut fills = ZeroFillAhead::default();
        for (at, size) in [(100, 1), (101, 4), (105, 16)] {
            assert_eq!(fills.size(at), size);
        }
        fills.filled(105, 16, 8);
        assert_eq!(fills.size(102), 11);
        assert_eq!(fills.size(113), 44);
        // It is not touched in order any more.
        assert_eq!(fills.size(104), 53);
        assert_eq!(fills.size(103), 1);
    }

    #[test]
    fn streams_grow_while_they_go_on_and_do_not_disturb_one_another() {
        let mut fills = ZeroFillAhead::default();
        assert_eq!(fills.size(10), 1);
        assert_eq!(fills.size(1000), 1);
        assert_eq!(fills.size(11), 4);
        assert_eq!(fills.size(1001), 4);
        assert_eq!(fills.size(15), 16);
        // Only half of it could be filled; the stream goes on from there.
        fills.filled(15, 16, 8);
        assert_eq!(fills.size(23), 64);
        assert_eq!(fills.size(500), 1);
        assert_eq!((fills.size(87), fills.size(343)), (256, 256));
    }

    #[test]
    fn what_is_filled_late_is_of_the_stream_of_its_own_fault() {
        let mut fills = ZeroFillAhead::default();
        assert_eq!((fills.size(10), fills.size(11)), (1, 4));
        // This fault has to wait; another thread's comes in between.
        assert_eq!(fills.size(1000), 1);
        fills.filled(11, 4, 2);
        assert_eq!(fills.size(1001), 4);
        assert_eq!(fills.size(13), 16);
    }

    #[test]
    fn what_is_filled_after_its_stream_was_forgotten_changes_no_other() {
        let mut fills = ZeroFillAhead::default();
        assert_eq!(fills.size(10), 1);
        (1..=STREAMS as u64).for_each(|i| assert_eq!(fills.size(i * 1000), 1));
        fills.filled(10, 1, 1);
        (1..=STREAMS as u64).for_each(|i| assert_eq!(fills.size(i * 1000 + 1), 4));
    }
}
