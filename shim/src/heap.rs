//! The allocators of this library. They use reserved ranges, since the program's heap may be
//! evicted.
//!
//! There are two. A thread of the program may hold the lock of a heap while it waits for a
//! page, of its stack for instance. If the engine waited for that lock, the page would never
//! come. So the engine's threads have a heap of their own. A block belongs to the heap that
//! it came from, and only that side frees it.

use dlmalloc::{Allocator, Dlmalloc};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tmem_pager::sys::mem::Region;
use tmem_pager::sys::{kill, space, thread};

/// Bytes of address space that are reserved for the engine, if possible. Memory is used only
/// as blocks are allocated.
const ENGINE: usize = 1 << 36;
/// The same for the program's threads, which need little.
const PROGRAM: usize = 1 << 28;
/// The smallest reserve that is tried is this share of the full one.
const LEAST: usize = 1 << 10;
/// If address space is limited, the reserve is at least the limit divided by this.
const PARTS_OF_LIMIT: u64 = 1 << 6;
/// A forked child leaves out one part in this many: its parent may have been allocating
/// there at that moment.
const MARGIN: usize = 1 << 12;
/// Bytes taken from the reserve at a time.
const STEP: usize = 1 << 16;

/// Address space that is handed out once, from beginning to end.
#[derive(Debug)]
struct Reserve {
    /// What is wanted.
    len: usize,
    start: AtomicUsize,
    /// Where what is handed out begins since this process was forked.
    base: AtomicUsize,
    next: AtomicUsize,
    end: AtomicUsize,
}

static RESERVES: [Reserve; 2] = [Reserve::new(PROGRAM), Reserve::new(ENGINE)];

impl Reserve {
    const fn new(len: usize) -> Reserve {
        Reserve {
            len,
            start: AtomicUsize::new(0),
            base: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
        }
    }

    /// Reserves address space, if possible.
    fn make(&self) -> bool {
        if self.end.load(Ordering::Acquire) != 0 {
            return true;
        }
        // Where address space is limited, the program gets most of it.
        let least = (self.len / LEAST) as u64;
        let limited = |limit: u64| (limit / PARTS_OF_LIMIT).clamp(least, self.len as u64) as usize;
        let mut len = space::limit().map_or(self.len, limited);
        while len >= self.len / LEAST {
            if let Ok(region) = Region::anywhere(len) {
                self.start.store(region.start, Ordering::Release);
                self.base.store(region.start, Ordering::Release);
                self.next.store(region.start, Ordering::Release);
                self.end.store(region.end(), Ordering::Release);
                return true;
            }
            len /= 2;
        }
        false
    }

    /// Hands out `len` bytes. The caller holds the lock.
    fn take(&self, size: usize) -> Option<(usize, usize)> {
        let size = size.checked_next_multiple_of(STEP)?;
        if !self.make() {
            return None;
        }
        let at = self.next.load(Ordering::Relaxed);
        if size > self.end.load(Ordering::Relaxed) - at {
            return None;
        }
        self.next.store(at + size, Ordering::Relaxed);
        Some((at, size))
    }

    /// Whether `at` was handed out, and in this process.
    fn owns(&self, at: usize) -> bool {
        (self.base.load(Ordering::Acquire)..self.end.load(Ordering::Acquire)).contains(&at)
    }

    /// Leaves out what was handed out before a fork. Called in the child.
    fn reset_after_fork(&self) {
        let end = self.end.load(Ordering::Acquire);
        let margin = self.len / MARGIN;
        let next = self.next.load(Ordering::Acquire).saturating_add(margin);
        if next < end {
            self.next.store(next, Ordering::Release);
            self.base.store(next, Ordering::Release);
        } else {
            // Used up: another reserve is made.
            self.end.store(0, Ordering::Release);
        }
    }
}

/// The ranges that are reserved.
pub(crate) fn ranges() -> Vec<Range<usize>> {
    let of = |r: &Reserve| r.start.load(Ordering::Acquire)..r.end.load(Ordering::Acquire);
    RESERVES.iter().filter(|r| r.make()).map(of).collect()
}

