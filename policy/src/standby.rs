//! How many evicted pages rest, to be had back without a server.
//!
//! They show which evictions were mistakes, and the more of them rest the longer they may
//! take to show it. But each of them is had back by a fault, and would not have been one
//! in the program. On traces of six real programs (`tmem-evict-sim`), in half of their memory or
//! less, faults with a 32nd of memory at rest take 0.6 to 1.04 of what they take with an
//! eighth. Where next to all that leaves is had back at once, the program uses about as
//! much as there is room for, and rest had better be shorter still.
//!
//! That holds where a program waits for most of what comes. What is fetched ahead is
//! looked for among what rests as well, and costs no fault then; and where much comes and
//! goes, frames are used up by the thousand while as many are being written. So the pool is as
//! large as it may be where two pages or more come for each fault.

/// The fewest, in frames.
const FEWEST: usize = 128;

/// Of the most that the pool may have, one in so many where a program waits for most
/// of what comes.
const PART: usize = 4;

/// It does not where so many pages come, and as many leave, for each fault.
const AHEAD: u64 = 2;

/// What there was until some moment, in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandbySample {
    /// Pages that were had back while they rested, by faults.
    pub refaults: u64,
    /// Faults.
    pub faults: u64,
}

/// How many frames with memory the pool is to have.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandbySizer {
    /// The program waits for most of what comes.
    waits: bool,
    /// How often what there would be otherwise is halved.
    halved: u32,
    /// What was seen at the last look.
    seen: StandbySample,
}

impl StandbySizer {
    /// Of at most so many.
    pub fn frames(&self, most: usize) -> usize {
        (self.whole(most) >> self.halved).max(FEWEST.min(most))
    }

    fn whole(&self, most: usize) -> usize {
        if self.waits { most / PART } else { most }
    }

    /// So many pages have left since the last look, and as many have come.
    pub fn update(&mut self, most: usize, left: u64, seen: StandbySample) {
        let before = core::mem::replace(&mut self.seen, seen);
        let faults = seen.faults.saturating_sub(before.faults);
        self.waits = left < faults * AHEAD;
        let refaults = seen.refaults.saturating_sub(before.refaults);
        if refaults * 4 > left * 3 && self.whole(most) >> self.halved > FEWEST {
            self.halved += 1;
        } else if refaults * 2 < left {
            self.halved = self.halved.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_short_where_all_that_leaves_comes_back_and_long_again_where_it_does_not() {
        let mut resting = StandbySizer::default();
        let mut seen = StandbySample::default();
        let mut look = |share: u64, times: usize| {
            for _ in 0..times {
                seen.refaults += 10 * share;
                seen.faults += 1000;
                resting.update(16384, 1000, seen);
            }
            resting.frames(16384)
        };
        assert_eq!(look(70, 9), 4096);
        assert_eq!(look(80, 1), 2048);
        assert_eq!(look(95, 9), 128);
        assert_eq!(look(70, 9), 128);
        assert_eq!(look(30, 1), 256);
        assert_eq!(look(0, 9), 4096);
    }

    #[test]
    fn the_pool_is_whole_where_two_pages_come_for_each_fault() {
        let mut resting = StandbySizer::default();
        assert_eq!(resting.frames(4096), 4096);
        let mut seen = StandbySample::default();
        let mut look = |left| {
            seen.faults += 100;
            resting.update(4096, left, seen);
            resting.frames(4096)
        };
        assert_eq!([look(199), look(200), look(100)], [1024, 4096, 1024]);
    }

    #[test]
    fn a_small_pool_stays_as_it_is() {
        let mut resting = StandbySizer::default();
        let seen = StandbySample {
            refaults: 1000,
            faults: 1000,
        };
        resting.update(100, 1000, seen);
        assert_eq!(resting.frames(100), 100);
    }
}
