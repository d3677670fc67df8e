//! Says how many pages are to leave, and whether they may.

use crate::engine::calls::advice;
use crate::engine::exclusion;
use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::net::Lane;
use crate::pool::RUN_FRAMES;
use crate::sys::now_ns;
use tmem_policy::watermarks::{MemoryUse, Plan};

/// Fewer evictions than this can wait for a better moment.
const LATER: usize = 64;

impl Reclaim {
    /// What there is to do, by the budget.
    pub(crate) fn plan(&self, m: &Memory) -> Plan {
        // Most programs have none, and need no look at the clock.
        let due = match self.retry.is_empty() {
            true => 0,
            false => self.retry.due(now_ns()),
        };
        m.residency.marks().plan(&MemoryUse {
            resident: m.resident(),
            pool: self.standby_frames(m),
            populated: m.pool.populated(),
            free: m.pool.free(),
            standby: m.pool.standby(),
            evictable: m.queue.pages() as usize + due,
            demand: m.residency.frame_demand(),
            waiting: m.backing.net.outstanding(Lane::Demand) > 0,
            slack: if m.mover.is_contended() {
                RUN_FRAMES
            } else {
                0
            },
            young: m.residency.is_young(),
        })
    }

    /// Whether pages are to leave now. A thread that has just gone on is likely
    /// to ask for another page soon: what leaves while that is on its way costs
    /// the program no time.
    pub(crate) fn is_to_evict(&self, m: &Memory, plan: &Plan) -> bool {
        let later = m.faults.has_served_one() && plan.evict < LATER && m.faults.is_empty();
        plan.evict > 0 && (!later || m.is_over()) && self.may_evict(m)
    }

    /// How many frames with memory there are to be in the pool.
    pub(crate) fn standby_frames(&self, m: &Memory) -> usize {
        self.standby.frames(m.residency.marks().pool)
    }

    /// Whether pages may leave: there is, or will soon be, room for them.
    pub(crate) fn may_evict(&self, m: &Memory) -> bool {
        self.may_evict_but_for_reads(m) && !(m.mover.copies() && exclusion::is_read())
    }

    /// The same, were nobody reading directly. Those who are about to are kept from it
    /// for that only: where nothing leaves anyway they would wait for nothing.
    pub(crate) fn may_evict_but_for_reads(&self, m: &Memory) -> bool {
        !m.backing.grants.full
            && !m.is_forking()
            && !self.is_held_up(m)
            && !advice::others_stay()
            && m.backing.net.any_up()
            && m.pool.pending_writeback() < m.residency.marks().pool
            && m.pool.holes() >= RUN_FRAMES
    }

    /// Whether nothing can be zapped for the moment.
    fn is_held_up(&self, m: &Memory) -> bool {
        let crowded = self.vma_change_stalled && exclusion::is_changed();
        crowded || m.mover.copies() && self.async_dma.write
    }

    /// Whether less memory will be resident by itself: some rests, is being
    /// written, or is about to leave. A thread waits for that; were it to wait
    /// for anything else, it could wait for ever.
    pub(crate) fn can_shrink(&self, m: &Memory) -> bool {
        let resting = m.pool.free() + m.pool.spent() + m.pool.standby() > 0;
        let leaving = m.backing.net.queued_bytes(Lane::Bulk) > 0
            || m.pool.pending_writeback() > 0 && !m.backing.grants.full && m.backing.net.any_up();
        !m.backing.was_up
            || resting
            || leaving
            || self.may_evict(m) && (self.plan(m).evict > 0 || self.retry.come_free(now_ns()))
    }

    /// Whether a thread that asks for more memory has to wait for others to
    /// leave.
    pub(crate) fn must_wait(&self, m: &Memory) -> bool {
        m.is_over() && self.can_shrink(m)
    }
}
