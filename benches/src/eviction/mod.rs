//! How good an order of evictions is, on traces of real programs.
//!
//! A *policy* holds at most so many pages and says of each use what it meets.
//! Those that tmem can have see nothing of uses that meet a resident page: they
//! are a [`rank::Rank`] within [`paged::Paged`], which has the standby.

pub mod bits;
pub mod catalog;
pub mod lackey;
pub mod lists;
pub mod opt;
pub mod paged;
pub mod rank;
pub mod report;
pub mod simulate;
pub mod synthetic;
#[cfg(test)]
mod tests;
pub mod trace;

/// What a use of a page meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The page is in the program.
    Hit,
    /// It rests in a frame: a fault, but no network.
    Standby,
    /// It is on a server, or was never used before.
    Miss,
}

/// What holds some pages.
pub trait Policy {
    /// A page is used, and held from then on.
    fn access(&mut self, page: u32) -> Outcome;

    /// Pages held, those on standby among them.
    fn held(&self) -> usize;
}
