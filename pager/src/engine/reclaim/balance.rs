//! Keeps the balance between the program, the pool and the servers.

use crate::engine::{EVICTED, Engine, Figures, SAMPLE_NS, exclusion};
use crate::net::Lane;
use crate::pool::RUN_FRAMES;
use crate::sys::now_ns;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::watermarks::{MemoryUse, Plan};

/// Fewer evictions than this can wait for a better moment.
const LATER: usize = 64;

impl Engine {
    /// Looks how much memory is resident.
    pub(crate) fn sample(&mut self, now: u64) {
        let since = now.saturating_sub(self.sampled_ns);
        self.frame_demand.update(self.pool.taken(), since);
        self.note_lateness(now);
        self.sampled_ns = now;
        if let Some(zapper) = &mut self.zapper {
            zapper.look_after();
        }
        let Ok(memory) = self.kernel.resident() else {
            return;
        };
        let resident = memory.counted() as usize;
        let grows = resident > self.sampled.0;
        self.sampled = (resident, self.held());
        let own = self.pool.populated() + self.copies.pages();
        let programs = resident.saturating_sub(own);
        self.queue.set_resident(programs, self.most_ahead());
        self.take_share(resident, memory.shared);
        self.trim_copies();
        crate::engine::budget_share::note(self.figures, &memory);
        self.stay_near(grows);
        self.watch_growth(resident, now);
    }

    /// Notes by how much this look is late: on a busy machine this thread gets a processor
    /// when there is one.
    fn note_lateness(&self, now: u64) {
        let due = match self.look_due_ns > self.sampled_ns {
            true => self.look_due_ns,
            // There was more to do than to wait.
            false => self.sampled_ns + SAMPLE_NS,
        };
        if self.sampled_ns > 0 {
            Figures::peak(&self.figures.late_look_us, now.saturating_sub(due) / 1000);
        }
    }

    /// Resident pages now, as far as this thread can know.
    pub(crate) fn resident(&self) -> usize {
        let (resident, held) = self.sampled;
        resident.saturating_add_signed((self.held() - held) as isize)
    }

    /// Pages that the engine has put into the program and into memory of its own, less
    /// those that it took out.
    pub(crate) fn held(&self) -> i64 {
        let own = self.pool.populated() + self.copies.pages();
        own as i64 + self.growth.known
    }

    /// Keeps the balance between the program, the pool and the servers.
    pub(crate) fn maintain(&mut self) {
        self.release_spent();
        let mut plan = self.plan();
        self.storm(&mut plan);
        if plan.reclaim > 0 {
            self.reclaim(plan.reclaim);
        }
        if plan.release > 0 {
            self.release(plan.release);
        }
        self.release_spent();
        if self.copying {
            let is_over = plan.evict > 0 && self.resident() > self.budget.evict;
            exclusion::hold(is_over && self.may_evict_but_for_reads());
        }
        if self.is_to_evict(&plan) {
            // Before the first page leaves: a child forked at this moment must
            // not take what it misses for what was never there.
            EVICTED.store(true, Relaxed);
            self.evict(plan.evict);
            EVICTED.store(self.remote > 0, Relaxed);
        }
        self.place();
        self.tell_of_room();
    }

    /// How many frames with memory there are to be in the pool.
    pub(crate) fn standby_frames(&self) -> usize {
        self.standby.frames(self.budget.pool)
    }

    /// What there is to do, by the budget.
    pub(crate) fn plan(&self) -> Plan {
        // Most programs have none, and need no look at the clock.
        let due = match self.stubborn.is_empty() {
            true => 0,
            false => self.stubborn.due(now_ns()),
        };
        self.budget.plan(&MemoryUse {
            resident: self.resident(),
            pool: self.standby_frames(),
            populated: self.pool.populated(),
            free: self.pool.free(),
            standby: self.pool.standby(),
            evictable: self.queue.pages() as usize + due,
            demand: self.frame_demand.rate(),
            waiting: self.net.outstanding(Lane::Demand) > 0,
            slack: if self.pace.is_contended() {
                RUN_FRAMES
            } else {
                0
            },
            young: self.sampled_ns < self.young_ns,
        })
    }

    /// Whether pages are to leave now. A thread that has just gone on is likely
    /// to ask for another page soon: what leaves while that is on its way costs
    /// the program no time.
    pub(crate) fn is_to_evict(&self, plan: &Plan) -> bool {
        let later = self.served_one && plan.evict < LATER && self.faults.is_empty();
        plan.evict > 0 && (!later || self.is_over()) && self.may_evict()
    }
}
