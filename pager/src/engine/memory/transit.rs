//! Evicts pages that are executable as well as writable, as in the heaps of some language
//! runtimes.
//!
//! The kernel moves pages only between mappings of the same protection, and the frame pool
//! is not executable. Such pages cannot be zapped, since devices may write to them. So they
//! are moved into a small executable region, the *transit*, and copied from there into
//! frames. Then the memory of the transit goes back to the kernel. These pages return by
//! copying.
//!
//! The list of mappings says which memory is executable, but changes by `mprotect` are not
//! reported. So this knowledge is a hint: a move that is refused one way is tried the other
//! way.

use crate::engine::calls::accesses::wait_for_accesses;
use crate::engine::kernel::Kernel;
use crate::engine::memory::outcome::sure;
use crate::sys::mem::{self, Region};
use crate::sys::uffd::{REGISTER_WP, Transfer};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// The most pages that are moved at a time.
pub(crate) const MOST: usize = 64;

/// Writable and executable memory of the engine, which is empty most of the time.
#[derive(Debug)]
pub(crate) struct Transit {
    /// Registered with the program's userfaultfd: the kernel refuses a move to it while an
    /// event is outstanding.
    region: Region,
    /// Registered with the second userfaultfd, as the `bin` of `Mover` is.
    bin: Region,
    /// Pages at the start of the region that could not be given back yet.
    left: usize,
}

impl Transit {
    /// Creates an empty transit.
    ///
    /// # Errors
    /// Those of the kernel.
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

    /// Returns its memory, which is never paged.
    pub(crate) fn regions(&self) -> [Region; 2] {
        [self.region, self.bin]
    }

    /// Moves executable pages out of the program, and copies them to unbacked frames.
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
        // SAFETY: the source pages are the engine's own and present; the frames were just
        // taken and belong to nobody else.
        unsafe { mem::copy_pages(to, start, moved.done) };
        self.left = moved.done / PAGE_SIZE;
        self.give_back(kernel);
        moved
    }

    /// Gives the transit's memory back to the kernel.
    fn give_back(&mut self, kernel: &dyn Kernel) {
        if self.left == 0 {
            return;
        }
        let len = self.left * PAGE_SIZE;
        let (from, to) = (self.region.start, self.bin.start);
        let t = sure(kernel.move_to_bin(to, from, len));
        // If the bin cannot be emptied, the next call tries again.
        let emptied = kernel.discard(&self.bin, to, self.bin.len).is_ok();
        if t.done == len && emptied {
            self.left = 0;
        }
    }
}
