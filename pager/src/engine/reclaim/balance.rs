//! Decides how many pages to evict, and whether any may leave.

use crate::engine::calls::advice;
use crate::engine::exclusion;
use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::net::Lane;
use crate::pool::RUN_FRAMES;
use crate::sys::now_ns;
use tmem_policy::watermarks::{MemoryUse, Plan};

/// Fewer evictions than this may wait for a better moment.
const LATER: usize = 64;

impl Reclaim {
    /// Returns what to do to keep within the budget.
    pub(crate) fn plan(&self, m: &Memory) -> Plan {
        // Most programs have no such pages, and need no look at the clock.
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

    /// Tells whether to evict pages now. A thread that has just gone on will probably ask
    /// for another page soon. An eviction while that page is on its way costs the program
    /// no time.
    pub(crate) fn is_to_evict(&self, m: &Memory, plan: &Plan) -> bool {
        let later = m.faults.has_served_one() && plan.evict < LATER && m.faults.is_empty();
        plan.evict > 0 && (!later || m.is_over()) && self.may_evict(m)
    }

    /// Returns how many frames with memory the pool should have.
    pub(crate) fn standby_frames(&self, m: &Memory) -> usize {
        self.standby.frames(m.residency.marks().pool)
    }

    /// Tells whether pages may leave: there is room for them, or will be soon.
    pub(crate) fn may_evict(&self, m: &Memory) -> bool {
        self.may_evict_but_for_reads(m) && !(m.mover.copies() && exclusion::is_read())
    }

    /// The same as [`Reclaim::may_evict`], but ignores threads that read directly. New
    /// direct reads are delayed only if this holds: if nothing leaves anyway, they would
    /// wait for nothing.
    pub(crate) fn may_evict_but_for_reads(&self, m: &Memory) -> bool {
        !m.backing.grants.full
            && !m.is_forking()
            && !self.is_held_up(m)
            && !advice::others_stay()
            && m.backing.net.any_up()
            && m.pool.pending_writeback() < m.residency.marks().pool
            && m.pool.holes() >= RUN_FRAMES
    }

    /// Tells whether nothing can be zapped at present.
    fn is_held_up(&self, m: &Memory) -> bool {
        let crowded = self.vma_change_stalled && exclusion::is_changed();
        crowded || m.mover.copies() && self.async_dma.write
    }

    /// Tells whether resident memory will fall without help: some is on standby, being
    /// written, or about to leave. Only then may a thread wait for memory, or it might wait
    /// for ever.
    pub(crate) fn can_shrink(&self, m: &Memory) -> bool {
        let resting = m.pool.free() + m.pool.spent() + m.pool.standby() > 0;
        let leaving = m.backing.net.queued_bytes(Lane::Bulk) > 0
            || m.pool.pending_writeback() > 0 && !m.backing.grants.full && m.backing.net.any_up();
        !m.backing.was_up
            || resting
            || leaving
            || self.may_evict(m) && (self.plan(m).evict > 0 || self.retry.come_free(now_ns()))
    }

    /// Tells whether a thread that asks for more memory has to wait until other pages have
    /// left.
    pub(crate) fn must_wait(&self, m: &Memory) -> bool {
        m.is_over() && self.can_shrink(m)
    }
}
