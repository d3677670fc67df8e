//! Address space that is set aside for the engine when the program starts.
//!
//! A program may map memory where it had some before, and rely on nobody else having
//! mapped anything there since. To the kernel such a place is as good as any other; so
//! whatever the engine maps while the program runs, it maps in here.

use core::ops::Range;
use core::ptr;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// What was set aside, and the first address that was not handed out.
static START: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
/// What was given back last: its address, and in the bits below the number of its
/// pages.
static SPARE: AtomicUsize = AtomicUsize::new(0);

/// Sets up to `len` bytes aside, as many as can be had; less than a sixteenth of it is
/// not worth it. Called by one thread at a time.
pub fn set_aside(len: usize) {
    let mut wanted = len.next_multiple_of(PAGE_SIZE);
    while wanted >= (len / 16).max(PAGE_SIZE) {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), wanted, ProtFlags::empty(), flags)
        };
        if let Ok(at) = mapped {
            leave_out_of_cores(at as usize, wanted);
            START.store(at as usize, Relaxed);
            NEXT.store(at as usize, Relaxed);
            END.store(at as usize + wanted, Release);
            return;
        }
        wanted = (wanted / 2).next_multiple_of(PAGE_SIZE);
    }
}

/// How much address space the process may have, where that is limited
/// (`RLIMIT_AS`).
pub fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::As).current
}

/// What was set aside last.
pub fn range() -> Range<usize> {
    let end = END.load(Acquire);
    START.load(Relaxed)..end
}

/// How much of it was not handed out.
pub fn left() -> usize {
    END.load(Acquire) - NEXT.load(Acquire)
}

/// Hands out `len` bytes, a number of pages; none where they are used up.
pub(super) fn take(len: usize) -> Option<usize> {
    let spare = SPARE.load(Acquire);
    let fits = spare != 0 && spare % PAGE_SIZE == len / PAGE_SIZE;
    if fits && SPARE.compare_exchange(spare, 0, AcqRel, Relaxed).is_ok() {
        return Some(spare - spare % PAGE_SIZE);
    }
    let end = END.load(Acquire);
    let after = |at: usize| at.checked_add(len).filter(|after| *after <= end);
    NEXT.fetch_update(AcqRel, Acquire, after).ok()
}

/// Takes back what was handed out; whether it was. Nobody uses it any more.
pub(super) fn give_back(start: usize, len: usize) -> bool {
    let range = range();
    if !range.contains(&start) {
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
        SPARE.store(start | (len / PAGE_SIZE), Release);
    }
    true
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
    use super::super::mem::Region;
    use super::*;

    #[test]
    fn what_the_engine_maps_lies_where_space_was_set_aside_and_is_used_again() {
        set_aside(1 << 20);
        let range = range();
        assert_eq!(range.len(), 1 << 20);
        let within = |r: &Region| range.contains(&r.start) && r.end() <= range.end;
        let first = Region::shared(3 * PAGE_SIZE).unwrap();
        let second = Region::new(PAGE_SIZE).unwrap();
        assert!(within(&first) && within(&second) && first.end() <= second.start);
        first.unmap();
        let other = Region::new(2 * PAGE_SIZE).unwrap();
        let again = Region::shared(3 * PAGE_SIZE).unwrap();
        assert!(within(&other) && other.start >= second.end());
        assert_eq!(again.start, first.start);
        // What there is no space for is somewhere.
        let large = Region::new(1 << 20).unwrap();
        assert!(!within(&large));
        large.unmap();
    }
}
