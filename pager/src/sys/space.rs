//! Address space that is set aside for the engine when the program starts.
//!
//! A program may map memory where it had some before, and rely on nobody else having
//! mapped anything there since. To the kernel such a place is as good as any other; so
//! whatever the engine maps while the program runs, it maps in here.

use super::thread;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// Address space that is set aside, and handed out from its beginning on.
#[derive(Debug)]
pub struct Space {
    start: AtomicUsize,
    /// The first address that was not handed out.
    next: AtomicUsize,
    end: AtomicUsize,
    /// What was given back last: its address, and in the bits below the number of its
    /// pages.
    spare: AtomicUsize,
}

/// That of the engine.
pub static SPACE: Space = Space::new();

/// The limit when it was looked at last.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// How much address space the process may have, where that is limited
/// (`RLIMIT_AS`). Under a filter of system calls, what it was before.
pub fn limit() -> Option<u64> {
    if !thread::is_confined() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
        LIMIT.store(limit.unwrap_or(u64::MAX), Relaxed);
    }
    Some(LIMIT.load(Relaxed)).filter(|limit| *limit != u64::MAX)
}

impl Space {
    /// Nothing is set aside yet.
    pub(crate) const fn new() -> Space {
        Space {
            start: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            spare: AtomicUsize::new(0),
        }
    }

    /// Sets up to `len` bytes aside, as many as can be had; less than a sixteenth of it is
    /// not worth it. Called by one thread at a time.
    pub fn set_aside(&self, len: usize) {
        let mut wanted = len.next_multiple_of(PAGE_SIZE);
        while wanted >= (len / 16).max(PAGE_SIZE) {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new mapping at an address of the kernel's choice.
            let mapped = unsafe {
                rustix::mm::mmap_anonymous(ptr::null_mut(), wanted, ProtFlags::empty(), flags)
            };
            if let Ok(at) = mapped {
                leave_out_of_cores(at as usize, wanted);
                self.start.store(at as usize, Relaxed);
                self.next.store(at as usize, Relaxed);
                self.end.store(at as usize + wanted, Release);
                return;
            }
            wanted = (wanted / 2).next_multiple_of(PAGE_SIZE);
        }
    }

    /// What was set aside last.
    pub fn range(&self) -> Range<usize> {
        let end = self.end.load(Acquire);
        self.start.load(Relaxed)..end
    }

    /// How much of it was not handed out.
    pub fn left(&self) -> usize {
        self.end.load(Acquire) - self.next.load(Acquire)
    }

    /// Hands out `len` bytes, a number of pages; none where they are used up.
    pub(super) fn take(&self, len: usize) -> Option<usize> {
        let spare = self.spare.load(Acquire);
        let fits = spare != 0 && spare % PAGE_SIZE == len / PAGE_SIZE;
        if fits
            && self
                .spare
                .compare_exchange(spare, 0, AcqRel, Relaxed)
                .is_ok()
        {
            return Some(spare - spare % PAGE_SIZE);
        }
        let end = self.end.load(Acquire);
        let after = |at: usize| at.checked_add(len).filter(|after| *after <= end);
        self.next.fetch_update(AcqRel, Acquire, after).ok()
    }

    /// Takes back what was handed out; whether it was. Nobody uses it any more.
    pub(super) fn give_back(&self, start: usize, len: usize) -> bool {
        if !self.range().contains(&start) {
            return false;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: what is there is not used any more, by the caller.
        let mapped =
            unsafe { rustix::mm::mmap_anonymous(start as *mut _, len, ProtFlags::empty(), flags) };
        if mapped.is_ok() {
            leave_out_of_cores(start, len);
        }
        if mapped.is_ok() && len / PAGE_SIZE < PAGE_SIZE {
            self.spare.store(start | (len / PAGE_SIZE), Release);
        }
        true
    }
}

/// Has what is mapped there left out of core files, also of those that a debugger makes,
/// which would be as large as what is reserved.
pub(super) fn leave_out_of_cores(start: usize, len: usize) {
    // Where the kernel refuses, it is in them.
    // SAFETY: no contents change.
    let _ = unsafe { rustix::mm::madvise(start as *mut _, len, Advice::LinuxDontDump) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_aside_is_handed_out_in_order_and_used_again() {
        let space = Space::new();
        assert_eq!(space.take(PAGE_SIZE), None);
        space.set_aside(1 << 20);
        let range = space.range();
        assert_eq!((range.len(), space.left()), (1 << 20, 1 << 20));
        assert_eq!(space.take(3 * PAGE_SIZE), Some(range.start));
        let second = range.start + 3 * PAGE_SIZE;
        assert_eq!(space.take(PAGE_SIZE), Some(second));
        assert!(space.give_back(range.start, 3 * PAGE_SIZE));
        // What was given back goes to who wants as much.
        assert_eq!(space.take(2 * PAGE_SIZE), Some(second + PAGE_SIZE));
        assert_eq!(space.take(3 * PAGE_SIZE), Some(range.start));
        // What there is no space for is not handed out, nor is anything else taken back.
        assert_eq!(space.take(1 << 20), None);
        assert!(!space.give_back(range.end, PAGE_SIZE));
    }
}
