//! The number of a frame of the pool.

use core::num::NonZeroU32;
use core::ops::Add;

/// A frame of the pool. `Option<FrameNumber>` takes no more room than a `FrameNumber`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FrameNumber(NonZeroU32);

impl FrameNumber {
    /// The frame at place `index` of the pool, from 0. A pool has fewer than 2^32 - 1.
    pub(crate) fn new(index: usize) -> FrameNumber {
        FrameNumber(NonZeroU32::MIN.saturating_add(index as u32))
    }

    /// Its place in the pool.
    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// The `n` frames from this one on, in order.
    pub(crate) fn run(self, n: usize) -> impl DoubleEndedIterator<Item = FrameNumber> + Clone {
        (self.index()..self.index() + n).map(FrameNumber::new)
    }

    /// Its number as the page table stores it.
    pub(crate) fn bits(self) -> u32 {
        self.0.get()
    }

    /// The frame of which [`FrameNumber::bits`] gave `bits`; frame 0 if there is none.
    #[inline(always)]
    pub(crate) fn from_bits(bits: u32) -> FrameNumber {
        FrameNumber(NonZeroU32::new(bits).unwrap_or(NonZeroU32::MIN))
    }
}

impl Add<usize> for FrameNumber {
    type Output = FrameNumber;

    /// The frame `n` frames further on.
    fn add(self, n: usize) -> FrameNumber {
        FrameNumber::new(self.index() + n)
    }
}
