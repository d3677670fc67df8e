//! Cyclic scan detector: tells whether the program reads the same memory in the same
//! order again and again, and more of it than fits.
//!
//! In such a loop the oldest pages are used next. The best that an eviction order can do is
//! to keep a fixed part of the pages and let the others pass.
//!
//! A loop shows by its period, as in UBM (Kim et al., "A low-overhead high-performance
//! unified buffer management scheme that exploits sequential and looping references", OSDI
//! 2000): the time between two visits of a block, measured in pages that came into memory.
//! In a loop most blocks have the same period, or one of two periods if each round goes up
//! and down again. In a recursion the period changes from block to block. The two most
//! frequent periods are found as in Misra and Gries, "Finding repeated elements" (1982).
//! Only pages that come in runs are counted, since single pages say nothing.
//!
//! The use of a page that was kept does not show. So the queue evicts one block from time
//! to time as a *probe*. If the probe does not come back within one and a half periods, the
//! loop has ended.
//!
//! Invariants, tested in `tests.rs`:
//! - a page counts as part of a loop only if its block was visited before;
//! - no loop survives when half of memory was filled with new pages;
//! - there is at most one probe, and it ends.

use crate::PageNumber;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Pages of a block. Callers report pages block by block: see [`within_block`].
pub const SCAN_BLOCK: u64 = 64;

/// Blocks that are allocated together.
const BLOCKS_PER_CHUNK: u64 = 1024;
/// The fewest pages of a run that counts.
const LEAST_RUN: usize = 8;
/// Two periods are alike if they differ by at most 1/`TOLERANCE` of either.
const TOLERANCE: u32 = 16;
/// Two visits of a block count as one visit if at most 1/`SAME_VISIT_PART` of memory came
/// between them.
const SAME_VISIT_PART: u32 = 4;
/// Limits of the score, in eighths of memory. At the first or below, a loop is over and a
/// candidate does not count. Above the second, a loop begins. No score exceeds half of
/// memory.
const OVER_EIGHTHS: u32 = 1;
const BEGIN_EIGHTHS: u32 = 3;

/// The last visit of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Visit {
    /// When it was, on the clock of pages that came; 0 for never.
    at: u32,
    /// Time since the visit before; 0 if unknown.
    period: u32,
}

/// A period that many blocks may have.
#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    period: u32,
    /// Pages that came with this period, less those that came with another.
    score: u32,
}

impl Candidate {
    fn is(&self, period: u32) -> bool {
        period > 0 && self.score > 0 && period.abs_diff(self.period) <= period / TOLERANCE
    }
}

/// A block that was evicted as a probe.
#[derive(Clone, Copy, Debug)]
struct Probe {
    block: u64,
    /// When it left.
    at: u32,
    /// How long it may stay away.
    patience: u32,
}

/// Pages from `page` to the end of its block, itself included.
pub fn within_block(page: PageNumber) -> usize {
    (SCAN_BLOCK - page.get() % SCAN_BLOCK) as usize
}

/// Tells whether a page is the first of its block.
pub fn begins_block(page: PageNumber) -> bool {
    page.get().is_multiple_of(SCAN_BLOCK)
}

/// The detector: visits of blocks, and frequent periods.
#[derive(Debug, Default)]
pub struct CyclicScan {
    visits: BTreeMap<u64, Box<[Visit; BLOCKS_PER_CHUNK as usize]>>,
    /// Pages that came so far; wraps around.
    now: u32,
    candidates: [Candidate; 2],
    is_cyclic: bool,
    probe: Option<Probe>,
    /// When the next probe is due.
    next_probe: u32,
}

