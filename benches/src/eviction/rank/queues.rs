//! Two queues, as the engine has them, and in other shapes.
//!
//! With [`Shape::engine`] this is what `pager/src/queue.rs` and the parts of the
//! engine around it do: neighbours that came one by one leave together, and what
//! a page was is forgotten by a slow clock that wraps around. It differs in that
//! evictions are never put off, that no frames rest empty, that nothing is fetched
//! ahead and no page holds zeros only.

use super::super::lists::Lists;
use super::{Came, Rank};

const SMALL: u8 = 0;
const MAIN: u8 = 1;

/// What the queues are like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Percent of the pages that the small queue keeps before it gives its own.
    pub small: usize,
    /// Eighths of the memory that may have been evicted since a page was, for it
    /// to enter by the main queue when it is fetched.
    pub memory: u8,
    /// Whether what comes from standby enters by the main queue; it stays in the
    /// one it was in otherwise.
    pub promote: bool,
    /// Most neighbours that leave together.
    pub run: usize,
}

impl Shape {
    /// The engine's, for so many pages. It moves runs of 64 out of budgets that
    /// have at least 4096 pages; those of small memories are smaller in proportion.
    pub fn engine(capacity: usize) -> Shape {
        Shape {
            small: 10,
            memory: 4,
            promote: true,
            run: (capacity / 128).clamp(1, 64),
        }
    }
}

/// The small queue, the main one, and when pages left.
pub struct Queues {
    shape: Shape,
    lists: Lists,
    was: Vec<u8>,
    /// The slow clock when each page left.
    left: Vec<u8>,
    epoch: u8,
    /// Evictions since it went on, and those after which it does.
    evictions: usize,
    step: usize,
}

impl Queues {
    /// Of `capacity` pages below `limit`.
    pub fn new(capacity: usize, limit: u32, shape: Shape) -> Queues {
        Queues {
            shape,
            lists: Lists::new(2, limit),
            was: vec![SMALL; limit as usize],
            left: vec![0; limit as usize],
            epoch: 0,
            evictions: 0,
            step: (capacity / 8).max(1),
        }
    }

    fn leave(&mut self, page: u32, queue: u8) {
        self.evictions += 1;
        if self.evictions >= self.step {
            self.evictions = 0;
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.left[page as usize] = self.epoch;
        self.was[page as usize] = queue;
        self.lists.remove(page);
    }
}

impl Rank for Queues {
    fn came(&mut self, page: u32, from: Came) {
        let at = page as usize;
        let is_main = match from {
            Came::Fresh => false,
            Came::Back => self.shape.promote || self.was[at] == MAIN,
            Came::Fetched => self.epoch.wrapping_sub(self.left[at]) <= self.shape.memory,
        };
        self.lists.push(if is_main { MAIN } else { SMALL }, page);
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        let (small, main) = (self.lists.len(SMALL), self.lists.len(MAIN));
        let small_first = small * 100 > (small + main) * self.shape.small;
        let queue = if small_first && small > 0 || main == 0 {
            SMALL
        } else {
            MAIN
        };
        while let Some(page) = self.lists.oldest(queue) {
            let follows = out.last().is_none_or(|last| last + 1 == page);
            if !follows || out.len() >= self.shape.run {
                return;
            }
            self.leave(page, queue);
            out.push(page);
        }
    }
}
