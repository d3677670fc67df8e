//! After ARC and CAR (Bansal and Modha, FAST 2004): two queues whose sizes follow the pages that
//! are asked for after they have left them.

use super::super::lists::Lists;
use super::{Came, Rank};

/// Resident: asked for once, and more often.
const ONCE: u8 = 0;
const OFTEN: u8 = 1;
/// Gone from either.
const WAS_ONCE: u8 = 2;
const WAS_OFTEN: u8 = 3;

/// Two queues of resident pages, and two of ghosts, as many as there are pages of memory.
pub struct Adaptive {
    capacity: usize,
    lists: Lists,
    /// The queue that each page on standby was in.
    was: Vec<u8>,
    /// Pages that `ONCE` should have.
    aim: f64,
}

impl Adaptive {
    /// Orders `capacity` pages below `limit`.
    pub fn new(capacity: usize, limit: u32) -> Adaptive {
        Adaptive {
            capacity,
            lists: Lists::new(4, limit),
            was: vec![ONCE; limit as usize],
            aim: 0.0,
        }
    }
}

impl Rank for Adaptive {
    fn came(&mut self, page: u32, from: Came) {
        let len = |list| self.lists.len(list).max(1) as f64;
        let by = (len(WAS_OFTEN) / len(WAS_ONCE)).max(1.0);
        let back = (len(WAS_ONCE) / len(WAS_OFTEN)).max(1.0);
        let queue = match (self.lists.list_of(page), from) {
            (Some(WAS_ONCE), _) => {
                self.aim = (self.aim + by).min(self.capacity as f64);
                OFTEN
            }
            (Some(WAS_OFTEN), _) => {
                self.aim = (self.aim - back).max(0.0);
                OFTEN
            }
            (_, Came::Back) => OFTEN,
            _ => ONCE,
        };
        self.lists.push(queue, page);
    }

    fn take(&mut self, out: &mut Vec<u32>) {
        let once = self.lists.len(ONCE);
        let queue = if once as f64 >= self.aim.max(1.0) || self.lists.len(OFTEN) == 0 {
            ONCE
        } else {
            OFTEN
        };
        if let Some(page) = self.lists.pop(queue) {
            self.was[page as usize] = queue;
            out.push(page);
        }
    }

    fn gone(&mut self, page: u32) {
        let ghost = WAS_ONCE + self.was[page as usize];
        self.lists.push(ghost, page);
        if self.lists.len(WAS_ONCE) + self.lists.len(WAS_OFTEN) > self.capacity {
            let longer = if self.lists.len(WAS_ONCE) > self.lists.len(WAS_OFTEN) {
                WAS_ONCE
            } else {
                WAS_OFTEN
            };
            self.lists.pop(longer);
        }
    }
}
