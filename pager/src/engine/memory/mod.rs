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
use tmem_policy::PageNumber;
use tmem_policy::eviction::EvictionQueue;
use tmem_policy::readahead;

/// The state of the program's pages, and the means to move them.
///
/// Each part keeps its own data. Work that concerns several parts at once (a page that is
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
    /// Returns the number of resident pages, as far as this thread can know.
    pub(crate) fn resident(&self) -> usize {
        self.residency.resident(self.pool.populated())
    }

    /// Returns the pages that the engine has put into the program and into its own memory,
    /// less those that it took out.
    pub(crate) fn held(&self) -> i64 {
        self.residency.held(self.pool.populated())
    }

    /// Tells whether resident memory exceeds the throttle watermark.
    pub(crate) fn is_over(&self) -> bool {
        self.resident() > self.residency.marks().throttle
    }

    /// Returns the most pages that may be read ahead of a thread at a time.
    pub(crate) fn most_ahead(&self) -> usize {
        let evictable = self.queue.pages() as usize;
        readahead::longest_window(self.residency.marks().evict, self.resident(), evictable)
    }

    /// Tells whether a page is not in the program, and can be restored.
    pub(crate) fn is_elsewhere(&self, page: PageNumber) -> bool {
        self.pages.is_elsewhere(page)
    }

    /// Tells whether a fork is under way. Then nothing may leave the program, and servers
    /// are asked only for what the fork needs.
    pub(crate) fn is_forking(&self) -> bool {
        self.fork_stage != Stage::Idle || is_under_way()
    }

    /// Tells whether servers have been asked to share what they hold with a child.
    pub(crate) fn has_asked_for_children(&self) -> bool {
        matches!(self.fork_stage, Stage::Sharing | Stage::Quiescent)
    }

    /// Withholds adopted memory from processes that are forked without the engine's help.
    pub(crate) fn withhold_from_forks(&self, range: &Range<usize>) {
        if self.fork_stage != Stage::Quiescent {
            // An error means that the range is not mapped any more, so it cannot be copied
            // either.
            let _ = self
                .mover
                .kernel()
                .copied_by_forks(range.start, range.len(), false);
        }
    }
}
