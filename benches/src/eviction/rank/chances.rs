//! Frequency of faults: a queue that a page goes through once more for each fault after it
//! had left.

use super::super::lists::Lists;
use super::{Came, Rank};

/// Each fault gives a page a chance to stay, up to `most`.
pub struct Chances {
    lists: Lists,
    chances: Vec<u8>,
    most: u8,
    /// Whether a refault from standby counts as well.
    back: bool,
}

impl Chances {
    /// Orders pages below `limit`.
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
