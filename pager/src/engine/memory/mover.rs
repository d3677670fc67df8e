//! Moves pages between the program and the frame pool.

use crate::engine::kernel::Kernel;
use crate::engine::memory::address::addr;
use crate::engine::memory::outcome::{Again, sure};
use crate::engine::memory::transit::Transit;
use crate::pool::Pool;
use crate::ranges::Ranges;
use crate::sys::mem::Region;
use crate::sys::uffd::{REGISTER_WP, Transfer, feature};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_wire::PAGE_SIZE;

/// The most pages that are given back to the kernel at a time.
const BIN: usize = 512;

/// The kernel, and the regions that moves need.
pub(crate) struct Mover {
    kernel: Box<dyn Kernel>,
    /// A region of a second userfaultfd, without events: memory goes back to the kernel
    /// through it. Memory of the pool that is given back directly would be reported to this
    /// thread, which would wait for itself. `None` if pages cannot be moved, and are
    /// copied.
    bin: Option<Region>,
    /// A page that shows whether an event is outstanding.
    probe: Region,
    /// A page that cannot be read.
    nowhere: Region,
    /// Several threads ask for pages, on several CPUs. Copying a single page into the
    /// program is cheaper then than moving it.
    is_contended: bool,
    /// Executable memory of the program, as far as is known.
    executable: Ranges,
    /// The way for executable pages, once it is needed.
    transit: Option<Transit>,
}

impl Mover {
    /// Prepares to move pages between the program and the frames of `pool`, or to copy them
    /// if the kernel cannot move or `may_move` is false.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn new(
        mut kernel: Box<dyn Kernel>,
        pool: &Pool,
        may_move: bool,
    ) -> Result<Mover, Errno> {
        let probe = Region::new(PAGE_SIZE)?;
        kernel.register(probe.start, probe.len, REGISTER_WP)?;
        let can_move = kernel.features() & feature::MOVE != 0 && may_move;
        let bin = if can_move {
            movable(&mut *kernel, pool)?
        } else {
            None
        };
        Ok(Mover {
            kernel,
            bin,
            probe,
            nowhere: Region::nowhere()?,
            is_contended: false,
            executable: Ranges::default(),
            transit: None,
        })
    }

    /// Returns the kernel.
    pub(crate) fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    /// Returns the kernel, for calls that update its cached answers.
    pub(crate) fn kernel_mut(&mut self) -> &mut dyn Kernel {
        &mut *self.kernel
    }

    /// Tells whether pages are copied, because they cannot be moved.
    pub(crate) fn copies(&self) -> bool {
        self.bin.is_none()
    }

    /// Tells whether several threads ask for pages.
    pub(crate) fn is_contended(&self) -> bool {
        self.is_contended
    }

    /// Notes whether several threads ask for pages.
    pub(crate) fn set_contended(&mut self, is: bool) {
        self.is_contended = is;
    }

    /// Returns the memory that moves need, which is never paged.
    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> {
        let transit = self.transit.as_ref().map(Transit::regions);
        let fixed = [Some(self.probe), Some(self.nowhere), self.bin];
        fixed
            .into_iter()
            .flatten()
            .chain(transit.into_iter().flatten())
    }

    /// Tells whether a range lies in one registered mapping.
    ///
    /// # Errors
    /// Those of the kernel. `AGAIN` when an event has to be read first.
    pub(crate) fn is_registered(&self, range: &Range<usize>) -> Result<bool, Errno> {
        let nowhere = self.nowhere.start;
        self.kernel.holds(range.start, range.len(), nowhere)
    }

    /// Moves executable pages out of the program, and copies them to unbacked frames.
    pub(crate) fn move_by_transit(&mut self, to: usize, from: usize, len: usize) -> Transfer {
        if self.transit.is_none() && self.bin.is_some() {
            self.transit = Transit::new(&*self.kernel).ok();
        }
        match &mut self.transit {
            Some(transit) => transit.take_out(&*self.kernel, to, from, len),
            None => Transfer {
                done: 0,
                stopped: Some(Errno::NOMEM),
            },
        }
    }

    /// Gives `n` pages of the pool from `start` on back to the kernel. Returns how many
    /// were given back.
    pub(crate) fn give_back(&self, pool: &Region, start: usize, n: usize) -> usize {
        let len = n * PAGE_SIZE;
        match &self.bin {
            Some(bin) => {
                let t = sure(self.kernel.move_to_bin(bin.start, start, len));
                // The pages in the bin belong to nobody. Those that stay are given up
                // later.
                let _ = self.kernel.discard(bin, bin.start, bin.len);
                t.done / PAGE_SIZE
            }
            None => match self.kernel.discard(pool, start, len) {
                Ok(()) => n,
                Err(_) => 0,
            },
        }
    }

    /// Tells whether an event is outstanding: it was not read, or its thread has not gone
    /// on yet. The kernel refuses operations meanwhile.
    pub(crate) fn is_changing(&self) -> bool {
        self.kernel.unprotect(self.probe.start, PAGE_SIZE) == Err(Errno::AGAIN)
    }

    /// Tells whether memory is executable, as far as is known.
    pub(crate) fn is_executable(&self, at: usize) -> bool {
        !self.executable.is_empty() && self.executable.around(at).is_some()
    }

    /// Notes whether a range is executable.
    pub(crate) fn note_executable(&mut self, range: Range<usize>, is: bool) {
        match is {
            true => self.executable.insert(range),
            false => self.executable.remove(range),
        }
    }

    /// Returns how many of `n` present pages certainly lie in one mapping. A zap crosses
    /// from one mapping into the next, which may have been replaced unseen.
    pub(crate) fn within_one_mapping(
        &self,
        page: PageNumber,
        mut n: usize,
    ) -> Result<usize, Again> {
        while n > 1 {
            // The kernel refuses to put zeros over present pages, but first checks whether
            // all of them are in one mapping.
            let t = self.kernel.zero_pages(addr(page), n * PAGE_SIZE, false);
            match t.stopped {
                Some(Errno::AGAIN) => return Err(Again::Event),
                Some(Errno::EXIST) => break,
                _ => n /= 2,
            }
        }
        Ok(n)
    }

    pub(crate) fn is_present(&self, page: PageNumber) -> bool {
        let mut present = Vec::new();
        let (start, end) = (addr(page), addr(page + 1));
        // Without an answer the program's page counts.
        self.kernel.present(start, end, &mut present).is_err() || !present.is_empty()
    }
}

/// Prepares to move pages, and tests whether the kernel really can. Returns `None` if it
/// cannot.
fn movable(kernel: &mut dyn Kernel, pool: &Pool) -> Result<Option<Region>, Errno> {
    let region = pool.region();
    kernel.register(region.start, region.len, REGISTER_WP)?;
    if !kernel.open_bin() {
        return Ok(None);
    }
    let bin = Region::new(BIN * PAGE_SIZE)?;
    kernel.register_bin(bin.start, bin.len)?;
    // The test moves a page into the pool, and from there into the bin.
    let source = Region::new(PAGE_SIZE)?;
    // SAFETY: a fresh mapping of one page.
    unsafe { core::ptr::write_volatile(source.start as *mut u8, 1) };
    let there = kernel.move_to_holes(region.start, source.start, PAGE_SIZE)?;
    let back = kernel.move_to_bin(bin.start, region.start, PAGE_SIZE)?;
    let works = there.stopped.is_none() && back.stopped.is_none();
    kernel.discard(&bin, bin.start, bin.len)?;
    Ok(works.then_some(bin))
}
