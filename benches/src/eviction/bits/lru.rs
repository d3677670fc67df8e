//! Least recently used; needs the order of all uses.

use super::super::lists::Lists;
use super::super::{Outcome, Policy};

/// The page that was not used for longest leaves first.
pub struct Lru {
    capacity: usize,
    lists: Lists,
}

impl Lru {
    /// Holds at most `capacity` pages, all below `limit`.
    pub fn new(capacity: usize, limit: u32) -> Lru {
        let lists = Lists::new(1, limit);
        Lru { capacity, lists }
    }
}

impl Policy for Lru {
    fn access(&mut self, page: u32) -> Outcome {
        let held = self.lists.list_of(page).is_some();
        if !held && self.held() >= self.capacity {
            self.lists.pop(0);
        }
        self.lists.push(0, page);
        if held { Outcome::Hit } else { Outcome::Miss }
    }

    fn held(&self) -> usize {
        self.lists.len(0)
    }
}
