//! Pages that leave the program.

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

/// What is known of pages that leave, or could not.
pub(crate) struct Reclaim {
    /// Runs of pages that could not be evicted: pinned, shared with a child,
    /// locked. They are tried again now and then.
    pub(crate) retry: retry_list::RetryList,
    /// Started when it is needed.
    pub(crate) zap_worker: Option<zap_worker::ZapWorker>,
    /// A thread that changes the address space was waited for in vain. It may
    /// itself wait, for a page and for memory to put it in.
    pub(crate) vma_change_stalled: bool,
    pub(crate) async_dma: async_dma::AsyncDma,
    pub(crate) lending: lending::LendingWatch,
    pub(crate) standby: StandbySizer,
    pub(crate) cache: compressed::CompressedPages,
    /// The clock of [`crate::pages::Page::epoch`].
    pub(crate) refault: RefaultClock,
    /// When everything is evicted next, where all leaves over and over.
    pub(crate) stress_ns: Option<u64>,
    /// How the engine's thread runs now.
    pub(crate) pacing: Pacing,
}

/// How the engine's thread runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacing {
    /// Pages stream.
    pub(crate) streams: bool,
    /// The CPU that the thread keeps to.
    pub(crate) cpu: Option<u32>,
    /// Nanoseconds that answers were waited for asleep, in all.
    pub(crate) asleep_ns: u64,
}
