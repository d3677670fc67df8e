//! Memory with a single owner, as bytes.

use super::mem::{self, Region};
use super::space::Space;
use core::slice;
use rustix::io::Errno;

/// A mapping that nobody else reads or writes.
#[derive(Debug)]
pub struct Area(Region);

impl Area {
    /// Maps `len` bytes in `space`, and nowhere else. They are zeros, and have no memory
    /// yet.
    ///
    /// # Errors
    /// Those of the kernel. `NOMEM` when the space is used up.
    pub fn within(space: &Space, len: usize) -> Result<Area, Errno> {
        Region::within(space, len).map(Area)
    }

    /// The same, and a forked child gets a copy.
    ///
    /// # Errors
    /// As [`Area::within`].
    pub fn for_children_too(space: &Space, len: usize) -> Result<Area, Errno> {
        Region::for_children_too(space, len).map(Area)
    }

    /// Returns the same memory in a forked child, which has a copy of it.
    ///
    /// # Safety
    /// The other value is not used in this process any more.
    pub unsafe fn inherited(&self) -> Area {
        Area(self.0)
    }

    /// Returns its memory.
    pub fn region(&self) -> Region {
        self.0
    }

    /// Returns `len` bytes from `start` on.
    ///
    /// # Panics
    /// If they do not lie within.
    pub fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.check(start, len);
        // SAFETY: within a mapping that this value owns, that is never unmapped, and that
        // the borrow keeps from being changed.
        unsafe { slice::from_raw_parts((self.0.start + start) as *const u8, len) }
    }

    /// Returns `len` bytes from `start` on, to be changed.
    ///
    /// # Panics
    /// If they do not lie within.
    pub fn bytes_mut(&mut self, start: usize, len: usize) -> &mut [u8] {
        self.check(start, len);
        // SAFETY: as above; this is the only borrow.
        unsafe { slice::from_raw_parts_mut((self.0.start + start) as *mut u8, len) }
    }

    /// Has the kernel allocate memory there. If it cannot, it does so when the pages are
    /// touched.
    pub fn populate(&mut self, start: usize, len: usize) {
        self.check(start, len);
        let _ = mem::unshare(self.0.start + start, len);
    }

    /// Gives the memory of whole pages back to the kernel. They read as zeros afterwards.
    pub fn give_back(&mut self, start: usize, len: usize) {
        self.check(start, len);
        if self.0.discard(self.0.start + start, len).is_err() {
            self.bytes_mut(start, len).fill(0);
        }
    }

    fn check(&self, start: usize, len: usize) {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.0.len);
        assert!(fits, "{len} bytes at {start} of {}", self.0.len);
    }
}
