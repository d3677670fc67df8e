//! Eviction queue: decides which pages leave next.
//!
//! The order is that of S3-FIFO (Yang et al., "FIFO queues are all you need for cache
//! eviction", SOSP 2023), without its counts of uses, which a pager does not see. Pages
//! enter the *small* segment. Pages that were used again soon after they had left enter the
//! *main* segment (see [`crate::refault`]). So a scan passes through the small segment and
//! leaves the working set alone. The *protected* segment holds a part of a cyclic scan (see
//! [`crate::cyclic`]).
//!
//! Entries are runs of neighbouring pages, because one system call moves a run. The queue
//! never searches for a page. If a page leaves the program in another way, its entry stays,
//! and the caller skips it when it is popped. If the page has come back meanwhile, the
//! generation tells its new entry from the old one.
//!
//! Invariants, tested with random operations in `tests.rs`:
//! - every page that was pushed is popped exactly once;
//! - within a segment, pages leave in the order in which they came;
//! - [`EvictionQueue::pages`] counts the pages of all entries;
//! - no entry is longer than [`Shape::longest_run`].

use crate::PageNumber;
use crate::cyclic::CyclicScan;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The longest run of the engine, in pages: as many as one move takes.
pub const MAX_RUN: u32 = 128;

/// The bits of a generation.
pub const GENERATION_MASK: u8 = 0x7f;

/// While the protected segment is in use, the small segment has 1/`SMALL_PART_IN_SCAN` of
/// all pages.
const SMALL_PART_IN_SCAN: u64 = 20;
/// The small segment then has room for at least this many readahead windows, since pages
/// that were read ahead must not leave before they are used.
const SMALL_WINDOWS: u64 = 4;

/// Sizes of the queue. The engine uses the default; the simulator compares others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The small segment gives pages while it has more than this part of all pages.
    pub small_part: u64,
    /// The most pages of one entry.
    pub longest_run: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            small_part: 10,
            longest_run: MAX_RUN,
        }
    }
}

/// A segment of the queue. Within it pages leave in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Pages that were not used again yet.
    Small,
    /// Pages that were used again soon after they had left.
    Main,
    /// A part of a cyclic scan.
    Protected,
}

/// Neighbouring pages that came one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub first: PageNumber,
    /// The number of pages.
    pub n: u32,
    /// When they came: see [`EvictionQueue::push`].
    pub generation: u8,
}

impl Run {
    /// Returns the page after the last.
    pub fn end(&self) -> PageNumber {
        self.first + self.n as usize
    }

    /// Returns its pages, in order.
    pub fn pages(&self) -> impl DoubleEndedIterator<Item = PageNumber> + Clone {
        self.first.run(self.n as usize)
    }
}

/// One segment.
#[derive(Debug, Default)]
struct Fifo {
    runs: VecDeque<Run>,
    pages: u64,
}

