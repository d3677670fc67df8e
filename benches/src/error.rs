//! What can go wrong in a benchmark.

use tmem_pager::sys::uffd::OpenError;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Memory does not hold what was written to it: the one result that is
    /// never a matter of speed.
    #[error("page {page} is not what was written")]
    Corrupt {
        /// The page, counted from the start of the workload's memory.
        page: usize,
    },
    /// Input or output failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The memory server said something else than was expected.
    #[error("the memory server {0}")]
    Server(String),
    /// The kernel gives no userfaultfd.
    #[error("userfaultfd cannot be used: {0:?}")]
    Userfaultfd(OpenError),
    /// A trace cannot be used; says what is wrong with it.
    #[error("the trace {0}")]
    Trace(&'static str),
    /// A thread of the benchmark ended early.
    #[error("a thread of the benchmark failed")]
    Thread,
}

impl Error {
    /// Says what was tried when the kernel refused.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
}
