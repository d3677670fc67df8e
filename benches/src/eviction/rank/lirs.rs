//! After LIRS (Jiang and Zhang, SIGMETRICS 2002): pages that are asked for at short intervals are
//! kept. Intervals are those between faults instead of uses.

use super::super::lists::Lists;
use super::{Came, Rank};

/// Pages with short intervals, by their last fault; and all others.
const KEPT: u8 = 0;
const OTHERS: u8 = 1;

/// Keeps a share of the pages by their intervals.
pub struct Lirs {
    kept: usize,
    lists: Lists,
    faults: u64,
    /// When each page was asked for last, in faults; 0 if never.
    asked: Vec<u64>,
}

impl Lirs {
    /// Orders `capacity` pages below `limit` and keeps `percent` of them.
    pub fn new(capacity: usize, limit: u32, percent: usize) -> Lirs {
        Lirs {
            kept: capacity * percent / 100,
            lists: Lists::new(2, limit),
            faults: 0,
            asked: vec![0; limit as usize],
        }
    }
}

impl Rank for Lirs {
    fn came(&mut self, page: u32, _: Came) {
        self.faults += 1;
        let before = std::mem::replace(&mut self.asked[page as usize], self.faults);
        let room = self.lists.len(KEPT) < self.kept;
        let oldest = self.lists.oldest(KEPT);
        // Its interval is shorter than that of the page kept longest can be.
        let shorter = oldest.is_some_and(|oldest| before > self.asked[oldest as usize]);
        if !room && !shorter {
            return self.lists.push(OTHERS, page);
        }
        self.lists.push(KEPT, page);
        if self.lists.len(KEPT) > self.kept
            && let Some(oldest) = self.lists.oldest(KEPT)
        {
            self.lists.push(OTHERS, oldest);
        }
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        let others = self.lists.pop(OTHERS);
        out.extend(others.or_else(|| self.lists.pop(KEPT)));
    }
}
