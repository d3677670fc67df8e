//! Where each page of the program is, and what the program does to its address space.

pub(crate) mod address;
mod advice;
pub(crate) mod events;
pub(crate) mod faults;
mod forget;
mod install;
pub(crate) mod mover;
pub(crate) mod outcome;
pub(crate) mod own_zap;
mod queueing;
pub(crate) mod remap;
pub(crate) mod report;
pub(crate) mod residency;
pub(crate) mod space;
pub(crate) mod tcb;
pub(crate) mod transit;

use crate::engine::calls::doorbell::Doorbell;
use crate::engine::fork::state::{Stage, is_under_way};
use crate::engine::servers::Backing;
use crate::pages::Pages;
use crate::pool::Pool;
use core::ops::Range;
use faults::FaultQueue;
use mover::Mover;
use report::Report;
use residency::Residency;
use space::Space;
use tcb::Pinned;
use tmem_policy::eviction::EvictionQueue;
use tmem_policy::readahead;

/// The state of the program's pages, and the means to move them.
///
/// Each part keeps its own data. What concerns several of them at once (a page that is
/// forgotten has a frame and a slot) is done here, below everything that decides.
pub(crate) struct Memory {
    pub(crate) report: Report,
    pub(crate) mover: Mover,
    pub(crate) space: Space,
    pub(crate) pages: Pages,
    pub(crate) pool: Pool,
    pub(crate) queue: EvictionQueue,
    pub(crate) residency: Residency,
    pub(crate) backing: Backing,
    pub(crate) faults: FaultQueue,
    pub(crate) pinned: Pinned,
    pub(crate) doorbell: Doorbell,
    pub(crate) fork_stage: Stage,
}

impl Memory {
    /// Resident pages now, as far as this thread can know.
    pub(crate) fn resident(&self) -> usize {
        self.residency.resident(self.pool.populated())
    }

    /// Pages that the engine has put into the program and into memory of its own, less
    /// those that it took out.
    pub(crate) fn held(&self) -> i64 {
        self.residency.held(self.pool.populated())
    }

    /// Whether more is resident than there may be.
    pub(crate) fn is_over(&self) -> bool {
        self.resident() > self.residency.marks().throttle
    }

    /// The most pages that are fetched ahead of a thread at a time.
    pub(crate) fn most_ahead(&self) -> usize {
        let evictable = self.queue.pages() as usize;
        readahead::longest_window(self.residency.marks().evict, self.resident(), evictable)
    }

    /// Whether a page is not in the program, and can be fetched.
    pub(crate) fn is_elsewhere(&self, page: u64) -> bool {
        self.pages.is_elsewhere(page)
    }

    /// Whether nothing may leave the program, and nothing is asked of servers
    /// but what the fork needs.
    pub(crate) fn is_forking(&self) -> bool {
        self.fork_stage != Stage::Idle || is_under_way()
    }

    /// Whether servers share, or are about to, what they hold now.
    pub(crate) fn has_asked_for_children(&self) -> bool {
        matches!(self.fork_stage, Stage::Sharing | Stage::Holding)
    }

    /// A process that is forked without asking does not get what is adopted.
    pub(crate) fn withhold_from_forks(&self, range: &Range<usize>) {
        if self.fork_stage != Stage::Holding {
            // What is not mapped any more cannot be copied either.
            let _ = self
                .mover
                .kernel()
                .copied_by_forks(range.start, range.len(), false);
        }
    }
}