impl Fifo {
    fn push(&mut self, run: Run, longest: u32) {
        self.pages += u64::from(run.n);
        match self.runs.back_mut() {
            // A run grows in either direction, since some programs go down through their
            // memory.
            Some(last)
                if (last.end() == run.first || run.end() == last.first)
                    && last.generation == run.generation
                    && last.n + run.n <= longest =>
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

/// The eviction queue.
#[derive(Debug)]
pub struct EvictionQueue {
    shape: Shape,
    small: Fifo,
    main: Fifo,
    protected: Fifo,
    cyclic: CyclicScan,
    /// Pages pushed so far.
    came: u64,
    /// Resident pages of the program, as far as is known.
    resident: u64,
    /// The longest readahead window, in pages.
    window: u64,
}

impl Default for EvictionQueue {
    fn default() -> EvictionQueue {
        EvictionQueue::new(Shape::default())
    }
}

impl EvictionQueue {
    /// Creates an empty queue.
    pub fn new(shape: Shape) -> EvictionQueue {
        EvictionQueue {
            shape,
            small: Fifo::default(),
            main: Fifo::default(),
            protected: Fifo::default(),
            cyclic: CyclicScan::default(),
            came: 0,
            resident: u64::MAX,
            window: 0,
        }
    }

    /// Sets the number of resident pages of the program, and the longest readahead window
    /// in pages. The queue may have more pages than are resident, since some have left in
    /// other ways.
    pub fn set_resident(&mut self, resident: usize, window: usize) {
        (self.resident, self.window) = (resident as u64, window as u64);
    }

    /// Returns the number of pages in all entries.
    pub fn pages(&self) -> u64 {
        self.small.pages + self.main.pages + self.protected.pages
    }

    /// Decides to which segment `n` pages from `first` on belong, unless they are known to
    /// be hot. They lie in one block of [`crate::cyclic::SCAN_BLOCK`] pages, and came in a
    /// run of `run` pages.
    pub fn choose_segment(&mut self, first: PageNumber, n: usize, run: usize) -> Segment {
        let total = self.total();
        let is_scan = self.cyclic.arrived(first, n, run, total);
        let held = self.main.pages + self.protected.pages;
        // The margin of half the small segment's size keeps the protected segment from
        // changing all the time.
        match is_scan && held + self.small_share(total) * 3 / 2 < total {
            true => Segment::Protected,
            false => Segment::Small,
        }
    }

    /// Notes that `n` pages from `first` on, all of one block, came filled with zeros.
    pub fn note_zero_filled(&mut self, first: PageNumber, n: usize) {
        self.cyclic.zero_filled(first, n, self.total());
    }

    /// Adds `n` pages from `first` on, and returns their generation.
    ///
    /// A generation lasts for [`MAX_RUN`] pages, so that runs stay whole, and its number is
    /// used again after 128 generations. An old entry with the same number is rare. Its
    /// page leaves early, which costs no more than a fault.
    pub fn push(&mut self, first: PageNumber, n: u32, segment: Segment) -> u8 {
        let generation = (self.came / u64::from(MAX_RUN)) as u8 & GENERATION_MASK;
        self.came += u64::from(n);
        let run = Run {
            first,
            n,
            generation,
        };
        self.requeue(run, segment);
        generation
    }

    /// Puts the rest of a popped run back, to leave next.
    pub fn put_back(&mut self, run: Run, segment: Segment) {
        let fifo = self.segment(segment);
        fifo.pages += u64::from(run.n);
        fifo.runs.push_front(run);
    }

    /// Adds a run at the end of a segment, and keeps its generation.
    pub fn requeue(&mut self, run: Run, segment: Segment) {
        let longest = self.shape.longest_run;
        let fifo = self.segment(segment);
        let mut first = run.first;
        while first < run.end() {
            let n = (run.end() - first).min(longest as usize);
            let part = Run {
                first,
                n: n as u32,
                ..run
            };
            fifo.push(part, longest);
            first = first + n;
        }
    }

    /// Takes out the run that leaves next, with its segment.
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
        let small = match self.protected.pages {
            0 => total / self.shape.small_part,
            _ => self.small_share(total),
        };
        if self.small.pages > small {
            self.pop_from(&[Segment::Small])
        } else {
            self.pop_from(&[Segment::Protected, Segment::Main, Segment::Small])
        }
    }

    /// Takes out everything, in order within each segment.
    pub fn drain(&mut self) -> Vec<(Run, Segment)> {
        let mut all = Vec::new();
        for segment in [Segment::Small, Segment::Main, Segment::Protected] {
            let fifo = self.segment(segment);
            fifo.pages = 0;
            all.extend(fifo.runs.drain(..).map(|run| (run, segment)));
        }
        all
    }

    /// Returns the size of the small segment while the protected segment is in use.
    fn small_share(&self, total: u64) -> u64 {
        (total / SMALL_PART_IN_SCAN).max(self.window * SMALL_WINDOWS)
    }

    /// Returns the number of pages that are in the queue and in the program.
    fn total(&self) -> u64 {
        self.pages().min(self.resident)
    }

    fn pop_from(&mut self, segments: &[Segment]) -> Option<(Run, Segment)> {
        let mut segments = segments.iter();
        segments.find_map(|segment| Some((self.segment(*segment).pop()?, *segment)))
    }

    fn segment(&mut self, segment: Segment) -> &mut Fifo {
        match segment {
            Segment::Small => &mut self.small,
            Segment::Main => &mut self.main,
            Segment::Protected => &mut self.protected,
        }
    }
}

#[cfg(test)]
mod tests;
