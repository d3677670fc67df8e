//! Stress eviction: evicts everything over and over, whatever the budget. What happens to a
//! program only rarely under memory pressure then happens all the time.

use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::pool::RUN_FRAMES;
use crate::sys::now_ns;
use tmem_policy::watermarks::Plan;

/// The shortest and the longest pause between two rounds. A thread may need several pages
/// at once to make progress, and have to wait for a CPU.
const LEAST_NS: u64 = 500_000;
const MOST_NS: u64 = 4_000_000;

impl Reclaim {
    /// Changes the plan so that everything leaves, if a round is due. Returns whether it
    /// was due.
    pub(crate) fn stress(&mut self, m: &Memory, plan: &mut Plan) -> bool {
        let now = now_ns();
        if self.stress_ns.is_none_or(|next| now < next) {
            return false;
        }
        // The jitter keeps rounds out of step with the program.
        let jitter = (now >> 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.stress_ns = Some(now + LEAST_NS + jitter % (MOST_NS - LEAST_NS));
        plan.evict = m.queue.pages() as usize;
        plan.reclaim = m.pool.standby();
        if m.pool.holes() < RUN_FRAMES {
            // Frames of evicted zeros are free. Within the budget they would be kept.
            plan.release = m.pool.free();
        }
        true
    }
}
