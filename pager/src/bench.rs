//! Parts of the engine that only micro-benchmarks use from outside.

use crate::digest::Digester;
use crate::pages::Pages;
use tmem_wire::PageBytes;

/// Digests of pages, with a key of its own.
pub struct Digests(&'static Digester);

impl Digests {
    /// Draws a key, which stays in memory until the program ends.
    pub fn draw() -> Digests {
        Digests(Digester::draw())
    }

    /// The digest of a page.
    pub fn digest(&self, page: &PageBytes) -> u64 {
        self.0.digest(page, None)
    }
}

/// A page table of the engine.
#[derive(Default)]
pub struct PageTable(Pages);

impl PageTable {
    /// Sets the referenced flag of a page.
    pub fn set_hot(&mut self, page: u64, hot: bool) {
        self.0.update(page, |entry| entry.referenced = hot);
    }

    /// The referenced flag of a page.
    pub fn is_hot(&self, page: u64) -> bool {
        self.0.get(page).referenced
    }
}
