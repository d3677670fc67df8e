//! Spatial prefetcher: finds dense accesses without a stride.
//!
//! A thread that visits objects in the order in which they were created, as an interpreter
//! does, reaches nearly all pages of a region, some early and some late. When many pages of
//! a small block fault, the whole block is read, and a *sweep* begins that continues with
//! the neighbouring blocks. (Compare Somogyi et al., "Spatial memory streaming", ISCA
//! 2006.)

use super::{PAGE, Window};

/// Pages of a block, the unit of density.
const DENSITY_BLOCK: i64 = 16;
/// The most blocks that are remembered.
const REMEMBERED_BLOCKS: usize = 16;
/// A block is dense if this many of its pages fault while it is remembered.
const DENSE: u32 = 8;
/// The most sweeps of a thread.
const MOST_SWEEPS: usize = 4;
/// Pages of the first window ahead of a block, and the most of any window.
const FIRST: i64 = 16;
const LARGEST: i64 = 128;

/// The sweeps of a thread, and blocks where others may begin.
#[derive(Clone, Debug, Default)]
pub(super) struct SpatialPrefetcher {
    /// The most recent first.
    blocks: [Block; REMEMBERED_BLOCKS],
    /// The most recent first.
    spatial: [Sweep; MOST_SWEEPS],
}

/// A block in which a thread has faulted.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Its first page, divided by [`DENSITY_BLOCK`].
    number: i64,
    /// One bit for each page that faulted.
    faults: u16,
}

/// Memory that a thread goes through, upwards or downwards.
#[derive(Clone, Copy, Debug, Default)]
struct Sweep {
    /// 1 upwards, -1 downwards, 0 for an unused entry.
    way: i64,
    /// The block in which it began.
    block: i64,
    /// The first page that was not asked for yet.
    frontier: i64,
    /// Pages of the last window.
    size: i64,
}

impl Sweep {
    /// Returns the distance from the frontier back to `page`; negative for a page beyond
    /// it.
    fn behind(&self, page: i64) -> i64 {
        (self.frontier - page) * self.way - 1
    }

    /// Tells whether a fault on `page` belongs to this sweep.
    fn has(&self, page: i64) -> bool {
        self.way != 0 && (-DENSITY_BLOCK..self.size + DENSITY_BLOCK).contains(&self.behind(page))
    }

    /// Notes that the sweep has reached `page`. Returns what to read.
    fn advance(&mut self, page: i64) -> Window {
        if self.behind(page) * 2 > self.size {
            return Window::NONE;
        }
        self.size = (self.size * 2).min(LARGEST);
        self.open(self.size)
    }

    /// Opens a window of the next `count` pages.
    fn open(&mut self, count: i64) -> Window {
        let first = self.frontier;
        // A window ends at page 0.
        let count = if self.way < 0 {
            count.min(first + 1)
        } else {
            count
        };
        if count <= 0 {
            return Window::NONE;
        }
        self.frontier += count * self.way;
        Window {
            start: (first * PAGE) as u64,
            stride: self.way * PAGE,
            count: count as u32,
        }
    }
}

impl SpatialPrefetcher {
    /// Returns what to read after a fault on `page`, if it belongs to a sweep.
    pub(super) fn advance(&mut self, page: i64) -> Option<Window> {
        let i = self.spatial.iter().position(|s| s.has(page))?;
        self.spatial[..=i].rotate_right(1);
        Some(self.spatial[0].advance(page))
    }

    /// Handles a fault on `page` that belongs to neither a sweep nor a stream. Returns what
    /// to read, if a sweep begins.
    pub(super) fn fault(&mut self, page: i64) -> Window {
        let number = page.div_euclid(DENSITY_BLOCK);
        let known = self
            .blocks
            .iter()
            .position(|b| b.number == number && b.faults != 0);
        let i = known.unwrap_or(REMEMBERED_BLOCKS - 1);
        self.blocks[..=i].rotate_right(1);
        let block = &mut self.blocks[0];
        if known.is_none() {
            *block = Block { number, faults: 0 };
        }
        block.faults |= 1 << page.rem_euclid(DENSITY_BLOCK);
        if block.faults.count_ones() < DENSE {
            return Window::NONE;
        }
        block.faults = 0;
        self.begin(number)
    }

    /// Begins a sweep: reads the whole block, and pages on that side of it where the thread
    /// has not been.
    fn begin(&mut self, number: i64) -> Window {
        let faults = |number| {
            let block = self.blocks.iter().find(|b| b.number == number);
            block.map_or(0, |b| b.faults.count_ones())
        };
        // A sweep that began in a neighbouring block and did not arrive here went the wrong
        // way.
        let begun = |number| self.spatial.iter().any(|s| s.way != 0 && s.block == number);
        let above = (begun(number + 1), faults(number + 1));
        let downwards = above > (begun(number - 1), faults(number - 1));
        let (way, frontier) = if downwards {
            (-1, (number + 1) * DENSITY_BLOCK - 1)
        } else {
            (1, number * DENSITY_BLOCK)
        };
        self.spatial.rotate_right(1);
        self.spatial[0] = Sweep {
            way,
            block: number,
            frontier,
            size: FIRST,
        };
        self.spatial[0].open(DENSITY_BLOCK + FIRST)
    }

    /// Notes that only `count` pages of a window are read.
    pub(super) fn cut(&mut self, window: Window, count: u32) {
        let at = |count: u32| window.start as i64 + window.stride * i64::from(count);
        let cut =
            |s: &&mut Sweep| s.way * PAGE == window.stride && s.frontier * PAGE == at(window.count);
        if let Some(sweep) = self.spatial.iter_mut().find(cut) {
            sweep.frontier = at(count) / PAGE;
            sweep.size = i64::from(count).max(1);
        }
    }
}
