//! In which order pages leave: two first-in-first-out queues in the manner of
//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023). Pages enter by the small queue; those that were asked for again
//! after they left it enter by the main one, so that a scan passes through the
//! small queue and leaves the working set alone.
//!
//! Nothing is looked for and taken out: pages that left by other ways are passed
//! over when their turn comes. A page may have come anew in the meantime, and is
//! then not to leave in the place of the one that was there before; so each has a
//! generation of when it came.

use crate::cyclic::CyclicScan;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Runs of pages, by order of arrival.
#[derive(Debug)]
pub struct EvictionQueue {
    small: Fifo,
    main: Fifo,
    /// A part of what the program goes round in.
    protected: Fifo,
    cyclic: CyclicScan,
    /// Pages that came in all.
    came: u64,
    /// Pages that the program has in memory, as far as is known.
    resident: u64,
    /// The most that are fetched ahead of it at a time.
    window: u64,
}

/// One of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Pages that were not asked for again yet.
    Small,
    /// Pages that were asked for again soon after they had left.
    Main,
    /// A part of a cyclic scan.
    Protected,
}

#[derive(Debug, Default)]
struct Fifo {
    runs: VecDeque<Run>,
    pages: u64,
}

/// Pages that came one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the first page.
    pub first: u64,
    /// How many pages.
    pub n: u32,
    /// When they came.
    pub generation: u8,
}

