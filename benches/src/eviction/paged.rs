//! What a pager sees: faults only. Pages that leave the program are on standby for a while
//! and come back from there at a low cost. Only that shows whether they are in use.

use super::lists::Lists;
use super::rank::{Came, Rank};
use super::{Outcome, Policy};
use tmem_policy::refault::RefaultClock;
use tmem_policy::standby::{StandbySample, StandbySizer};

const RESIDENT: u8 = 0;
const STANDBY: u8 = 1;
const REMOTE: u8 = 2;

/// How much of the memory is standby.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// As the engine decides.
    Engine,
    /// This many percent.
    Percent(usize),
    /// Between 2 and 50 percent: so that refaults from standby cost about `aim` of what
    /// misses cost.
    Balanced {
        /// The cost of a refault, divided by that of a miss.
        hit: f64,
        /// The cost of all refaults that is aimed at, divided by that of all misses.
        aim: f64,
    },
}

/// The engine's standby sizer, with what it has to know.
struct Sizer {
    sizer: StandbySizer,
    clock: RefaultClock,
    seen: StandbySample,
}

impl Sizer {
    /// Memories that are smaller than any budget have a shorter list in proportion.
    fn new(capacity: usize) -> Sizer {
        Sizer {
            sizer: StandbySizer::with_fewest((capacity / 32).clamp(1, 128)),
            clock: RefaultClock::default(),
            seen: StandbySample::default(),
        }
    }
}

/// A rank of resident pages, and a standby list.
pub struct Paged<R> {
    capacity: usize,
    rank: R,
    share: Share,
    sizer: Sizer,
    /// Pages that standby is to have.
    standby: f64,
    state: Vec<u8>,
    seen: Vec<bool>,
    on_standby: Lists,
    resident: usize,
    leaving: Vec<u32>,
}

impl<R: Rank> Paged<R> {
    /// Memory of `capacity` pages. The numbers of pages are below `limit`.
    pub fn new(capacity: usize, limit: u32, share: Share, rank: R) -> Paged<R> {
        let percent = match share {
            Share::Percent(percent) => percent,
            Share::Engine | Share::Balanced { .. } => 10,
        };
        Paged {
            capacity,
            rank,
            share,
            sizer: Sizer::new(capacity),
            standby: (capacity * percent) as f64 / 100.0,
            state: vec![REMOTE; limit as usize],
            seen: vec![false; limit as usize],
            on_standby: Lists::new(1, limit),
            resident: 0,
            leaving: Vec::new(),
        }
    }

    /// Makes room for one more resident page.
    fn make_room(&mut self) {
        let standby = match self.share {
            Share::Engine => self.sizer.sizer.frames(self.capacity / 8),
            Share::Percent(_) | Share::Balanced { .. } => self.standby as usize,
        };
        let standby = standby.min(self.capacity - 1);
        let full = |p: &Self| p.resident + p.on_standby.len(0) + 1 >= p.capacity;
        while full(self) && self.resident + 1 > self.capacity - standby {
            let mut leaving = std::mem::take(&mut self.leaving);
            self.rank.take(&mut leaving);
            if leaving.is_empty() {
                break;
            }
            self.resident -= leaving.len();
            for page in leaving.drain(..) {
                self.state[page as usize] = STANDBY;
                self.on_standby.push(0, page);
                self.count_eviction();
            }
            self.leaving = leaving;
        }
        while self.held() + 1 > self.capacity {
            let Some(page) = self.on_standby.pop(0) else {
                break;
            };
            self.state[page as usize] = REMOTE;
            self.rank.gone(page);
        }
    }

    fn count_eviction(&mut self) {
        let Sizer { sizer, clock, seen } = &mut self.sizer;
        if let Some(left) = clock.evicted(self.capacity) {
            sizer.update(self.capacity / 8, left, *seen);
        }
    }

    fn balance(&mut self, outcome: Outcome) {
        self.sizer.seen.faults += 1;
        self.sizer.seen.refaults += u64::from(outcome == Outcome::Standby);
        let Share::Balanced { hit, aim } = self.share else {
            return;
        };
        let step = match outcome {
            Outcome::Standby => -hit / aim,
            _ => 1.0,
        };
        let whole = self.capacity as f64;
        // Slowly, so that all faults of some rounds through memory count.
        self.standby = (self.standby + step / 8.0).clamp(whole / 50.0, whole / 2.0);
    }
}

impl<R: Rank> Policy for Paged<R> {
    fn access(&mut self, page: u32) -> Outcome {
        let at = page as usize;
        let (outcome, came) = match self.state[at] {
            RESIDENT => return Outcome::Hit,
            STANDBY => {
                self.on_standby.remove(page);
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
        self.resident + self.on_standby.len(0)
    }
}
