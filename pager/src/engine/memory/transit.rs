//! Takes out pages that are executable as well as writable, as the heaps of some
//! language runtimes are.
//!
//! The kernel moves pages only between mappings of the same protection, and the frame
//! pool is not executable. To zap such pages would not do: devices may write to them.
//! So they are moved into a small region of the same protection, the *transit*, are
//! copied into frames from there, and their memory goes back to the kernel. They come
//! back by copying.
//!
//! Which memory is executable is known from the list of mappings; what the program
//! changes by `mprotect` is not reported. So what is known is a hint: a move that is
//! refused one way is tried the other way.

use crate::engine::calls::accesses::wait_for_accesses;
use crate::engine::kernel::Kernel;
use crate::engine::memory::outcome::sure;
use crate::sys::mem::{self, Region};
use crate::sys::uffd::{REGISTER_WP, Transfer};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Pages that are moved at a time.
pub(crate) const MOST: usize = 64;

/// Writable and executable memory of the engine's own, which is empty most of the time.
#[derive(Debug)]
pub(crate) struct Transit {
    /// Belongs to the program's userfaultfd: the kernel refuses a move to it while a
    /// change of the address space has not been read.
    region: Region,
    /// Belongs to the other userfaultfd, as the engine's `bin` does.
    bin: Region,
    /// Pages of the region that could not be given back yet, from its start.
    left: usize,
}

impl Transit {
    /// An empty transit.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(kernel: &dyn Kernel) -> Result<Transit, Errno> {
        let region = Region::executable(MOST * PAGE_SIZE)?;
        let bin = Region::executable(MOST * PAGE_SIZE)?;
        kernel.register(region.start, region.len, REGISTER_WP)?;
        kernel.register_bin(bin.start, bin.len)?;
        Ok(Transit {
            region,
            bin,
            left: 0,
        })
    }

    /// Its memory, which is never paged.
    pub(crate) fn regions(&self) -> [Region; 2] {
        [self.region, self.bin]
    }

    /// Moves pages of executable memory out of the program and copies them to frames
    /// that are holes.
    pub(crate) fn take_out(
        &mut self,
        kernel: &dyn Kernel,
        to: usize,
        from: usize,
        len: usize,
    ) -> Transfer {
        let len = len.min(MOST * PAGE_SIZE);
        self.give_back(kernel);
        if self.left > 0 {
            return Transfer {
                done: 0,
                stopped: Some(Errno::NOMEM),
            };
        }
        let start = self.region.start;
        let moved = sure(kernel.move_to_holes(start, from, len));
        wait_for_accesses(&(from..from + moved.done));
        // SAFETY: pages of the engine's own that are there, and frames that were just
        // taken and are nobody else's.
        unsafe { mem::copy_pages(to, start, moved.done) };
        self.left = moved.done / PAGE_SIZE;
        self.give_back(kernel);
        moved
    }

    /// Gives the memory of what went through the transit back to the kernel.
    fn give_back(&mut self, kernel: &dyn Kernel) {
        if self.left == 0 {
            return;
        }
        let len = self.left * PAGE_SIZE;
        let (from, to) = (self.region.start, self.bin.start);
        let t = sure(kernel.move_to_bin(to, from, len));
        // Where it is refused, the bin is not empty; it is tried again before the next.
        let emptied = kernel.discard(&self.bin, to, self.bin.len).is_ok();
        if t.done == len && emptied {
            self.left = 0;
        }
    }
}
