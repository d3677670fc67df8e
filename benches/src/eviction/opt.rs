//! Belady's OPT: the page whose next use is the farthest away leaves first. No other order misses
//! less often, but it needs to know the future.

use super::{Outcome, Policy};

/// Not used again.
const NEVER: u32 = u32::MAX;

/// The optimal order for one trace.
pub struct Opt<'a> {
    capacity: usize,
    /// For each use, which page it is of.
    pages: &'a [u32],
    /// For each use, when the same page is used next.
    next: Vec<u32>,
    now: usize,
    is_held: Vec<bool>,
    /// The next uses of pages that are held.
    due: Times,
    /// Held pages that are not used again.
    done: Vec<u32>,
    held: usize,
}

impl Opt<'_> {
    /// Holds at most `capacity` of the pages that will be used in this order, all below
    /// `limit`.
    pub fn new(capacity: usize, limit: u32, pages: &[u32]) -> Opt<'_> {
        let mut next = vec![NEVER; pages.len()];
        let mut later = vec![NEVER; limit as usize];
        for (at, page) in pages.iter().enumerate().rev() {
            next[at] = std::mem::replace(&mut later[*page as usize], at as u32);
        }
        Opt {
            capacity,
            now: 0,
            is_held: vec![false; limit as usize],
            due: Times::new(pages.len()),
            done: Vec::new(),
            held: 0,
            next,
            pages,
        }
    }

    fn evict(&mut self) {
        let page = self.done.pop().or_else(|| {
            let at = self.due.last()?;
            self.due.remove(at);
            Some(self.pages[at])
        });
        if let Some(page) = page {
            self.is_held[page as usize] = false;
            self.held -= 1;
        }
    }
}

impl Policy for Opt<'_> {
    fn access(&mut self, page: u32) -> Outcome {
        let outcome = if std::mem::replace(&mut self.is_held[page as usize], true) {
            self.due.remove(self.now);
            Outcome::Hit
        } else {
            if self.held >= self.capacity {
                self.evict();
            }
            self.held += 1;
            Outcome::Miss
        };
        match self.next[self.now] {
            NEVER => self.done.push(page),
            next => self.due.insert(next as usize),
        }
        self.now += 1;
        outcome
    }

    fn held(&self) -> usize {
        self.held
    }
}

/// A set of points in time as a tree of bits: each bit of a level says whether any of 64 bits
/// of the level below is set.
struct Times {
    levels: Vec<Vec<u64>>,
}

impl Times {
    fn new(points: usize) -> Times {
        let mut levels = vec![vec![0; points.div_ceil(64).max(1)]];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let words = below.len().div_ceil(64);
            levels.push(vec![0; words]);
        }
        Times { levels }
    }

    fn insert(&mut self, mut at: usize) {
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            let was_empty = *word == 0;
            *word |= 1 << (at % 64);
            if !was_empty {
                return;
            }
            at /= 64;
        }
    }

    fn remove(&mut self, mut at: usize) {
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The latest.
    fn last(&self) -> Option<usize> {
        let mut at = 0;
        for level in self.levels.iter().rev() {
            let top = level[at].checked_ilog2()?;
            at = at * 64 + top as usize;
        }
        Some(at)
    }
}
