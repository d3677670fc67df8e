//! Orders in which resident pages leave, where only faults are seen.

mod adaptive;
mod chances;
mod engine;
mod fifo;
mod lirs;
mod mru;
mod random;

pub use adaptive::Adaptive;
pub use chances::Chances;
pub use engine::{EngineQueue, Shape};
pub use fifo::Fifo;
pub use lirs::Lirs;
pub use mru::Mru;
pub use random::Random;

/// From where a page comes into the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was never there.
    Fresh,
    /// From standby.
    Back,
    /// From a server.
    Fetched,
}

/// An order of resident pages.
pub trait Rank {
    /// Takes in that a page is resident from now on.
    fn came(&mut self, page: u32, from: Came);

    /// Takes out the page or pages that leave next.
    fn take(&mut self, out: &mut Vec<u32>);

    /// Takes in that a page has left standby for a server.
    fn gone(&mut self, _page: u32) {}
}
