//! Parts of the engine, made available to micro-benchmarks.

use crate::digest::Digester;
use crate::pages::Pages;
use tmem_policy::PageNumber;
use tmem_wire::PageBytes;

/// Digests of pages, with a random key.
pub struct Digests(&'static Digester);

impl Digests {
    /// Draws a key. It stays in memory until the program ends.
    pub fn draw() -> Digests {
        Digests(Digester::draw())
    }

    /// Returns the digest of a page.
    pub fn digest(&self, page: &PageBytes) -> u64 {
        self.0.digest(page, None)
    }
}

/// The engine's page table.
#[derive(Default)]
pub struct PageTable(Pages);

impl PageTable {
    /// Sets the referenced flag of a page.
    pub fn set_hot(&mut self, page: PageNumber, hot: bool) {
        self.0.update(page, |entry| entry.referenced = hot);
    }

    /// Returns the referenced flag of a page.
    pub fn is_hot(&self, page: PageNumber) -> bool {
        self.0.get(page).referenced
    }
}
