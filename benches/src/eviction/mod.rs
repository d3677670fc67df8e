//! Simulator of eviction: compares eviction orders on traces of real programs.
//!
//! A [`Policy`] holds a limited number of pages and says for each use what it meets. A pager
//! does not see uses of resident pages. So orders that tmem could have are a
//! [`rank::Rank`] within [`paged::Paged`], which adds the standby list. The engine's own
//! order, `tmem`, runs the code of the `tmem-policy` crate.

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
    /// It is on standby: a fault, but no network.
    Standby,
    /// It is on a server, or was never used before.
    Miss,
}

/// An order of eviction, with the pages that it holds.
pub trait Policy {
    /// Uses a page, which is held from then on.
    fn access(&mut self, page: u32) -> Outcome;

    /// Pages held, those on standby among them.
    fn held(&self) -> usize;
}
