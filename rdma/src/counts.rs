//! Counts of a connection's work, which show that it was one-sided.

use std::fmt;

/// Counts of a connection's transfers of pages. The server takes no part in them and does
/// not count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Pages read, and how many READs that took.
    pub(crate) read: (u64, u64),
    /// Pages written, and how many WRITEs that took.
    pub(crate) written: (u64, u64),
    /// How many of these were signaled.
    pub(crate) signals: u64,
    /// How many completions came.
    pub(crate) completions: u64,
    /// The most that were under way at once.
    pub(crate) most: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pages by {} READs, {} pages by {} WRITEs, {} of them signaled, \
             {} completions, at most {} at once",
            self.read.0,
            self.read.1,
            self.written.0,
            self.written.1,
            self.signals,
            self.completions,
            self.most
        )
    }
}
