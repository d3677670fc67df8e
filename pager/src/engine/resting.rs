//! How many evicted pages rest, to be had back without a server.
//!
//! They show which evictions were mistakes, and the more of them rest the longer they may
//! take to show it. But each of them is had back by a fault, and would not have been one
//! in the program: where next to all that leaves is had back at once, the program uses
//! about as much as there is room for, and rest had better be short.

/// The fewest, in frames.
const FEWEST: usize = 128;

/// How many frames with memory the pool is to have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resting {
    /// How often the most that it may have is halved.
    halved: u32,
    /// Pages that had been had back, when last looked.
    back: u64,
}

impl Resting {
    /// Of at most so many.
    pub(super) fn frames(&self, most: usize) -> usize {
        (most >> self.halved).max(FEWEST.min(most))
    }

    /// So many pages have left since the last look; `back` of all that ever left were
    /// had back while they rested.
    pub(super) fn look(&mut self, most: usize, left: u64, back: u64) {
        let new = back.saturating_sub(core::mem::replace(&mut self.back, back));
        if new * 4 > left * 3 && most >> self.halved > FEWEST {
            self.halved += 1;
        } else if new * 2 < left {
            self.halved = self.halved.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_short_where_all_that_leaves_comes_back_and_long_again_where_it_does_not() {
        let mut resting = Resting::default();
        let mut back = 0;
        let mut look = |share: u64, times: usize| {
            for _ in 0..times {
                back += 10 * share;
                resting.look(4096, 1000, back);
            }
            resting.frames(4096)
        };
        assert_eq!(look(70, 9), 4096);
        assert_eq!(look(80, 1), 2048);
        assert_eq!(look(95, 9), 128);
        assert_eq!(look(70, 9), 128);
        assert_eq!(look(30, 1), 256);
        assert_eq!(look(0, 9), 4096);
    }

    #[test]
    fn a_small_pool_stays_as_it_is() {
        let mut resting = Resting::default();
        resting.look(100, 1000, 1000);
        assert_eq!(resting.frames(100), 100);
    }
}
