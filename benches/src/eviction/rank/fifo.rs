//! First in, first out. A page that comes back from standby goes to the end again: the longer
//! the standby list, the nearer this comes to LRU.

use super::super::lists::Lists;
use super::{Came, Rank};

/// The page that came first leaves first.
pub struct Fifo(Lists);

impl Fifo {
    /// Orders pages below `limit`.
    pub fn new(limit: u32) -> Fifo {
        Fifo(Lists::new(1, limit))
    }
}

impl Rank for Fifo {
    fn came(&mut self, page: u32, _: Came) {
        self.0.push(0, page);
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        out.extend(self.0.pop(0));
    }
}
