//! Where the program fills memory in order, so that zeros can be put ahead of
//! it.

/// Streams that are followed.
const STREAMS: usize = 16;
/// The most pages put ahead of one.
const LARGEST: usize = 256;

/// Memory that is being filled, stream by stream; most recent first.
#[derive(Debug, Default)]
pub(super) struct Fills {
    streams: [Stream; STREAMS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The page that goes on.
    next: u64,
    /// Pages filled last time.
    size: usize,
}

impl Fills {
    /// How many pages to fill at a fault on `page`: twice as many each time
    /// that a stream goes on where it ended.
    pub(super) fn size(&mut self, page: u64) -> usize {
        let known = self
            .streams
            .iter()
            .position(|s| s.next == page && s.size > 0);
        let at = known.unwrap_or(STREAMS - 1);
        self.streams[..=at].rotate_right(1);
        let size = match known {
            Some(_) => (self.streams[0].size * 2).min(LARGEST),
            None => 1,
        };
        self.streams[0] = Stream {
            next: page + size as u64,
            size,
        };
        size
    }

    /// That many were filled at the last fault, which may be fewer.
    pub(super) fn filled(&mut self, page: u64, n: usize) {
        self.streams[0].next = page + n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_grow_while_they_go_on_and_do_not_disturb_one_another() {
        let mut fills = Fills::default();
        assert_eq!(fills.size(10), 1);
        assert_eq!(fills.size(1000), 1);
        assert_eq!(fills.size(11), 2);
        assert_eq!(fills.size(1001), 2);
        assert_eq!(fills.size(13), 4);
        // Only half of it could be filled; the stream goes on from there.
        fills.filled(13, 2);
        assert_eq!(fills.size(15), 8);
        assert_eq!(fills.size(500), 1);
        let mut at = 23;
        for size in [16, 32, 64, 128, 256, 256] {
            assert_eq!(fills.size(at), size);
            at += size as u64;
        }
    }
}
