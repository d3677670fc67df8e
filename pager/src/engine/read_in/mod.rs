//! Pages that come back from servers.

pub(crate) mod ahead;
pub(crate) mod arrive;
pub(crate) mod indirect;
pub(crate) mod late;
pub(crate) mod move_away;
pub(crate) mod read;
pub(crate) mod retry;
mod run;
mod window;

use tmem_policy::indirect::IndirectPrefetcher;
use tmem_policy::readahead::Prefetcher;
use tmem_policy::straddle::StraddlePredictor;

/// The policies of what to read ahead.
pub(crate) struct Readahead {
    pub(crate) prefetcher: Prefetcher,
    pub(crate) straddle: StraddlePredictor,
    pub(crate) indirect: IndirectPrefetcher,
}
