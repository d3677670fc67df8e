//! The event loop's regular work: samples resident memory, adopts memory, evicts pages.

use crate::engine::adopt;
use crate::engine::budget_share;
use crate::engine::calls::credentials;
use crate::engine::event_loop::Engine;
use crate::engine::evicted::set_evicted;
use crate::engine::exclusion;
use crate::engine::map_throttle;
use crate::engine::memory::Memory;
use crate::engine::memory::report::WARN;
use crate::engine::read_in::move_away;
use crate::engine::reclaim::zap_worker::ZapWorker;
use crate::engine::watchdog;
use crate::engine::writeback::{self, room};
use crate::stats::Slot as Figures;
use crate::sys;
use crate::sys::errno::Words;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use tmem_wire::PAGE_SIZE;

/// Slabs of each server in which nothing is, that are kept for what comes.
const KEPT_SLABS: usize = 4;

impl Engine {
    /// Does the work that is due only every [`SLOW_NS`](super::event_loop).
    pub(crate) fn slowly(&mut self, now: u64) {
        watchdog::follow_the_last(self.memory.mover.kernel().left_with());
        self.program_end.look_for_core(&self.memory);
        self.look_for_end();
        watchdog::follow_the_keeper(self.settings.report.shared);
        self.memory
            .report
            .stats
            .pager_cpu_ns
            .store(sys::thread_cpu_ns(), Relaxed);
        self.memory
            .report
            .stats
            .reconnects
            .store(self.memory.backing.net.reconnects(), Relaxed);
        let packed = self.memory.backing.net.packed();
        self.memory
            .report
            .stats
            .compressed_pages
            .store(packed.pages, Relaxed);
        self.memory
            .report
            .stats
            .compressed_bytes
            .store(packed.bytes, Relaxed);
        let stats = self.memory.report.stats;
        let Memory {
            residency, mover, ..
        } = &mut self.memory;
        residency.look_at_share(mover.kernel_mut(), &self.settings, stats, now);
        self.control.look(&mut self.memory, &self.settings, now);
        let refaults = &mut self.reclaim.refaults;
        let waiting = &mut self.control.waiting;
        waiting.look(&mut self.memory, refaults, &self.settings, now);
        self.look_at_unpaged(now);
        self.memory.tidy_queue();
        self.memory.space.check_discards(self.memory.mover.kernel());
        self.reclaim.async_dma.look(&self.memory);
        self.reclaim.lending.look_for_code(&mut self.memory);
        self.memory.tell_of_others_that_stay();
        self.fork.detector.hear();
        // Once the program has ended, its number may belong to another process.
        if !self.program_end.outlives() && credentials::look() {
            self.follow_credentials();
        }
        self.reclaim.requeue_retried(&mut self.memory, now);
        self.look_at_local();
        let report = self.memory.report;
        self.memory.backing.follow_copies(&report, now);
        self.memory.backing.give_up_silent();
        if self.settings.servers.net.wait_ms.is_some() {
            self.memory.backing.wait_for_the_only(&report);
        }
        if !self.memory.is_forking() {
            room::give_slabs_back(&mut self.memory, KEPT_SLABS);
            self.memory
                .backing
                .look_for_servers(&self.memory.report, now);
            room::weigh_servers(&mut self.memory);
            room::ask_for_slabs(&mut self.memory, now);
            room::follow_room(&mut self.memory);
            self.memory.backing.probe_frozen();
        }
    }

