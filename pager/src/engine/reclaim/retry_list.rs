//! Pages that could not be taken out of the program and may be later.
//!
//! What a device reads or writes has to stay where it is until that is done. A
//! program that gives much memory to a file of direct input and output at once has
//! many such pages: tens of megabytes over its budget, if nobody looked again soon.
//! So while more is resident than is to be, the oldest are tried again as soon as
//! they may have come free, and less and less often while they have not.

use alloc::collections::VecDeque;

/// The least and the most between two tries, where nothing could be taken out.
const LEAST_NS: u64 = 2_000_000;
const MOST_NS: u64 = 1_000_000_000;
/// Pages that are tried at once.
const BATCH: usize = 512;
/// So long after the last one could be taken out it is likely that more can be soon,
/// and threads that want memory wait for that.
const LIKELY_NS: u64 = 20_000_000;
/// Without need all are looked at this often.
const ALL_NS: u64 = 1_000_000_000;

/// The pages, oldest first, and when to try them again.
#[derive(Debug, Default)]
pub(crate) struct RetryList {
    runs: VecDeque<(u64, u32)>,
    pages: usize,
    next_ns: u64,
    pause_ns: u64,
    /// When one could be taken out.
    left_ns: u64,
    all_ns: u64,
}

impl RetryList {
    /// Adds `n` pages from `first` on.
    pub(crate) fn push(&mut self, first: u64, n: u32) {
        self.pages += n as usize;
        match self.runs.back_mut() {
            Some((start, len)) if *start + u64::from(*len) == first => *len += n,
            _ => self.runs.push_back((first, n)),
        }
    }

    pub(crate) fn pop(&mut self, most: usize) -> Option<(u64, u32)> {
        let (first, n) = self.runs.pop_front()?;
        let taken = n.min(most as u32);
        if taken < n {
            self.runs.push_front((first + u64::from(taken), n - taken));
        }
        self.pages -= taken as usize;
        Some((first, taken))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Pages that can be tried now.
    pub(crate) fn due(&self, now: u64) -> usize {
        match now >= self.next_ns {
            true => self.pages.min(BATCH),
            false => 0,
        }
    }

    /// Of `tried` pages `left` could be taken out.
    pub(crate) fn tried(&mut self, now: u64, tried: usize, left: usize) {
        if left > 0 {
            self.left_ns = now;
        }
        self.pause_ns = match left * 2 >= tried {
            true => 0,
            false => (self.pause_ns * 2).clamp(LEAST_NS, MOST_NS),
        };
        self.next_ns = now + self.pause_ns;
    }

    /// Whether it is time to queue all of them like any other page.
    pub(crate) fn are_all_due(&mut self, now: u64) -> bool {
        let are = now >= self.all_ns + ALL_NS;
        if are {
            self.all_ns = now;
        }
        are
    }

    /// Whether some are likely to leave soon.
    pub(crate) fn come_free(&self, now: u64) -> bool {
        self.pages > 0 && self.left_ns > 0 && now < self.left_ns + LIKELY_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn what_stays_is_tried_less_and_less_often_and_what_leaves_at_once_again() {
        let mut stubborn = RetryList::default();
        stubborn.push(100, 2000);
        assert_eq!(stubborn.due(0), BATCH);
        let mut now = 0;
        for tries in 0..20 {
            stubborn.tried(now, BATCH, 0);
            let pause = (LEAST_NS << tries).min(MOST_NS);
            assert_eq!(stubborn.due(now + pause - 1), 0);
            now += pause;
            assert_eq!(stubborn.due(now), BATCH);
        }
        assert!(!stubborn.come_free(now));
        stubborn.tried(now, BATCH, BATCH / 2);
        assert_eq!(stubborn.due(now), BATCH);
        assert!(stubborn.come_free(now + LIKELY_NS - 1));
        assert!(!stubborn.come_free(now + LIKELY_NS));
    }

    proptest! {
        #[test]
        fn pages_come_out_once_and_in_the_order_in_which_they_came(
            runs in proptest::collection::vec((0u64..1000, 1u32..100), 0..50),
            most in 1usize..200,
        ) {
            let mut stubborn = RetryList::default();
            let mut came = Vec::new();
            for (first, n) in runs {
                stubborn.push(first, n);
                came.extend(first..first + u64::from(n));
            }
            let mut left = Vec::new();
            while let Some((first, n)) = stubborn.pop(most) {
                prop_assert!(n > 0 && n as usize <= most);
                left.extend(first..first + u64::from(n));
                prop_assert_eq!(stubborn.pages, came.len() - left.len());
            }
            prop_assert_eq!(left, came);
        }
    }
}
