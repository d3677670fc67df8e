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
use tmem_wire::PAGE_SIZE;

/// Pages given back to the kernel at a time.
const BIN: usize = 512;

/// The kernel, and the regions that moves need.
pub(crate) struct Mover {
    kernel: Box<dyn Kernel>,
    /// Memory goes back to the kernel through here: a region that another
    /// userfaultfd owns, one without events. Giving memory of the pool back
    /// would be reported to this thread, which would wait for itself. None where pages
    /// cannot be moved, and are copied.
    bin: Option<Region>,
    /// A page to ask through whether an event waits.
    probe: Region,
    /// A page where nothing can be read.
    nowhere: Region,
    /// Several threads ask for pages, which then run on several CPUs: to copy a single
    /// page into the program is cheaper than to move it.
    is_contended: bool,
    /// What of the program's memory is executable, as far as is known.
    executable: Ranges,
    /// Made when it is needed.
    transit: Option<Transit>,
}

impl Mover {
    /// Prepares to move pages between the program and the frames of `pool`, or to copy
    /// them where the kernel cannot move or `may_move` says not to.
    ///
    /// # Errors
    /// The kernel's.
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

    /// What the kernel does for the engine.
    pub(crate) fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    /// The same, where an answer is kept to be given again.
    pub(crate) fn kernel_mut(&mut self) -> &mut dyn Kernel {
        &mut *self.kernel
    }

    /// Whether pages cannot be moved here, and are copied.
    pub(crate) fn copies(&self) -> bool {
        self.bin.is_none()
    }

    /// Whether several threads ask for pages.
    pub(crate) fn is_contended(&self) -> bool {
        self.is_contended
    }

    /// Takes note whether several threads ask for pages.
    pub(crate) fn set_contended(&mut self, is: bool) {
        self.is_contended = is;
    }

    /// Memory of its own, which is never paged.
    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> {
        let transit = self.transit.as_ref().map(Transit::regions);
        let fixed = [Some(self.probe), Some(self.nowhere), self.bin];
        fixed
            .into_iter()
            .flatten()
            .chain(transit.into_iter().flatten())
    }

    /// Whether a range is one registered mapping, or lies in one.
    ///
    /// # Errors
    /// The kernel's; `AGAIN` when an event has to be read first.
    pub(crate) fn is_registered(&self, range: &Range<usize>) -> Result<bool, Errno> {
        let nowhere = self.nowhere.start;
        self.kernel.holds(range.start, range.len(), nowhere)
    }

    /// Moves pages of executable memory out of the program and copies them to frames
    /// that are holes.
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

    /// Gives `n` pages of the pool from `start` on back to the kernel; of how many.
    pub(crate) fn give_back(&self, pool: &Region, start: usize, n: usize) -> usize {
        let len = n * PAGE_SIZE;
        match &self.bin {
            Some(bin) => {
                let t = sure(self.kernel.move_to_bin(bin.start, start, len));
                // Its pages are nobody's; what stays is given up later.
                let _ = self.kernel.discard(bin, bin.start, bin.len);
                t.done / PAGE_SIZE
            }
            None => match self.kernel.discard(pool, start, len) {
                Ok(()) => n,
                Err(_) => 0,
            },
        }
    }

    /// Whether a report has not been read, or its thread has not gone on yet: the
    /// kernel carries out no request then.
    pub(crate) fn is_changing(&self) -> bool {
        self.kernel.unprotect(self.probe.start, PAGE_SIZE) == Err(Errno::AGAIN)
    }

    /// Whether memory is executable, as far as is known.
    pub(crate) fn is_executable(&self, at: usize) -> bool {
        !self.executable.is_empty() && self.executable.around(at).is_some()
    }

    /// Takes note that a range is executable, or is not.
    pub(crate) fn note_executable(&mut self, range: Range<usize>, is: bool) {
        match is {
            true => self.executable.insert(range),
            false => self.executable.remove(range),
        }
    }

    /// How many of `n` pages that are there lie in one mapping, at the least.
    /// A zap goes from one mapping to the next by itself: the next may be
    /// another by then, which is not seen.
    pub(crate) fn within_one_mapping(&self, page: u64, mut n: usize) -> Result<usize, Again> {
        while n > 1 {
            // Zeros for pages that are there are refused, in which order the
            // kernel looks: first whether all of them are in one mapping.
            let t = self.kernel.zero_pages(addr(page), n * PAGE_SIZE, false);
            match t.stopped {
                Some(Errno::AGAIN) => return Err(Again::Event),
                Some(Errno::EXIST) => break,
                _ => n /= 2,
            }
        }
        Ok(n)
    }

    pub(crate) fn is_present(&self, page: u64) -> bool {
        let mut present = Vec::new();
        let (start, end) = (addr(page), addr(page + 1));
        // Without an answer the program's page is the one that counts.
        self.kernel.present(start, end, &mut present).is_err() || !present.is_empty()
    }
}

/// Prepares to move pages, and sees whether the kernel really can; `None` when
/// it cannot.
fn movable(kernel: &mut dyn Kernel, pool: &Pool) -> Result<Option<Region>, Errno> {
    let region = pool.region();
    kernel.register(region.start, region.len, REGISTER_WP)?;
    if !kernel.open_bin() {
        return Ok(None);
    }
    let bin = Region::new(BIN * PAGE_SIZE)?;
    kernel.register_bin(bin.start, bin.len)?;
    // A page goes into the pool and from there into the bin.
    let source = Region::new(PAGE_SIZE)?;
    // SAFETY: a fresh mapping of one page.
    unsafe { core::ptr::write_volatile(source.start as *mut u8, 1) };
    let there = kernel.move_to_holes(region.start, source.start, PAGE_SIZE)?;
    let back = kernel.move_to_bin(bin.start, region.start, PAGE_SIZE)?;
    let works = there.stopped.is_none() && back.stopped.is_none();
    kernel.discard(&bin, bin.start, bin.len)?;
    Ok(works.then_some(bin))
}
