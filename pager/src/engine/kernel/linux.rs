//! The Linux kernel, through the thin modules of `sys`.

use super::{Kernel, Process, Task};
use crate::engine::reclaim::zap_worker::ZapTask;
use crate::maps::Flags;
use crate::sys::mem::{self, Region};
use crate::sys::proc::{self, PresentRun, Proc, Resident, Shares};
use crate::sys::uffd::{OpenError, REGISTER_MISSING, RawMsg, Transfer, Uffd, feature};
use crate::sys::{program, thread};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use rustix::io::Errno;

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
        // SAFETY: the caller's promise is the same.
        unsafe { Proc::copy_out(self, src, dst, len) }
    }

    fn words(&self, src: usize, words: &mut [u64]) -> usize {
        Proc::words(self, src, words)
    }
}

/// The program's userfaultfd, and the open files of `/proc`.
#[derive(Debug)]
pub(crate) struct Linux {
    uffd: Uffd,
    /// A userfaultfd without events. Memory that is given back through the first one would
    /// be reported to the engine, which would wait for itself.
    bin: Option<Uffd>,
    proc: Proc,
}

impl Linux {
    /// Uses a userfaultfd and open files of `/proc`.
    pub(crate) fn new(uffd: Uffd, proc: Proc) -> Linux {
        Linux {
            uffd,
            bin: None,
            proc,
        }
    }
}

impl Kernel for Linux {
    fn features(&self) -> u64 {
        self.uffd.features
    }

    fn raw(&self) -> i32 {
        self.uffd.raw()
    }

    fn read(&self, msgs: &mut [RawMsg]) -> Result<usize, Errno> {
        self.uffd.read(msgs)
    }

    fn register(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno> {
        self.uffd.register(start, len, mode)
    }

    fn unregister(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.uffd.unregister(start, len)
    }

    fn holds(&self, start: usize, len: usize, nowhere: usize) -> Result<bool, Errno> {
        self.uffd.holds(start, len, nowhere)
    }

    fn wake(&self, start: usize, len: usize) {
        self.uffd.wake(start, len);
    }

    fn move_to_holes(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno> {
        self.uffd.move_to_holes(&self.proc, dst, src, len)
    }

    fn move_present(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno> {
        self.uffd
            .move_present(&self.proc, dst, src, len, false, true)
    }

    fn copy_pages(&self, dst: usize, src: usize, len: usize, wake: bool) -> Transfer {
        self.uffd.copy_pages(dst, src, len, wake)
    }

    fn zero_pages(&self, start: usize, len: usize, wake: bool) -> Transfer {
        self.uffd.zero_pages(start, len, wake)
    }

    fn protect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.uffd.protect(start, len)
    }

    fn unprotect(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.uffd.unprotect(start, len)
    }

    fn poison(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.uffd.poison(start, len)
    }

    fn open_bin(&mut self) -> bool {
        self.bin = Uffd::open(feature::MOVE).ok();
        self.bin.is_some()
    }

    fn register_bin(&self, start: usize, len: usize) -> Result<(), Errno> {
        let bin = self.bin.as_ref().ok_or(Errno::NOMEM)?;
        bin.register(start, len, REGISTER_MISSING)
    }

    fn move_to_bin(&self, dst: usize, src: usize, len: usize) -> Result<Transfer, Errno> {
        let bin = self.bin.as_ref().ok_or(Errno::NOMEM)?;
        bin.move_present(&self.proc, dst, src, len, true, false)
    }

    fn open_for_forks(&self) -> Result<Uffd, OpenError> {
        Uffd::open(feature::EVENT_FORK)
    }

    fn discard(&self, region: &Region, start: usize, len: usize) -> Result<(), Errno> {
        region.discard(start, len)
    }

    fn copied_by_forks(&self, start: usize, len: usize, copied: bool) -> Result<(), Errno> {
        mem::copied_by_forks(start, len, copied)
    }

    fn pause(&self) {
        thread::await_other();
    }

    fn hurry(&self) {
        thread::hurry();
    }

    unsafe fn spawn(
        &self,
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<i32, Errno> {
        // SAFETY: the caller's promise is the same.
        unsafe { thread::spawn(stack, entry, arg) }
    }

    fn zap_task(&self) -> Result<Box<dyn Task>, Errno> {
        Ok(Box::new(ZapTask::new()?))
    }

    fn left_with(&self) -> Option<i32> {
        // A process without the engine ends with its last thread.
        (!program::is_apart()).then(|| proc::left_with(thread::own()))?
    }
}

impl Process for Linux {
    fn resident(&mut self) -> Result<Resident, Errno> {
        self.proc.resident()
    }

    fn size_pages(&self) -> Result<u64, Errno> {
        self.proc.size_pages()
    }

    fn shares(&self) -> Result<Shares, Errno> {
        self.proc.shares()
    }

    fn asynchronous_requests(&self) -> Option<u64> {
        self.proc.asynchronous_requests()
    }

    fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno> {
        self.proc.maps(out)
    }

    fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno> {
        self.proc.flags()
    }

    fn smaps(&self) -> Result<Vec<u8>, Errno> {
        self.proc.smaps()
    }

    fn present(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno> {
        self.proc.present(start, end, out)
    }

    fn occupied(&self, start: usize, end: usize, out: &mut Vec<PresentRun>) -> Result<(), Errno> {
        self.proc.occupied(start, end, out)
    }

    fn cpu_of(&mut self, tid: u32) -> Option<u32> {
        self.proc.cpu_of(tid)
    }

    unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.proc.copy_out(src, dst, len) }
    }

    fn words(&self, src: usize, words: &mut [u64]) -> usize {
        self.proc.words(src, words)
    }
}
