//! Standby sizer: decides how many evicted pages stay on the standby list, from which they
//! are restored without contacting a server.
//!
//! A refault from standby shows that an eviction was a mistake, and a longer list shows
//! more of them. But each page on standby costs a fault that it would not have cost in the
//! program. On traces of six real programs (`tmem-evict-sim`), in half of their memory or
//! less, faults with 1/32 of memory on standby take 0.6 to 1.04 times as long as with 1/8.
//! If nearly all evicted pages return at once, the program uses about as much memory as
//! there is, and an even shorter list is better.
//!
//! That holds for a program that waits for most of the pages that it gets. Readahead also
//! looks for its pages on standby, and takes them from there without a fault. When many
//! pages come and go, thousands of frames are used up while as many are being written. So
//! the list is as long as allowed if two pages or more come for each fault.
//!
//! Invariants, tested below:
//! - the size lies between the fewest frames and the most that are allowed;
//! - each halving changes it by a factor of at most two, and a change of the access pattern
//!   by at most four;
//! - with constant input it becomes constant.

/// The fewest frames of the list.
const FEWEST: usize = 128;
/// For a program that waits for most pages, the longest list is divided by this.
const WAITING_PART: usize = 4;
/// A program does not wait for most pages if this many come for each fault.
const PAGES_PER_FAULT: u64 = 2;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandbySample {
    /// Faults on pages that were on standby.
    pub refaults: u64,
    /// All faults.
    pub faults: u64,
}

/// The sizer of the standby list.
#[derive(Clone, Copy, Debug)]
pub struct StandbySizer {
    fewest: usize,
    /// The program waits for most of the pages that it gets.
    waits: bool,
    /// How many times the size is halved.
    halvings: u32,
    /// The counts at the last update.
    seen: StandbySample,
}

impl Default for StandbySizer {
    fn default() -> StandbySizer {
        StandbySizer::with_fewest(FEWEST)
    }
}

impl StandbySizer {
    /// Creates a sizer with at least `fewest` frames. The engine uses the default. The
    /// simulator also has memories that are smaller than any budget.
    pub fn with_fewest(fewest: usize) -> StandbySizer {
        StandbySizer {
            fewest,
            waits: false,
            halvings: 0,
            seen: StandbySample::default(),
        }
    }

    /// Returns the size in frames, of which at most `most` are allowed.
    pub fn frames(&self, most: usize) -> usize {
        (self.undivided(most) >> self.halvings).max(self.fewest.min(most))
    }

    /// Evaluates the time since the last update, in which `left` pages left the program and
    /// as many came.
    pub fn update(&mut self, most: usize, left: u64, seen: StandbySample) {
        let before = core::mem::replace(&mut self.seen, seen);
        let faults = seen.faults.saturating_sub(before.faults);
        self.waits = left < faults * PAGES_PER_FAULT;
        let refaults = seen.refaults.saturating_sub(before.refaults);
        if refaults * 4 > left * 3 && self.undivided(most) >> self.halvings > self.fewest {
            self.halvings += 1;
        } else if refaults * 2 < left {
            self.halvings = self.halvings.saturating_sub(1);
        }
    }

    fn undivided(&self, most: usize) -> usize {
        if self.waits {
            most / WAITING_PART
        } else {
            most
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_list_is_short_where_all_comes_back_and_grows_where_it_does_not() {
        let mut sizer = StandbySizer::default();
        let mut seen = StandbySample::default();
        let mut frames = |share: u64, times: usize| {
            for _ in 0..times {
                seen.refaults += 10 * share;
                seen.faults += 1000;
                sizer.update(16384, 1000, seen);
            }
            sizer.frames(16384)
        };
        assert_eq!(frames(70, 9), 4096);
        assert_eq!(frames(80, 1), 2048);
        assert_eq!(frames(95, 9), 128);
        assert_eq!(frames(70, 9), 128);
        assert_eq!(frames(30, 1), 256);
        assert_eq!(frames(0, 9), 4096);
    }

    #[test]
    fn the_list_is_whole_where_two_pages_come_for_each_fault() {
        let mut sizer = StandbySizer::default();
        assert_eq!(sizer.frames(4096), 4096);
        let mut seen = StandbySample::default();
        let mut frames = |left| {
            seen.faults += 100;
            sizer.update(4096, left, seen);
            sizer.frames(4096)
        };
        assert_eq!([frames(199), frames(200), frames(100)], [1024, 4096, 1024]);
    }

    #[test]
    fn a_small_pool_stays_as_it_is() {
        let mut sizer = StandbySizer::default();
        let seen = StandbySample {
            refaults: 1000,
            faults: 1000,
        };
        sizer.update(100, 1000, seen);
        assert_eq!(sizer.frames(100), 100);
    }

    proptest! {
        #[test]
        fn the_size_is_within_bounds_changes_slowly_and_settles(
            most in 0usize..1 << 20, fewest in 0usize..512,
            epochs in prop::collection::vec((0u64..10_000, 0u64..10_000, 0u64..10_000), 1..60),
        ) {
            let mut sizer = StandbySizer::with_fewest(fewest);
            let mut seen = StandbySample::default();
            let mut before = sizer.frames(most);
            let last = *epochs.last().unwrap();
            let settle = core::iter::repeat_n(last, 40);
            for (left, refaults, faults) in epochs.into_iter().chain(settle) {
                seen.refaults += refaults.min(faults);
                seen.faults += faults;
                sizer.update(most, left, seen);
                let frames = sizer.frames(most);
                prop_assert!((fewest.min(most)..=most).contains(&frames));
                prop_assert!(frames >= before / 8 && frames <= (before + 1) * 8 + 8);
                before = frames;
            }
            let (left, refaults, faults) = last;
            seen.refaults += refaults.min(faults);
            seen.faults += faults;
            sizer.update(most, left, seen);
            prop_assert_eq!(sizer.frames(most), before);
        }

        #[test]
        fn more_refaults_never_make_the_list_longer(
            left in 1u64..10_000, few in 0u64..10_000, more in 0u64..10_000, updates in 1usize..20,
        ) {
            let most = 8192;
            let after = |refaults: u64| {
                let mut sizer = StandbySizer::default();
                let mut seen = StandbySample::default();
                for _ in 0..updates {
                    seen.refaults += refaults;
                    seen.faults += 10_000;
                    sizer.update(most, left, seen);
                }
                sizer.frames(most)
            };
            prop_assert!(after(few.max(more)) <= after(few.min(more)));
        }
    }
}
