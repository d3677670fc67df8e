//! What the engine asks of the kernel.
//!
//! The engine reaches the program's memory through [`Kernel`] alone, so that it runs on
//! [`Linux`] and, in tests, on a model that needs no userfaultfd, no `/proc` and no second
//! thread. A call through the trait costs about a nanosecond, the system call behind it
//! about a microsecond.
//!
//! The engine's own memory (frames, tables) is mapped by `sys::mem` in both cases. The time
//! is `sys::now_ns`, whose clock a test sets for its thread.

mod linux;

pub(crate) use linux::Linux;

use super::reclaim::zap_worker::Task;
use crate::maps::Flags;
use crate::sys::mem::Region;
use crate::sys::proc::{PresentRun, Proc, Resident, Shares};
use crate::sys::uffd::{OpenError, RawMsg, Transfer, Uffd};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;
use rustix::io::Errno;

/// What the kernel tells of the process. Errors are the kernel's.
pub(crate) trait Process: Debug {
    /// Resident memory by its kinds, in pages.
    fn resident(&mut self) -> Result<Resident, Errno>;
    /// Pages of address space that are mapped.
    fn size_pages(&self) -> Result<u64, Errno>;
    /// Memory that other processes may have as well, in pages.
    fn shares(&self) -> Result<Shares, Errno>;
    /// How many requests of `io_submit` the whole system has room for.
    fn asynchronous_requests(&self) -> Option<u64>;
    /// The list of mappings, as `/proc/self/maps` has it.
    fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno>;
    /// All mappings, and what of them forked children are to have.
    fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno>;
    /// The list of mappings with their sizes, as `/proc/self/smaps` has it.
    fn smaps(&self) -> Result<Vec<u8>, Errno>;
    /// The present pages between two addresses, appended to `out` in order.
    fn present(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno>;
    /// The pages that are present or in the kernel's swap, likewise.
    fn occupied(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno>;
    /// The CPU that a thread of the process runs on, or ran on last.
    fn cpu_of(&mut self, tid: u32) -> Option<u32>;
    /// Copies memory of the program without a fault of the calling thread.
    ///
    /// # Safety
    /// `dst` points to `len` writable bytes of the engine's own.
    unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno>;
    /// Reads words of the program's memory up to the first absent page; how many.
    fn words(&self, src: usize, words: &mut [u64]) -> usize;
}

/// What the kernel does for the engine: the operations of the program's userfaultfd, and
/// advice on memory. Errors are the kernel's; `AGAIN` means that an event has to be read
/// first.
pub(crate) trait Kernel: Process {
    /// The features that the userfaultfd was granted.
    fn features(&self) -> u64;
    /// A descriptor that is readable while there are messages.
    fn raw(&self) -> i32;
    /// Reads as many messages as there are and fit; `AGAIN` when there is none. Faults may
    /// overtake events.
    fn read(&self, msgs: &mut [RawMsg]) -> Result<usize, Errno>;
    /// Reports faults in a range from now on.
    fn register(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno>;
    /// Ends that; threads that wait in the range look again.
    fn unregister(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Whether a range is one registered mapping, or lies in one. `nowhere` is an address
    /// where nothing can be read.
    fn holds(&self, start: usize, len: usize, nowhere: usize) -> Result<bool, Errno>;
    /// Wakes the threads that wait in a range; they look again.
    fn wake(&self, start: usize, len: usize);
    /// Moves pages to where there are none. An error only when it cannot be told which
    /// pages have moved.
    fn move_to_holes(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno>;
    /// Moves pages that are all there, and wakes the threads that wait for them. An error
    /// as above.
    fn move_present(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno>;
    /// Copies pages to absent ones.
    fn copy_pages(&self, dst: usize, src: usize, len: usize, wake: bool) -> Transfer;
    /// Maps the shared page of zeros at absent pages.
    fn zero_pages(&self, start: usize, len: usize, wake: bool) -> Transfer;
    /// Write-protects the present pages of a range.
    fn protect(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Undoes that, and wakes the threads that wait in the range.
    fn unprotect(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Makes an absent page raise SIGBUS when it is touched.
    fn poison(&self, start: usize, len: usize) -> Result<(), Errno>;

    /// Opens another userfaultfd, without events, for [`Kernel::register_bin`] and
    /// [`Kernel::move_to_bin`]; whether there is one.
    fn open_bin(&mut self) -> bool;
    /// Gives a region to the other userfaultfd.
    fn register_bin(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Moves pages of the engine's own to a region of the other userfaultfd; absent ones
    /// count as moved.
    fn move_to_bin(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno>;
    /// Opens a userfaultfd that reports forks.
    fn open_for_forks(&self) -> Result<Uffd, OpenError>;

    /// Gives pages of the engine's own back to the kernel.
    fn discard(&self, region: &Region, start: usize, len: usize) -> Result<(), Errno>;
    /// Says whether forked processes get a copy of memory of the program.
    fn copied_by_forks(&self, start: usize, len: usize, copied: bool) -> Result<(), Errno>;
    /// Lets a thread of the program run that changes the address space.
    fn pause(&self);
    /// Gives the calling thread a weight with which it still gives way to the program.
    fn hurry(&self);
    /// Starts another thread of the engine on a stack of its own.
    ///
    /// # Safety
    /// As [`crate::sys::thread::spawn`].
    unsafe fn spawn(
        &self,
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<i32, Errno>;
    /// Makes a task that zaps, or makes memory the program's own, beside the engine.
    fn zap_task(&self) -> Result<Box<dyn Task>, Errno>;
    /// The wait status of the program where only threads of the engine are left.
    fn left_with(&self) -> Option<i32>;
}

impl Process for Proc {
    fn resident(&mut self) -> Result<Resident, Errno> {
        Proc::resident(self)
    }

    fn size_pages(&self) -> Result<u64, Errno> {
        Proc::size_pages(self)
    }

    fn shares(&self) -> Result<Shares, Errno> {
        Proc::shares(self)
    }

    fn asynchronous_requests(&self) -> Option<u64> {
        Proc::asynchronous_requests(self)
    }

    fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno> {
        Proc::maps(self, out)
    }

    fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno> {
        Proc::flags(self)
    }

    fn smaps(&self) -> Result<Vec<u8>, Errno> {
        Proc::smaps(self)
    }

    fn present(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno> {
        Proc::present(self, start, end, out)
    }

    fn occupied(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno> {
        Proc::occupied(self, start, end, out)
    }

    fn cpu_of(&mut self, tid: u32) -> Option<u32> {
        Proc::cpu_of(self, tid)
    }

    unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: by the caller.
        unsafe { Proc::copy_out(self, src, dst, len) }
    }

    fn words(&self, src: usize, words: &mut [u64]) -> usize {
        Proc::words(self, src, words)
    }
}
