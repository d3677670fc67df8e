//! Evicts everything over and over, whatever the budget: what a program does only
//! now and then under pressure, it does here all the time on pages that are
//! elsewhere.

use crate::engine::{Engine, Settings};
use crate::pool::RUN_FRAMES;
use crate::sys::now_ns;
use tmem_policy::watermarks::{Plan, Watermarks};

/// Between two times, at least and at most. A thread may need several pages at
/// once to get on, and be in want of a processor.
const LEAST_NS: u64 = 500_000;
const MOST_NS: u64 = 4_000_000;

/// The limits for `bytes`, as the settings ask.
pub(crate) fn budget(settings: &Settings, bytes: u64) -> Watermarks {
    let budget = Watermarks::new(bytes);
    if settings.evict_all {
        Watermarks { adopt: 0, ..budget }
    } else {
        budget
    }
}

impl Engine {
    /// When it is time, has the plan take out all that there is.
    pub(crate) fn storm(&mut self, plan: &mut Plan) {
        if !self.settings.evict_all {
            return;
        }
        let now = now_ns();
        if now < self.storm_ns {
            return;
        }
        // Not to keep step with anything the program does.
        let jitter = (now >> 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.storm_ns = now + LEAST_NS + jitter % (MOST_NS - LEAST_NS);
        self.growth.urgent = true;
        plan.evict = self.queue.pages() as usize;
        plan.reclaim = self.pool.standby();
        if self.pool.holes() < RUN_FRAMES {
            // Pages of zeros have left, in whose frames nothing is. Within the budget they
            // would be kept.
            plan.release = self.pool.free();
        }
    }
}
