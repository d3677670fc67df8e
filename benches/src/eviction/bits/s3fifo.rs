//! S3-FIFO (Yang et al., SOSP 2023), with its counts of uses.

use super::super::lists::Lists;
use super::super::{Outcome, Policy};

const SMALL: u8 = 0;
const MAIN: u8 = 1;
const GHOST: u8 = 2;
/// Uses are counted so far.
const MOST: u8 = 3;

/// A small queue of a tenth, a main one, and as many ghosts as the main one has
/// pages.
pub struct S3Fifo {
    capacity: usize,
    lists: Lists,
    uses: Vec<u8>,
}

impl S3Fifo {
    /// Holds at most `capacity` pages, all below `limit`.
    pub fn new(capacity: usize, limit: u32) -> S3Fifo {
        S3Fifo {
            capacity,
            lists: Lists::new(3, limit),
            uses: vec![0; limit as usize],
        }
    }

    /// Evicts one page.
    fn evict(&mut self) {
        loop {
            if self.lists.len(SMALL) > self.capacity / 10 || self.lists.len(MAIN) == 0 {
                let Some(page) = self.lists.oldest(SMALL) else {
                    return;
                };
                if self.uses[page as usize] > 1 {
                    self.uses[page as usize] = 0;
                    self.lists.push(MAIN, page);
                    continue;
                }
                self.lists.push(GHOST, page);
                if self.lists.len(GHOST) > self.capacity - self.capacity / 10 {
                    self.lists.pop(GHOST);
                }
                return;
            }
            let Some(page) = self.lists.pop(MAIN) else {
                return;
            };
            if self.uses[page as usize] == 0 {
                return;
            }
            self.uses[page as usize] -= 1;
            self.lists.push(MAIN, page);
        }
    }
}

impl Policy for S3Fifo {
    fn access(&mut self, page: u32) -> Outcome {
        let on = self.lists.list_of(page);
        if matches!(on, Some(SMALL | MAIN)) {
            let uses = &mut self.uses[page as usize];
            *uses = (*uses + 1).min(MOST);
            return Outcome::Hit;
        }
        if self.held() >= self.capacity {
            self.evict();
        }
        self.uses[page as usize] = 0;
        let queue = if on == Some(GHOST) { MAIN } else { SMALL };
        self.lists.push(queue, page);
        Outcome::Miss
    }

    fn held(&self) -> usize {
        self.lists.len(SMALL) + self.lists.len(MAIN)
    }
}
