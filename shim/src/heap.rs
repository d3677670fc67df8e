//! The allocator of this library: one reserved range, apart from the program's
//! heap, which the engine may have evicted.

use dlmalloc::{Allocator, Dlmalloc};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tmem_pager::sys::mem::Region;

/// Bytes that are reserved, if the system lets; memory is taken only as it is
/// used.
const RESERVE: usize = 1 << 36;
/// The least that is tried.
const LEAST: usize = 1 << 26;
/// Bytes of it that a forked child leaves out: what its parent may have been
/// taking at that moment.
const MARGIN: usize = 1 << 24;
/// Bytes taken from the reserve at a time.
const STEP: usize = 1 << 16;

static START: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// The range that is reserved; empty before the first allocation.
pub(crate) fn range() -> Range<usize> {
    START.load(Ordering::Acquire)..END.load(Ordering::Acquire)
}

/// The reserve, as dlmalloc's source of memory.
struct Reserve;

// SAFETY: hands out each part of the reserve once, and takes nothing back.
unsafe impl Allocator for Reserve {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        const NONE: (*mut u8, usize, u32) = (std::ptr::null_mut(), 0, 0);
        if END.load(Ordering::Relaxed) == 0 && !reserve() {
            return NONE;
        }
        let Some(size) = size.checked_next_multiple_of(STEP) else {
            return NONE;
        };
        // The heap's lock is held.
        let at = NEXT.load(Ordering::Relaxed);
        if size > END.load(Ordering::Relaxed) - at {
            return NONE;
        }
        NEXT.store(at + size, Ordering::Relaxed);
        (at as *mut u8, size, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

fn reserve() -> bool {
    let mut len = RESERVE;
    while len >= LEAST {
        if let Ok(region) = Region::inherited(len) {
            START.store(region.start, Ordering::Release);
            NEXT.store(region.start, Ordering::Release);
            END.store(region.end(), Ordering::Release);
            return true;
        }
        len /= 2;
    }
    false
}

/// Runs `f` with all signals of this thread blocked. What a thread of the
/// program does with this library's heap while it is paged is to be done like
/// this: a handler that faulted while the lock is held would wait for the
/// engine, and the engine for the lock.
pub(crate) fn undisturbed<R>(f: impl FnOnce() -> R) -> R {
    let mask = tmem_pager::sys::thread::block_signals();
    let result = f();
    tmem_pager::sys::thread::set_mask(mask);
    result
}

/// The heap, behind a lock that never sleeps: the engine uses it, now and then a
/// thread of the program that tells it something, and none stays long.
pub(crate) struct Heap {
    locked: AtomicBool,
    inner: UnsafeCell<Dlmalloc<Reserve>>,
}

// SAFETY: `inner` is used with the lock held only.
unsafe impl Sync for Heap {}

impl Heap {
    pub(crate) const fn new() -> Heap {
        Heap {
            locked: AtomicBool::new(false),
            inner: UnsafeCell::new(Dlmalloc::new_with_allocator(Reserve)),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Dlmalloc<Reserve>) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            // Whoever holds it may need this processor.
            tmem_pager::sys::thread::pause();
        }
        // SAFETY: the lock is held.
        let result = f(unsafe { &mut *self.inner.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// Begins anew in a part of the reserve that was not used yet. What was
    /// allocated before stays where it is, and must never be freed.
    ///
    /// # Safety
    /// Called by the only thread of a process that was just forked.
    pub(crate) unsafe fn begin_anew(&self) {
        let end = END.load(Ordering::Acquire);
        let next = NEXT.load(Ordering::Acquire).saturating_add(MARGIN);
        if next < end {
            NEXT.store(next, Ordering::Release);
        } else {
            // Used up: another reserve is made.
            END.store(0, Ordering::Release);
        }
        // SAFETY: no other thread is there; the old value owns nothing.
        unsafe {
            self.inner
                .get()
                .write(Dlmalloc::new_with_allocator(Reserve));
        };
        self.locked.store(false, Ordering::Release);
    }
}

// SAFETY: dlmalloc keeps to the contract, and is used by one thread at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        self.with(|heap| unsafe { heap.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller.
        self.with(|heap| unsafe { heap.realloc(at, layout.size(), layout.align(), size) })
    }
}
