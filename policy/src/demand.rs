//! Frame demand rate: decides how many free frames are expected to be used up per
//! millisecond.
//!
//! The rate rises at once and falls slowly (peak hold), so that a program that reads in
//! bursts finds its frames.
//!
//! Invariants, tested below:
//! - the rate is never below that of the last interval;
//! - it falls by a sixteenth in each interval, and to 0 in the end.

/// The rate falls by 1/`DECAY` in each interval.
const DECAY: usize = 16;

/// The rate at which free frames are used up.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameDemand {
    /// Frames taken until the last update.
    taken: u64,
    /// Frames per millisecond.
    rate: usize,
}

impl FrameDemand {
    /// Updates the rate: `taken` frames were taken since the start, and the last update was
    /// `ns` nanoseconds ago.
    pub fn update(&mut self, taken: u64, ns: u64) {
        let new = taken - core::mem::replace(&mut self.taken, taken);
        let rate = (new / (ns / 1_000_000).max(1)) as usize;
        self.rate = rate.max(self.rate - self.rate.div_ceil(DECAY));
    }

    /// Returns the rate, in frames per millisecond.
    pub fn rate(&self) -> usize {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_rate_rises_at_once_and_falls_slowly(
            intervals in prop::collection::vec((0u64..5000, 1u64..50), 1..100),
        ) {
            let mut demand = FrameDemand::default();
            let mut taken = 0;
            for (frames, ms) in intervals {
                taken += frames;
                let before = demand.rate();
                demand.update(taken, ms * 1_000_000);
                let rate = (frames / ms) as usize;
                prop_assert!(demand.rate() >= rate);
                prop_assert!(demand.rate() == rate || demand.rate() == before - before.div_ceil(DECAY));
            }
            (0..200).for_each(|_| demand.update(taken, 1_000_000));
            prop_assert_eq!(demand.rate(), 0);
        }
    }
}
