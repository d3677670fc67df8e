//! The retry list: pages that could not be evicted, and may be later.
//!
//! A page that a device reads or writes has to stay until the I/O is done. A program that
//! uses direct I/O on much memory at once has many such pages: tens of megabytes above its
//! budget if they were not tried again soon. So while too much is resident, the oldest are
//! tried again as soon as they may be free, and ever more rarely while they are not.

use alloc::collections::VecDeque;
use tmem_policy::PageNumber;

/// The shortest and the longest pause between two tries that evict nothing.
const LEAST_NS: u64 = 2_000_000;
const MOST_NS: u64 = 1_000_000_000;
/// The most pages of one try.
const BATCH: usize = 512;
/// For this long after a successful try, threads that want memory wait for the next one.
const LIKELY_NS: u64 = 20_000_000;
/// How often all pages return to the eviction queue.
const ALL_NS: u64 = 1_000_000_000;

/// The pages, oldest first, and when to try them again.
#[derive(Debug, Default)]
pub(crate) struct RetryList {
    runs: VecDeque<(PageNumber, u32)>,
    pages: usize,
    next_ns: u64,
    pause_ns: u64,
    /// Time of the last successful try.
    left_ns: u64,
    all_ns: u64,
}

impl RetryList {
    /// Adds `n` pages from `first` on.
    pub(crate) fn push(&mut self, first: PageNumber, n: u32) {
        self.pages += n as usize;
        match self.runs.back_mut() {
            Some((start, len)) if *start + *len as usize == first => *len += n,
            _ => self.runs.push_back((first, n)),
        }
    }

    pub(crate) fn pop(&mut self, most: usize) -> Option<(PageNumber, u32)> {
        let (first, n) = self.runs.pop_front()?;
        let taken = n.min(most as u32);
        if taken < n {
            self.runs.push_front((first + taken as usize, n - taken));
        }
        self.pages -= taken as usize;
        Some((first, taken))
    }

    /// Tells whether the list is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Returns how many pages can be tried now.
    pub(crate) fn due(&self, now: u64) -> usize {
        match now >= self.next_ns {
            true => self.pages.min(BATCH),
            false => 0,
        }
    }

    /// Notes that of `tried` pages `left` could be evicted.
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

    /// Tells whether all pages are to return to the eviction queue now.
    pub(crate) fn are_all_due(&mut self, now: u64) -> bool {
        let are = now >= self.all_ns + ALL_NS;
        if are {
            self.all_ns = now;
        }
        are
    }

    /// Tells whether some pages are likely to leave soon.
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
        let mut retry = RetryList::default();
        retry.push(PageNumber::new(100), 2000);
        assert_eq!(retry.due(0), BATCH);
        let mut now = 0;
        for tries in 0..20 {
            retry.tried(now, BATCH, 0);
            let pause = (LEAST_NS << tries).min(MOST_NS);
            assert_eq!(retry.due(now + pause - 1), 0);
            now += pause;
            assert_eq!(retry.due(now), BATCH);
        }
        assert!(!retry.come_free(now));
        retry.tried(now, BATCH, BATCH / 2);
        assert_eq!(retry.due(now), BATCH);
        assert!(retry.come_free(now + LIKELY_NS - 1));
        assert!(!retry.come_free(now + LIKELY_NS));
    }

    proptest! {
        #[test]
        fn pages_come_out_once_and_in_the_order_in_which_they_came(
            runs in proptest::collection::vec((0u64..1000, 1u32..100), 0..50),
            most in 1usize..200,
        ) {
            let mut retry = RetryList::default();
            let mut came = Vec::new();
            for (first, n) in runs {
                retry.push(PageNumber::new(first), n);
                came.extend(first..first + u64::from(n));
            }
            let mut left = Vec::new();
            while let Some((first, n)) = retry.pop(most) {
                prop_assert!(n > 0 && n as usize <= most);
                left.extend(first.run(n as usize).map(PageNumber::get));
                prop_assert_eq!(retry.pages, came.len() - left.len());
            }
            prop_assert_eq!(left, came);
        }
    }
}
