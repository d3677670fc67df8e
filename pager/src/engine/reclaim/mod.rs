//! Takes pages out of the program, and supplies frames.

pub(crate) mod async_dma;
pub(crate) mod balance;
pub(crate) mod compressed;
pub(crate) mod evict;
mod frames;
pub mod lending;
pub(crate) mod retry_list;
mod settle;
pub(crate) mod stress;
pub(crate) mod zap;
pub(crate) mod zap_worker;

use tmem_policy::refault::RefaultClock;
use tmem_policy::standby::StandbySizer;
use tmem_policy::working_set::WorkingSet;

/// The owner of everything about pages that leave, or could not.
pub(crate) struct Reclaim {
    /// Runs of pages that could not be evicted, because they are pinned, shared with a
    /// child, or locked. They are tried again from time to time.
    pub(crate) retry: retry_list::RetryList,
    /// The zap worker, once it is needed.
    pub(crate) zap_worker: Option<zap_worker::ZapWorker>,
    /// A thread that changes the address space did not finish in time. It may itself be
    /// waiting for a page, and for memory to put it in.
    pub(crate) vma_change_stalled: bool,
    pub(crate) async_dma: async_dma::AsyncDma,
    pub(crate) lending: lending::LendingWatch,
    pub(crate) standby: StandbySizer,
    pub(crate) cache: compressed::CompressedPages,
    /// The clock of [`crate::pages::Page::epoch`].
    pub(crate) refault: RefaultClock,
    /// Refault distances of the pages that threads have waited for.
    pub(crate) refaults: WorkingSet,
    /// When everything is evicted next, with stress eviction.
    pub(crate) stress_ns: Option<u64>,
    /// How the engine's thread runs now.
    pub(crate) pacing: Pacing,
}

/// How the engine's thread runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacing {
    /// Pages stream through memory.
    pub(crate) streams: bool,
    /// The CPU that the thread is bound to.
    pub(crate) cpu: Option<u32>,
    /// Total time in nanoseconds that answers were waited for asleep.
    pub(crate) asleep_ns: u64,
}
