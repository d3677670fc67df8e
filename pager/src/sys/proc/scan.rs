//! Finds the pages that are present (`PAGEMAP_SCAN`, or `/proc/self/pagemap`).

use super::Proc;
use alloc::vec::Vec;
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode};
use tmem_wire::PAGE_SIZE;

/// A run of present pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresentRun {
    /// First address.
    pub start: usize,
    /// The end.
    pub end: usize,
}

#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ScanRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const IOC_SCAN: Opcode = ioctl::opcode::read_write::<ScanArg>(b'f', 16);
pub(super) const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const PAGEMAP_PRESENT: u64 = 1 << 63;
const PAGEMAP_SWAPPED: u64 = 1 << 62;

impl Proc {
    /// Appends the runs of present pages between `start` and `end` to `out`, in order.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn present(
        &self,
        start: usize,
        end: usize,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        self.find(start, end, (IS_PRESENT, PAGEMAP_PRESENT), out)
    }

    /// Appends the runs of pages that are in memory or in the kernel's swap to `out`, in
    /// order.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn occupied(
        &self,
        start: usize,
        end: usize,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        let kinds = (IS_PRESENT | IS_SWAPPED, PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
        self.find(start, end, kinds, out)
    }

    /// Finds pages of any of `kinds`, which are the flags of PAGEMAP_SCAN and of page map
    /// entries.
    fn find(
        &self,
        start: usize,
        end: usize,
        kinds: (u64, u64),
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        if self.has_scan {
            self.scan(start, end, kinds.0, out)
        } else {
            self.read_pagemap(start, end, kinds.1, out)
        }
    }

    /// Uses PAGEMAP_SCAN (Linux 6.7), which skips memory without page tables.
    pub(super) fn scan(
        &self,
        start: usize,
        end: usize,
        any_of: u64,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        let mut found = [ScanRegion::default(); 64];
        let mut at = start;
        while at < end {
            let mut arg = ScanArg {
                size: size_of::<ScanArg>() as u64,
                flags: 0,
                start: at as u64,
                end: end as u64,
                walk_end: 0,
                vec: found.as_mut_ptr() as u64,
                vec_len: found.len() as u64,
                max_pages: 0,
                inverted: 0,
                mask: 0,
                anyof_mask: any_of,
                // The kernel merges regions that have the same flags here.
                return_mask: IS_PRESENT,
            };
            // SAFETY: `struct pm_scan_arg`, whose vector the kernel fills with up to
            // `vec_len` regions. It returns how many.
            let n = unsafe { ioctl::ioctl(&self.pagemap, ScanCall(&mut arg)) }?;
            for r in &found[..(n as usize).min(found.len())] {
                push(out, r.start as usize, r.end as usize);
            }
            let next = arg.walk_end as usize;
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(())
    }

    fn read_pagemap(
        &self,
        start: usize,
        end: usize,
        any_of: u64,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        let mut buf = [0u8; 8 * 512];
        let mut at = start;
        while at < end {
            let want = ((end - at) / PAGE_SIZE).min(512) * 8;
            let n =
                rustix::io::pread(&self.pagemap, &mut buf[..want], (at / PAGE_SIZE * 8) as u64)?
                    / 8;
            if n == 0 {
                break;
            }
            for (i, entry) in buf[..n * 8].as_chunks::<8>().0.iter().enumerate() {
                if u64::from_le_bytes(*entry) & any_of != 0 {
                    let page = at + i * PAGE_SIZE;
                    push(out, page, page + PAGE_SIZE);
                }
            }
            at += n * PAGE_SIZE;
        }
        Ok(())
    }
}

fn push(out: &mut Vec<PresentRun>, start: usize, end: usize) {
    match out.last_mut() {
        Some(last) if last.end == start => last.end = end,
        _ => out.push(PresentRun { start, end }),
    }
}

/// PAGEMAP_SCAN, which returns a number.
struct ScanCall<'a>(&'a mut ScanArg);

// SAFETY: the argument is `struct pm_scan_arg`, which is read and written.
unsafe impl ioctl::Ioctl for ScanCall<'_> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        IOC_SCAN
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        core::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(
        out: ioctl::IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(out)
    }
}
