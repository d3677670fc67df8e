//! Conversion between addresses and pages.

use tmem_wire::PAGE_SIZE;

/// Returns the page that an address is in.
pub(crate) fn page(at: usize) -> u64 {
    (at / PAGE_SIZE) as u64
}

/// Returns the address of a page.
pub(crate) fn addr(page: u64) -> usize {
    page as usize * PAGE_SIZE
}
