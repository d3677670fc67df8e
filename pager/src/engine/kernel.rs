//! What the engine needs from the kernel.
//!
//! The engine reaches the program's memory through [`Kernel`] alone. So it runs on
//! [`linux::Linux`] and, in tests, on a model that needs no userfaultfd, no `/proc` and no second
//! thread. A call through the trait costs about a nanosecond, the system call behind it
//! about a microsecond.
//!
//! The engine's own memory (frames, tables) is mapped by `sys::mem` in both cases. The
//! clock is `sys::now_ns`, which a test sets for its thread.

pub(crate) mod linux;

use crate::maps::Flags;
use crate::sys::mem::Region;
use crate::sys::proc::{PresentRun, Resident, Shares};
use crate::sys::uffd::{OpenError, RawMsg, Transfer, Uffd};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;
use rustix::io::Errno;

/// What the kernel reports about the process. Errors are the kernel's.
pub(crate) trait Process: Debug {
    /// Returns the resident memory by kinds, in pages.
    fn resident(&mut self) -> Result<Resident, Errno>;
    /// Returns the size of all mappings, in pages.
    fn size_pages(&self) -> Result<u64, Errno>;
    /// Returns the memory that other processes may have as well, in pages.
    fn shares(&self) -> Result<Shares, Errno>;
    /// Returns how many requests of `io_submit` are allocated in the whole system.
    fn asynchronous_requests(&self) -> Option<u64>;
    /// Reads the list of mappings, as in `/proc/self/maps`.
    fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno>;
    /// Returns all mappings, with the flags that concern forked children.
    fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno>;
    /// Reads the list of mappings with their sizes, as in `/proc/self/smaps`.
    fn smaps(&self) -> Result<Vec<u8>, Errno>;
    /// Appends the runs of present pages between two addresses to `out`, in order.
    fn present(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno>;
    /// Appends the runs of pages that are present or in the kernel's swap to `out`, in
    /// order.
    fn occupied(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno>;
    /// Returns the CPU that a thread of the process runs on, or last ran on.
    fn cpu_of(&mut self, tid: u32) -> Option<u32>;
    /// Copies memory of the program without a fault of the calling thread.
    ///
    /// # Safety
    /// `dst` points to `len` writable bytes of the engine's own.
    unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno>;
    /// Reads words of the program's memory up to the first absent page. Returns how many.
    fn words(&self, src: usize, words: &mut [u64]) -> usize;
}

/// The kernel's services for the engine: operations of the program's userfaultfd, and
/// advice on memory. Errors are the kernel's. `AGAIN` means that an event has to be read
/// first.
pub(crate) trait Kernel: Process {
    /// Returns the features that the userfaultfd was granted.
    fn features(&self) -> u64;
    /// Returns a file descriptor that is readable while there are messages.
    fn raw(&self) -> i32;
    /// Reads as many messages as there are and fit. Fails with `AGAIN` when there is none.
    /// Faults may overtake events.
    fn read(&self, msgs: &mut [RawMsg]) -> Result<usize, Errno>;
    /// Registers a range: faults in it are reported from now on.
    fn register(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno>;
    /// Unregisters a range. Threads that wait in it retry their access.
    fn unregister(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Tells whether a range lies in one registered mapping. `nowhere` is an address that
    /// cannot be read.
    fn holds(&self, start: usize, len: usize, nowhere: usize) -> Result<bool, Errno>;
    /// Wakes the threads that wait in a range. They retry their access.
    fn wake(&self, start: usize, len: usize);
    /// Moves pages to absent ones. Fails only when it is unknown which pages have moved.
    fn move_to_holes(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno>;
    /// Moves pages that are all present, and wakes the threads that wait for them. Fails
    /// only when it is unknown which pages have moved.
    fn move_present(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno>;
    /// Copies pages to absent ones.
    fn copy_pages(&self, dst: usize, src: usize, len: usize, wake: bool) -> Transfer;
    /// Maps the kernel's page of zeros at absent pages.
    fn zero_pages(&self, start: usize, len: usize, wake: bool) -> Transfer;
    /// Write-protects the present pages of a range.
    fn protect(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Removes the write protection of a range, and wakes the threads that wait in it.
    fn unprotect(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Poisons an absent page: touching it raises SIGBUS.
    fn poison(&self, start: usize, len: usize) -> Result<(), Errno>;

    /// Opens a second userfaultfd, without events, for [`Kernel::register_bin`] and
    /// [`Kernel::move_to_bin`]. Returns whether that worked.
    fn open_bin(&mut self) -> bool;
    /// Registers a region with the second userfaultfd.
    fn register_bin(&self, start: usize, len: usize) -> Result<(), Errno>;
    /// Moves the engine's own pages to a region of the second userfaultfd. Absent pages
    /// count as moved.
    fn move_to_bin(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno>;
    /// Opens a userfaultfd that reports forks.
    fn open_for_forks(&self) -> Result<Uffd, OpenError>;

    /// Gives the engine's own pages back to the kernel.
    fn discard(&self, region: &Region, start: usize, len: usize) -> Result<(), Errno>;
    /// Says whether forked processes get a copy of a range.
    fn copied_by_forks(&self, start: usize, len: usize, copied: bool) -> Result<(), Errno>;
    /// Lets a thread run that is changing the address space.
    fn pause(&self);
    /// Gives the calling thread a priority with which it still yields to the program.
    fn hurry(&self);
    /// Starts another thread of the engine on the given stack.
    ///
    /// # Safety
    /// As [`crate::sys::thread::spawn`].
    unsafe fn spawn(
        &self,
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<i32, Errno>;
    /// Creates a task beside the engine that zaps pages, or unshares them from other
    /// processes.
    fn zap_task(&self) -> Result<Box<dyn Task>, Errno>;
    /// Returns the program's wait status once only threads of the engine are left.
    fn left_with(&self) -> Option<i32>;
}

/// A kind of work of a [`Task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Zap the pages.
    Zap,
    /// Unshare the pages, as writing to them would.
    Unshare,
    /// Take over the program's credentials: see `calls::credentials`.
    Follow,
}

/// A task beside the engine that does one piece of work at a time.
pub(crate) trait Task: Debug {
    /// Starts a piece of work. If the kernel refuses it, the pages show that.
    ///
    /// # Errors
    /// Those of the kernel, if no task can be started.
    fn ask(&mut self, work: Work, range: &Range<usize>) -> Result<(), Errno>;
    /// Tells whether the work is done.
    fn is_done(&self) -> bool;
    /// Acknowledges that the work is done.
    fn rest(&mut self);
    /// Waits until the work is done, and returns false, or until its event has to be read,
    /// and returns true.
    fn is_to_be_read(&mut self) -> bool;
    /// Forgets a task that has ended. Its work counts as done.
    fn look_after(&mut self);
    /// Moves the task to the engine's CPU.
    fn stay_with(&mut self, cpu: Option<u32>);
    /// Has the task take over the program's credentials, or end. Called while it has no
    /// work.
    fn follow(&mut self);
    /// Ends a task that has no work.
    fn end(&mut self);
    /// Returns the task's stack.
    fn stack(&self) -> Option<Region>;
}