impl CyclicScan {
    /// Notes that `n` pages from `first` on, all of one block, came as part of a run of
    /// `run` pages, with `total` pages in memory. Returns whether they are part of a loop,
    /// so that some of them are worth keeping.
    pub fn arrived(&mut self, first: PageNumber, n: usize, run: usize, total: u64) -> bool {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        let block = first.get() / SCAN_BLOCK;
        self.now = self.now.wrapping_add(n as u32);
        let now = self.now;
        if self.probe.is_some_and(|probe| probe.block == block) {
            self.probe = None;
        }
        let visit = self.visit(block);
        let since = now.wrapping_sub(visit.at);
        if visit.at == 0 || since > total / SAME_VISIT_PART {
            let is_known = run >= LEAST_RUN && visit.at != 0;
            visit.period = if is_known { since } else { 0 };
            if run >= LEAST_RUN {
                visit.at = now.max(1);
            }
        }
        let period = visit.period;
        let is_in_turn = self.count(period, n as u32, total);
        let is_late = |probe: Probe| now.wrapping_sub(probe.at) > probe.patience;
        if self.probe.is_some_and(is_late) {
            self.is_cyclic = false;
            self.candidates = Default::default();
            self.probe = None;
        }
        self.is_cyclic && is_in_turn
    }

    /// Notes that `n` pages from `first` on, all of one block, came filled with zeros.
    ///
    /// New memory speaks against a loop. Memory that was there before does not: many loops
    /// free memory and get it again in each round.
    pub fn zero_filled(&mut self, first: PageNumber, n: usize, total: u64) {
        self.now = self.now.wrapping_add(n as u32);
        let at = self.now.max(1);
        let visit = self.visit(first.get() / SCAN_BLOCK);
        let is_new = visit.at == 0;
        *visit = Visit { at, period: 0 };
        if is_new {
            self.count(0, n as u32, u32::try_from(total).unwrap_or(u32::MAX));
        }
    }

    /// Tells whether the program is in a loop.
    pub fn is_cyclic(&self) -> bool {
        self.is_cyclic
    }

    /// Tells whether a probe is due.
    pub fn wants_probe(&self) -> bool {
        self.probe.is_none() && self.now.wrapping_sub(self.next_probe) < u32::MAX / 2
    }

    /// Begins a probe: page `first` leaves, with the pages after it.
    pub fn begin_probe(&mut self, first: PageNumber) {
        let (block, at) = (first.get() / SCAN_BLOCK, self.now);
        let period = self.visit(block).period;
        let patience = period.saturating_add(period / 2);
        self.probe = Some(Probe {
            block,
            at,
            patience,
        });
        self.next_probe = at.wrapping_add(period / 2);
    }

    /// Counts `pages` of a block with this period, or 0 if unknown. Returns whether the
    /// period is a frequent one.
    fn count(&mut self, period: u32, pages: u32, total: u32) -> bool {
        let eighth = total / 8;
        let mut is_in_turn = false;
        if let Some(one) = self.candidates.iter_mut().find(|c| c.is(period)) {
            one.score = (one.score + pages).min(total / 2);
            is_in_turn = one.score > eighth * OVER_EIGHTHS;
        } else if let Some(none) = self.candidates.iter_mut().find(|c| c.score == 0)
            && period > 0
        {
            *none = Candidate {
                period,
                score: pages,
            };
        } else {
            for candidate in &mut self.candidates {
                candidate.score = candidate.score.saturating_sub(pages);
            }
        }
        let best = self.candidates.iter().map(|c| c.score).max().unwrap_or(0);
        if best > eighth * BEGIN_EIGHTHS {
            self.is_cyclic = true;
        } else if best <= eighth * OVER_EIGHTHS {
            self.is_cyclic = false;
        }
        is_in_turn
    }

    fn visit(&mut self, block: u64) -> &mut Visit {
        let entry = self.visits.entry(block / BLOCKS_PER_CHUNK);
        let empty = || Box::new([Visit::default(); BLOCKS_PER_CHUNK as usize]);
        &mut entry.or_insert_with(empty)[(block % BLOCKS_PER_CHUNK) as usize]
    }
}

#[cfg(test)]
mod tests;