/// A reserve, as dlmalloc's source of memory.
struct Source(&'static Reserve);

// SAFETY: hands out each part of the reserve once, and takes nothing back.
unsafe impl Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        // The lock of its half is held.
        match self.0.take(size) {
            Some((at, size)) => (at as *mut u8, size, 0),
            None => (std::ptr::null_mut(), 0, 0),
        }
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

/// Runs `f` with all signals of this thread blocked. A thread of a paged program must use this
/// library's heap only in such an `f`: a signal handler that allocates while its own thread
/// holds the lock would wait for itself.
pub(crate) fn undisturbed<R>(f: impl FnOnce() -> R) -> R {
    let mask = thread::block_signals();
    let result = f();
    thread::set_mask(mask);
    result
}

/// One side's heap, behind a spin lock, which is held for short times only.
struct Half {
    locked: AtomicBool,
    inner: UnsafeCell<Dlmalloc<Source>>,
    reserve: &'static Reserve,
}

// SAFETY: `inner` is used with the lock held only.
unsafe impl Sync for Half {}

impl Half {
    const fn new(reserve: &'static Reserve) -> Half {
        Half {
            locked: AtomicBool::new(false),
            inner: UnsafeCell::new(Dlmalloc::new_with_allocator(Source(reserve))),
            reserve,
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Dlmalloc<Source>) -> R) -> R {
        for turn in 0u64.. {
            if !self.locked.swap(true, Ordering::Acquire) {
                break;
            }
            // The thread that holds the lock may need this CPU.
            thread::rest();
            if turn.is_multiple_of(1 << 12) {
                kill::end_if_holder_is_dead(turn);
            }
        }
        // SAFETY: the lock is held.
        let result = f(unsafe { &mut *self.inner.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// # Safety
    /// As [`Heap::reset_after_fork`].
    unsafe fn reset_after_fork(&self) {
        self.reserve.reset_after_fork();
        // SAFETY: no other thread is there; the old value owns nothing.
        unsafe {
            self.inner
                .get()
                .write(Dlmalloc::new_with_allocator(Source(self.reserve)));
        };
        self.locked.store(false, Ordering::Release);
    }
}

/// Both heaps.
pub(crate) struct Heap {
    program: Half,
    engine: Half,
}

impl Heap {
    pub(crate) const fn new() -> Heap {
        Heap {
            program: Half::new(&RESERVES[0]),
            engine: Half::new(&RESERVES[1]),
        }
    }

    /// The half of the calling thread.
    fn half(&self) -> &Half {
        if thread::is_own() {
            &self.engine
        } else {
            &self.program
        }
    }

    /// Starts again in unused parts of the reserves. Older blocks stay where they are.
    ///
    /// # Safety
    /// Called by the only thread of a process that was just forked.
    pub(crate) unsafe fn reset_after_fork(&self) {
        // SAFETY: by the caller.
        unsafe {
            self.program.reset_after_fork();
            self.engine.reset_after_fork();
        }
    }
}

// SAFETY: dlmalloc keeps to the contract, and is used by one thread at a time.
// What is not freed, because it is the other side's or was inherited, stays.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        self.half()
            .with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        self.half()
            .with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let half = self.half();
        if half.reserve.owns(at as usize) {
            // SAFETY: by the caller; it is of this heap.
            half.with(|heap| unsafe { heap.free(at, layout.size(), layout.align()) });
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let half = self.half();
        if half.reserve.owns(at as usize) {
            // SAFETY: by the caller; it is of this heap.
            return half
                .with(|heap| unsafe { heap.realloc(at, layout.size(), layout.align(), size) });
        }
        // SAFETY: by the caller: so much is there, and the new block is another.
        unsafe {
            let new = half.with(|heap| heap.malloc(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(at, new, layout.size().min(size));
            }
            new
        }
    }
}
