//! Sees whether a program goes round: whether it comes in order through memory
//! that it has come through in the same order before, and more of it than fits.
//! The oldest pages are then the ones that are used next, and what is best is to
//! keep a part of them whatever comes, and let the rest pass.
//!
//! CyclicScan are known by their period, as in UBM (Kim et al., "A low-overhead
//! high-performance unified buffer management scheme that exploits sequential and
//! looping references", OSDI 2000): the time between two visits of a block, counted
//! in pages that came. In a loop most blocks have the same, or where each round goes
//! through memory twice, one of two; whereas in a recursion, which also comes through
//! the same memory over and over, it goes on changing from block to block. The periods
//! that most have are found as in Misra and Gries, "Finding repeated elements" (1982).
//! Only what comes in runs has one.
//!
//! What is kept is not seen any more when it is used. So now and then a run of it is
//! let go as a probe: when that does not come back within a period, the program
//! goes round somewhere else.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Pages per block: who takes note of pages does so by these.
pub const SCAN_BLOCK: u64 = 64;
/// Blocks per region of the table.
const BLOCKS_PER_CHUNK: u64 = 1024;

/// How many pages must come together for them to count.
const LEAST_RUN: usize = 8;

/// By what share of it two periods may differ and be the same.
const TOLERANCE: u32 = 16;

/// A block's last visit.
#[derive(Clone, Copy, Debug, Default)]
struct Visit {
    /// On the clock of pages that came; 0 for never.
    at: u32,
    /// Time since the visit before; 0 where that says nothing.
    period: u32,
}

/// A period that many blocks have.
#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    period: u32,
    /// Pages of such blocks, less some others, within bounds.
    score: u32,
}

impl Candidate {
    fn is(&self, period: u32) -> bool {
        period > 0 && self.score > 0 && period.abs_diff(self.period) <= period / TOLERANCE
    }
}

/// Pages from this one to the end of its block.
pub fn within_block(page: u64) -> usize {
    (SCAN_BLOCK - page % SCAN_BLOCK) as usize
}

/// What is known of loops.
#[derive(Debug, Default)]
pub struct CyclicScan {
    visits: BTreeMap<u64, Box<[Visit; BLOCKS_PER_CHUNK as usize]>>,
    /// Pages that came.
    now: u32,
    candidates: [Candidate; 2],
    is_cyclic: bool,
    probe: Option<Probe>,
    /// When there is to be another one.
    next_probe: u32,
}

/// A block that was let go.
#[derive(Clone, Copy, Debug)]
struct Probe {
    block: u64,
    /// When.
    at: u32,
    /// By how much later it is to be back.
    patience: u32,
}

impl CyclicScan {
    /// Takes note of `n` pages from `first` on, all of one block, that came as part
    /// of a run of `run` pages, while `total` pages are resident. Whether they are
    /// worth keeping.
    pub fn arrived(&mut self, first: u64, n: usize, run: usize, total: u64) -> bool {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        let block = first / SCAN_BLOCK;
        self.now = self.now.wrapping_add(n as u32);
        let now = self.now;
        if self.probe.is_some_and(|c| c.block == block) {
            self.probe = None;
        }
        let visit = self.visit(block);
        let since = now.wrapping_sub(visit.at);
        if visit.at == 0 || since > total / 4 {
            let is_known = run >= LEAST_RUN && visit.at != 0;
            visit.period = if is_known { since } else { 0 };
            if run >= LEAST_RUN {
                visit.at = now.max(1);
            }
        }
        let period = visit.period;
        let in_turn = self.count(period, n as u32, total);
        let is_late = |c: Probe| now.wrapping_sub(c.at) > c.patience;
        if self.probe.is_some_and(is_late) {
            // What is kept is not used.
            self.is_cyclic = false;
            self.candidates = Default::default();
            self.probe = None;
        }
        self.is_cyclic && in_turn
    }

    /// Takes note of `n` pages of zeros from `first` on, all of one block. They speak
    /// against a loop where there were none before; in one, memory is freed and had
    /// again each time.
    pub fn zero_filled(&mut self, first: u64, n: usize, total: u64) {
        self.now = self.now.wrapping_add(n as u32);
        let at = self.now.max(1);
        let visit = self.visit(first / SCAN_BLOCK);
        let is_new = visit.at == 0;
        *visit = Visit { at, period: 0 };
        if is_new {
            self.count(0, n as u32, u32::try_from(total).unwrap_or(u32::MAX));
        }
    }

    /// Counts pages of a block with this period, 0 for none; whether it is one that
    /// many have.
    fn count(&mut self, period: u32, pages: u32, total: u32) -> bool {
        let mut in_turn = false;
        if let Some(one) = self.candidates.iter_mut().find(|c| c.is(period)) {
            one.score = (one.score + pages).min(total / 2);
            in_turn = one.score > total / 8;
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
        if best > total / 8 * 3 {
            self.is_cyclic = true;
        } else if best <= total / 8 {
            self.is_cyclic = false;
        }
        in_turn
    }

    fn visit(&mut self, block: u64) -> &mut Visit {
        let entry = self.visits.entry(block / BLOCKS_PER_CHUNK);
        let region =
            entry.or_insert_with(|| Box::new([Visit::default(); BLOCKS_PER_CHUNK as usize]));
        &mut region[(block % BLOCKS_PER_CHUNK) as usize]
    }

    /// Whether the program goes round.
    pub fn is_cyclic(&self) -> bool {
        self.is_cyclic
    }

    /// Whether it is time to let something go that is kept.
    pub fn wants_probe(&self) -> bool {
        self.probe.is_none() && self.now.wrapping_sub(self.next_probe) < u32::MAX / 2
    }

    /// Page `first` and those behind it are let go.
    pub fn begin_probe(&mut self, first: u64) {
        let (block, at) = (first / SCAN_BLOCK, self.now);
        let period = self.visit(block).period;
        let patience = period.saturating_add(period / 2);
        self.probe = Some(Probe {
            block,
            at,
            patience,
        });
        self.next_probe = at.wrapping_add(period / 2);
    }
}

#[cfg(test)]
mod tests {
    use crate::eviction::{EvictionQueue, Run, Segment};
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// A program that touches blocks of 64 pages, with room for so many of them.
    struct Program {
        queue: EvictionQueue,
        there: BTreeSet<u64>,
        room: usize,
        missed: usize,
    }