impl Run {
    /// The page after the last.
    pub fn end(&self) -> u64 {
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
                    && last.generation == run.generation
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

/// The longest run that one entry holds, in pages: what one move takes.
pub const MAX_RUN: u32 = 128;

/// The bits of a generation.
pub const GENERATION_MASK: u8 = 0x7f;

/// One in how many pages the small queue has before it gives its own, and before it
/// does so while a program goes round; then it has so many windows at the least.
const SMALL: u64 = 10;
const PASSING: u64 = 20;
const WINDOWS: u64 = 4;

impl Default for EvictionQueue {
    /// Empty queues.
    fn default() -> EvictionQueue {
        EvictionQueue {
            small: Fifo::default(),
            main: Fifo::default(),
            protected: Fifo::default(),
            cyclic: CyclicScan::default(),
            came: 0,
            resident: u64::MAX,
            window: 0,
        }
    }
}

impl EvictionQueue {
    /// So many pages the program has in memory: many that are named here may have
    /// left by other ways. And up to so many are fetched ahead of it at a time.
    pub fn set_resident(&mut self, resident: usize, window: usize) {
        (self.resident, self.window) = (resident as u64, window as u64);
    }

    /// How many pages the small queue has while others are protected: what was fetched
    /// ahead must not leave before it is used.
    fn small_share(&self, total: u64) -> u64 {
        (total / PASSING).max(self.window * WINDOWS)
    }

    fn total(&self) -> u64 {
        self.pages().min(self.resident)
    }

    /// Where `n` pages from `first` on, of one block of `loops`, that came as part of a
    /// run of `run` pages and are not known to be hot, belong.
    pub fn choose_segment(&mut self, first: u64, n: usize, run: usize) -> Segment {
        let total = self.total();
        let keep = self.cyclic.arrived(first, n, run, total);
        let held = self.main.pages + self.protected.pages;
        // Somewhat fewer, or else what is kept would change all the time.
        match keep && held + self.small_share(total) * 3 / 2 < total {
            true => Segment::Protected,
            false => Segment::Small,
        }
    }

    /// Takes note of `n` pages of zeros, of one block of `loops`, from `first` on.
    pub fn note_zero_filled(&mut self, first: u64, n: usize) {
        self.cyclic.zero_filled(first, n, self.total());
    }

    /// Adds `n` pages from `first` on. Returns the generation by which to know them again.
    pub fn push(&mut self, first: u64, n: u32, place: Segment) -> u8 {
        // So many that runs stay whole. What lies in the queue from a time when the
        // generation was the same is rare, and leaves before its time.
        let generation = (self.came / u64::from(MAX_RUN)) as u8 & GENERATION_MASK;
        self.came += u64::from(n);
        self.requeue(
            Run {
                first,
                n,
                generation,
            },
            place,
        );
        generation
    }

    /// Puts a run that was popped back to where it was: it leaves next.
    pub fn put_back(&mut self, run: Run, place: Segment) {
        let queue = self.queue(place);
        queue.pages += u64::from(run.n);
        queue.runs.push_front(run);
    }

    /// Puts back what was taken out, at the end.
    pub fn requeue(&mut self, run: Run, place: Segment) {
        let queue = self.queue(place);
        let mut first = run.first;
        while first < run.end() {
            let n = (run.end() - first).min(MAX_RUN.into()) as u32;
            queue.push(Run { first, n, ..run });
            first += u64::from(n);
        }
    }

    /// The run to evict next, and from where. Pages of it may have left by other ways.
    pub fn pop(&mut self) -> Option<(Run, Segment)> {
        let total = self.total();
        if !self.cyclic.is_cyclic() && self.protected.pages > 0 {
            return self.pop_from(&[Segment::Protected]);
        }
        if self.protected.pages * 2 > total && self.cyclic.wants_probe() {
            let probe = self.pop_from(&[Segment::Protected])?;
            self.cyclic.begin_probe(probe.0.first);
            return Some(probe);
        }
        let least = match self.protected.pages {
            0 => total / SMALL,
            _ => self.small_share(total),
        };
        if self.small.pages > least {
            self.pop_from(&[Segment::Small])
        } else {
            self.pop_from(&[Segment::Protected, Segment::Main, Segment::Small])
        }
    }

    fn pop_from(&mut self, places: &[Segment]) -> Option<(Run, Segment)> {
        let mut places = places.iter();
        places.find_map(|place| Some((self.queue(*place).pop()?, *place)))
    }

    fn queue(&mut self, place: Segment) -> &mut Fifo {
        match place {
            Segment::Small => &mut self.small,
            Segment::Main => &mut self.main,
            Segment::Protected => &mut self.protected,
        }
    }

    /// Takes everything out, in order within each queue, with the queue.
    pub fn drain(&mut self) -> Vec<(Run, Segment)> {
        let mut all = Vec::new();
        for (queue, place) in [
            (&mut self.small, Segment::Small),
            (&mut self.main, Segment::Main),
            (&mut self.protected, Segment::Protected),
        ] {
            queue.pages = 0;
            all.extend(queue.runs.drain(..).map(|run| (run, place)));
        }
        all
    }

    /// Pages in all of them.
    pub fn pages(&self) -> u64 {
        self.small.pages + self.main.pages + self.protected.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(popped: Option<(Run, Segment)>) -> Option<(u64, u32)> {
        popped.map(|(r, _)| (r.first, r.n))
    }

    #[test]
    fn what_could_not_leave_yet_leaves_next_and_is_no_hotter() {
        let mut q = EvictionQueue::default();
        q.push(0, MAX_RUN, Segment::Main);
        q.push(1000, 10 * MAX_RUN, Segment::Small);
        let (run, place) = q.pop().unwrap();
        let rest = Run {
            first: run.first + 100,
            n: run.n - 100,
            ..run
        };
        q.put_back(rest, place);
        assert_eq!(q.pages(), 11 * u64::from(MAX_RUN) - 100);
        assert_eq!(q.pop(), Some((rest, Segment::Small)));
    }

    #[test]
    fn a_scan_leaves_by_the_small_queue_and_the_hot_pages_stay() {
        let mut q = EvictionQueue::default();
        q.push(0, MAX_RUN, Segment::Main);
        q.push(1000, 10 * MAX_RUN, Segment::Small);
        for i in 0..9 {
            let first = 1000 + i * u64::from(MAX_RUN);
            assert_eq!(range(q.pop()), Some((first, MAX_RUN)));
        }
        assert_eq!(q.pages(), 2 * u64::from(MAX_RUN));
    }

    #[test]
    fn neighbours_that_come_one_by_one_leave_as_a_run() {
        let mut q = EvictionQueue::default();
        let run = u64::from(MAX_RUN);
        for page in 0..run + 6 {
            q.push(page, 1, Segment::Small);
        }
        assert_eq!(range(q.pop()), Some((0, MAX_RUN)));
        assert_eq!(range(q.pop()), Some((run, 6)));
        for page in (1000..1032).rev() {
            q.push(page, 1, Segment::Small);
        }
        assert_eq!(range(q.pop()), Some((1000, 32)));
        assert_eq!(q.pop(), None);
    }

    #[test]
    fn a_page_that_comes_anew_is_known_from_the_one_before() {
        let mut q = EvictionQueue::default();
        let old = q.push(5, 1, Segment::Small);
        for page in (100..).take(MAX_RUN as usize) {
            q.push(page, 1, Segment::Small);
        }
        let new = q.push(5, 1, Segment::Small);
        assert_ne!(old, new);
        let stamps: Vec<_> = std::iter::from_fn(|| q.pop())
            .filter(|(r, _)| r.first == 5)
            .map(|(r, _)| r.generation)
            .collect();
        assert_eq!(stamps, [old, new]);
    }
}
