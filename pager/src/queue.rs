//! In which order pages leave: two first-in-first-out queues in the manner of
//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023). Pages enter by the small queue; those that were asked for again
//! after they left it enter by the main one, so that a scan passes through the
//! small queue and leaves the working set alone.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Runs of pages, by order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Resident {
    small: Fifo,
    main: Fifo,
}

#[derive(Debug, Default)]
struct Fifo {
    /// First page, and how many.
    runs: VecDeque<(u64, u32)>,
    pages: u64,
}

impl Fifo {
    fn push(&mut self, page: u64, n: u32) {
        self.pages += u64::from(n);
        match self.runs.back_mut() {
            Some((first, len)) if *first + u64::from(*len) == page && *len + n <= MAX_RUN => {
                *len += n;
            }
            _ => self.runs.push_back((page, n)),
        }
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        let (first, n) = self.runs.pop_front()?;
        self.pages -= u64::from(n);
        Some((first, n))
    }
}

/// The longest run that one entry holds: what one move takes.
const MAX_RUN: u32 = crate::frames::BLOCK as u32;

/// Of ten pages, how many the small queue keeps before it gives its own.
const SMALL_TENTHS: u64 = 1;

impl Resident {
    /// Adds a run; `hot` pages go to the main queue.
    pub(crate) fn push(&mut self, page: u64, n: u32, hot: bool) {
        let queue = if hot { &mut self.main } else { &mut self.small };
        let mut at = 0;
        while at < n {
            let part = (n - at).min(MAX_RUN);
            queue.push(page + u64::from(at), part);
            at += part;
        }
    }

    /// The run to evict next. Pages of it may have left by other ways.
    pub(crate) fn pop(&mut self) -> Option<(u64, u32)> {
        let total = self.small.pages + self.main.pages;
        if self.small.pages * 10 > total * SMALL_TENTHS {
            self.small.pop().or_else(|| self.main.pop())
        } else {
            self.main.pop().or_else(|| self.small.pop())
        }
    }

    /// Takes everything out, in order within each queue: first page, how many,
    /// and whether they are of the main one.
    pub(crate) fn drain(&mut self) -> Vec<(u64, u32, bool)> {
        let mut all = Vec::new();
        for (queue, hot) in [(&mut self.small, false), (&mut self.main, true)] {
            queue.pages = 0;
            all.extend(queue.runs.drain(..).map(|(first, n)| (first, n, hot)));
        }
        all
    }

    /// Pages in both.
    pub(crate) fn pages(&self) -> u64 {
        self.small.pages + self.main.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_leaves_by_the_small_queue_and_the_hot_pages_stay() {
        let mut q = Resident::default();
        q.push(0, 64, true);
        q.push(1000, 640, false);
        for i in 0..9 {
            assert_eq!(q.pop(), Some((1000 + i * 64, 64)));
        }
        assert_eq!(q.pages(), 128);
    }

    #[test]
    fn neighbours_that_come_one_by_one_leave_as_a_run() {
        let mut q = Resident::default();
        (0..70).for_each(|p| q.push(p, 1, false));
        assert_eq!(q.pop(), Some((0, 64)));
        assert_eq!(q.pop(), Some((64, 6)));
        assert_eq!(q.pop(), None);
    }
}
