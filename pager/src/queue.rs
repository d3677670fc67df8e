//! In which order pages leave: two first-in-first-out queues in the manner of
//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023). Pages enter by the small queue; those that were asked for again
//! after they left it enter by the main one, so that a scan passes through the
//! small queue and leaves the working set alone.
//!
//! Nothing is looked for and taken out: pages that left by other ways are passed
//! over when their turn comes. A page may have come anew in the meantime, and is
//! then not to leave in the place of the one that was there before; so each has a
//! stamp of when it came.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Runs of pages, by order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Resident {
    small: Fifo,
    main: Fifo,
    /// Pages that came in all.
    came: u64,
}

#[derive(Debug, Default)]
struct Fifo {
    runs: VecDeque<Run>,
    pages: u64,
}

/// Pages that came one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) n: u32,
    /// When they came.
    pub(crate) stamp: u8,
}

impl Run {
    /// The page after the last.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.n)
    }
}

impl Fifo {
    fn push(&mut self, run: Run) {
        self.pages += u64::from(run.n);
        match self.runs.back_mut() {
            // In either direction: some programs go down through their memory.
            Some(last)
                if (last.end() == run.first || run.end() == last.first)
                    && last.stamp == run.stamp
                    && last.n + run.n <= MAX_RUN =>
            {
                last.first = last.first.min(run.first);
                last.n += run.n;
            }
            _ => self.runs.push_back(run),
        }
    }

    fn pop(&mut self) -> Option<Run> {
        let run = self.runs.pop_front()?;
        self.pages -= u64::from(run.n);
        Some(run)
    }
}

/// The longest run that one entry holds: what one move takes.
const MAX_RUN: u32 = crate::frames::BLOCK as u32;

/// The bits of a stamp.
pub(crate) const STAMP: u8 = 0x7f;

/// Of ten pages, how many the small queue keeps before it gives its own.
const SMALL_TENTHS: u64 = 1;

impl Resident {
    /// Adds `n` pages from `first` on; `hot` ones go to the main queue. Returns the
    /// stamp by which to know them again.
    pub(crate) fn push(&mut self, first: u64, n: u32, hot: bool) -> u8 {
        // So many that runs stay whole. What lies in the queue from a time when the
        // stamp was the same is rare, and leaves before its time.
        let stamp = (self.came / u64::from(MAX_RUN)) as u8 & STAMP;
        self.came += u64::from(n);
        self.push_run(Run { first, n, stamp }, hot);
        stamp
    }

    /// Puts back what was taken out.
    pub(crate) fn push_run(&mut self, run: Run, hot: bool) {
        let queue = if hot { &mut self.main } else { &mut self.small };
        let mut first = run.first;
        while first < run.end() {
            let n = (run.end() - first).min(MAX_RUN.into()) as u32;
            queue.push(Run { first, n, ..run });
            first += u64::from(n);
        }
    }

    /// The run to evict next. Pages of it may have left by other ways.
    pub(crate) fn pop(&mut self) -> Option<Run> {
        let total = self.small.pages + self.main.pages;
        if self.small.pages * 10 > total * SMALL_TENTHS {
            self.small.pop().or_else(|| self.main.pop())
        } else {
            self.main.pop().or_else(|| self.small.pop())
        }
    }

    /// Takes everything out, in order within each queue, with whether it is of the
    /// main one.
    pub(crate) fn drain(&mut self) -> Vec<(Run, bool)> {
        let mut all = Vec::new();
        for (queue, hot) in [(&mut self.small, false), (&mut self.main, true)] {
            queue.pages = 0;
            all.extend(queue.runs.drain(..).map(|run| (run, hot)));
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

    fn range(run: Option<Run>) -> Option<(u64, u32)> {
        run.map(|r| (r.first, r.n))
    }

    #[test]
    fn a_scan_leaves_by_the_small_queue_and_the_hot_pages_stay() {
        let mut q = Resident::default();
        q.push(0, 64, true);
        q.push(1000, 640, false);
        for i in 0..9 {
            assert_eq!(range(q.pop()), Some((1000 + i * 64, 64)));
        }
        assert_eq!(q.pages(), 128);
    }

    #[test]
    fn neighbours_that_come_one_by_one_leave_as_a_run() {
        let mut q = Resident::default();
        for page in 0..70 {
            q.push(page, 1, false);
        }
        assert_eq!(range(q.pop()), Some((0, 64)));
        assert_eq!(range(q.pop()), Some((64, 6)));
        for page in (128..160).rev() {
            q.push(page, 1, false);
        }
        assert_eq!(range(q.pop()), Some((128, 32)));
        assert_eq!(q.pop(), None);
    }

    #[test]
    fn a_page_that_comes_anew_is_known_from_the_one_before() {
        let mut q = Resident::default();
        let old = q.push(5, 1, false);
        for page in 100..164 {
            q.push(page, 1, false);
        }
        let new = q.push(5, 1, false);
        assert_ne!(old, new);
        let stamps: Vec<_> = std::iter::from_fn(|| q.pop())
            .filter(|r| r.first == 5)
            .map(|r| r.stamp)
            .collect();
        assert_eq!(stamps, [old, new]);
    }
}
