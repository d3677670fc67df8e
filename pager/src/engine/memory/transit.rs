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

use crate::engine::Engine;
use crate::engine::calls::mem_file::wait_for_accesses;
use crate::engine::fault::sure;
use crate::sys::mem::{self, Region};
use crate::sys::uffd::{REGISTER_WP, Transfer};
use core::ops::Range;
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

impl Engine {
    /// Whether memory is executable, as far as is known.
    pub(crate) fn is_executable(&self, at: usize) -> bool {
        !self.executable.is_empty() && self.executable.around(at).is_some()
    }

    /// The regions of the transit.
    pub(crate) fn transit_regions(&self) -> [Option<Region>; 2] {
        let transit = self.transit.as_ref();
        [transit.map(|t| t.region), transit.map(|t| t.bin)]
    }

    /// Moves pages of executable memory out of the program and copies them to frames
    /// that are holes.
    pub(crate) fn move_by_transit(&mut self, to: usize, from: usize, len: usize) -> Transfer {
        let stopped = |error| Transfer {
            done: 0,
            stopped: Some(error),
        };
        let len = len.min(MOST * PAGE_SIZE);
        if let Err(error) = self.ready_transit() {
            return stopped(error);
        }
        let Some(start) = self.transit.as_ref().map(|t| t.region.start) else {
            return stopped(Errno::NOMEM);
        };
        let moved = sure(self.kernel.move_to_holes(start, from, len));
        wait_for_accesses(&(from..from + moved.done));
        // SAFETY: pages of the engine's own that are there, and frames that were just
        // taken and are nobody else's.
        unsafe { mem::copy_pages(to, start, moved.done) };
        if let Some(transit) = &mut self.transit {
            transit.left = moved.done / PAGE_SIZE;
        }
        self.empty_transit();
        moved
    }

    /// Sees to it that there is an empty transit.
    fn ready_transit(&mut self) -> Result<(), Errno> {
        if self.transit.is_none() {
            if self.bin.is_none() {
                return Err(Errno::NOMEM);
            }
            let region = Region::executable(MOST * PAGE_SIZE).map_err(|_| Errno::NOMEM)?;
            let bin = Region::executable(MOST * PAGE_SIZE).map_err(|_| Errno::NOMEM)?;
            let registered = self
                .kernel
                .register(region.start, region.len, REGISTER_WP)
                .and_then(|()| self.kernel.register_bin(bin.start, bin.len));
            if registered.is_err() {
                return Err(Errno::NOMEM);
            }
            self.transit = Some(Transit {
                region,
                bin,
                left: 0,
            });
        }
        self.empty_transit();
        match self.transit.as_ref().is_some_and(|t| t.left == 0) {
            true => Ok(()),
            false => Err(Errno::NOMEM),
        }
    }

    /// Gives the memory of what went through the transit back to the kernel.
    fn empty_transit(&mut self) {
        let Some(transit) = &mut self.transit else {
            return;
        };
        if transit.left == 0 {
            return;
        }
        let len = transit.left * PAGE_SIZE;
        let (from, to) = (transit.region.start, transit.bin.start);
        let t = sure(self.kernel.move_to_bin(to, from, len));
        // Where it is refused, the bin is not empty; it is tried again before the next.
        let emptied = self
            .kernel
            .discard(&transit.bin, to, transit.bin.len)
            .is_ok();
        if t.done == len && emptied {
            transit.left = 0;
        }
    }

    /// Takes note that a range is executable, or is not.
    pub(crate) fn note_executable(&mut self, range: Range<usize>, is: bool) {
        match is {
            true => self.executable.insert(range),
            false => self.executable.remove(range),
        }
    }
}
