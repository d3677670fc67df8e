//! Tells whether what a thread missed ends in the page behind.
//!
//! A value of a key-value store lies anywhere, and a part of them in two pages: the thread
//! that reads one misses the first and then the second. Whether it does is learnt from
//! where in its page the first was touched, for objects begin there.

use alloc::collections::VecDeque;

/// Parts of a page that are told apart, and the first that counts: where pages are gone
/// through in order, in steps that are not large, they are touched before.
const PARTS: usize = 16;
const FIRST: usize = 4;
/// Misses of which it is not known yet whether the page behind is missed as well.
const OPEN: usize = 8;
/// Of so many misses the last counts as much as all before.
const WEIGHT: i32 = 16;
/// The page behind is fetched where it was missed in a quarter of all cases.
const ALWAYS: i32 = 1 << 12;
const ENOUGH: i32 = ALWAYS / 4;
/// Of so many the page behind is left where it is, to see whether it is missed.
const TRIAL: u32 = 16;

const PAGE: u64 = tmem_wire::PAGE_SIZE as u64;

/// What was learnt.
#[derive(Debug, Default)]
pub struct StraddlePredictor {
    /// The oldest first: thread, page, and part of it.
    open: VecDeque<(u32, u64, usize)>,
    /// How often the page behind was missed, of [`ALWAYS`].
    shares: [i32; PARTS],
    trials: u32,
}

impl StraddlePredictor {
    /// Thread `tid` has missed what is at `at`, and the page behind is elsewhere as well, or
    /// is not: whether it is to be fetched now.
    pub fn missed(&mut self, tid: u32, at: u64, elsewhere: bool) -> bool {
        let (page, part) = (at / PAGE, (at % PAGE) as usize * PARTS / PAGE as usize);
        let before = |open: &(u32, u64, usize)| (open.0, open.1 + 1) == (tid, page);
        if let Some(i) = self.open.iter().position(before)
            && let Some((_, _, part)) = self.open.remove(i)
        {
            self.learn(part, ALWAYS);
        }
        if part < FIRST || !elsewhere {
            return false;
        }
        if self.shares[part] >= ENOUGH {
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
        self.shares[part] += (seen - self.shares[part]) / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that begin at `offset` of pages far apart, of which `ends` tells whether they
    /// end in the page behind: how often that was fetched ahead, and missed.
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
        // Elsewhere in the page nothing was learnt.
        assert_eq!(read(&mut straddle, 2000, |_| false), (0, 0));
        // Once it is no longer so, it is soon left.
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
}
