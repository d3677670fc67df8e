//! Evicts everything over and over, whatever the budget: what a program does only
//! now and then under pressure, it does here all the time on pages that are
//! elsewhere.

use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::pool::RUN_FRAMES;
use crate::sys::now_ns;
use tmem_policy::watermarks::Plan;

/// Between two times, at least and at most. A thread may need several pages at
/// once to get on, and be in want of a processor.
const LEAST_NS: u64 = 500_000;
const MOST_NS: u64 = 4_000_000;

impl Reclaim {
    /// When it is time, has the plan take out all that there is; whether it was.
    pub(crate) fn stress(&mut self, m: &Memory, plan: &mut Plan) -> bool {
        let now = now_ns();
        if self.stress_ns.is_none_or(|next| now < next) {
            return false;
        }
        // Not to keep step with anything the program does.
        let jitter = (now >> 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.stress_ns = Some(now + LEAST_NS + jitter % (MOST_NS - LEAST_NS));
        plan.evict = m.queue.pages() as usize;
        plan.reclaim = m.pool.standby();
        if m.pool.holes() < RUN_FRAMES {
            // Pages of zeros have left, in whose frames nothing is. Within the budget they
            // would be kept.
            plan.release = m.pool.free();
        }
        true
    }
}
