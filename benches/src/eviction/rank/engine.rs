//! The engine's own eviction queue and refault clock, and the same in other shapes.
//!
//! This runs the code of `tmem-policy` that the engine runs. The simulator differs from the
//! engine in what it gives to that code: evictions are never put off, no frames are free, and
//! no page holds zeros only. Nothing is read ahead either, but the streams of the faults are
//! followed, so that the queue learns which pages would have come together.

use super::{Came, Rank};
use std::collections::VecDeque;
use tmem_policy::PageNumber;
use tmem_policy::eviction::{self, EvictionQueue, MAX_RUN, Segment};
use tmem_policy::readahead::{Prefetcher, Window, longest_window};
use tmem_policy::refault::{HOT_AGE, RefaultClock};
use tmem_wire::PAGE_SIZE;

/// The fewest pages of a budget. Memories of a trace may be smaller, and so are their runs.
const LEAST_BUDGET: usize = 4096;
/// Readahead windows that are remembered.
const WINDOWS: usize = 64;

/// What the queue and the clock are like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The shape of the queue.
    pub queue: eviction::Shape,
    /// Epochs since a page left for which it is hot when it is fetched.
    pub hot_age: u8,
    /// Whether what comes from standby is hot. If not, it stays in the segment that it was in.
    pub promote: bool,
    /// Whether cyclic scans are looked for.
    pub cyclic: bool,
}

impl Shape {
    /// The engine's, for a memory of `capacity` pages. Runs of a memory that is smaller than any
    /// budget are shorter in proportion.
    pub fn engine(capacity: usize) -> Shape {
        let run = (capacity * MAX_RUN as usize / LEAST_BUDGET).clamp(1, MAX_RUN as usize);
        let queue = eviction::Shape {
            longest_run: run as u32,
            ..eviction::Shape::default()
        };
        Shape {
            queue,
            hot_age: HOT_AGE,
            promote: true,
            cyclic: true,
        }
    }
}

/// The resident pages in the order of the engine.
pub struct EngineQueue {
    shape: Shape,
    capacity: usize,
    queue: EvictionQueue,
    clock: RefaultClock,
    /// For each page the epoch and the segment in which it left.
    left: Vec<(u8, Segment)>,
    streams: Prefetcher,
    /// The windows that readahead would have asked for; most recent first.
    windows: VecDeque<Window>,
}

impl EngineQueue {
    /// Orders `capacity` pages below `limit`.
    pub fn new(capacity: usize, limit: u32, shape: Shape) -> EngineQueue {
        let mut queue = EvictionQueue::new(shape.queue);
        queue.set_resident(capacity, longest_window(capacity, capacity, capacity));
        EngineQueue {
            shape,
            capacity,
            queue,
            clock: RefaultClock::default(),
            left: vec![(0, Segment::Small); limit as usize],
            streams: Prefetcher::new(),
            windows: VecDeque::new(),
        }
    }

    /// How many pages would have come together with this one.
    fn run_of(&mut self, page: u32) -> usize {
        let window = self
            .streams
            .fault(0, u64::from(page) * PAGE_SIZE as u64, true);
        if window.count > 0 {
            let longest = longest_window(self.capacity, self.capacity, self.capacity);
            let count = window.count.min(longest as u32);
            self.streams.cut(0, window, count);
            self.windows.truncate(WINDOWS - 1);
            self.windows.push_front(Window { count, ..window });
        }
        let has = |w: &&Window| {
            let by = i64::from(page) - (w.start / PAGE_SIZE as u64) as i64;
            let stride = w.stride / PAGE_SIZE as i64;
            stride.abs() == 1 && (0..i64::from(w.count)).contains(&(by * stride))
        };
        self.windows
            .iter()
            .find(has)
            .map_or(1, |w| w.count as usize)
    }

    fn segment(&mut self, page: u32, from: Came) -> Segment {
        let (epoch, was) = self.left[page as usize];
        let run = self.run_of(page);
        // The queue learns from every page, hot or not.
        let cold = match self.shape.cyclic {
            true => self.queue.choose_segment(number(page), 1, run),
            false => Segment::Small,
        };
        let is_hot = match from {
            Came::Fresh => false,
            Came::Back => self.shape.promote || was == Segment::Main,
            Came::Fetched => self.clock.age(epoch) <= self.shape.hot_age,
        };
        if is_hot { Segment::Main } else { cold }
    }
}

fn number(page: u32) -> PageNumber {
    PageNumber::new(page.into())
}

impl Rank for EngineQueue {
    fn came(&mut self, page: u32, from: Came) {
        let segment = self.segment(page, from);
        self.queue.push(number(page), 1, segment);
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        let Some((run, segment)) = self.queue.pop() else {
            return;
        };
        for page in run.pages().map(PageNumber::get) {
            self.clock.evicted(self.capacity);
            self.left[page as usize] = (self.clock.epoch(), segment);
            out.push(page as u32);
        }
    }
}
