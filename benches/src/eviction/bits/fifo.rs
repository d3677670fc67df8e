//! First in, first out; which needs no bits.

use super::super::lists::Lists;
use super::super::{Outcome, Policy};

/// The page that came first leaves first.
pub struct Fifo {
    capacity: usize,
    lists: Lists,
}

impl Fifo {
    /// Holds at most `capacity` pages, all below `limit`.
    pub fn new(capacity: usize, limit: u32) -> Fifo {
        let lists = Lists::new(1, limit);
        Fifo { capacity, lists }
    }
}

impl Policy for Fifo {
    fn access(&mut self, page: u32) -> Outcome {
        if self.lists.list_of(page).is_some() {
            return Outcome::Hit;
        }
        if self.held() >= self.capacity {
            self.lists.pop(0);
        }
        self.lists.push(0, page);
        Outcome::Miss
    }

    fn held(&self) -> usize {
        self.lists.len(0)
    }
}
