//! Conversion between addresses and pages.

use tmem_policy::PageNumber;

/// Returns the page that an address is in.
pub(crate) fn page(at: usize) -> PageNumber {
    PageNumber::containing(at)
}

/// Returns the address of a page.
pub(crate) fn addr(page: PageNumber) -> usize {
    page.address()
}
