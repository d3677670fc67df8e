//! Address space that is reserved for the engine when the program starts.
//!
//! A program may map memory where it had some before, and rely on nobody else having mapped
//! anything there meanwhile. The kernel may choose such a place for any new mapping. So
//! whatever the engine maps while the program runs goes into the reserved space.

use super::confined;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// Reserved address space, which is handed out from its beginning.
#[derive(Debug)]
pub struct Space {
    start: AtomicUsize,
    /// The first address that was not handed out.
    next: AtomicUsize,
    end: AtomicUsize,
    /// The piece that was given back last: its address, and in the low bits the number of
    /// its pages.
    spare: AtomicUsize,
}

/// The engine's space.
pub static SPACE: Space = Space::new();

/// The limit when it was last read.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Returns the limit of the process's address space, if there is one. Under a seccomp
/// filter, returns the value from before.
pub fn limit() -> Option<u64> {
    if !confined::is_confined() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
        LIMIT.store(limit.unwrap_or(u64::MAX), Relaxed);
    }
    Some(LIMIT.load(Relaxed)).filter(|limit| *limit != u64::MAX)
}

impl Space {
    /// Starts with nothing reserved.
    pub(crate) const fn new() -> Space {
        Space {
            start: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            spare: AtomicUsize::new(0),
        }
    }

    /// Reserves up to `len` bytes, as many as possible, but not less than a sixteenth.
    /// Called by one thread at a time.
    pub fn set_aside(&self, len: usize) {
        let mut wanted = len.next_multiple_of(PAGE_SIZE);
        while wanted >= (len / 16).max(PAGE_SIZE) {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new mapping at an address that the kernel chooses.
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

    /// Returns the range that was reserved last.
    pub fn range(&self) -> Range<usize> {
        let end = self.end.load(Acquire);
        self.start.load(Relaxed)..end
    }

    /// Returns how many bytes were not handed out.
    pub fn left(&self) -> usize {
        self.end.load(Acquire) - self.next.load(Acquire)
    }

    /// Hands out `len` bytes, which are whole pages. Returns `None` if they are not left.
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

    /// Takes a piece back that nobody uses any more. Returns false if it was not handed out
    /// here.
    pub(super) fn give_back(&self, start: usize, len: usize) -> bool {
        if !self.range().contains(&start) {
            return false;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the caller promises that nothing there is in use.
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

/// Leaves a mapping out of core files, also of those that a debugger writes. They would be
/// as large as the reserved space.
pub(super) fn leave_out_of_cores(start: usize, len: usize) {
    // If the kernel refuses, core files contain it. SAFETY: no contents change.
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
        // A piece that was given back is handed out for the same size.
        assert_eq!(space.take(2 * PAGE_SIZE), Some(second + PAGE_SIZE));
        assert_eq!(space.take(3 * PAGE_SIZE), Some(range.start));
        // Requests that do not fit fail, and so does giving back anything else.
        assert_eq!(space.take(1 << 20), None);
        assert!(!space.give_back(range.end, PAGE_SIZE));
    }
}
