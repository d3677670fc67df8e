//! Addresses and the pages that they are in.

use tmem_wire::PAGE_SIZE;

/// The page of an address.
pub(crate) fn page(at: usize) -> u64 {
    (at / PAGE_SIZE) as u64
}

/// The address of a page.
pub(crate) fn addr(page: u64) -> usize {
    page as usize * PAGE_SIZE
}
