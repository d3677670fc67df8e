//! SIEVE (Zhang et al., NSDI 2024): as CLOCK, but what stays keeps its place.

use super::super::lists::Lists;
use super::super::{Outcome, Policy};

/// The pages, with a referenced bit for each, and a hand that goes from old to new.
pub struct Sieve {
    capacity: usize,
    lists: Lists,
    used: Vec<bool>,
    hand: Option<u32>,
}

impl Sieve {
    /// Holds at most `capacity` pages, all below `limit`.
    pub fn new(capacity: usize, limit: u32) -> Sieve {
        Sieve {
            capacity,
            lists: Lists::new(1, limit),
            used: vec![false; limit as usize],
            hand: None,
        }
    }

    fn evict(&mut self) {
        let mut at = self.hand.or(self.lists.oldest(0));
        while let Some(page) = at {
            let newer = self.lists.newer(page);
            if !std::mem::take(&mut self.used[page as usize]) {
                self.hand = newer;
                self.lists.remove(page);
                return;
            }
            at = newer.or(self.lists.oldest(0));
        }
    }
}

impl Policy for Sieve {
    fn access(&mut self, page: u32) -> Outcome {
        if self.lists.list_of(page).is_some() {
            self.used[page as usize] = true;
            return Outcome::Hit;
        }
        if self.held() >= self.capacity {
            self.evict();
        }
        self.lists.push(0, page);
        Outcome::Miss
    }

    fn held(&self) -> usize {
        self.lists.len(0)
    }
}
