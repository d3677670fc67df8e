//! CLOCK: first in, first out, but what was used since the hand came by stays for
//! another round.

use super::super::lists::Lists;
use super::super::{Outcome, Policy};

/// The pages, with a referenced bit for each.
pub struct Clock {
    capacity: usize,
    lists: Lists,
    used: Vec<bool>,
}

impl Clock {
    /// Holds at most `capacity` pages, all below `limit`.
    pub fn new(capacity: usize, limit: u32) -> Clock {
        Clock {
            capacity,
            lists: Lists::new(1, limit),
            used: vec![false; limit as usize],
        }
    }
}

impl Policy for Clock {
    fn access(&mut self, page: u32) -> Outcome {
        if self.lists.list_of(page).is_some() {
            self.used[page as usize] = true;
            return Outcome::Hit;
        }
        while self.held() >= self.capacity {
            let Some(oldest) = self.lists.pop(0) else {
                break;
            };
            if std::mem::take(&mut self.used[oldest as usize]) {
                self.lists.push(0, oldest);
            }
        }
        self.lists.push(0, page);
        Outcome::Miss
    }

    fn held(&self) -> usize {
        self.lists.len(0)
    }
}