    impl Program {
        fn new(room: usize) -> Program {
            let mut queue = EvictionQueue::default();
            queue.set_resident(room * 64, 64);
            Program {
                queue,
                there: BTreeSet::new(),
                room,
                missed: 0,
            }
        }

        fn touch(&mut self, block: u64) {
            if self.there.contains(&block) {
                return;
            }
            self.missed += 1;
            while self.there.len() >= self.room {
                let (run, _) = self.queue.pop().unwrap();
                self.leaves(run);
            }
            let place = self.queue.choose_segment(block * 64, 64, 64);
            self.queue.push(block * 64, 64, place);
            self.there.insert(block);
        }

        fn leaves(&mut self, run: Run) {
            for block in run.first / 64..run.end() / 64 {
                self.there.remove(&block);
            }
        }

        /// How much of it missed.
        fn all(&mut self, blocks: impl IntoIterator<Item = u64>) -> usize {
            self.missed = 0;
            blocks.into_iter().for_each(|block| self.touch(block));
            self.missed
        }
    }

    #[test]
    fn most_of_what_fits_is_kept_while_a_program_is_cyclic() {
        let mut p = Program::new(400);
        let rounds: Vec<usize> = (0..6).map(|_| p.all(0..800)).collect();
        assert_eq!(rounds[..2], [800, 800]);
        assert!(rounds[3..].iter().all(|n| *n <= 460), "{rounds:?}");
        // And so it is down through memory, and through what is little more than fits.
        let mut p = Program::new(400);
        let rounds: Vec<usize> = (0..6).map(|_| p.all((0..450).rev())).collect();
        assert!(rounds[3..].iter().all(|n| *n <= 110), "{rounds:?}");
    }

    #[test]
    fn a_round_through_memory_twice_is_one() {
        let mut p = Program::new(400);
        let round = || (0..800).chain((0..800).rev());
        let rounds: Vec<usize> = (0..8).map(|_| p.all(round())).collect();
        // What is left from the turn is there anyway.
        assert!(rounds[5..].iter().all(|n| *n <= 1200), "{rounds:?}");
    }

    #[test]
    fn what_was_kept_goes_when_the_program_is_cyclic_elsewhere() {
        let mut p = Program::new(400);
        (0..6).for_each(|_| _ = p.all(0..800));
        // All of it fits, and all of it passed before.
        let rounds: Vec<usize> = (0..12).map(|_| p.all(700..800)).collect();
        assert_eq!(rounds[8..], [0; 4], "{rounds:?}");
        // Something else, that is only once.
        let mut p = Program::new(400);
        (0..6).for_each(|_| _ = p.all(0..800));
        p.all(10_000..11_000);
        assert_eq!(p.all(10_700..11_000), 0);
    }

    /// Halves it as quicksort does: from both ends to the middle, then each half.
    fn quicksort(from: u64, to: u64, out: &mut Vec<u64>) {
        let n = to - from;
        if n < 8 {
            return;
        }
        out.extend((0..n / 2).flat_map(|i| [from + i, to - 1 - i]));
        quicksort(from, from + n / 2, out);
        quicksort(from + n / 2, to, out);
    }

    /// Sorts halves and merges them to another place and back.
    fn mergesort(from: u64, to: u64, out: &mut Vec<u64>) {
        let n = to - from;
        if n < 8 {
            return;
        }
        mergesort(from, from + n / 2, out);
        mergesort(from + n / 2, to, out);
        let elsewhere = 100_000 + from;
        let merged = |i| {
            [
                from + i,
                from + n / 2 + i,
                elsewhere + 2 * i,
                elsewhere + 2 * i + 1,
            ]
        };
        out.extend((0..n / 2).flat_map(merged));
        out.extend((0..n).flat_map(|i| [elsewhere + i, from + i]));
    }

    #[test]
    fn recursions_are_no_loops() {
        let mut worst = 0;
        for sort in [quicksort, mergesort] {
            for room in [100, 200, 400] {
                let mut blocks: Vec<u64> = (0..1024).collect();
                sort(0, 1024, &mut blocks);
                let missed = Program::new(room).all(blocks.iter().copied());
                // First in, first out.
                let (mut there, mut order) = (BTreeSet::new(), std::collections::VecDeque::new());
                let mut without = 0;
                for block in blocks {
                    if there.insert(block) {
                        without += 1;
                        order.push_back(block);
                        if order.len() > room {
                            there.remove(&order.pop_front().unwrap());
                        }
                    }
                }
                worst = worst.max(missed * 100 / without);
            }
        }
        assert!(worst <= 103, "{worst}");
    }

    #[test]
    fn hot_pages_come_before_what_is_kept() {
        let mut p = Program::new(400);
        (0..6).for_each(|_| _ = p.all(0..800));
        let hot: Vec<u64> = (5000..5100).collect();
        for block in &hot {
            while p.there.len() >= p.room {
                let (run, _) = p.queue.pop().unwrap();
                p.leaves(run);
            }
            p.queue.push(block * 64, 64, Segment::Main);
            p.there.insert(*block);
        }
        p.all(0..800);
        assert!(hot.iter().all(|block| p.there.contains(block)));
    }
}
