//! Frequency by faults: a queue that a page goes through once more for each time
//! that it was asked for after it had left.

use super::super::lists::Lists;
use super::{Came, Rank};

/// Each fault is a chance, of which a page keeps so many at most.
pub struct Chances {
    lists: Lists,
    chances: Vec<u8>,
    most: u8,
    /// Whether a standby hit is a chance, too.
    back: bool,
}

impl Chances {
    /// Of pages below `limit`.
    pub fn new(limit: u32, most: u8, back: bool) -> Chances {
        Chances {
            lists: Lists::new(1, limit),
            chances: vec![0; limit as usize],
            most,
            back,
        }
    }
}

impl Rank for Chances {
    fn came(&mut self, page: u32, from: Came) {
        let chances = &mut self.chances[page as usize];
        if from == Came::Fetched || from == Came::Back && self.back {
            *chances = (*chances + 1).min(self.most);
        }
        self.lists.push(0, page);
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        while let Some(page) = self.lists.pop(0) {
            let chances = &mut self.chances[page as usize];
            if *chances == 0 {
                out.push(page);
                return;
            }
            *chances -= 1;
            self.lists.push(0, page);
        }
    }
}
