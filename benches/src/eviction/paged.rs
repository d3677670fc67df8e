//! What tmem sees: faults only. Pages that leave the program rest on standby, and
//! come back from there cheaply; by that alone shows whether they are in use.

use super::lists::Lists;
use super::rank::{Came, Rank};
use super::{Outcome, Policy};

const RESIDENT: u8 = 0;
const STANDBY: u8 = 1;
const REMOTE: u8 = 2;

/// How much of the memory is standby.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// So many percent.
    Percent(usize),
    /// Between 2 and 50 percent: so that standby hits, each of which costs that
    /// much of a miss, cost about this share of what misses do.
    Balanced {
        /// What a standby hit costs, by what a miss costs.
        hit: f64,
        /// Their share of the costs of misses that is aimed at.
        aim: f64,
    },
}

/// A rank of resident pages, and a standby.
pub struct Paged<R> {
    capacity: usize,
    rank: R,
    share: Share,
    /// Pages that standby is to have.
    standby: f64,
    state: Vec<u8>,
    seen: Vec<bool>,
    resting: Lists,
    resident: usize,
    leaving: Vec<u32>,
}

impl<R: Rank> Paged<R> {
    /// Of so many pages in all, which are below `limit`.
    pub fn new(capacity: usize, limit: u32, share: Share, rank: R) -> Paged<R> {
        let percent = match share {
            Share::Percent(percent) => percent,
            Share::Balanced { .. } => 10,
        };
        Paged {
            capacity,
            rank,
            share,
            standby: (capacity * percent) as f64 / 100.0,
            state: vec![REMOTE; limit as usize],
            seen: vec![false; limit as usize],
            resting: Lists::new(1, limit),
            resident: 0,
            leaving: Vec::new(),
        }
    }

    /// One page more is about to be resident.
    fn make_room(&mut self) {
        let standby = (self.standby as usize).min(self.capacity - 1);
        let full = |p: &Self| p.resident + p.resting.len(0) + 1 >= p.capacity;
        while full(self) && self.resident + 1 > self.capacity - standby {
            let mut leaving = std::mem::take(&mut self.leaving);
            self.rank.take(&mut leaving);
            if leaving.is_empty() {
                break;
            }
            self.resident -= leaving.len();
            for page in leaving.drain(..) {
                self.state[page as usize] = STANDBY;
                self.resting.push(0, page);
            }
            self.leaving = leaving;
        }
        while self.held() + 1 > self.capacity {
            let Some(page) = self.resting.pop(0) else {
                break;
            };
            self.state[page as usize] = REMOTE;
            self.rank.gone(page);
        }
    }

    fn balance(&mut self, outcome: Outcome) {
        let Share::Balanced { hit, aim } = self.share else {
            return;
        };
        let step = match outcome {
            Outcome::Standby => -hit / aim,
            _ => 1.0,
        };
        let whole = self.capacity as f64;
        // Slowly: all faults of some rounds through the memory count.
        self.standby = (self.standby + step / 8.0).clamp(whole / 50.0, whole / 2.0);
    }
}

impl<R: Rank> Policy for Paged<R> {
    fn access(&mut self, page: u32) -> Outcome {
        let at = page as usize;
        let (outcome, came) = match self.state[at] {
            RESIDENT => return Outcome::Hit,
            STANDBY => {
                self.resting.remove(page);
                (Outcome::Standby, Came::Back)
            }
            _ if std::mem::replace(&mut self.seen[at], true) => (Outcome::Miss, Came::Fetched),
            _ => (Outcome::Miss, Came::Fresh),
        };
        if came != Came::Fresh {
            self.balance(outcome);
        }
        self.make_room();
        self.state[at] = RESIDENT;
        self.resident += 1;
        self.rank.came(page, came);
        outcome
    }

    fn held(&self) -> usize {
        self.resident + self.resting.len(0)
    }
}
