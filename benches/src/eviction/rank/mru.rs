//! The page that came last leaves first, but for the very last: the best order for a cyclic scan
//! that is larger than memory.

use super::super::lists::Lists;
use super::{Came, Rank};

const RECENT: u8 = 0;
const OTHERS: u8 = 1;

/// Spares the pages that came last.
pub struct Mru {
    lists: Lists,
    spared: usize,
}

impl Mru {
    /// Orders `capacity` pages below `limit`; a sixteenth is spared.
    pub fn new(capacity: usize, limit: u32) -> Mru {
        Mru {
            lists: Lists::new(2, limit),
            spared: capacity / 16 + 1,
        }
    }
}

impl Rank for Mru {
    fn came(&mut self, page: u32, _: Came) {
        self.lists.push(RECENT, page);
        while self.lists.len(RECENT) > self.spared {
            if let Some(page) = self.lists.oldest(RECENT) {
                self.lists.push(OTHERS, page);
            }
        }
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        let page = self.lists.newest(OTHERS).or(self.lists.oldest(RECENT));
        if let Some(page) = page {
            self.lists.remove(page);
            out.push(page);
        }
    }
}
