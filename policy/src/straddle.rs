//! Straddle predictor: decides whether to read the next page together with a missed one,
//! because the object that the thread reads probably ends there.
//!
//! A value of a key-value store may begin anywhere, so some values lie in two pages, and a
//! thread that reads one misses the first page and then the second. The predictor is a
//! table of averages, indexed by the part of the page that was touched first, as a branch
//! predictor is indexed by the address of the branch (Smith, "A study of branch prediction
//! strategies", ISCA 1981): objects of one size begin anywhere, and cross if they begin
//! late in the page.
//!
//! Invariants, tested below:
//! - a page that is in memory is never read;
//! - nothing is read before a miss was seen to be followed by one of the next page;
//! - one in `TRIAL` times nothing is read, so that a change shows.

use alloc::collections::VecDeque;
use tmem_wire::PAGE_SIZE;

/// Number of parts of a page, and the first part that counts. Pages that are read in order,
/// in small steps, are touched in the first parts first.
const PARTS: usize = 16;
const FIRST_PART: usize = 4;
/// The most misses that may still be followed by one of the next page.
const OPEN: usize = 8;
/// An average moves by 1/`WEIGHT` of the difference.
const WEIGHT: i32 = 16;
/// An average of 1, and the least average for which the next page is read.
const ALWAYS: i32 = 1 << 12;
const ENOUGH: i32 = ALWAYS / 4;
/// Once in this many times the next page is not read, to see whether it is missed.
const TRIAL: u32 = 16;

const PAGE: u64 = PAGE_SIZE as u64;

/// The predictor.
#[derive(Debug, Default)]
pub struct StraddlePredictor {
    /// Thread, page and part of each miss that may still be followed, the oldest first.
    open: VecDeque<(u32, u64, usize)>,
    /// How often the next page was missed, in units of 1/[`ALWAYS`].
    averages: [i32; PARTS],
    trials: u32,
}

impl StraddlePredictor {
    /// Notes that thread `tid` missed address `at`. `elsewhere` says that the next page is
    /// not in memory. Returns whether to read that now.
    pub fn missed(&mut self, tid: u32, at: u64, elsewhere: bool) -> bool {
        let (page, part) = (at / PAGE, (at % PAGE) as usize * PARTS / PAGE_SIZE);
        let before = |open: &(u32, u64, usize)| (open.0, open.1 + 1) == (tid, page);
        if let Some(i) = self.open.iter().position(before)
            && let Some((_, _, part)) = self.open.remove(i)
        {
            self.learn(part, ALWAYS);
        }
        if part < FIRST_PART || !elsewhere {
            return false;
        }
        if self.averages[part] >= ENOUGH {
            self.trials += 1;
            if !self.trials.is_multiple_of(TRIAL) {
                return true;
            }
        }
        if self.open.len() == OPEN
            && let Some((_, _, part)) = self.open.pop_front()
        {
            self.learn(part, 0);
        }
        self.open.push_back((tid, page, part));
        false
    }

    fn learn(&mut self, part: usize, seen: i32) {
        self.averages[part] += (seen - self.averages[part]) / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads 1000 values that begin at `offset` of distant pages. `ends` says which of them
    /// end in the next page. Returns how often that was read ahead, and how often missed.
    fn read(
        straddle: &mut StraddlePredictor,
        offset: u64,
        ends: impl Fn(u64) -> bool,
    ) -> (u32, u32) {
        let (mut ahead, mut missed) = (0, 0);
        for i in 0..1000 {
            let page = 10 + i * 7;
            let fetched = straddle.missed(7, page * PAGE + offset, true);
            ahead += u32::from(fetched);
            if ends(i) && !fetched {
                missed += 1;
                assert!(!straddle.missed(7, (page + 1) * PAGE, true));
            }
        }
        (ahead, missed)
    }

    #[test]
    fn what_often_ends_in_the_page_behind_is_fetched_with_it() {
        let mut straddle = StraddlePredictor::default();
        let (ahead, missed) = read(&mut straddle, 3500, |i| i % 3 == 0);
        assert!(ahead > 800 && missed < 80, "{ahead} {missed}");
        // Nothing was learnt about the other parts of the page.
        assert_eq!(read(&mut straddle, 2000, |_| false), (0, 0));
        // Once values do not cross any more, reading ahead ends soon.
        let (ahead, _) = read(&mut straddle, 3500, |_| false);
        assert!(ahead < 600, "{ahead}");
    }

    #[test]
    fn a_page_that_is_there_or_that_nobody_comes_to_is_not_fetched() {
        let mut straddle = StraddlePredictor::default();
        assert_eq!(read(&mut straddle, 3500, |i| i % 8 == 0).0, 0);
        let mut straddle = StraddlePredictor::default();
        read(&mut straddle, 3500, |_| true);
        assert!(!straddle.missed(7, 5 * PAGE + 3500, false));
        assert!(straddle.missed(7, 5 * PAGE + 3500, true));
    }

    #[test]
    fn pages_that_follow_one_another_are_left_to_streams() {
        let mut straddle = StraddlePredictor::default();
        for i in 0..1000 {
            assert!(!straddle.missed(7, i * PAGE + i % 1000, true));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_fetched_that_is_there_or_was_never_crossed(
            misses in prop::collection::vec((0u32..3, 0u64..40, 0u64..PAGE, any::<bool>()), 0..400),
        ) {
            let mut straddle = StraddlePredictor::default();
            let mut crossed = false;
            for (tid, page, offset, elsewhere) in misses {
                // Only every second page is used, so that none follows another by chance.
                let at = page * 2 * PAGE + offset;
                let fetched = straddle.missed(tid, at, elsewhere);
                prop_assert!(!fetched || (elsewhere && crossed));
                if offset % 5 == 0 && !fetched {
                    // This value ends in the next page.
                    straddle.missed(tid, at / PAGE * PAGE + PAGE, false);
                    crossed = true;
                }
                prop_assert!(straddle.open.len() <= OPEN);
                prop_assert!(straddle.averages.iter().all(|a| (0..=ALWAYS).contains(a)));
            }
        }
    }
}