    /// Shows what the local tier takes, and says so when nothing can be spilled.
    fn look_at_local(&mut self) {
        let has_left = self.fork.children.have_left_files();
        let report = self.memory.report;
        let Some(tier) = self.memory.backing.net.tier_mut() else {
            return;
        };
        if has_left {
            tier.is_alone();
        }
        if let Some(local) = &self.settings.servers.local {
            let share = self.memory.residency.share();
            let limit = share.tier_share(&self.settings, local.bytes, tier.memory() as u64);
            tier.set_limit(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Figures::peak(&report.stats.spilled_bytes, tier.spilled());
        if let Some(error) = tier.take_spill_error()
            && self.memory.backing.grants.tells_of_spill()
        {
            let text = format!(
                "nothing can be written to the spill file ({}): until that changes, what the \
                 local tier has no memory for stays in the program, beyond its budget",
                Words(error)
            );
            report.say(WARN, &text);
        }
    }

    /// Looks whether the program has ended.
    pub(crate) fn look_for_end(&mut self) {
        // The program may end as soon as it knows of a child's end, which is to be told.
        let (report, net) = (&self.memory.report, &self.memory.backing.net);
        self.fork.children.answer(report, net);
        let (zap_worker, shared) = (
            self.reclaim.zap_worker.as_mut(),
            self.settings.report.shared,
        );
        self.program_end.look(zap_worker, &self.memory, shared);
    }

    /// Measures how much memory is resident.
    pub(crate) fn sample(&mut self, now: u64) {
        let taken = self.memory.pool.taken();
        let stats = self.memory.report.stats;
        self.memory.residency.begin_sample(stats, taken, now);
        if let Some(zap_worker) = &mut self.reclaim.zap_worker {
            zap_worker.look_after();
        }
        let Ok(memory) = self.memory.mover.kernel_mut().resident() else {
            return;
        };
        // The local tier is memory beyond the budget.
        let tier = self.memory.backing.net.local_memory();
        let tier = (tier / PAGE_SIZE) as u64;
        self.memory.residency.share_mut().note_tier(tier);
        Figures::peak(&stats.local_tier_bytes, tier * PAGE_SIZE as u64);
        let memory = memory.without(tier);
        let resident = memory.counted() as usize;
        let populated = self.memory.pool.populated();
        let grows = self.memory.residency.end_sample(resident, populated);
        let own = populated + self.memory.residency.compressed();
        let programs = resident.saturating_sub(own);
        self.memory
            .queue
            .set_resident(programs, self.memory.most_ahead());
        let residency = &mut self.memory.residency;
        residency.take_share(&self.settings, resident, memory.shared);
        self.reclaim.trim_cache(&mut self.memory);
        budget_share::note(self.memory.report.stats, &memory);
        self.schedule.pace.stay_near(&mut self.memory, grows);
        self.reclaim.pacing = self.schedule.pace.pacing();
        self.watch_growth(resident, now);
    }

    /// Keeps resident memory, the frame pool and the servers in balance.
    pub(crate) fn maintain(&mut self) {
        self.reclaim.release_spent(&mut self.memory);
        let mut plan = self.reclaim.plan(&self.memory);
        if self.reclaim.stress(&self.memory, &mut plan) {
            self.memory.space.set_stale(true);
        }
        if plan.reclaim > 0 {
            self.reclaim.reclaim_standby(&mut self.memory, plan.reclaim);
        }
        if plan.release > 0 {
            self.reclaim.release(&mut self.memory, plan.release);
        }
        self.reclaim.release_spent(&mut self.memory);
        if self.memory.mover.copies() {
            let is_over =
                plan.evict > 0 && self.memory.resident() > self.memory.residency.marks().evict;
            exclusion::delay_direct_reads(
                is_over && self.reclaim.may_evict_but_for_reads(&self.memory),
            );
        }
        if self.reclaim.is_to_evict(&self.memory, &plan) {
            let n = room::room_for(&mut self.memory, plan.evict);
            if n > 0 {
                self.evict(n);
            }
        }
        move_away::move_away(&mut self.memory, &mut self.reclaim, sys::now_ns());
        writeback::start(&mut self.memory);
        self.tell_of_room();
    }

    /// Evicts about `pages` pages.
    pub(crate) fn evict(&mut self, pages: usize) {
        // The flag is set before the first page leaves: a child that is forked at this
        // moment must not read zeros where a page is missing.
        set_evicted(true);
        self.schedule.waited.for_event |= self.reclaim.evict(&mut self.memory, pages);
        set_evicted(self.memory.residency.remote() > 0);
    }

    /// Adopts memory when enough of it has appeared outside the adopted ranges.
    fn watch_growth(&mut self, resident: usize, now: u64) {
        adopt::answer(|| self.adopt(true));
        let every = self.settings.evict_all;
        if self.adoption.is_due(&mut self.memory, every, resident, now) {
            let before = sys::thread_cpu_ns();
            self.adopt(every);
            self.adoption.looked(sys::thread_cpu_ns() - before);
        }
    }

    /// Registers all memory that can be paged and is not adopted yet. With `every`,
    /// includes memory that would not be worth it.
    pub(crate) fn adopt(&mut self, every: bool) {
        map_throttle::wait_for_word();
        if self.memory.space.adopted().is_empty() {
            // From here on threads of the program have to get CPU time to finish their
            // changes of the address space. A real-time priority would keep it from them.
            self.memory.mover.kernel().hurry();
        }
        let kept = self.kept();
        let unseen = self.reclaim.lending.may_be_advised_unseen();
        if adopt::adopt(&mut self.memory, &kept, every, unseen) {
            self.watch_forks();
        }
        self.tell_of_room();
    }

    /// Watches for forks that bypass the C library.
    pub(crate) fn watch_forks(&mut self) {
        let is_prepared = self.memory.has_asked_for_children();
        self.fork
            .detector
            .watch(self.memory.mover.kernel(), is_prepared);
    }

    /// Updates the statistics of memory that cannot be paged.
    fn look_at_unpaged(&mut self, now: u64) {
        if self.adoption.unpaged.is_due(&self.memory, now) {
            let kept = self.kept();
            self.adoption.unpaged.look(&self.memory, kept, now);
        }
    }

    /// Tells threads that map memory whether there is room.
    fn tell_of_room(&self) {
        let is_awaited = self.adoption.is_unseen() || self.reclaim.can_shrink(&self.memory);
        map_throttle::set_full(self.memory.is_over() && is_awaited);
    }

    /// Gives every task of the engine the program's current credentials.
    pub(crate) fn follow_credentials(&mut self) {
        if let Some(zap_worker) = &mut self.reclaim.zap_worker {
            zap_worker.follow();
        }
        if let Some(guard) = self.program_end.guard() {
            guard.follow();
        }
        credentials::become_as(credentials::whom());
    }

    /// Returns the ranges that are never paged, in order: the engine's own memory, and what
    /// the settings name.
    pub(crate) fn kept(&self) -> Vec<Range<usize>> {
        let mut kept = self.settings.keep.clone();
        let mut own = alloc::vec![self.memory.pool.region()];
        own.extend(self.program_end.guard().iter().flat_map(|g| g.stacks()));
        own.extend(self.memory.doorbell.region());
        own.extend(self.fork.detector.region());
        own.extend(self.reclaim.cache.region());
        own.extend(self.memory.backing.repair.region());
        own.extend(self.reclaim.zap_worker.as_ref().and_then(ZapWorker::stack));
        own.extend(self.memory.mover.regions());
        own.extend(self.memory.backing.net.local_regions());
        kept.extend(own.iter().map(|r| r.start..r.end()));
        kept.sort_unstable_by_key(|r| r.start);
        kept
    }
}
