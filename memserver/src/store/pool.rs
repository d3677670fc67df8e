//! Page memory taken from the kernel, in slabs that are numbered.

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tmem_wire::PAGE_SIZE;

/// Bytes of a hold on a slab beside its bits.
const HOLD: u64 = 160;

/// What all slabs of a server are taken from: one range of addresses, so that
/// the number of slabs is not bound by the kernel's limit on mappings.
#[derive(Debug)]
pub(crate) struct Pool {
    base: NonNull<u8>,
    slab_pages: u32,
    slabs: u64,
    free: Mutex<Free>,
    stored: AtomicU64,
    /// The whole mapping goes soon: nothing of it needs to be given back before.
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Free {
    /// The slab of this number and those after it were never granted.
    fresh: u64,
    /// Slabs given back.
    back: Vec<u64>,
}

// SAFETY: the mapping belongs to this value alone, and is reached through the
// kernel or through raw copies, never through references.
unsafe impl Send for Pool {}
// SAFETY: as above; the other fields are `Sync`.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool of `slabs` slabs of `slab_pages` pages. Its memory is populated
    /// as it is written.
    pub(crate) fn new(slabs: u64, slab_pages: u32) -> io::Result<Arc<Pool>> {
        let base = map(pool_len(slabs, slab_pages).ok_or(io::ErrorKind::OutOfMemory)?)?;
        Ok(Arc::new(Pool {
            base,
            slab_pages,
            slabs,
            free: Mutex::default(),
            stored: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }))
    }

    /// Leaves the memory of slabs that end from now on to the end of the pool.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Bytes that one session's hold on a slab takes beside the slab: its bits, its entry in
    /// the session's table, and what allocating them costs.
    pub(crate) fn bytes_of_hold(&self) -> u64 {
        u64::from(self.slab_pages.div_ceil(64)) * 8 + HOLD
    }

    /// Pages of each slab.
    pub(crate) fn slab_pages(&self) -> u32 {
        self.slab_pages
    }

    /// Pages in all.
    pub(crate) fn capacity_pages(&self) -> u64 {
        self.slabs * u64::from(self.slab_pages)
    }

    /// Pages granted as slabs.
    pub(crate) fn granted_pages(&self) -> u64 {
        let free = self.free();
        (free.fresh - free.back.len() as u64) * u64::from(self.slab_pages)
    }

    /// Pages whose contents are held.
    pub(crate) fn stored_pages(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Takes the number of a slab that nobody has; none when the pool is used up.
    pub(super) fn take(&self) -> Option<u64> {
        let mut free = self.free();
        if let Some(number) = free.back.pop() {
            return Some(number);
        }
        let is_left = free.fresh < self.slabs;
        free.fresh += u64::from(is_left);
        is_left.then(|| free.fresh - 1)
    }

    /// Takes back the slab of a number, whose memory was given back.
    pub(super) fn put_back(&self, number: u64) {
        self.free().back.push(number);
    }

    /// Where a page of a slab is, or the slab's end.
    pub(super) fn at(&self, number: u64, page: u32) -> *mut u8 {
        assert!(number < self.slabs && page <= self.slab_pages);
        let before = number as usize * self.slab_pages as usize + page as usize;
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.base.as_ptr().add(before * PAGE_SIZE) }
    }

    /// Counts pages whose contents are held.
    pub(super) fn add_stored(&self, pages: u32) {
        self.stored.fetch_add(u64::from(pages), Ordering::Relaxed);
    }

    /// Counts pages whose contents are held no more.
    pub(super) fn sub_stored(&self, pages: u32) {
        self.stored.fetch_sub(u64::from(pages), Ordering::Relaxed);
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let len = pool_len(self.slabs, self.slab_pages).unwrap_or(0);
        // SAFETY: the mapping is this value's own, and no slab is left. It cannot fail for
        // a mapping that is there.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), len) };
    }
}

/// Bytes of so many slabs; `None` when that is no length at all.
fn pool_len(slabs: u64, slab_pages: u32) -> Option<usize> {
    let pages = usize::try_from(slabs)
        .ok()?
        .checked_mul(slab_pages as usize)?;
    pages
        .checked_mul(PAGE_SIZE)
        .filter(|len| isize::try_from(*len).is_ok())
}

/// Zeroed memory that the kernel populates when it is written.
fn map(len: usize) -> io::Result<NonNull<u8>> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping changes no other memory.
    let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags)? };
    // A huge page would be populated as a whole by the first page written, and
    // would not go back to the kernel with a page discarded. A kernel without
    // huge pages refuses the advice, which is as good. Neither a crash dump nor
    // a child of this process has any business with the pages of others.
    for advice in [
        Advice::LinuxNoHugepage,
        Advice::LinuxDontDump,
        Advice::LinuxDontFork,
    ] {
        // SAFETY: the mapping was just made, and its contents stay as they are.
        let _ = unsafe { rustix::mm::madvise(base, len, advice) };
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
