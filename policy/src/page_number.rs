//! The number of a page in a program's address space.

use core::fmt;
use core::ops::{Add, Sub};
use tmem_wire::PAGE_SIZE;

/// A page of a program's address space: its address divided by the page size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(u64);

impl PageNumber {
    /// The page at `number` times the page size.
    pub const fn new(number: u64) -> PageNumber {
        PageNumber(number)
    }

    /// The page that contains an address.
    pub const fn containing(address: usize) -> PageNumber {
        PageNumber((address / PAGE_SIZE) as u64)
    }

    /// Its address divided by the page size.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Its address.
    pub const fn address(self) -> usize {
        self.0 as usize * PAGE_SIZE
    }

    /// The `n` pages from this one on, in order.
    pub fn run(self, n: usize) -> impl DoubleEndedIterator<Item = PageNumber> + Clone {
        self.until(self + n)
    }

    /// The pages from this one to the last before `end`, in order.
    pub fn until(self, end: PageNumber) -> impl DoubleEndedIterator<Item = PageNumber> + Clone {
        (self.0..end.0).map(PageNumber)
    }
}

impl Add<usize> for PageNumber {
    type Output = PageNumber;

    /// The page `n` pages further on.
    fn add(self, n: usize) -> PageNumber {
        PageNumber(self.0 + n as u64)
    }
}

impl Sub for PageNumber {
    type Output = usize;

    /// The number of pages from `earlier` to this one.
    fn sub(self, earlier: PageNumber) -> usize {
        (self.0 - earlier.0) as usize
    }
}

impl fmt::LowerHex for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
